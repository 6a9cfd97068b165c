"""A sample of the planted faults and healthy pairs, and proof that the faults are what they say."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.layers import compare_models
from surgeon_debug.values import element_type_of
from tests.bench.planted_layers import faults
from tests.bench.planted_layers.baselines import guess
from tests.bench.planted_layers.cases import KINDS, Case, draw_cases
from tests.bench.planted_layers.corrupt import KINDS as FROM_TENSOR
from tests.bench.planted_layers.corrupt import Fault, spoil
from tests.bench.planted_layers.ground import Ground, relative_l2, run_all
from tests.bench.planted_layers.healthy import Job, count
from tests.bench.planted_layers.ill_conditioned import ILL_CONDITIONED
from tests.bench.planted_layers.judge import rank_of, run_case
from tests.bench.planted_layers.models import ARCHITECTURES
from tests.bench.planted_layers.pairs import PAIRS

WHERE = {
    "gain": ("mlp", "float32"),
    "bias": ("gru", "float16"),
    "channel": ("bert", "float32"),
    "tile tail": ("mlp", "openvino"),
    "noise": ("mlp", "bfloat16"),
    "one element": ("lstm", "float32"),
    "rounds down": ("mlp", "quantised"),
    "data dependent": ("lstm", "float16"),
    "sign": ("mlp", "openvino"),
    "zeroed tile": ("lstm", "float32"),
    "stale tile": ("mlp", "float16"),
    "axis slip": ("random_dag_0", "bfloat16"),
    "half sums": ("bert", "float32"),
    "integer steps": ("mlp", "quantised"),
    "masked NaN": ("random_dag_0", "float32"),
    "cancelled": ("random_dag_0", "float16"),
    "overflow": ("lstm", "float16"),
}


def test_every_kind_has_its_place() -> None:
    assert set(WHERE) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_node_with_the_fault_is_named_and_no_other(kind: str) -> None:
    architecture, pair = WHERE[kind]
    if pair == "openvino":
        pytest.importorskip("openvino")
    scales = kind in ("cancelled", *KINDS[:8])
    outcome = run_case(Case(KINDS.index(kind), 7, architecture, pair, kind, 300.0 if scales else None))
    assert not outcome.error
    assert (outcome.rank_of_wrong, outcome.verdict) == ("exact", outcome.expected)
    assert not outcome.false
    assert outcome.introduced > 30 * outcome.noise


@pytest.mark.parametrize(
    ("network", "pair"),
    [("bert", "float16"), ("mlp", "openvino"), ("gru", "bfloat16"), ("mlp", "quantised against float32")],
)
def test_healthy_networks_are_not_accused(network: str, pair: str) -> None:
    if pair == "openvino":
        pytest.importorskip("openvino")
    found = count(Job(network, 0, pair, ill=False))
    assert not found.error
    assert found.layers > 20
    assert found.accused == ()


@pytest.mark.parametrize("network", ILL_CONDITIONED)
def test_what_no_precision_computes_well_is_no_fault(network: str) -> None:
    found = count(Job(network, 0, "float16", ill=True))
    assert not found.error
    assert found.accused == ()
    if network in ("cancellation", "moments", "log_near_one"):
        assert found.verdicts["ill-conditioned"] >= 1
        assert found.over_limit > 1


@functools.cache
def ground() -> Ground:
    return Ground.of(ARCHITECTURES["mlp"](0), PAIRS["float32"])


def _faulty(fault: Fault) -> dict[str, np.ndarray]:
    engine = faults.FaultyEngine(faults.Plan("onnxruntime:optimize=none", (fault,)))
    try:
        return run_all(ground().model, engine, ground().feeds)
    finally:
        engine.close()


def _expected(clean: np.ndarray, fault: Fault) -> np.ndarray:
    """The wrong tensor, once more and in numpy."""
    wrong = clean.astype(np.float64)
    band = tuple(slice(fault.start, fault.stop) if i == fault.axis else slice(None) for i in range(clean.ndim))
    places = np.unravel_index(fault.places, clean.shape) if fault.places else ()
    match fault.kind:
        case "gain" | "undone":
            wrong = wrong * (1 + fault.size) ** (1 if fault.kind == "gain" else -1)
        case "bias":
            wrong += fault.size
        case "channel" | "tile tail":
            wrong[band] *= 1 + fault.size
        case "sign":
            wrong[band] *= -1
        case "zeroed tile":
            wrong[band] = 0
        case "stale tile":
            wrong[band] = np.roll(wrong, fault.stop - fault.start, fault.axis)[band]
        case "axis slip":
            wrong = np.roll(wrong, 1, fault.axis)
        case "noise":
            wrong += fault.size * np.random.default_rng(fault.seed).standard_normal(clean.shape)
        case "one element":
            wrong[places] += fault.size
        case "masked NaN":
            wrong[places] = np.nan
        case "rounds down":
            wrong = np.floor(clean / np.float32(fault.size)) * fault.size
        case "data dependent":
            wrong = np.where(wrong > fault.threshold, wrong * (1 + fault.size), wrong)
        case _:
            raise AssertionError(fault.kind)
    return wrong


@pytest.mark.parametrize("kind", FROM_TENSOR)
def test_a_fault_is_what_its_name_says_and_travels_on(kind: str) -> None:
    tensor, behind = "/fc.4/Gemm_output_0", "/fc.5/Gemm_output_0"
    clean = ground().reference[tensor]
    more = {"size": 0.25, "axis": 1, "start": 8, "stop": 12, "threshold": 0.1, "places": (3, 9), "seed": 5}
    fault = Fault(tensor, kind, element_type_of(clean), clean.shape, **more)  # type: ignore[arg-type]
    found = _faulty(fault)
    np.testing.assert_allclose(found[tensor], _expected(clean, fault), rtol=2e-6, atol=2e-6)
    before = [name for i in range(4) for name in found if name.startswith(f"/fc.{i}/")]
    assert len(before) == 8
    assert all(np.array_equal(found[name], ground().reference[name]) for name in before)
    assert not relative_l2(ground().reference[behind], found[behind]) <= 1e-3


def test_faults_reach_into_bodies() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, bool c) => (float[2] y) {
            y = If (c) <
                then_branch = t () => (float[2] a) { a = Neg(x) },
                else_branch = e () => (float[2] b) { h = Exp(x)  b = Neg(h) }
            >
        }""")
    fault = Fault("h", "gain", onnx.TensorProto.FLOAT, (2,), size=1.0)
    feeds = {"x": np.float32([1, 2]), "c": np.array(False)}
    right = run_all(model, "onnxruntime", feeds)["y"]
    assert spoil(model.graph, {"h": fault}) == {"h"}
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run_all(model, "onnxruntime", feeds)["y"], 2 * right, rtol=1e-6)
    assert spoil(model.graph, {"nowhere": fault}) == set()


