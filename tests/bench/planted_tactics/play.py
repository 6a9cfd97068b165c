"""Plays one case: record the healthy library, plant the fault, search, and hold the answer against the truth."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from surgeon_debug.feeds import make_feeds
from surgeon_debug.find.auto import find_auto
from surgeon_debug.find.engine_builds import BuildRecord, Wish
from surgeon_debug.find.engine_ground import Question, engine_ground
from surgeon_debug.find.fusion import find_fusion
from surgeon_debug.find.fusion_finding import FusionFinding
from surgeon_debug.find.tactic import find_tactic
from surgeon_debug.find.tactic_census import Census
from surgeon_debug.find.tactic_finding import BadTactic, TacticFinding
from surgeon_debug.find.tactic_pins import FreeChoice
from surgeon_debug.find.tensorrt_builds import TensorrtBuilder
from surgeon_debug.runners.tensorrt.record import BUILD
from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics, by_key
from surgeon_passes.graph import load
from tests.bench.planted_tactics.cases import FUSIONS, PROCESSES, Case, Planted, plant
from tests.bench.planted_tactics.networks import network
from tests.simulated_tensorrt import plan as plans

_TIMEOUT = 6.0
_DRAWS = 8
_CLEARLY = 5.0  # times the error of a healthy engine, from which on a fault shows whatever rounding does


@dataclasses.dataclass
class Score:
    """What came of a case."""

    number: int
    kind: str
    family: str
    version: str
    good: bool
    verdict: str = ""
    """``exact``, ``gave up`` (rightly), ``missed``, ``wrong`` (somebody healthy is accused) or ``crashed``."""
    words: str = ""
    builds: int = 0
    seconds: float = 0.0
    keys: int = 0
    most: int = 0
    """Most tactics of a key."""
    census_builds: int = 0
    """Builds of record, replay and census."""
    search_builds: int = 0
    """Builds of search and proof."""
    differing: int = 0
    suspect: str = ""
    """What the triage says, where it was asked."""

    @property
    def in_bounds(self) -> bool:
        """Whether census and search took no more than they may, for one culprit."""
        search = math.ceil(math.log2(self.differing)) + 2 if self.differing > 1 else 2
        return self.census_builds <= self.most + 1 and self.search_builds <= search


def play(case: Case, folder: Path, *, triage: bool = False) -> Score:
    """Play a case.

    Args:
        case: The case.
        folder: An empty one.
        triage: Ask for a triage too.
    """
    score = Score(case.number, case.kind, case.family, case.version, case.good)
    path = folder / "model.onnx"
    onnx.save(network(case.family, case.seed, case.depth), path)
    begun = time.monotonic()
    for draw in range(_DRAWS):
        try:
            if _once(case, draw, path, folder / str(draw), score, triage=triage):
                break
        except Exception as error:  # noqa: BLE001  (a search that crashes is a score)
            score.verdict, score.words = "crashed", f"{type(error).__name__}: {error}"[:300]
            break
    score.seconds = time.monotonic() - begun
    return score


def _once(case: Case, draw: int, path: Path, folder: Path, score: Score, *, triage: bool) -> bool:
    """Whether the fault that was drawn shows."""
    folder.mkdir()
    _plan(plans.Plan(), folder / "healthy.json")
    question = _question(case, path)
    record = _record(question, folder)
    keys = by_key(record.tables, record.tactics)
    fused = [layer.nodes for layer in record.layers]
    drawn = dataclasses.replace(case, number=case.number + 100_000 * draw)
    planted = plant(drawn, keys, fused)
    if draw < _DRAWS - 1 and not _all_show(question, planted.plan, folder):
        return False
    _plan(planted.plan, folder / "plan.json")
    good = _good(drawn, planted, keys, folder) if case.good else None
    isolated = case.kind in PROCESSES

    def builder(made: TensorrtBuilder) -> TensorrtBuilder:
        return dataclasses.replace(made, isolated=isolated, timeout=_TIMEOUT if isolated else None)

    if case.kind in FUSIONS:
        found: FusionFinding | TacticFinding = find_fusion(question, builder=builder)
    else:
        found = find_tactic(question, good=good, builder=builder)
    score.keys, score.most = len(keys), max(len(tactics.rows) for tactics in keys.values())
    _judge(found, planted, keys, score)
    if triage and found.signature is not None:
        score.suspect = find_auto(question, builder=builder).suspect.value
    return True


def _plan(plan: plans.Plan, path: Path) -> None:
    """Have the library play a plan, in this process and in others; it reads it when it is imported."""
    os.environ.update(plans.write(plan, path))
    sys.modules.pop("tensorrt", None)


def _question(case: Case, path: Path) -> Question:
    feeds = None
    if case.family == "dynamic":
        model = load(path)
        feeds = [make_feeds(model, seed=case.seed, sample=i, dims={"N": size}) for i, size in enumerate((4, 7))]
    # What the softmaxes make of TF32 is beyond the limits of a healthy model.
    target = "tensorrt:tf32=false" if case.family == "attention" else "tensorrt"
    return Question(path, target=target, feeds=feeds, seed=case.seed)


def _here(made: TensorrtBuilder) -> TensorrtBuilder:
    return dataclasses.replace(made, isolated=False)


def _record(question: Question, folder: Path) -> BuildRecord:
    """What the healthy library does."""
    with engine_ground(question, folder=folder / "healthy", builder=_here) as ground:
        builds = ground.spec.builder.make()
        try:
            return builds.build(Wish((("editable", "true"),)))
        finally:
            builds.close()


def _all_show(question: Question, plan: plans.Plan, folder: Path) -> bool:
    """Whether each fault of values that is there in the library's own build shows by itself, clearly."""
    values = [fault for fault in plan.faults if fault.effect in ("wrong_values", "nan") and fault.profile is None]
    healthy = _error(question, (), folder)[1] or 0.0
    for fault in values:
        fails, error = _error(question, (fault,), folder)
        clear = fault.effect == "nan" or error is None or error >= _CLEARLY * healthy
        if not (fails and clear):
            return False
    return True


