"""Compare two runs of a model: its outputs, and layer by layer who is to blame for what is wrong with them.

The outputs come from the run people care about, with nothing inside shown. Layers are then walked through in segments
(:mod:`surgeon_debug.differential`); whatever showing them changes in the outputs is reported, because an engine that
fuses differently while it is watched may hide the very fault that is looked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from surgeon_debug.comparison import Comparison
from surgeon_debug.golden import SUFFIX, GoldenWriter
from surgeon_debug.inner_layers import with_bodies_shown
from surgeon_debug.layer_plan import random_notes
from surgeon_debug.limits import Limits
from surgeon_debug.pair import LayerOptions, Pair
from surgeon_debug.pairing import feeds_for_other, output_names
from surgeon_debug.recorded import Recorded
from surgeon_debug.recording import describe, open_recording
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine, Runner
from surgeon_debug.samples import samples_of
from surgeon_debug.stage import ModelLike, label_of, staged
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import BadOptionError
from surgeon_passes.graph import load
from surgeon_passes.observe_bodies import Observed

RunnerLike = str | Engine | Runner
"""The text of a runner, or a runner."""

DEFAULT_REFERENCE = "onnxruntime:optimize=none"
"""What a target is held against unless the caller says otherwise."""


def as_engine(
    runner: RunnerLike, *, isolated: bool = False, timeout: float | None = None, memory_cap: int | None = None
) -> Engine:
    """An engine from its text, or around a runner.

    Args:
        runner: The text of a runner, or a runner, which stays in this process.
        isolated: Give an engine made from text a process of its own.
        timeout: Seconds for one prepare or one run there.
        memory_cap: Bytes of memory for that process.
    """
    if isinstance(runner, Engine):
        return runner
    if isinstance(runner, str):
        return make_engine(runner, isolated=isolated, timeout=timeout, memory_cap=memory_cap)
    return Engine(type(runner).__name__, runner)


def compare_models(
    model: ModelLike,
    other: ModelLike | None = None,
    *,
    target: RunnerLike,
    reference: RunnerLike = DEFAULT_REFERENCE,
    feeds: Sequence[Feeds] | None = None,
    samples: int = 1,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    layers: bool | LayerOptions = False,
    limits: Limits | None = None,
    postprocess: Postprocess | None = None,
    against: str | Path | None = None,
    save_reference: str | Path | None = None,
    timeout: float | None = None,
    memory_cap: int | None = None,
    allow_external: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Run a model twice on the same inputs and compare.

    Args:
        model: What the reference runs.
        other: What the target runs; None for the same model.
        target: The runner under test.
        reference: The runner that is believed.
        feeds: Samples, values by input name; None makes seeded ones up.
        samples: How many samples to make up.
        seed: Decides the samples that are made up.
        dims: Sizes of symbolic dimensions for those.
        layers: Compare tensors inside the main graph too, and how.
        limits: The caller's own limits; None for the noise floor of layers and the table for outputs.
        postprocess: What is compared instead of the outputs.
        against: A file of values computed earlier, which takes the reference's place; the reference's runner then
            emulates precisions only. Inputs are those of the file, if it has any and ``feeds`` are not given.
        save_reference: Where to keep the reference's values: outputs, and layers if they are compared.
        timeout: Seconds that an engine may take for one prepare or one run; None for as long as it takes.
        memory_cap: Bytes of memory for the process of each engine; None for no limit.
        allow_external: Accept weights outside the models' folders.
        progress: Called with the number of tensors done and to do.

    Raises:
        BadModelError: A model cannot be used.
        BadOptionError: A runner or option does not exist, or inputs or outputs do not fit each other.
        EngineError: A side cannot run at all.
    """
    options = _checked(samples, layers)
    with contextlib.ExitStack() as stack:
        # Processes start in the background, while the models are read.
        engines = []
        for given in (reference, target):
            engines.append(as_engine(given, isolated=True, timeout=timeout, memory_cap=memory_cap))
            stack.callback(engines[-1].close if engines[-1] is not given else lambda: None)
        path = stack.enter_context(staged(model, allow_external=allow_external))
        other_path = path if other is None else stack.enter_context(staged(other, allow_external=allow_external))
        ours = load(path, allow_external=allow_external)
        theirs = ours if other is None else load(other_path, allow_external=allow_external)
        recorded = None if against is None else Recorded(open_recording(against, ours), str(against))
        if recorded is not None:
            stack.callback(recorded.close)
        fed, made_up = _samples(ours, recorded, feeds, samples, seed, dims)
        other_fed, notes = (fed, []) if other is None else feeds_for_other(fed, ours, theirs)
        if recorded is not None:
            notes += [*recorded.check_feeds(fed), *recorded.check_fits("", output_names(ours))]
        notes += random_notes(ours, theirs)
        keep = None
        if save_reference is not None:
            runner = engines[0].label if recorded is None else recorded.label
            meta = describe(ours, name=label_of(model), runner=runner, seed=seed if made_up else None, dims=dims)
            keep = stack.enter_context(_golden(save_reference, meta, fed))
        pair = Pair(
            (path, other_path),
            _with_bodies(ours, theirs, options),
            (engines[0], engines[1]),
            (fed, other_fed),
            limits=limits or Limits(),
            postprocess=postprocess,
            recorded=recorded,
            keep=keep,
            made_up=made_up,
        )
        if options is None:
            found = pair.compare_outputs()
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="surgeon-")))
            found = pair.compare_layers(folder, options, seed, progress)
        return dataclasses.replace(
            found,
            model=label_of(model),
            other=label_of(model if other is None else other),
            tolerance=tolerance_words(limits),
            notes=(*notes, *found.notes),
        )


