"""Say what to search for: the graph, its nodes, a tactic, a fusion, or the precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir

from surgeon_debug.find.engine_builds import Builder
from surgeon_debug.find.engine_ground import EngineGround, Question, engine_ground, graph_is_wrong
from surgeon_debug.find.engine_trials import EngineTrials, HowToSearch, Recorded, recorded
from surgeon_debug.find.finding import Costs, FindOutcome, Step
from surgeon_debug.find.fusion_levers import joints_of
from surgeon_debug.find.graph_fitness import unfit
from surgeon_debug.find.lower_error import fallen, is_far_below, limit_between
from surgeon_debug.find.oracle import Signature
from surgeon_debug.find.tactic import BUILDS
from surgeon_debug.find.tactic_census import Census
from surgeon_debug.find.tactic_pins import FreeChoice
from surgeon_debug.find.tactic_rounds import Rounds, every_tactic
from surgeon_debug.find.tensorrt_builds import RIGHT, TensorrtBuilder, other_sizes
from surgeon_debug.find.triage import Lever, Suspect, suspect_of, variants_of
from surgeon_debug.find.trials import stopped_early
from surgeon_debug.journal import Journal
from surgeon_debug.runners.tensorrt.tactic_tables import by_key
from surgeon_debug.search.trial import Outcome

SCHEMA = "surgeon.find-auto/1"
"""The ``schema`` field of the JSON document; the number changes when a field changes its meaning."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """One build of the triage and what became of it."""

    change: str
    """What it changes."""
    outcome: Outcome
    words: str
    """How it fails, or why nobody can tell."""
    error: float | None
    """Relative L2 of the worst output, where there are numbers."""
    milliseconds: float | None
    """Of a run, as this machine ran it."""


@dataclasses.dataclass(frozen=True)
class AutoFinding(Costs):
    """What a triage came to."""

    outcome: FindOutcome
    model: str
    reference: str
    target: str
    version: str
    samples: int
    signature: Signature | None
    failure: str
    suspect: Suspect
    """What to search for."""
    why: str
    """What says so, as a phrase."""
    tried: tuple[Tried, ...]
    advice: str
    command: str
    """The search to start."""
    reason: str
    """Why nothing was found or decided, as a sentence."""
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    rate: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        plain = dataclasses.asdict(self)
        found: dict[str, Any] = {"schema": SCHEMA, "outcome": self.outcome.value, "suspect": self.suspect.value}
        same = ("model", "reference", "target", "version", "samples", "failure", "why", "advice", "command", "reason")
        found |= {name: plain[name] for name in (*same, "rate")}
        found["signature"] = None if self.signature is None else self.signature.to_json()
        found["culprits"] = []
        found["tried"] = [{**dataclasses.asdict(one), "outcome": one.outcome.value} for one in self.tried]
        found |= {"trials": self.trials, "builds": self.builds, "seconds": round(self.seconds, 3)}
        found["steps"], found["notes"] = plain["steps"], list(self.notes)
        return found


def find_auto(
    question: Question,
    *,
    how: HowToSearch | None = None,
    builder: Callable[[TensorrtBuilder], Builder] | None = None,
    progress: Callable[[str], None] | None = None,
) -> AutoFinding:
    """Build an engine in about ten other ways and say which search will name the culprit.

    Args:
        question: The model, its inputs, and who is believed and suspected.
        how: What the search may use.
        builder: Puts another builder in the place of TensorRT's.
        progress: Called with a phrase about where the search is.

    Raises:
        BadModelError: The model cannot be used.
        BadOptionError: A runner or option does not exist, or inputs do not fit.
        EngineError: The reference cannot run the model.
        FileError: A file cannot be read or written.
    """
    how = how or HowToSearch()
    folder = None if how.resume is None else how.resume / BUILDS
    with engine_ground(question, folder=folder, builder=builder) as ground:
        triage = _Triage(ground, how)
        if ground.graph.signature is not None:
            reason, advice = graph_is_wrong(ground.graph)
            triage.suspect, triage.why, triage.advice = Suspect.GRAPH, reason, advice
            return triage.finding((), "")
        return triage.run(progress)


class _Triage:
    def __init__(self, ground: EngineGround, how: HowToSearch) -> None:
        self._ground, self._how = ground, how
        self.suspect = Suspect.NOBODY
        self.why = self.advice = ""
        self._reason = ""
        self._seen: Recorded | None = None
        self._tried: list[Tried] = []
        self._limit = ""

    def run(self, progress: Callable[[str], None] | None) -> AutoFinding:
        with Journal(self._how.resume) as journal:
            trials = EngineTrials(self._ground.spec, self._how, journal, progress)
            stopped = stopped_early(lambda: self._search(trials))
            return self.finding(trials.steps, stopped)

    def _search(self, trials: EngineTrials) -> None:
        with trials.along(FreeChoice(), thorough=True, lanes=1) as made, made.step("record") as step:
            found = trials.record(made)
            seen = self._seen = recorded(found)
            step.words = seen.words if seen else found.unresolved
        if seen is None:
            self.suspect = Suspect.NODES
            self.why = f"there is no engine: {found.unresolved}"
            return
        if seen.signature is None:
            self._reason = f"the build is right: its outputs agree in {seen.runs} runs"
            self.advice = RIGHT + other_sizes(self._ground.spec.builder)
            return
        if words := self._ground.explain(seen):
            self.suspect = Suspect.GRAPH
            self.why, self.advice = unfit(words)
            return
        variants = variants_of(seen, self._tensors(seen))
        questions = [frozenset([i]) for i in range(len(variants.variants))]
        with trials.along(variants, against=seen) as made:
            with made.step("triage") as step:
                outcomes = made.ask_all(questions)
                step.words = f"{outcomes.count(Outcome.CLEAN)} of {len(outcomes)} changes make it right"
            for variant, question, outcome in zip(variants.variants, questions, outcomes, strict=True):
                record = trials.record(made, question)  # it is known by now
                words, milliseconds = made.words.get(question, ""), record.payload.get("milliseconds")
                self._tried.append(Tried(variant.lever.value, outcome, words, record.error, milliseconds))
        heals = {
            variant.lever: outcome is Outcome.CLEAN
            for variant, outcome in zip(variants.variants, outcomes, strict=True)
            if outcome is not Outcome.UNRESOLVED
        }
        if not heals.keys() & {Lever.TACTICS, Lever.MORE_TACTICS}:
            self._other_tactics(trials, seen, heals)
        self.suspect, self.why = suspect_of(heals)
        if not any(heals.values()):
            self._less_wrong(seen, dict(zip((one.lever for one in variants.variants), self._tried, strict=True)))

    def _less_wrong(self, seen: Recorded, tried: Mapping[Lever, Tried]) -> None:
        """Of changes that make the engine far less wrong, if none makes it right, say what they say."""
        errors = {lever: one.error for lever, one in tried.items() if one.outcome is Outcome.REPRODUCES}
        lowest = fallen(seen.worst, errors.values())
        if lowest is None or seen.worst is None:
            return
        helps = {lever: is_far_below(error, seen.worst) for lever, error in errors.items()}
        deed = f"its error falls from {seen.worst:.2g} to {lowest:.2g}, though it is not right"
        self.suspect, self.why = suspect_of(helps, deed)
        self._limit = limit_between(seen.worst, lowest) if not self._ground.spec.limits.given else ""

    def _other_tactics(self, trials: EngineTrials, seen: Recorded, heals: dict[Lever, bool]) -> None:
        """Try tactics without those with which nothing can be built, where two choices of all of them could not be."""
        base = by_key(seen.record.tables, seen.record.tactics)
        census = Census(base)
        if census.rounds == 1 or not seen.record.cache:
            return
        dimension = every_tactic(seen.record.cache, base, census)
        with trials.along(dimension, against=seen) as made:
            rounds = Rounds(made, dimension, census)
            rounds.take(every=False)
        if rounds.right is not None or rounds.failing:
            heals[Lever.TACTICS] = rounds.right is not None

    def _tensors(self, seen: Recorded) -> list[str]:
        """Inner tensors of fused layers; of every layer if the engine says nothing of them."""
        model: ir.Model = self._ground.model
        return [joint.tensor for joint in joints_of(model, seen.record.layers)]

    def finding(self, steps: tuple[Step, ...], stopped: str) -> AutoFinding:
        ground, seen = self._ground, self._seen
        outcome = FindOutcome.FOUND
        reason, advice = self._reason, self.advice
        if stopped:
            outcome, reason = FindOutcome.UNDECIDED, f"the search ended before it was over: {stopped}"
            advice = "allow it more, and give it a folder with --resume to go on where it was"
        elif self.suspect is Suspect.NOBODY:
            outcome = FindOutcome.NOTHING
        graph = ground.graph
        return AutoFinding(
            outcome=outcome,
            model=ground.label,
            reference=ground.labels[0],
            target=ground.labels[1],
            version=seen.record.version if seen else "",
            samples=len(ground.spec.feeds),
            signature=seen.signature if seen else graph.signature,
            failure=seen.trial.words if seen else graph.words,
            suspect=self.suspect,
            why=self.why,
            tried=tuple(self._tried),
            advice=advice,
            command="" if stopped else self._command(),
            reason=reason,
            steps=steps,
            notes=ground.notes,
            rate=seen.rate if seen else None,
        )

    def _command(self) -> str:
        model, (_, target) = self._ground.label, self._ground.labels
        if self.suspect is Suspect.PRECISION:
            return f"surgeon compare {model} --target {target.partition(':')[0]}:tf32=false"
        if self.suspect in (Suspect.TACTIC, Suspect.FUSION, Suspect.NODES):
            limit = f" --metric '{self._limit}'" if self._limit else ""
            return f"surgeon find {self.suspect.value} {model} --target {target}{limit}"
        return ""
