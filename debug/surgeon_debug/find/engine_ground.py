"""What searches over the builds of an engine begin with: the model, its inputs, the truth, and a look at the graph.

A graph that is wrong under onnxruntime in its own precision is wrong whatever TensorRT does with it; so that is looked
at before anything is said about TensorRT.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from surgeon_debug.feeds import inputs_of
from surgeon_debug.find.engine_builds import Builder
from surgeon_debug.find.engine_oracle import EngineSpec
from surgeon_debug.find.engine_trials import Recorded
from surgeon_debug.find.graph_fitness import Runs, graph_explains
from surgeon_debug.find.oracle import Signature
from surgeon_debug.find.signature import of_outputs
from surgeon_debug.find.tactic_pins import FreeChoice
from surgeon_debug.find.tensorrt_builds import TensorrtBuilder, sizes_of
from surgeon_debug.layer_plan import plan_layers, random_notes
from surgeon_debug.layers import DEFAULT_REFERENCE
from surgeon_debug.limits import Limits
from surgeon_debug.pairing import feeds_for_other, output_names
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.samples import samples_of
from surgeon_debug.stage import ModelLike, label_of, staged
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Feeds, Value
from surgeon_debug.whole_run import OutputRules, WholeOutputs, run_whole
from surgeon_passes.errors import BadOptionError, EngineError
from surgeon_passes.graph import load

GRAPH_CHECK = DEFAULT_REFERENCE
"""What runs the graph itself before any conclusion about TensorRT."""

TIMEOUT = 600.0
"""Seconds for one build or one run unless the caller says otherwise."""


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked about a model on an engine; what all these searches take."""

    model: ModelLike
    target: str = "tensorrt"
    """The runner ``tensorrt``, as text."""
    reference: str = DEFAULT_REFERENCE
    """The runner that is believed."""
    original: ModelLike | None = None
    """The model that the reference runs, where ``model`` is a rewritten or converted one; None for the model itself."""
    feeds: Sequence[Feeds] | None = None
    """Samples, values by input name; None makes seeded ones up."""
    samples: int = 1
    seed: int = 0
    dims: Mapping[str, int] | None = None
    """Sizes of symbolic dimensions of the samples that are made up."""
    spans: Mapping[str, tuple[int, int, int]] | None = None
    """Smallest, best and largest sizes of further ones: samples are made up with the best, the smallest and the largest
    of all, and engines are built for what is between."""
    limits: Limits | None = None
    """The caller's own limits for outputs."""
    postprocess: Postprocess | None = None
    timeout: float | None = None
    """Seconds for one build or one run; None for :data:`TIMEOUT`."""
    memory_cap: int | None = None
    """Bytes of memory for the process of each engine."""
    allow_external: bool = False
    """Accept weights outside the model's folder."""


@dataclasses.dataclass(frozen=True)
class GraphVerdict:
    """Whether the graph computes what the reference does, without TensorRT."""

    signature: Signature | None
    """How it fails; None if it does not, or if nothing was to be held against anything."""
    words: str
    """What was measured, or why nothing was."""
    checked: bool
    """Whether it was run."""


@dataclasses.dataclass(frozen=True)
class EngineGround:
    """A model ready for builds."""

    path: Path
    model: ir.Model
    spec: EngineSpec
    """Its dimension is to be set by each search."""
    label: str
    """How results call the model."""
    labels: tuple[str, str]
    """How they call the reference and the suspect."""
    graph: GraphVerdict
    runs: Runs
    """How the graph is run without TensorRT."""
    notes: tuple[str, ...]

    def explain(self, seen: Recorded) -> str:
        """Why the graph's own types explain how an engine fails, as a phrase; empty if they do not."""
        return graph_explains(self.spec, self.runs, seen)


@contextlib.contextmanager
def engine_ground(
    question: Question,
    *,
    folder: Path | None = None,
    builder: Callable[[TensorrtBuilder], Builder] | None = None,
) -> Iterator[EngineGround]:
    """Load a model, compute the truth, and check the graph.

    Args:
        question: What is asked.
        folder: Where records and caches are kept; a temporary one if None.
        builder: Puts another builder in the place of TensorRT's.

    Raises:
        BadModelError: The model cannot be used.
        BadOptionError: A runner or option does not exist, or inputs do not fit.
        EngineError: The reference cannot run it.
        FileError: A file cannot be read or written.
    """
    if question.samples < 1:
        raise BadOptionError(f"{question.samples} samples show nothing", hint="ask for 1 or more")
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(staged(question.model, allow_external=question.allow_external))
        model = load(path, allow_external=question.allow_external)
        feeds = _samples(question, model)
        work = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="surgeon-")))
        made: Builder = TensorrtBuilder(
            question.target,
            path.absolute(),
            tuple(output_names(model)),
            sizes_of(feeds, _dynamic(model)),
            work.absolute(),
            feeds[0],
            question.timeout or TIMEOUT,
            question.memory_cap,
        )
        if builder is not None:
            assert isinstance(made, TensorrtBuilder)
            made = builder(made)
        truth = _truth(question, path, model, feeds, stack)
        spec = EngineSpec(
            path,
            feeds,
            truth,
            made,
            FreeChoice(),
            limits=question.limits,
            postprocess=question.postprocess,
            allow_external=question.allow_external,
        )
        graph = _check_graph(question, path, model, feeds, truth)
        labels = (question.reference, question.target)
        same = question.original is None and question.reference == GRAPH_CHECK
        limit = question.timeout or TIMEOUT
        runs = Runs(truth if same else None, limit, question.memory_cap, question.feeds is None)
        notes = tuple(random_notes(model))
        yield EngineGround(path, model, spec, label_of(question.model), labels, graph, runs, notes)


