"""onnxruntime's CUDA provider on a real GPU: run with ``-m gpu`` where onnxruntime-gpu is installed."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from surgeon_debug.comparison import Cause, Comparison
from surgeon_debug.layers import compare_models
from surgeon_debug.verdict import Verdict

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason="this onnxruntime has no CUDA provider: pip install onnxruntime-gpu where there is a GPU",
    ),
]

TF32 = "onnxruntime:providers=cuda"
FLOAT32 = "onnxruntime:providers=cuda,provider.use_tf32=0"


def deep_transformer(layers: int = 18, width: int = 16, seed: int = 0) -> onnx.ModelProto:
    """A narrow transformer whose numbers move a lot when those of a layer move a little: 16 nodes a layer."""
    rng = np.random.default_rng(seed)
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def weight(name: str, *shape: int, scale: float = 1.0) -> str:
        array = (rng.standard_normal(shape) * scale / np.sqrt(shape[0])).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(array, name))
        return name

    def node(op: str, *inputs: str, name: str, **attributes: object) -> str:
        nodes.append(onnx.helper.make_node(op, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def layer(x: str, at: str) -> str:
        q, k, v = (node("MatMul", x, weight(f"{at}.{w}", width, width, scale=3.0), name=f"/{at}/{w}") for w in "qkv")
        scores = node("MatMul", q, node("Transpose", k, name=f"/{at}/kt", perm=[0, 2, 1]), name=f"/{at}/scores")
        mixed = node("MatMul", node("Softmax", scores, name=f"/{at}/softmax", axis=-1), v, name=f"/{at}/mix")
        x = node("Add", x, node("MatMul", mixed, weight(f"{at}.o", width, width), name=f"/{at}/o"), name=f"/{at}/add")
        hidden = node("MatMul", x, weight(f"{at}.up", width, 4 * width, scale=3.0), name=f"/{at}/up")
        hidden = node("Mul", hidden, node("Sigmoid", hidden, name=f"/{at}/sigmoid"), name=f"/{at}/silu")
        down = node("MatMul", hidden, weight(f"{at}.down", 4 * width, width), name=f"/{at}/down")
        x = node("Add", x, down, name=f"/{at}/residual")
        mean = node("ReduceMean", x, name=f"/{at}/mean", axes=[-1], keepdims=1)
        return node("Sub", x, mean, name=f"/{at}/centre")

    x = "x"
    for i in range(layers):
        x = layer(x, f"layer.{i}")
    nodes.append(onnx.helper.make_node("Identity", [x], ["y"], name="/out"))
    graph = onnx.helper.make_graph(
        nodes, "deep",
        [onnx.helper.make_tensor_value_info("x", 1, [2, 32, width])],
        [onnx.helper.make_tensor_value_info("y", 1, [2, 32, width])],
        weights,
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def compared(target: str) -> Comparison:
    return compare_models(deep_transformer(), target=target, reference="onnxruntime:optimize=none", layers=True)


def test_float32_on_the_gpu_agrees() -> None:
    found = compared(FLOAT32)
    assert not found.wrong
    assert {r.attribution.precision for r in found.layers if r.attribution} == {"float32"}


def test_tf32_is_named_and_nobody_is_accused() -> None:
    found, exact = compared(TF32), compared(FLOAT32)
    assert not found.wrong
    worst, without = found.outputs[0].difference, exact.outputs[0].difference
    assert worst is not None and without is not None and worst.rel_l2 > 30 * without.rel_l2
    matmuls = [r for r in found.layers if r.op == "MatMul"]
    others = [r for r in found.layers if r.op in ("Add", "Mul", "Sub", "Transpose")]
    assert all(r.attribution and r.attribution.precision == "tf32" for r in matmuls)
    assert sum(1e-5 < (r.introduced or 0.0) < 2e-3 for r in matmuls) > len(matmuls) // 2
    assert max(r.introduced or 0.0 for r in others) < 1e-6
    assert all("tf32" in r.judgement.reason for r in matmuls if r.verdict is Verdict.AGREE)
    if found.verdict == "differ":
        assert found.cause is Cause.PRECISION
