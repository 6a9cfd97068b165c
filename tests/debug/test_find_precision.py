"""Engines that compute in half precision: what leaves the range is a node's fault, rounding is nobody's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from surgeon.demo_model import build_demo_model
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.nodes import find_nodes
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.runners.catalogue import make_engine
from surgeon_passes.errors import EngineError
from tests.bench.planted.plan import EnginePlan
from tests.bench.planted_layers.random_graphs import random_dag
from tests.debug.test_real_cases import norm

REFERENCE = "onnxruntime:optimize=none"
MOCK = f"{Path(__file__).parents[1] / 'bench' / 'planted' / 'engine.py'}:MockEngine"


def narrow(precision: str, tmp_path: Path) -> str:
    """onnxruntime whose results are rounded to half precision, whatever this processor can do."""
    EnginePlan(precision=precision).write(tmp_path / "plan.json")
    return f"{MOCK}:plan={tmp_path / 'plan.json'}"


def openvino(precision: str, tmp_path: Path) -> str:
    """OpenVINO in half precision, if it has it here."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    text = f"openvino:precision={precision}"
    path = tmp_path / "probe.onnx"
    onnx.save(norm(), str(path))
    try:
        with make_engine(text) as engine:
            engine.prepare(path, ["y"])
    except EngineError as error:
        pytest.skip(str(error))
    return text


ENGINES = {
    "played-float16": lambda folder: narrow("float16", folder),
    "played-bfloat16": lambda folder: narrow("bfloat16", folder),
    "openvino-f16": lambda folder: openvino("f16", folder),
    "openvino-bf16": lambda folder: openvino("bf16", folder),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("index", [3, 5, 8])
def test_a_healthy_model_in_half_precision_is_not_accused(engine: str, index: int, tmp_path: Path) -> None:
    target = ENGINES[engine](tmp_path)
    found = find_nodes(random_dag(index, 40)(seed=index), target=target, reference=REFERENCE, samples=2)
    assert found.outcome is FindOutcome.NOTHING and not found.culprits and not found.latent, found


@pytest.mark.parametrize("engine", ["played-float16", "openvino-f16"])
@pytest.mark.parametrize(
    ("make", "culprit"),
    [(norm, "/norm/square"), (build_demo_model, "/blocks.2/mlp/fc1/MatMul")],
    ids=["norm", "mlp"],
)
def test_a_node_whose_result_leaves_the_range_is_named(
    make: Callable[[], onnx.ModelProto], culprit: str, engine: str, tmp_path: Path
) -> None:
    found = find_nodes(make(), target=ENGINES[engine](tmp_path), reference=REFERENCE)
    assert found.outcome is FindOutcome.FOUND, (found.reason, found.steps)
    assert found.culprits[0].nodes == (culprit,), found
    assert found.culprits[0].kind is FailureKind.NOT_FINITE and found.culprits[0].cured
    assert "float32" in found.advice, found.advice
