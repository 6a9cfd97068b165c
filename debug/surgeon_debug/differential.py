"""Run two engines through two models, segment by segment, and attribute the error of every layer.

In each segment the reference and the target first compute their own tensors from their own inputs, at the same time;
then the target computes each layer again, alone, from the reference's values. Tensors are judged and let go before the
next segment begins, except those that later segments read.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from surgeon_debug.feed_pieces import FedPiece, chain_piece, isolated_piece
from surgeon_debug.keep_worst import keep_worst
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.runners.contract import Engine
from surgeon_debug.segments import Part, Segment
from surgeon_debug.values import Value, numpy_dtype
from surgeon_passes.errors import EngineError

_log = logging.getLogger(__name__)

_MAX_REFUSED = 16  # tensors that an engine refuses one by one before the rest of a segment is given up

Values = dict[str, Value]


class Walker:
    """One side on its way through the segments.

    Args:
        engine: The engine, which nothing else uses meanwhile.
        source: Its model.
        feeds: The inputs of the model, one mapping a sample.
    """

    def __init__(self, engine: Engine, source: PieceSource, feeds: Sequence[Mapping[str, Value]]) -> None:
        self.engine = engine
        self.label = engine.label
        """How messages call it."""
        self.source = source
        self.held: list[Values] = [dict(sample) for sample in feeds]
        self.types: dict[str, np.dtype[Any]] = {
            value.name: numpy_dtype(value.dtype.value)
            for node in source.model.graph
            for value in node.outputs
            if value.name and value.dtype is not None and value.dtype.is_floating_point()
        }
        """Element types of tensors, as declared or seen."""
        self.seconds = 0.0

    def chain(self, part: Part) -> list[Values]:
        """Compute a segment from this side's own values; one mapping a sample.

        Raises:
            EngineError: The engine refuses the piece or fails.
        """
        if not part.shows:
            return [{} for _ in self.held]
        piece = chain_piece(part.nodes, part.reads, part.shows, self.held)
        found = self.run(piece)
        self.see_types(found[0])
        return found

    def run_again(self, piece: FedPiece) -> list[Values]:
        """Run every sample of the piece that was prepared last."""
        return [self.engine.run(sample) for sample in piece.feeds]

    def see_types(self, values: Mapping[str, Value]) -> None:
        """Note the element types of values of this side."""
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self.types[name] = value.dtype

    def run(self, piece: FedPiece) -> list[Values]:
        """Prepare a piece and run every sample."""
        path = self.source.write(piece.cut)
        try:
            self.engine.prepare(path, piece.cut.outputs)
            return [self.engine.run(sample) for sample in piece.feeds]
        finally:
            path.unlink(missing_ok=True)

    def keep(self, found: Sequence[Values], names: Iterable[str]) -> None:
        """Hold values for later segments."""
        wanted = list(names)
        for held, values in zip(self.held, found, strict=True):
            held.update((name, values[name]) for name in wanted if name in values)

    def drop(self, names: Iterable[str]) -> None:
        """Let go of values that nobody reads any more."""
        for name in names:
            for held in self.held:
                held.pop(name, None)


@dataclasses.dataclass(frozen=True)
class SegmentValues:
    """What is known about one segment while it is judged, one mapping a sample in each list."""

    segment: Segment
    reference: list[Values]
    """What the reference computed."""
    target: list[Values]
    """What the target computed from its own values."""
    isolated: list[Values]
    """What the target computed from the reference's values."""
    available: Collection[str]
    """Tensors at which layers are cut off from what is before them."""
    golden: list[Values]
    """Everything of the reference that is alive: this segment's tensors, earlier ones, the model's inputs."""
    lost: frozenset[str]
    """Tensors with numbers that their type in the target cannot hold."""
    unisolated: Mapping[str, str]
    """Layers that could not be isolated, and why."""


