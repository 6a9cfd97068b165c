"""The planted faults are where the truth says, healthy engines are right, and the same seed gives the same cases."""

from __future__ import annotations

import dataclasses
import functools
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.runners.catalogue import make_engine
from tests.bench.planted.cases import DATA, HEALTHY, KINDS, REWRITE, Case, Spec, draw_specs, plant, read_case
from tests.bench.planted.engine import MockEngine, worst_output
from tests.bench.planted.families import FAMILIES
from tests.bench.planted.fusion import LARGEST, windows_of
from tests.bench.planted.host import RIGHT, Host, values_of
from tests.bench.planted.judge import judge, score_case
from tests.bench.planted.make import write_engine
from tests.bench.planted.models import build, networks, sizes
from tests.bench.planted.plan import BY_ENDING, CRASH, HANG, REFUSAL, EnginePlan
from tests.bench.planted.rewrites import rewritten
from tests.bench.planted.tools import TOOLS, Files, Named
from tests.bench.planted.truth import NODE, SEVERAL, WINDOW, Truth, bits_of
from tests.bench.planted_layers.ground import relative_l2

NETWORK = {"body": "branches", "data dependent": "random_dag_0", "precision set": "bert", "fusion": "bert"}
ENDING = {CRASH: Ending.CRASHED, HANG: Ending.HUNG, REFUSAL: Ending.REFUSED}


@functools.cache
def case_of(kind: str) -> Case:
    return plant(Spec(KINDS.index(kind), 3, kind, "small", NETWORK.get(kind, "random_dag_2")))


def host_of(case: Case) -> Host:
    host = Host(case.planted.model, case.planted.plan.healthy())
    host.feeds = [dict(feeds) for feeds in case.planted.feeds]
    host.expected = values_of(RIGHT, host.model, host.feeds)
    if case.planted.truth.sample is not None:  # right values are wanted of the sample that shows it
        host.feeds = [host.feeds[case.planted.truth.sample]]
        host.expected = [host.expected[case.planted.truth.sample]]
    return host


def positions_of(case: Case, names: tuple[str, ...]) -> list[int]:
    place = {node.name: i for i, node in enumerate(case.planted.model.graph.node)}
    return [place[name] for name in names]


def test_the_same_seed_gives_the_same_cases() -> None:
    specs = draw_specs(60, 5)
    assert specs == draw_specs(80, 5)[:60]
    assert specs != draw_specs(60, 6)
    assert {spec.kind for spec in specs} == set(KINDS)
    assert sum(spec.kind == HEALTHY for spec in draw_specs(320, 5)) >= 80
    assert {spec.size for spec in draw_specs(320, 5)} == set(sizes())


@pytest.mark.parametrize("kind", ["wrong kernel", "fusion", "masked NaN", "healthy", REWRITE])
def test_a_case_can_be_made_again(kind: str) -> None:
    once, again = case_of(kind), plant(Spec(KINDS.index(kind), 3, kind, "small", NETWORK.get(kind, "random_dag_2")))
    assert once.spec == again.spec
    assert (once.planted.plan, once.planted.truth) == (again.planted.plan, again.planted.truth)
    assert once.planted.model.SerializeToString() == again.planted.model.SerializeToString()
    assert once.planted.rewrites == again.planted.rewrites


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (*ENDING, HEALTHY, REWRITE, "flaky")])
def test_a_culprit_is_wrong_by_itself_and_those_beside_it_are_not(kind: str) -> None:
    case = case_of(kind)
    host, plan, truth = host_of(case), case.planted.plan, case.planted.truth
    assert truth.culprits
    assert (host.error(plan) > plan.limit) is not truth.latent
    calm = {"": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}[plan.precision]
    for culprit in truth.culprits:
        positions = positions_of(case, culprit)
        assert host.alone(plan, positions) > 5 * max(1e-7, host.alone(plan.healthy(), positions))
        assert host.alone(plan.healthy(), positions) < calm
        if truth.label == WINDOW:
            assert max(host.alone(plan, [position]) for position in positions) < calm
    for position in positions_of(case, truth.near)[:12]:
        if set(host.nodes[position].output) & set(host.right):
            assert host.alone(plan, [position]) < calm, host.nodes[position].name


