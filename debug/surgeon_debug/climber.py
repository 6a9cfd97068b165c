"""Climbs down the ladder of observation, one step after the other; see :mod:`surgeon_debug.observe_ladder`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from surgeon_debug.comparison import Comparison, TensorResult
from surgeon_debug.golden import GoldenReader
from surgeon_debug.group_alone import GroupCutter, Piece, conditioning, spread
from surgeon_debug.ladder import Group, Ladder, LadderVerdict, Row, Rung, Step
from surgeon_debug.ladder_judge import Judge, Outputs
from surgeon_debug.ladder_runs import Runs
from surgeon_debug.ladder_words import (
    LIMITS_NOTE,
    alone_words,
    group_words,
    healed_words,
    others_words,
    precision_words,
    table_notes,
    unseen_words,
)
from surgeon_debug.layers import tolerance_words
from surgeon_debug.model_tensors import ModelTensors
from surgeon_debug.runners.contract import Engine
from surgeon_debug.runners.tensorrt.layer_map import LayerMap
from surgeon_debug.seen_rows import rows_of
from surgeon_debug.seen_tensor import Look, look_at
from surgeon_debug.suspect_group import SeenTensors, most_suspect
from surgeon_debug.verdict import Judgement, Verdict
from surgeon_passes.errors import EngineError

_MOST_SHOWN = 12  # tensors that are marked or made outputs; each takes a fusion apart, and outputs are held together
_MOST_EXCUSED = 8  # groups whose conditioning is measured
_FLAKY_ROUNDS = 4  # how often a step runs all samples once two runs of the whole engine differed


class Climber:
    """Makes the steps.

    Args:
        runs: The target in all ways.
        judge: Says what is wrong.
        tensors: The model's tensors.
        golden: The reference's values.
        folder: Where pieces may be written.
        reference: The engine that is believed.
    """

    def __init__(
        self, runs: Runs, judge: Judge, tensors: ModelTensors, golden: GoldenReader, folder: Path, reference: Engine
    ) -> None:
        self._runs, self._judge, self._tensors, self._golden = runs, judge, tensors, golden
        self._cutter = GroupCutter(tensors.model, golden, folder, tensors.makers)
        self._reference = reference
        self._rungs: list[Rung] = []
        self._layers: dict[Step, LayerMap] = {}
        self._rows: list[Row] = []
        self._others: list[Group] = []
        self._whole: Outputs | None = None
        self._flaky = False
        self._grown: list[Look] = []

    def climb(self) -> Comparison:
        """Make as many steps as are needed.

        Raises:
            EngineError: The whole engine cannot be built or run.
        """
        ladder = self._ladder()
        assert self._whole is not None
        return Comparison(
            model="",
            other="",
            reference=self._judge.labels[0],
            target=self._judge.labels[1],
            samples=self._golden.samples,
            tolerance=tolerance_words(self._judge.limits),
            outputs=self._whole.results,
            layers=tuple(self._result(row) for row in self._rows if row.tensors or row.verdict is not Verdict.SKIPPED),
            layered=True,
            unmatched=(),
            unobserved=(),
            observations=(),
            flaky=self._whole.flaky,
            segments=0,
            notes=tuple(self._notes()),
            ladder=dataclasses.replace(ladder, rows=tuple(self._rows), rungs=tuple(self._rungs)),
        )

    def _ladder(self) -> Ladder:
        whole = self._step(Step.WHOLE)
        seen = self._step(Step.UNFUSED)
        groups = [] if seen.fails is None else self._groups(seen)
        if not whole.fails and not seen.fails:
            return self._hidden(groups, seen) if groups else self._right(seen)
        if whole.fails and seen.fails is False:
            return self._healed(seen, groups[0] if groups else None)
        if not groups:
            return self._nobody(seen)
        group, self._others = groups[0], groups[1:]
        marked = self._step(Step.MARKED, self._unsure(groups, seen) or self._inside(group))
        near = self._narrower(group, marked)
        alone = self._alone(near)
        if marked.fails is False:
            return self._healed(marked, group, alone=alone)
        if not alone or len(near.nodes) > 1:
            outputs = self._step(Step.OUTPUTS, self._inside(near))
            if outputs.fails is False:
                return self._healed(outputs, near, alone=alone)
            near = self._narrower(near, outputs)
        words = group_words(near) + alone_words(alone) + others_words(self._others)
        return Ladder(LadderVerdict.LOCATED, words, near.nodes, group, tuple(self._others), alone)

    def _right(self, seen: Rung) -> Ladder:
        if seen.fails is None:
            words = "the outputs are right; tensors inside could not be looked at"
        elif not any(look.compared and look.name not in self._judge.names for look in seen.looks):
            words = "the outputs are right; no tensor inside was shown"
        else:
            words = "the outputs are right, and so is every tensor that fusion has left"
        return Ladder(LadderVerdict.RIGHT, words)

    def _hidden(self, groups: Sequence[Group], seen: Rung) -> Ladder:
        """The outputs are right, and something inside is not."""
        group, others = groups[0], list(groups[1:])
        near, heals = group, ""
        if len(group.nodes) > 1:
            marked = self._step(Step.MARKED, self._unsure(groups, seen) or self._inside(group))
            near = self._narrower(group, marked)
            if marked.fails is not None and not self._seen(marked).wrong:
                heals = "; with a few tensors marked nothing is wrong: that depends on fusion"
        alone = self._alone(near)
        words = f"the outputs are right, but {group_words(near)}{alone_words(alone)}{heals}{others_words(others)}"
        return Ladder(LadderVerdict.HIDDEN, words, near.nodes, group, tuple(others), alone)

    def _nobody(self, seen: Rung) -> Ladder:
        if self._judge.excused or self._grown:
            words = precision_words(self._grown, self._judge.precision_at(self._judge.names[0]))
            return Ladder(LadderVerdict.PRECISION, words)
        return Ladder(LadderVerdict.UNKNOWN, unseen_words(seen))

    def _healed(self, rung: Rung, group: Group | None, *, alone: bool | None = None) -> Ladder:
        known = self._tensors.makers
        makers = {known[name] for name in (group.writes if group else ()) if name in known}
        split = most_suspect(rung.split, group, makers)
        sure = not self._flaky and bool(split)
        words = healed_words(rung, split, flaky=self._flaky, rounds=self._runs.rounds) + others_words(self._others)
        nodes = split or (group.nodes if group is not None else ())
        verdict = LadderVerdict.FUSION if sure else LadderVerdict.UNKNOWN
        return Ladder(verdict, words, nodes, group, tuple(self._others), alone)

    def _step(self, step: Step, shown: Sequence[str] = ()) -> Rung:
        """Build and run the whole model in one of the ways."""
        try:
            ran = self._runs.make(step, shown)
        except EngineError as error:
            if step is Step.WHOLE:
                raise
            rung = Rung(step, None, str(error))
        else:
            self._judge.precision = self._runs.precision
            outputs = self._judge.outputs(ran.outputs)
            self._layers[step] = ran.layers
            if step is Step.WHOLE:
                self._whole = outputs
                self._flaky = bool(outputs.flaky)
                self._runs.rounds = _FLAKY_ROUNDS if self._flaky else 1
            fails = any(outputs.wrong)
            words = outputs.words or "the outputs are right"
            if len(set(outputs.wrong)) > 1:
                words += f" (in {sum(outputs.wrong)} of {len(outputs.wrong)} rounds)"
            looks = () if step is Step.WHOLE else ran.looks
            rung = Rung(step, fails, words, looks, self._split(step), self._kernels(step))
        self._rungs.append(rung)
        return rung

    def _groups(self, seen: Rung) -> list[Group]:
        """What goes wrong with fusion untouched, less what the rounding of inputs explains; fills the table."""
        blamed: set[str] = set()
        for _ in range(_MOST_EXCUSED):
            groups = self._seen(seen).groups()[0]
            doubtful = next((group for group in groups if blamed.isdisjoint(group.shown)), None)
            if doubtful is None:
                break
            if not self._excuse(doubtful, seen.looks):
                blamed.update(doubtful.shown)
        found = self._seen(seen)
        groups, follows = found.groups()
        self._grown = [look for looks in found.grown.values() for look in looks]
        inner = {name: self._tensors.layers[name].node for name in self._tensors.inner if name in self._tensors.layers}
        self._rows = rows_of(found, self._layers[seen.step], groups, follows, self._judge.excused, inner)
        return groups

    def _seen(self, rung: Rung) -> SeenTensors:
        return SeenTensors(
            self._layers[rung.step], rung.looks, self._judge.bad, self._tensors.owners, self._judge.explains
        )

    def _excuse(self, group: Group, looks: Sequence[Look]) -> bool:
        """Whether the rounding of what a group reads explains what it makes; then that is noted."""
        own = [look for look in looks if look.name in group.shown]
        if not group.writes or any(look.special for look in own):
            return False
        try:
            piece = self._cutter.cut(group)
            factor = conditioning(self._reference, piece, self._judge.precision_at(group.writes[0]), self._golden)
        except EngineError:
            return False
        self._judge.excused.update(dict.fromkeys(group.shown, factor))
        if not any(self._judge.bad(look) and not self._judge.explains(look, group.inherited) for look in own):
            return True
        for name in group.shown:
            del self._judge.excused[name]
        return False

    def _narrower(self, group: Group, rung: Rung) -> Group:
        """The part of a group that is to blame, where a step has shown what lies inside it."""
        if rung.step not in self._layers:
            return group
        for found in self._seen(rung).groups()[0]:
            nodes = tuple(node for node in found.nodes if node in group.nodes)
            if nodes and len(nodes) < len(group.nodes):
                return dataclasses.replace(found, nodes=nodes, reads=found.reads or group.reads)
        return group

    def _unsure(self, groups: Sequence[Group], seen: Rung) -> list[str]:
        """What the groups read and write and nobody saw for sure; all else at their borders is out of fusion anyway."""
        sure = {look.tensor for look in seen.looks if look.choices == 1}.union(self._judge.names)
        names = dict.fromkeys(name for group in groups for name in (*group.reads, *group.writes))
        return [name for name in names if name in self._tensors.makers and name not in sure][:_MOST_SHOWN]

    def _inside(self, group: Group) -> list[str]:
        """Tensors of a group, evenly spread if there are many."""
        own = set(self._judge.names)
        names = [name for name, node in self._tensors.makers.items() if node in group.nodes and name not in own]
        return spread(names, _MOST_SHOWN)

    def _alone(self, group: Group) -> bool | None:
        """Whether the group is wrong when it runs alone on the reference's values."""
        try:
            piece = self._cutter.cut(group)
            if piece.whole:
                return None
            looks = self._piece_looks(piece)
        except EngineError as error:
            self._rungs.append(Rung(Step.PIECE, None, str(error)))
            return None
        bad = [look for look in looks if self._judge.bad(look)]
        words = f"{bad[0].tensor} {bad[0].words}" if bad else "the group alone is right"
        self._rungs.append(Rung(Step.PIECE, bool(bad), words, tuple(looks)))
        return bool(bad)

    def _piece_looks(self, piece: Piece) -> list[Look]:
        rounds = self._runs.rounds
        found = self._runs.piece(piece.path, piece.wanted, piece.fed.feeds)
        return [
            dataclasses.replace(look_at(name, value, self._golden.get(run // rounds, name)), run=run)
            for run, values in enumerate(found)
            for name, value in values.items()
        ]

    def _split(self, step: Step) -> tuple[tuple[str, ...], ...]:
        """What the whole engine computes together and this step's does not."""
        if step is Step.WHOLE:
            return ()
        before, after = (
            {frozenset(item.nodes) for item in self._layers[which].layers if len(item.nodes) > 1 and item.layer.nodes}
            for which in (Step.WHOLE, step)
        )
        order = {node: i for i, node in enumerate(dict.fromkeys(self._tensors.makers.values()))}
        apart = [tuple(sorted(nodes, key=lambda n: (order.get(n, len(order)), n))) for nodes in before - after]
        return tuple(sorted(apart, key=lambda nodes: order.get(nodes[0], len(order))))

    def _kernels(self, step: Step) -> tuple[str, ...]:
        """Layers that compute what one of the whole engine does, with another kernel."""
        if step is Step.WHOLE:
            return ()
        # Of some layers the kernel's name is all that is said; kernels that are generated are called as their layer is.
        before, after = (
            {
                item.nodes: (item.layer.name, item.layer.kernel, item.layer.tactic)
                for item in self._layers[which].layers
                if not item.layer.kernel.startswith("__myl")
            }
            for which in (Step.WHOLE, step)
        )
        same = [nodes for nodes in after if nodes and nodes in before]
        return tuple(after[nodes][0] for nodes in same if after[nodes][1:] != before[nodes][1:])

    def _result(self, row: Row) -> TensorResult:
        """A row as layers are reported everywhere."""
        name = row.tensors[0] if row.tensors else row.name
        layer = self._tensors.layers.get(name)
        node, op = (layer.node, layer.op) if layer is not None else (", ".join(row.nodes), "")
        error = "" if row.error is None else f"relative L2 {row.error:.2g}; "
        return TensorResult(name, node, op, None, Judgement(row.verdict, f"{error}{row.reason}"))

    def _notes(self) -> list[str]:
        rung = next((rung for rung in self._rungs if rung.step is Step.UNFUSED and rung.fails is not None), None)
        if rung is None:
            return []
        shown = {look.name for look in rung.looks}.difference(self._judge.names)
        notes = [] if shown else ["the engine showed none of its inner tensors"]
        notes += table_notes(self._rows, rung.looks, self._tensors.listed.iterations)
        if self._judge.limits.given:
            notes.append(LIMITS_NOTE)
        return notes