class Differential:
    """Walks through all segments.

    Args:
        reference: The side that is believed.
        target: The side under test.
        segments: Where both are cut.
        isolate: Run layers alone too.
        follow: Run the target on its own values; if not, what layers do alone stands in for them.
        repeats: How often layers are run alone; of several results that differ the worst is judged.
        compile_each: Whether they are compiled anew each time.
        judge: Called with each segment's values, in order; returns when the values may be let go.
        progress: Called with the number of layers done and to do.
    """

    def __init__(
        self,
        reference: Walker,
        target: Walker,
        segments: Sequence[Segment],
        *,
        isolate: bool,
        follow: bool = True,
        repeats: int = 1,
        compile_each: bool = False,
        judge: Callable[[SegmentValues], None],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._reference, self._target = reference, target
        self._segments = segments
        self._isolate = isolate
        self._follows, self._repeats, self._compile_each = follow, repeats, compile_each
        self._judge = judge
        self._progress = progress
        self.unobserved: dict[str, str] = {}
        self.restarted: dict[str, None] = {}
        self._available: set[str] = set()

    def run(self, before: Callable[[], None] | None = None) -> None:
        """Go through all segments.

        Args:
            before: Something to do with the target first, while the reference begins.
        """
        last = _last_uses(self._segments)
        total = sum(len(segment.layers) for segment in self._segments)
        done = 0
        if before is not None and not self._segments:
            before()
        with concurrent.futures.ThreadPoolExecutor(1, "reference") as pool:
            for k, segment in enumerate(self._segments):
                ahead = pool.submit(self._follow, self._reference, segment.reference)
                try:
                    if before is not None and k == 0:
                        before()
                    theirs = self._follow(self._target, segment.target) if self._follows else self._nothing()
                finally:
                    concurrent.futures.wait([ahead])
                self._step(segment, ahead.result(), theirs)
                for walker, uses in zip((self._reference, self._target), last, strict=True):
                    walker.drop(name for name in uses.get(k, ()) if name not in walker.source.inputs)
                done += len(segment.layers)
                if self._progress is not None:
                    self._progress(done, total)

    def _step(self, segment: Segment, ours: list[Values], theirs: list[Values]) -> None:
        golden = [{**held, **values} for held, values in zip(self._reference.held, ours, strict=True)]
        names = [layer.tensor for layer in segment.layers if all(layer.tensor in sample for sample in ours)]
        for layer in segment.layers:
            if layer.tensor not in ours[0]:
                self.unobserved.setdefault(layer.tensor, f"not delivered by {self._reference.label}")
        self._available.update(names)
        lost: set[str] = set()
        refused: dict[str, str] = {}
        isolated: list[Values] = [{} for _ in ours]
        if self._isolate:
            self._alone(names, golden, isolated, lost, refused)
            self._stand_in(theirs, isolated)
        self._judge(SegmentValues(segment, ours, theirs, isolated, self._available, golden, frozenset(lost), refused))
        self._reference.keep(ours, segment.reference.keeps)
        self._target.keep(theirs, segment.target.keeps)
        self._restart(segment.target.keeps, ours)

    def _nothing(self) -> list[Values]:
        return [{} for _ in self._target.held]

    def _stand_in(self, theirs: list[Values], isolated: list[Values]) -> None:
        """Where the target cannot run a segment but layers of it alone, go on from the reference's values."""
        for values, alone in zip(theirs, isolated, strict=True):
            for name, value in alone.items():
                if name not in values:
                    values[name] = value
                    self.restarted[name] = None

    def _restart(self, names: Iterable[str], ours: list[Values]) -> None:
        """Let the target go on from the reference's values where it did not show its own."""
        for name in names:
            for held, values in zip(self._target.held, ours, strict=True):
                if name not in held and name in values:
                    held[name] = values[name]
                    self.restarted[name] = None

    def _follow(self, walker: Walker, part: Part) -> list[Values]:
        """A side's own values; where it cannot show a segment, fewer tensors of it, or none."""
        try:
            return walker.chain(part)
        except EngineError as error:
            _log.info("%s cannot show a segment: %s", walker.engine.label, error)
            reason = str(error)
        extra = [name for name in part.shows if name not in part.keeps]
        found: list[Values] = [{} for _ in walker.held]
        stack = [extra[len(extra) // 2 :], extra[: len(extra) // 2]] if extra else [[]]
        refused = 0
        while stack:
            names = stack.pop()
            shows = (*part.keeps, *names)
            if refused >= _MAX_REFUSED or not shows:
                self.unobserved.update((name, f"not tried: others were refused ({reason})") for name in names)
                continue
            try:
                for sample, values in zip(found, walker.chain(dataclasses.replace(part, shows=shows)), strict=True):
                    sample.update(values)
            except EngineError as error:
                if len(names) > 1:
                    stack += [names[len(names) // 2 :], names[: len(names) // 2]]
                    continue
                self.unobserved.update((name, str(error)) for name in (names or shows))
                refused += 1
        return found

    def _alone(
        self,
        names: Sequence[str],
        golden: list[Values],
        isolated: list[Values],
        lost: set[str],
        refused: dict[str, str],
    ) -> None:
        """Run layers alone; a piece that the engine refuses is cut in half until the layer it refuses stands alone."""
        target = self._target
        stack = [[name for name in names if name in target.source.producer]]
        while stack:
            batch = stack.pop()
            if not batch:
                continue
            if len(refused) >= _MAX_REFUSED:
                refused.update((name, "not tried: too many others were refused") for name in batch)
                continue
            try:
                piece = isolated_piece(target.source, batch, self._available, self.golden_for(golden), target.types)
                values = target.run(piece)
                for _ in range(self._repeats - 1):
                    again = target.run(piece) if self._compile_each else target.run_again(piece)
                    keep_worst(golden, values, again)
            except EngineError as error:
                if len(batch) > 1:
                    stack += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
                    continue
                refused[batch[0]] = str(error)
                continue
            lost |= piece.lost
            if not self._follows:
                target.see_types(values[0])
            for sample, found in zip(isolated, values, strict=True):
                sample.update(found)

    def golden_for(self, golden: list[Values]) -> list[Values]:
        """The reference's values, with the target's own inputs where its model has others."""
        inputs = self._target.source.inputs
        merged = []
        for sample, own in zip(golden, self._target.held, strict=True):
            merged.append({**sample, **{name: own[name] for name in inputs if name in own}})
        return merged


def _last_uses(segments: Sequence[Segment]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """For each side, what may be let go after each segment."""
    ours: dict[str, int] = {}
    theirs: dict[str, int] = {}
    for k, segment in enumerate(segments):
        ours.update((name, k) for name in (*segment.reference.reads, *segment.golden, *segment.reference.keeps))
        theirs.update((name, k) for name in (*segment.target.reads, *segment.target.keeps))
    return _by_step(ours), _by_step(theirs)


def _by_step(last: Mapping[str, int]) -> dict[int, list[str]]:
    steps: dict[int, list[str]] = {}
    for name, k in last.items():
        steps.setdefault(k, []).append(name)
    return steps