def test_a_flaky_fault_shows_as_often_as_it_should_and_goes_on_from_process_to_process(tmp_path: Path) -> None:
    case = case_of("flaky")
    (fault,) = case.planted.plan.faults
    plan = dataclasses.replace(
        case.planted.plan, faults=(dataclasses.replace(fault, probability=0.3, per_build=False),)
    )
    plan.write(tmp_path / "plan.json")
    onnx.save_model(case.planted.model, str(tmp_path / "model.onnx"))
    names = [info.name for info in case.planted.model.graph.output]
    feeds, expected = case.planted.feeds[0], host_of(case).expected[0]
    seen = []
    for _ in range(6):
        engine = MockEngine(tmp_path / "plan.json")
        engine.prepare(tmp_path / "model.onnx", names)
        seen += [worst_output(expected, engine.run(feeds)) > plan.limit for _ in range(50)]
    assert 60 < sum(seen) < 120
    assert seen[:50] != seen[50:100]


@pytest.mark.parametrize("kind", ENDING)
def test_an_engine_that_ends_does_so_where_the_culprit_is_and_only_there(kind: str) -> None:
    case = case_of(kind)
    host, plan, truth = host_of(case), case.planted.plan, case.planted.truth
    with pytest.raises(EngineFailure) as found:
        host.error(plan)
    assert found.value.ending is ENDING[kind]
    (culprit,) = truth.culprits
    with pytest.raises(EngineFailure):
        host.alone(plan, positions_of(case, culprit))
    for position in positions_of(case, truth.near)[:12]:
        if set(host.nodes[position].output) & set(host.right):
            assert host.alone(plan, [position]) < 1e-5


def test_what_is_fused_is_right_when_it_is_looked_at() -> None:
    case = case_of("fusion")
    plan, truth, model = case.planted.plan, case.planted.truth, case.planted.model
    (window,) = truth.tensors
    right = values_of(RIGHT, model, case.planted.feeds, window)[0]
    shown = values_of(plan, model, case.planted.feeds, window)[0]
    assert max(relative_l2(right[name], shown[name]) for name in window) < 1e-5
    last = values_of(plan, model, case.planted.feeds, window[-1:])[0]
    assert relative_l2(right[window[-1]], last[window[-1]]) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_are_the_same_in_any_piece_that_has_them(family: str) -> None:
    graph = build(f"{family}@200", 1).graph
    windows = windows_of(graph, 4, 0.4)
    assert windows
    assert max(map(len, windows)) <= LARGEST
    tensors = [name for window in windows for name in window]
    assert len(tensors) == len(set(tensors))
    nodes = list(graph.node)
    place = {name: i for i, node in enumerate(nodes) for name in node.output}
    for window in windows:
        piece = onnx.helper.make_graph([nodes[place[name]] for name in window], "piece", [], [])
        piece.output.append(onnx.helper.make_empty_tensor_value_info(window[-1]))
        assert windows_of(piece, 4, 0.4) == [window]
        piece.output.append(onnx.helper.make_empty_tensor_value_info(window[0]))
        assert window not in windows_of(piece, 4, 0.4)


@pytest.mark.parametrize("network", [*networks("200"), "loop_rnn", "detector", "mlp in float16", "mlp quantised"])
def test_a_healthy_engine_computes_what_onnxruntime_does(network: str) -> None:
    model = build(network, 2)
    host = Host(model, EnginePlan(fused=0.4, tactics=9, seed=3))
    session = make_engine("onnxruntime:optimize=none,threads=1")
    found = values_of(host.engine, model, host.feeds)[0]
    for name, right in host.expected[0].items():
        np.testing.assert_array_equal(found[name], right)
    session.close()
    sizes_seen = [
        float(np.sqrt(np.mean(np.square(v.astype(np.float64))))) for v in found.values() if v.dtype.kind == "f"
    ]
    assert 1e-3 < max(sizes_seen) < 100