def _error(question: Question, faults: tuple[plans.Fault, ...], folder: Path) -> tuple[bool, float | None]:
    """Whether an engine of a library with these faults fails, and its error."""
    _plan(plans.Plan(faults=faults), folder / "probe.json")
    with engine_ground(question, folder=folder / "probes", builder=_here) as ground:
        oracle = ground.spec.along(FreeChoice(), thorough=True).make()
        try:
            seen = oracle.evaluate(frozenset(), 0)
        finally:
            oracle.close()
    return seen.signature is not None, seen.error


def _good(case: Case, planted: Planted, keys: Mapping[str, KeyTactics], folder: Path) -> Path:
    """The record of a build that has none of the bad tactics, and others than the library's for half of the rest."""
    import json

    draw = random.Random(case.seed + 1)
    blamed = {key for one in planted.culprits for key, _ in one}
    bad = {fault.where.tactic for fault in planted.plan.faults}
    orders = Census(keys).orders
    chosen = {}
    for key, order in orders.items():
        others = [hash_ for hash_ in order[1:3] if hash_ not in bad]
        moves = others and (key in blamed or draw.random() < 0.5)
        chosen[key] = draw.choice(others) if moves else order[0]
    record = folder / "good"
    record.mkdir()
    tables: list[Any] = []
    (record / BUILD).write_text(json.dumps({"tactics": chosen, "tables": tables}))
    return record


def _judge(
    found: TacticFinding | FusionFinding, planted: Planted, keys: Mapping[str, KeyTactics], score: Score
) -> None:
    score.builds, score.words = found.builds, found.reason
    if isinstance(found, FusionFinding):
        named: list[Any] = [frozenset(one.nodes) for one in found.culprits]
        wanted: list[Any] = list(planted.nodes)
        if planted.knob and not found.knobs:
            wanted.append("a knob")
    else:
        # An op has another key beside other formats, so it is told by its first node where the log tells of that.
        named = [frozenset((_node(m, keys), m.bad.hash) for m in one.members) for one in found.culprits]
        wanted = [_by_node(one, keys) for one in planted.culprits]
        score.differing = found.differing
        steps = {step.name: 0 for step in found.steps}
        for step in found.steps:
            steps[step.name] += step.builds
        score.census_builds = sum(steps.get(name, 0) for name in ("record", "replay", "census"))
        score.search_builds = sum(steps.get(name, 0) for name in ("search", "verify"))
    guilty = frozenset().union(*(one for one in wanted if isinstance(one, frozenset)))
    guilty |= _by_node(planted.accomplices, keys)
    accused = frozenset().union(*named)
    if planted.nobody:
        score.verdict = "wrong" if named else "gave up"
    elif accused - guilty:
        score.verdict = "wrong"
    elif (
        set(named) == set(wanted)
        or (set(named) >= set(wanted) and planted.accomplices)
        or (planted.some and named and all(one.cured for one in found.culprits))
    ):
        score.verdict = "exact"
    elif not named and planted.may_give_up:
        score.verdict = "gave up"
    else:
        score.verdict = "missed"
    if score.verdict in ("wrong", "missed"):
        score.words += f" | named {sorted(map(sorted, named))} wanted {sorted(map(sorted, wanted))}"


def _node(bad: BadTactic, keys: Mapping[str, KeyTactics]) -> str:
    """The first node of an op, by the healthy library's log where the other one's was cut short."""
    known = bad.nodes or (keys[bad.key].nodes if bad.key in keys else ())
    return known[0] if known else bad.key


def _by_node(tactics: frozenset[tuple[str, str]], keys: Mapping[str, KeyTactics]) -> frozenset[tuple[str, str]]:
    return frozenset((keys[key].nodes[0], hash_) for key, hash_ in tactics)