def test_the_wrong_engine_is_a_runner_in_a_file(tmp_path: Path) -> None:
    """As people give one: by path, in a process of its own."""
    tensor = "/fc.4/Gemm_output_0"
    value = ground().target[tensor]
    plan = faults.Plan(
        "onnxruntime", (Fault(tensor, "bias", element_type_of(value), value.shape, size=0.01, places=(1, 2)),)
    )
    plan.write(tmp_path / "plan.json")
    assert faults.Plan.read(tmp_path / "plan.json") == plan
    path = tmp_path / "model.onnx"
    onnx.save_model(ground().model, str(path))
    target = f"{faults.__file__}:FaultyEngine:plan={tmp_path / 'plan.json'}"
    found = compare_models(path, target=target, feeds=[ground().feeds], layers=True)
    assert [result.tensor for result in found.wrong] == [tensor]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "plan.json"]


def test_ranks() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,4] x) => (float[2,4] y) {
            a = Exp(x)  b, c = Split <axis = 1> (a)  d = Concat <axis = 1> (c, b)  y = Neg(d)
        }""")
    ranks = [rank_of(model, "b", answer) for answer in ("b", "c", "a", "d", "y", "")]
    assert ranks == ["exact", "exact", "near", "near", "elsewhere", "missed"]


def test_baselines() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[8] x) => (float[8] y) { a = Exp(x)  b = Neg(a)  y = Neg(b) }""")
    x = np.linspace(0, 1, 8, dtype=np.float32)
    right = {"x": x, "a": np.exp(x), "b": -np.exp(x), "y": np.exp(x)}
    off = right | {"a": right["a"] * 1.005, "b": right["b"] * 1.03, "y": right["y"][::-1]}
    found = guess(model, right, off)
    assert (found.first_over_limit, found.low_cosine, found.largest_jump) == ("b", "y", "y")
    assert (found.over_limit, found.low_cosines, found.compared) == (2, 1, 3)
    same = guess(model, right, right)
    assert (same.first_over_limit, same.low_cosine, same.over_limit) == ("", "", 0)


def test_more_cases_begin_with_the_fewer() -> None:
    assert draw_cases(40, 3)[:10] == draw_cases(10, 3)
    assert {case.kind for case in draw_cases(len(KINDS), 3)} == set(KINDS)