def _checked(samples: int, layers: bool | LayerOptions) -> LayerOptions | None:
    """How layers are to be compared; None if they are not."""
    if samples < 1:
        raise BadOptionError(f"{samples} samples show nothing", hint="ask for 1 or more")
    options = layers if isinstance(layers, LayerOptions) else LayerOptions() if layers else None
    if options is not None and options.memory is not None and options.memory <= 0:
        raise BadOptionError(
            f"a memory budget of {options.memory} bytes holds nothing", hint="give a size such as 512MB"
        )
    return options


def _golden(path: str | Path, meta: Mapping[str, Any], fed: Sequence[Feeds]) -> GoldenWriter:
    """A golden file that holds the inputs so far."""
    if Path(path).suffix != SUFFIX:
        raise BadOptionError(f"values are kept in a file that ends in {SUFFIX}", where=str(path))
    keep = GoldenWriter(path, meta)
    try:
        for sample, values in enumerate(fed):
            keep.add_feeds(sample, values)
    except BaseException:
        keep.abort()
        raise
    return keep


def _with_bodies(ours: ir.Model, theirs: ir.Model, options: LayerOptions | None) -> tuple[Observed, Observed]:
    """The models as they are compared: if layers are asked for, with the tensors of bodies in the main graph."""
    shown = [
        Observed(model, (), (), frozenset())
        if options is None
        else with_bodies_shown(model, iterations=options.iterations, limit=options.inner)
        for model in ([ours] if theirs is ours else [ours, theirs])
    ]
    return shown[0], shown[-1]


def _samples(
    model: ir.Model,
    recorded: Recorded | None,
    feeds: Sequence[Feeds] | None,
    samples: int,
    seed: int,
    dims: Mapping[str, int] | None,
) -> tuple[list[dict[str, Value]], bool]:
    """The inputs, one mapping a sample, and whether they were made up."""
    if feeds is None and recorded is not None and recorded.recording.has_feeds(0):
        feeds = [recorded.feeds(sample) for sample in range(recorded.samples)]
    return samples_of(model, feeds, count=samples, seed=seed, dims=dims), feeds is None


def tolerance_words(limits: Limits | None) -> str:
    """What outputs are judged by: the caller's limits as a phrase, or ``table``."""
    if limits is None or not limits.given:
        return "table"
    words = ", ".join(limit.text for limit in limits.everywhere)
    single = f"{len(limits.entries)} of their own" if limits.entries else ""
    return "; ".join(part for part in (words, single) if part)
