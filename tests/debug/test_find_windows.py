"""Faults that only several nodes together show: fused windows, pairs; and several, hidden and flaky ones."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import pytest

from surgeon_debug.find.finding import Finding, FindOutcome
from surgeon_debug.find.nodes import find_nodes
from tests.bench.planted.cases import Case, make_cases
from tests.bench.planted.fusion import LARGEST
from tests.bench.planted.models import SMALL

MOCK = f"{Path(__file__).parents[1] / 'bench' / 'planted' / 'engine.py'}:MockEngine"
ENDING = f"{Path(__file__).with_name('ending_runner.py')}:Ending"
REFERENCE = "onnxruntime:optimize=none,threads=1"


def found_in(case: Case, folder: Path, *, census: bool = True) -> Finding:
    own = case.write(folder)
    target = f"{MOCK}:plan={own / 'plan.json'}"
    return find_nodes(
        own / "model.onnx", target=target, reference=REFERENCE, feeds=case.planted.feeds, census=census, timeout=60.0
    )


def named(found: Finding) -> set[frozenset[str]]:
    return {frozenset(culprit.nodes) for culprit in (*found.culprits, *found.latent)}


def truth(case: Case) -> set[frozenset[str]]:
    return {frozenset(nodes) for nodes in case.planted.truth.culprits}


def windows_around(model: onnx.ModelProto, place: int, largest: int) -> int:
    """How many connected windows of several nodes end with one node, up to 10,000."""
    producer = {name: i for i, node in enumerate(model.graph.node) for name in node.output}
    near: dict[int, set[int]] = {i: set() for i in range(len(model.graph.node))}
    for i, node in enumerate(model.graph.node):
        for name in node.input:
            if name in producer and producer[name] != i:
                near[i].add(producer[name])
                near[producer[name]].add(i)
    level = {frozenset([place])}
    count = 0
    for _ in range(largest - 1):
        level = {w | {j} for w in level for i in w for j in near[i] if j < place and j not in w}
        count += len(level)
        if count > 10_000:
            return count
    return max(1, count)


@pytest.mark.parametrize("seed", range(4))
def test_a_window_that_an_engine_computes_wrong_when_it_fuses_it(seed: int, tmp_path: Path) -> None:
    (case,) = make_cases(1, seed, ["fusion"], [SMALL])
    found = found_in(case, tmp_path)
    assert found.outcome is FindOutcome.FOUND and named(found) == truth(case), (found, case.planted.truth)
    culprit = found.culprits[0]
    assert culprit.alone and culprit.cured and culprit.found_by == "window"
    trials = sum(step.trials for step in found.steps if step.name in ("cut", "window", "verify"))
    bound = math.log2(found.elements) + math.log2(windows_around(case.planted.model, culprit.positions[-1], LARGEST))
    assert trials <= 1.6 * bound + 4, (trials, bound, found.steps)


@pytest.mark.parametrize("kind", ["two faults", "latent", "flaky", "masked NaN", "crash", "refusal"])
@pytest.mark.parametrize("seed", [1, 2])
def test_other_faults_of_an_engine(kind: str, seed: int, tmp_path: Path) -> None:
    (case,) = make_cases(1, seed, [kind], [SMALL])
    found = found_in(case, tmp_path)
    assert found.outcome is FindOutcome.FOUND and named(found) == truth(case), (found, case.planted.truth)
    assert bool(found.latent) is case.planted.truth.latent
    if kind == "two faults":
        assert found.trials - found.steps[0].trials <= 4 and found.builds - found.steps[0].builds <= 4, found.steps


@pytest.mark.parametrize(("first", "second"), [(0.2, 0.9), (0.5, 0.55)])
def test_two_nodes_that_are_wrong_only_together(first: float, second: float) -> None:
    """They need not be neighbours."""
    nodes = 20
    lines = " ".join(f"[n{i}] t{i + 1} = {('Tanh', 'Sin', 'Neg')[i % 3]} (t{i})" for i in range(nodes))
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[4] t0) => (float[4] t{nodes}) {{ {lines} }}'
    )
    a, b = f"n{int(first * (nodes - 1))}", f"n{int(second * (nodes - 1))}"
    found = find_nodes(model, target=f"{ENDING}:at={a};{b},gain=0.5,together=true", reference=REFERENCE, census=False)
    assert named(found) == {frozenset([a, b])}, (found.reason, found.steps)
    assert found.culprits[0].alone and found.culprits[0].cured and found.culprits[0].found_by == "window"


def test_two_nodes_each_too_little_wrong_to_show() -> None:
    """Each adds less than is allowed, both together more: both are named, and neither is called hidden."""
    lines = "[n0] a = Abs (x) [n1] b = Identity (a) [n2] c = Abs (b) [n3] y = Identity (c)"
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[64] x) => (float[64] y) {{ {lines} }}'
    )
    found = find_nodes(model, target=f"{ENDING}:at=n1;n2,gain=1.00007", reference=REFERENCE)
    assert found.outcome is FindOutcome.FOUND and not found.latent, found
    assert named(found) == {frozenset(["n1"]), frozenset(["n2"])}
    assert all(one.cured for one in found.culprits)