@pytest.mark.parametrize(("precision", "low", "high"), [("float16", 1e-4, 1e-2), ("bfloat16", 1e-3, 5e-2)])
def test_an_engine_in_a_narrow_type_is_off_by_its_rounding(precision: str, low: float, high: float) -> None:
    host = Host(build("bert", 2), EnginePlan(precision=precision))
    assert low < host.error(host.engine) < high
    assert MockEngine(host.engine).precision == precision


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nodes", [200, 2000])
def test_a_family_has_about_as_many_nodes_as_it_is_asked_for(family: str, nodes: int) -> None:
    model = FAMILIES[family](0, nodes)
    assert 0.9 * nodes < len(model.graph.node) < 1.1 * nodes
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


def test_one_application_of_a_rewrite_is_wrong_and_all_others_are_exact() -> None:
    planted = case_of(REWRITE).planted
    assert planted.rewrites is not None
    applications, number = planted.rewrites["applications"], planted.truth.change
    assert number is not None
    expected = values_of(RIGHT, planted.model, planted.feeds)
    assert [a["wrong"] for a in applications] == [i == number - 1 for i in range(len(applications))]
    before = values_of(RIGHT, rewritten(planted.model, applications[: number - 1]), planted.feeds)
    after = values_of(RIGHT, rewritten(planted.model, applications[:number]), planted.feeds)
    assert worst_output(expected[0], before[0]) == 0
    assert worst_output(expected[0], after[0]) > 1e-4
    good = [application for application in applications if not application["wrong"]]
    assert worst_output(expected[0], values_of(RIGHT, rewritten(planted.model, good), planted.feeds)[0]) == 0


def test_only_one_sample_shows_what_depends_on_the_data() -> None:
    planted = case_of(DATA).planted
    expected = values_of(RIGHT, planted.model, planted.feeds)
    found = values_of(planted.plan, planted.model, planted.feeds)
    wrong = [worst_output(r, v) > planted.plan.limit for r, v in zip(expected, found, strict=True)]
    assert len(wrong) == 50
    assert [i for i, shows in enumerate(wrong) if shows] == [planted.truth.sample]


def _check(engine: Path, model: Path, plan: Path) -> int:
    command = [sys.executable, str(engine), "check", str(model), "--plan", str(plan)]
    return subprocess.run(command, cwd=model.parent, capture_output=True, check=False).returncode


def test_the_command_tells_good_from_bad_and_from_what_it_cannot_tell(tmp_path: Path) -> None:
    write_engine(tmp_path)
    engine = tmp_path / "engine" / "tests" / "bench" / "planted" / "engine.py"
    folder = case_of("wrong kernel").write(tmp_path)
    plan = EnginePlan.read(folder / "plan.json")
    plan.healthy().write(folder / "healthy.json")
    assert _check(engine, folder / "model.onnx", folder / "healthy.json") == 0
    assert _check(engine, folder / "model.onnx", folder / "plan.json") == 1
    (folder / "broken.onnx").write_bytes(b"this is no model")
    assert _check(engine, folder / "broken.onnx", folder / "plan.json") == 125
    lines = [json.loads(line) for line in (folder / "engine.log").read_text().splitlines()]
    assert [line["did"] for line in lines] == ["build", "run"] * 2
    assert lines[0]["seconds"] == plan.base_seconds + plan.node_seconds * lines[0]["nodes"]
    real = dataclasses.replace(case_of(CRASH).planted.plan, real=True)
    other = case_of(CRASH).write(tmp_path)
    real.write(other / "plan.json")
    assert _check(engine, other / "model.onnx", other / "plan.json") == -11


