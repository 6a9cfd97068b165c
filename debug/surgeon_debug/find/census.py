"""Judge every node by itself: all stand, cut off from each other, in one model that is fed the reference's values.

One compilation of the suspect so answers for every node that is wrong on its own, however many there are.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.comparison import Comparison, TensorResult
from surgeon_debug.find.groundwork import Groundwork
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.inner_layers import with_bodies_shown
from surgeon_debug.limits import Limits
from surgeon_debug.memory_left import memory_left
from surgeon_debug.pair import LayerOptions, Pair
from surgeon_debug.runners.contract import Engine
from surgeon_debug.values import Feeds, Value
from surgeon_debug.verdict import Verdict
from surgeon_passes.graph import load
from surgeon_passes.inner_tensor import InnerTensor
from surgeon_passes.observe_bodies import Observed

SHARE_OF_MEMORY = 4
"""The part of the memory that is left that a census takes unless the caller says otherwise, as a divisor."""

_SEGMENT = 50_000  # nodes of one model; memory bounds it before
_KINDS = {
    Verdict.WRONG: FailureKind.WRONG_NUMBERS,
    Verdict.OVERFLOW: FailureKind.NOT_FINITE,
    Verdict.SHAPE: FailureKind.SHAPE,
}


@dataclasses.dataclass(frozen=True)
class Accused:
    """A node that computes wrongly by itself."""

    position: int
    """Its position in the main graph's topological order; of the node that has the body, if it is inside one."""
    tensor: str
    """The first tensor of it that is wrong."""
    kind: FailureKind
    reason: str
    """What was measured, as a phrase."""
    inside: str = ""
    """The inner node and iteration; empty for a node of the main graph."""
    badness: float = 0.0
    """Introduced error over the noise floor; infinite where there is none."""
    floor: float | None = None
    """Relative L2 of the error that the precision explains; None where nothing had to be explained."""


@dataclasses.dataclass(frozen=True)
class Census:
    """What came out."""

    accused: tuple[Accused, ...]
    """One for each node that is wrong by itself, in topological order."""
    judged: int
    """Tensors that were judged."""
    unjudged: tuple[tuple[str, str], ...]
    """Tensors that could not be, and why."""
    rounding: tuple[str, ...]
    """Nodes that are as right as their precision can be, which is not very, worst first."""
    builds: int
    runs: int
    reference_runs: int
    exact: bool = False
    """Whether every tensor that was judged is the reference's to the last bit."""

    def to_json(self) -> dict[str, Any]:
        """The census as JSON."""
        found = dataclasses.asdict(self)
        found["accused"] = [{**dataclasses.asdict(one), "kind": one.kind.value} for one in self.accused]
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Census:
        """The census that :meth:`to_json` wrote."""
        accused = tuple(Accused(**{**one, "kind": FailureKind(one["kind"])}) for one in found["accused"])
        unjudged = tuple((str(name), str(why)) for name, why in found["unjudged"])
        return cls(**{**found, "accused": accused, "unjudged": unjudged, "rounding": tuple(found["rounding"])})


class CountingEngine(Engine):
    """An engine that counts what it is made to do.

    Args:
        engine: The engine, which stays the caller's to close.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.label, engine.runner)
        self.builds = 0
        self.runs = 0

    def prepare(self, model_path: Path, outputs: Iterable[str]) -> None:
        """Compile a model, and count it."""
        self.builds += 1
        super().prepare(model_path, outputs)

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once, and count it."""
        self.runs += 1
        return super().run(feeds)


def take_census(
    ground: Groundwork,
    engines: tuple[Engine, Engine],
    *,
    feeds: Sequence[Feeds] | None = None,
    repeats: int = 1,
    compile_each: bool = False,
    memory: int | None = None,
    seed: int = 0,
    allow_external: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Census:
    """Run every node alone and judge it by the noise floor.

    Args:
        ground: The model and its inputs.
        engines: The reference and the suspect.
        feeds: Other inputs than those of ``ground``.
        repeats: How often each node is run; a node that is wrong in one of the runs is wrong.
        compile_each: Compile anew each time.
        memory: Bytes for tensors and weights of one model; None for a quarter of what is left.
        seed: Decides the signs of perturbations.
        allow_external: Accept weights outside the model's folder.
        progress: Called with the number of tensors done and to do.

    Raises:
        EngineError: The reference cannot run the model.
    """
    counted = CountingEngine(engines[0]), CountingEngine(engines[1])
    model = load(ground.path, allow_external=allow_external)  # showing what is inside bodies changes it
    options = LayerOptions(
        memory=memory or memory_left() // SHARE_OF_MEMORY,
        whole=False,
        follow=False,
        repeats=repeats,
        compile_each=compile_each,
        segment=_SEGMENT,
    )
    shown = with_bodies_shown(model, iterations=options.iterations, limit=options.inner)
    found = _compared(ground, shown, counted, feeds or ground.feeds, options, seed, progress)
    accused = _accused(ground, found.layers, {tensor.name: tensor for tensor in shown.tensors})
    floors = [r for r in found.layers if r.verdict is Verdict.ILL_CONDITIONED]
    floors.sort(key=lambda result: -(result.introduced or 0.0))
    return Census(
        accused,
        len(found.layers),
        found.unobserved,
        tuple(dict.fromkeys(result.node for result in floors)),
        counted[1].builds,
        counted[1].runs,
        counted[0].runs,
        exact=all(result.introduced == 0.0 for result in found.layers),
    )


def _compared(
    ground: Groundwork,
    shown: Observed,
    engines: tuple[Engine, Engine],
    feeds: Sequence[Feeds],
    options: LayerOptions,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> Comparison:
    fed = [dict(sample) for sample in feeds]
    pair = Pair((ground.path, ground.path), (shown, shown), engines, (fed, fed), limits=Limits(), made_up=False)
    with tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True) as folder:
        return pair.compare_layers(Path(folder), options, seed, progress)


def _accused(
    ground: Groundwork, results: Sequence[TensorResult], inner: Mapping[str, InnerTensor]
) -> tuple[Accused, ...]:
    places = {node.title: i for i, node in enumerate(ground.source.nodes)}
    found: dict[int, Accused] = {}
    for result in results:
        kind = _KINDS.get(result.verdict)
        if kind is None:
            continue
        within = inner.get(result.tensor)
        position = places.get(within.owner) if within is not None else ground.source.producer.get(result.tensor)
        if position is None:
            continue
        seen = result.screen
        if kind is FailureKind.WRONG_NUMBERS and seen is not None and seen.special_mismatches:
            kind = FailureKind.NOT_FINITE
        inside = _place(within, result) if within is not None else ""
        one = Accused(position, result.tensor, kind, result.judgement.reason, inside, _badness(result), result.floor)
        # What is inside a node says more than the node.
        if position not in found or (inside and not found[position].inside):
            found[position] = one
    return tuple(found[position] for position in sorted(found))


def _place(within: InnerTensor, result: TensorResult) -> str:
    """The inner node, and the iteration in which it begins to be wrong."""
    onset = result.attribution.onset if result.attribution is not None else ()
    since = within.words(onset).rpartition(", tensor ")[0] if onset else ""
    return f"{within.path}/{within.node} ({within.op_type})" + (f", first in {since}" if since else "")


def _badness(result: TensorResult) -> float:
    return result.ratio if result.ratio is not None else float("inf")