def _samples(question: Question, model: ir.Model) -> list[dict[str, Value]]:
    """The inputs; made-up ones with the best sizes first, because the first decide what an engine is made fast for."""
    given, dims, spans = question.feeds, dict(question.dims or {}), question.spans
    if given is not None or not spans:
        return samples_of(model, given, count=question.samples, seed=question.seed, dims=dims)
    found = []
    for place in (1, 0, 2):
        sizes = dims | {name: sizes[place] for name, sizes in spans.items()}
        found += samples_of(model, None, count=question.samples, seed=question.seed, dims=sizes)
    return found


def _dynamic(model: ir.Model) -> list[str]:
    """Inputs with a dimension that is no number."""
    found = []
    for value in inputs_of(model):
        open_ = value.shape is not None and any(not isinstance(dim, int) for dim in value.shape)
        if value.name and open_:
            found.append(value.name)
    return found


def _truth(
    question: Question, path: Path, model: ir.Model, feeds: list[dict[str, Value]], stack: contextlib.ExitStack
) -> list[dict[str, Value]]:
    """The outputs as the reference computes them."""
    names = output_names(model)
    if question.original is not None:
        path = stack.enter_context(staged(question.original, allow_external=question.allow_external))
        other = load(path, allow_external=question.allow_external)
        lacking = [name for name in names if name not in output_names(other)]
        if lacking:
            raise BadOptionError(f"the original model has no output '{lacking[0]}'", where=label_of(question.original))
        feeds, _ = feeds_for_other(feeds, model, other)
    found = _outputs(question, question.reference, path, names, feeds)
    lacking = [name for name in names if any(name not in sample for sample in found)]
    if lacking:
        raise EngineError(f"the reference does not deliver '{lacking[0]}'", hint="name another with --reference")
    return found


def _outputs(
    question: Question, runner: str, path: Path, names: Sequence[str], feeds: Sequence[Mapping[str, Value]]
) -> list[dict[str, Value]]:
    limit = question.timeout or TIMEOUT
    engine = make_engine(runner, isolated=True, timeout=limit, memory_cap=question.memory_cap)
    with engine:
        return run_whole(engine, path, names, feeds, made_up=question.feeds is None)


def _check_graph(
    question: Question,
    path: Path,
    model: ir.Model,
    feeds: Sequence[Mapping[str, Value]],
    truth: Sequence[Mapping[str, Value]],
) -> GraphVerdict:
    """Whether the graph is right under onnxruntime, in the types that it states."""
    if question.original is None and question.reference == GRAPH_CHECK:
        words = "the reference is onnxruntime on this very graph; --original MODEL holds it against another"
        return GraphVerdict(None, words, False)
    names = output_names(model)
    try:
        found = _outputs(question, GRAPH_CHECK, path, names, feeds)
    except EngineError as error:
        return GraphVerdict(None, f"onnxruntime cannot run the graph: {error}", False)
    layers = {layer.tensor: layer for layer in plan_layers(model, feeds[0])}
    rules = OutputRules(layers, question.limits or Limits(), ())
    watch = WholeOutputs(names, rules, (question.reference, GRAPH_CHECK), question.postprocess)
    watch.take(found)
    watch.compare(truth, [{} for _ in truth])
    signature, words, _ = of_outputs(watch.results(truth[0]))
    return GraphVerdict(signature, words or "right under onnxruntime in its own precision", True)


def graph_is_wrong(verdict: GraphVerdict) -> tuple[str, str]:
    """What to say, as a reason and an advice, of a graph that is wrong without TensorRT."""
    reason = (
        "the graph itself is wrong: under onnxruntime, in the types that it states, it differs from the reference "
        f"({verdict.words}); TensorRT is not to blame for that"
    )
    return reason, "find out where with surgeon compare --layers, or which rewrite did it with surgeon rewrite --verify"