def test_the_engine_is_a_runner_by_its_path_and_can_be_sent_away(tmp_path: Path) -> None:
    case = case_of("wrong kernel")
    folder = case.write(tmp_path)
    file = Path(__file__).parent.parent / "bench" / "planted" / "engine.py"
    names = [info.name for info in case.planted.model.graph.output]
    with make_engine(f"{file}:MockEngine:plan={folder / 'plan.json'}") as engine:
        engine.prepare(folder / "model.onnx", names)
        found = engine.run(dict(case.planted.feeds[0]))
    sent = pickle.loads(pickle.dumps(MockEngine(folder / "plan.json")))
    sent.prepare(folder / "model.onnx", names)
    again = sent.run(case.planted.feeds[0])
    for name in names:
        np.testing.assert_array_equal(np.asarray(found[name]), again[name])
    expected = host_of(case).expected[0]
    assert worst_output(expected, again) > case.planted.plan.limit


def test_ddmin_finds_a_window_and_names_nobody_where_nothing_is_wrong(tmp_path: Path) -> None:
    for kind in ("fusion", HEALTHY, CRASH):
        case = case_of(kind)
        score = score_case(case, Files(case.write(tmp_path)), "ddmin")
        assert not score.error
        assert score.exact, score
        assert (score.trials > 5) is (kind != HEALTHY)


def test_a_full_dump_cures_a_fusion_and_finds_a_large_fault(tmp_path: Path) -> None:
    fusion, kernel = case_of("fusion"), case_of("wrong kernel")
    assert not TOOLS["first-over"](Files(fusion.write(tmp_path))).culprits
    score = score_case(kernel, Files(kernel.write(tmp_path)), "first-over")
    assert score.culprits == 1
    assert score.named


@pytest.mark.parametrize("kind", ["two faults", "masked NaN", DATA, REWRITE, HEALTHY])
def test_a_case_that_is_written_is_read_again(kind: str, tmp_path: Path) -> None:
    case = case_of(kind)
    again = read_case(case.write(tmp_path))
    assert again.spec == case.spec
    assert again.planted.truth == case.planted.truth
    ours, theirs = (json.dumps(one.planted.plan.to_json()["faults"]) for one in (again, case))
    assert ours == theirs
    assert again.planted.rewrites == case.planted.rewrites
    assert len(again.planted.feeds) == len(case.planted.feeds)


def test_answers_are_judged_as_they_deserve() -> None:
    one = Truth(NODE, (("a",),), near=("b",))
    assert judge(one, Named(), [("a",)], []) == (True, True, 1, 0)
    assert judge(one, Named(), [("b",)], []) == (False, True, 0, 1)
    assert judge(one, Named(), [("a",)], [("c",)]) == (False, True, 1, 1)
    assert judge(one, Named(), [("a", "c")], []) == (False, True, 1, 0)
    assert judge(one, Named(), [], []) == (False, False, 0, 0)
    hidden = dataclasses.replace(one, latent=True)
    assert judge(hidden, Named(), [], [("a",)]) == (True, True, 1, 0)
    assert judge(hidden, Named(), [("a",)], []) == (False, True, 1, 0)
    assert judge(dataclasses.replace(hidden, abstain=True), Named(), [], []) == (True, True, 0, 0)
    two = Truth(SEVERAL, (("a",), ("b",)))
    assert judge(two, Named(), [("a",)], [("b",)])[:3] == (True, True, 2)
    assert judge(two, Named(), [("a",)], [])[:3] == (False, True, 1)
    window = Truth(WINDOW, (("a", "b"),))
    assert judge(window, Named(), [("b", "a")], [])[:3] == (True, True, 1)
    assert judge(window, Named(), [("b",)], [])[:3] == (False, True, 0)
    assert judge(Truth("nobody"), Named(), [], [("x",)]) == (False, False, 0, 1)
    assert judge(Truth("change", change=4), Named(change=4), [], [])[0]
    assert not judge(Truth("change", change=4), Named(change=5), [], [])[0]


def test_bounds() -> None:
    assert bits_of(1024) == 10
    assert bits_of(1024, window=True) == 15
    assert bits_of(200, 2) == pytest.approx(np.log2(199 * 100))
    assert bits_of(1024, probability=0.5) == pytest.approx(10 / 0.3219, rel=1e-3)


def test_endings_are_no_values() -> None:
    assert set(BY_ENDING) == set(ENDING)
