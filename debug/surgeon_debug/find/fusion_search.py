"""A search for fusions from the first build to its result: record, knobs, extra outputs, and the tactic ruled out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir

from surgeon_debug.find.engine_oracle import EngineSpec
from surgeon_debug.find.engine_trials import EngineTrials, HowToSearch, Recorded, recorded
from surgeon_debug.find.finding import conclude
from surgeon_debug.find.fusion_finding import FusionCulprit, FusionFinding
from surgeon_debug.find.fusion_levers import (
    Flip,
    Joint,
    Marked,
    Regrouped,
    Routed,
    flips_of,
    joints_of,
    regrouped,
)  # fmt: skip
from surgeon_debug.find.graph_fitness import unfit
from surgeon_debug.find.tactic_pins import FreeChoice, Pin, Pinned
from surgeon_debug.find.tensorrt_builds import RIGHT, other_sizes
from surgeon_debug.find.trials import Trials, stopped_early
from surgeon_debug.journal import Journal
from surgeon_debug.runners.tensorrt.tactic_tables import by_key
from surgeon_debug.search.subset import SmallestSubset
from surgeon_debug.search.trial import Outcome
from surgeon_debug.search.turned import HEALED, Turned
from surgeon_passes.spec import quote

_ONE_BY_ONE = 64  # layers that are taken apart singly where all together cannot be
_OTHER_TACTICS = 3


@dataclasses.dataclass
class _Trail:
    """What is known so far; whatever stops the search leaves it behind."""

    recorded: Recorded | None = None
    fused: int = 0
    culprits: tuple[FusionCulprit, ...] = ()
    knobs: tuple[Flip, ...] = ()
    regrouped: tuple[Regrouped, ...] = ()
    outputs: tuple[str, ...] = ()
    before_ms: float | None = None
    after_ms: float | None = None
    nothing: str = ""
    undecided: str = ""
    advice: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)


class FusionSearch:
    """One search for fusions.

    Args:
        spec: What is built; its dimension does not matter.
        model: The model.
        how: What the search may use.
        explain: Says why the graph itself explains how a build fails, with an empty phrase if it does not.
        progress: Called with a phrase about where the search is.
    """

    def __init__(
        self,
        spec: EngineSpec,
        model: ir.Model,
        how: HowToSearch,
        *,
        explain: Callable[[Recorded], str] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._spec, self._model, self._how = spec, model, how
        self._explain, self._progress = explain, progress
        self._trail = _Trail()

    def run(self, model: str, labels: tuple[str, str], notes: tuple[str, ...] = ()) -> FusionFinding:
        """Search.

        Args:
            model: How the result calls the model.
            labels: How it calls the reference and the suspect.
            notes: What else the result is to say.
        """
        self._trail.notes += notes
        with Journal(self._how.resume) as journal:
            trials = EngineTrials(self._spec, self._how, journal, self._progress)
            stopped = stopped_early(lambda: self._search(trials))
            return self._finding(model, labels, trials, stopped)

    def _search(self, trials: EngineTrials) -> None:
        trail = self._trail
        with trials.along(FreeChoice(), thorough=True, lanes=1) as made, made.step("record") as step:
            found = trials.record(made)
            seen = trail.recorded = recorded(found)
            step.words = f"{len(seen.record.layers):,} layers; {seen.words}" if seen else found.unresolved
        if seen is None:
            trail.undecided = f"there is no engine whose fusions could be searched: {found.unresolved}"
            trail.advice = "see which nodes it cannot be built with: surgeon find nodes"
            return
        trail.fused = sum(len(layer.nodes) > 1 for layer in seen.record.layers)
        trail.before_ms = found.payload.get("milliseconds")
        if seen.signature is None:
            trail.nothing = f"the build is right: its outputs agree in {seen.runs} runs"
            trail.advice = RIGHT + other_sizes(self._spec.builder)
            return
        if words := self._explain(seen) if self._explain is not None else "":
            trail.nothing, trail.advice = unfit(words)
            return
        if not seen.record.layers:
            trail.notes.append("the engine says nothing of its layers, so every inner tensor is a candidate")
        joints = joints_of(self._model, seen.record.layers)
        if seen.record.knobs:
            self._turn_knobs(trials, seen)
        near = {node for one in trail.regrouped for node in one.nodes}
        chosen = [joint for joint in joints if near & set(joint.layer.nodes)] if near else joints
        if not self._mark(trials, seen, chosen) and near and len(chosen) < len(joints):
            self._mark(trials, seen, joints)
        if trail.culprits or trail.knobs:
            self._rule_out_tactics(trials, seen)
        if trail.culprits and seen.record.knobs and not trail.knobs:
            self._turn_knobs(trials, seen, singly=True)
        if not (trail.culprits or trail.knobs or trail.undecided):
            trail.undecided = "the failure stays when fused layers are taken apart, so no fusion is to blame"
            trail.advice = "see which nodes are with surgeon find nodes, or start with surgeon find auto"

    def _turn_knobs(self, trials: EngineTrials, seen: Recorded, *, singly: bool = False) -> None:
        """The smallest set of knobs that heals: all are turned at once, then fewer; or each alone."""
        together, apart = flips_of(seen.record.knobs)
        flips = (*together, *apart)
        dimension = Routed(flips, seen.record.cache, _digest(seen))
        with trials.along(dimension, against=seen) as made:
            with made.step("knobs") as step:
                needed = _one_that_heals(made, range(len(flips))) if singly else _all_that_heal(made, len(together))
                names = ", ".join(flips[i].text for i in sorted(needed))
                step.words = f"of {len(seen.record.knobs)} knobs " + (f"{names} heals" if needed else "none heals")
            if not needed:
                return
            trail = self._trail
            trail.knobs = tuple(flips[i] for i in sorted(needed))
            healed = trials.record(made, needed)
            after = recorded(healed)
            trail.after_ms = healed.payload.get("milliseconds")
            if after is not None:
                trail.regrouped = tuple(regrouped(seen.record.layers, after.record.layers))

    def _mark(self, trials: EngineTrials, seen: Recorded, joints: Sequence[Joint]) -> bool:
        """The smallest set of extra outputs that heals; whether there is one."""
        trail = self._trail
        if not joints:
            return False
        dimension = Marked(tuple(joint.tensor for joint in joints), seen.record.cache, _digest(seen))
        everything = frozenset(range(len(joints)))
        with trials.along(dimension, against=seen) as made:
            with made.step("outputs") as step:
                needed = _all_that_heal(made, len(joints))
                if not needed and made.ask(everything) is Outcome.UNRESOLVED:
                    needed = _one_that_heals(made, range(min(len(joints), _ONE_BY_ONE)))
                what = "1 heals it" if len(needed) == 1 else f"{len(needed)} heal it"
                step.words = f"of {len(joints)} tensors inside fused layers {what if needed else 'none heals it'}"
            if not needed:
                return False
            healed = trials.record(made, needed)
        trail.outputs = tuple(joints[i].tensor for i in sorted(needed))
        if trail.after_ms is None:
            trail.after_ms = healed.payload.get("milliseconds")
        layers = {joints[i].layer.name: joints[i].layer for i in sorted(needed)}
        trail.culprits = tuple(
            FusionCulprit(
                layer.name,
                layer.kind,
                layer.nodes,
                tuple(joints[i].tensor for i in sorted(needed) if joints[i].layer.name == name),
            )
            for name, layer in layers.items()
        )
        return True

    def _rule_out_tactics(self, trials: EngineTrials, seen: Recorded) -> None:
        """A fused layer that is right with another tactic is no fusion's fault."""
        trail = self._trail
        base = by_key(seen.record.tables, seen.record.tactics)
        accused = [frozenset(one.nodes) for one in (trail.culprits or trail.regrouped)]
        pins: list[tuple[Pin, ...]] = []
        for number in range(1, _OTHER_TACTICS + 1):
            rows = {key: tactics.rows for key, tactics in base.items() if any(set(tactics.nodes) & a for a in accused)}
            others = {key: [row.hash for row in found if row.hash != base[key].chosen] for key, found in rows.items()}
            chosen = tuple(Pin(key, hashes[number - 1]) for key, hashes in others.items() if len(hashes) >= number)
            if chosen:
                pins.append(chosen)
        if not pins:
            return
        flat = tuple(pin for chosen in pins for pin in chosen)
        dimension = Pinned(seen.record.cache, base, flat)
        with (
            trials.along(dimension, against=seen) as made,
            made.step("tactics") as step,
        ):
            begin, tried = 0, 0
            for chosen in pins:
                elements = frozenset(range(begin, begin + len(chosen)))
                begin += len(chosen)
                outcome = made.ask(elements)
                tried += outcome is not Outcome.UNRESOLVED
                if outcome is Outcome.CLEAN:
                    step.words = "fused as it is, it is right with another tactic"
                    trail.undecided = (
                        "the fused layer is right with another tactic, so it is the tactic and not the fusion"
                    )
                    trail.advice = "find out which with surgeon find tactic"
                    trail.culprits, trail.knobs = (), ()
                    return
            step.words = f"fused as it is, it fails with {tried} other tactics too"
            if not tried:
                self._cannot_tell(made.words.get(elements, ""))
                step.words = "no other tactic could be tried"

    def _cannot_tell(self, why: str) -> None:
        """What is taken apart has other tactics as well; if none can be tried as it is, either may be to blame."""
        trail = self._trail
        names = [flip.text for flip in trail.knobs] or [f"output {name}" for name in trail.outputs]
        trail.undecided = (
            f"it is right with {', '.join(names[:3])}, which changes fusions and tactics; other tactics without that "
            f"cannot be tried, so either may be to blame: {why}"
        )
        trail.advice = "build it in that way, or see which nodes are concerned with surgeon find nodes"
        trail.culprits, trail.knobs = (), ()

    def _finding(self, model: str, labels: tuple[str, str], trials: EngineTrials, stopped: str) -> FusionFinding:
        trail = self._trail
        named = bool(trail.culprits or trail.knobs)
        end = conclude(named, nothing=trail.nothing, undecided=trail.undecided, advice=trail.advice, stopped=stopped)
        seen = trail.recorded
        return FusionFinding(
            outcome=end.outcome,
            model=model,
            reference=labels[0],
            target=labels[1],
            version=seen.record.version if seen else "",
            layers=trail.fused,
            samples=len(self._spec.feeds),
            signature=seen.signature if seen else None,
            failure=seen.trial.words if seen else "",
            culprits=trail.culprits,
            knobs=trail.knobs,
            regrouped=trail.regrouped,
            outputs=trail.outputs if named else (),
            before_ms=trail.before_ms,
            after_ms=trail.after_ms,
            reason=end.reason,
            advice=end.advice,
            command=self._command(model) if named else "",
            steps=trials.steps,
            notes=(*trail.notes, *([end.note] if end.note else [])),
            rate=seen.rate if seen else None,
        )

    def _command(self, model: str) -> str:
        trail = self._trail
        if trail.knobs:
            route = ";".join(flip.text for flip in trail.knobs)
            return f"surgeon build {model} -o ENGINE --route '{route}'"
        names = ";".join(quote(name) for name in trail.outputs)
        return f"surgeon rewrite {model} -p 'expose-tensors:names={names}' -o OUT.onnx"


def _all_that_heal(made: Trials, count: int) -> frozenset[int]:
    """The smallest part found of the first so many elements that heals; empty if all of them do not."""
    if not count or made.ask(frozenset(range(count))) is not Outcome.CLEAN:
        return frozenset()
    answer = made.search(Turned(SmallestSubset(range(count)), HEALED))
    return answer.culprits[0] if answer.culprits else frozenset(range(count))


def _one_that_heals(made: Trials, elements: Iterable[int]) -> frozenset[int]:
    """The first element that heals by itself; empty if none does."""
    singles = (frozenset([element]) for element in elements)
    return next((one for one in singles if made.ask(one) is Outcome.CLEAN), frozenset())


def _digest(seen: Recorded) -> str:
    """The cache that untouched ops take their tactics from, in words."""
    return json.dumps(sorted(seen.record.tactics.items()))
