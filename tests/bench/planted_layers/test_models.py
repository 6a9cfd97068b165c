from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from surgeon_debug.feeds import make_feeds
from surgeon_passes.expose_tensors import ExposeTensors
from tests.bench.planted_layers.models import ARCHITECTURES, bfloat16, half, quantised


def all_values(proto: onnx.ModelProto, sample: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of the main graph under onnxruntime without optimisation."""
    model = ir.from_proto(proto)
    feeds = make_feeds(model, sample=sample)
    ExposeTensors(all=True)(model)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


built = functools.cache(lambda name: ARCHITECTURES[name](0))
valued = functools.cache(lambda name: all_values(built(name)))

QUICK = ("mlp", "resnet_folded", "mobilenet", "detector", "gpt", "moe", "loop_rnn", "branches", "random_dag_2")
VARIED = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES]
"""The networks that are also tried in other precisions on every run of the tests, and the others."""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_node_and_tensor_has_a_name_of_its_own(name: str) -> None:
    graph = built(name).graph
    assert all(node.name for node in graph.node)
    assert len({node.name for node in graph.node}) == len(graph.node)
    tensors = [t for node in graph.node for t in node.output] + [t.name for t in graph.initializer]
    assert len(set(tensors)) == len(tensors)
    assert 20 <= len(graph.node) <= 700


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_activations_are_finite_and_of_moderate_size(name: str) -> None:
    values = [v for v in valued(name).values() if v.dtype.kind == "f"]
    assert all(np.isfinite(v).all() for v in values)
    moderate = [1e-3 < (v.std() if v.size > 1 else abs(v).max()) < 1e3 for v in values]
    assert np.mean(moderate) > 0.9


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_comes_out_depends_on_what_goes_in(name: str) -> None:
    one, two = valued(name), all_values(built(name), sample=1)
    assert all(not np.array_equal(one[o.name], two[o.name]) for o in built(name).graph.output)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_seed_decides_the_weights(name: str) -> None:
    assert ARCHITECTURES[name](0).SerializeToString() == built(name).SerializeToString()
    assert ARCHITECTURES[name](1).SerializeToString() != built(name).SerializeToString()


def relative(before: np.ndarray, after: np.ndarray) -> float:
    """Relative L2 error."""
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


@pytest.mark.parametrize("name", VARIED)
def test_half_agrees_within_its_precision(name: str) -> None:
    converted_model = half(built(name))
    before, after = valued(name), all_values(converted_model)
    converted = [node for node in converted_model.graph.node if node.op_type not in ("Cast", "Constant")]
    assert len(converted) >= 0.9 * len(built(name).graph.node)
    for output in built(name).graph.output:
        if before[output.name].dtype == np.float32:
            assert relative(before[output.name], after[output.name]) < 0.02, output.name


@pytest.mark.parametrize("name", VARIED)
def test_bfloat16_is_bfloat16(name: str) -> None:
    converted = bfloat16(built(name))
    onnx.checker.check_model(converted)
    types = [info.type.tensor_type.elem_type for info in converted.graph.value_info]
    assert types.count(onnx.TensorProto.BFLOAT16) > 5


@pytest.mark.parametrize("name", VARIED)
def test_quantised_is_near(name: str) -> None:
    model = quantised(built(name))
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) >= 1
    before, after = valued(name), all_values(model)
    for output in built(name).graph.output:
        if before[output.name].dtype == np.float32:
            assert relative(before[output.name], after[output.name]) < 0.35, output.name
