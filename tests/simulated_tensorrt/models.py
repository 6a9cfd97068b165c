"""Small models that between them hold what the simulator treats in a way of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def weights(name: str, *shape: int, seed: int = 0, kind: Any = np.float32) -> onnx.TensorProto:
    """Seeded numbers."""
    rng = np.random.default_rng([seed, len(name), *shape])
    return numpy_helper.from_array((rng.standard_normal(shape) * 0.3).astype(kind), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[int | str]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str] | None]],
    constants: Sequence[onnx.TensorProto] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of these parts."""
    graph = helper.make_graph(
        list(nodes),
        "main",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def conv_net(batch: int | str = "n") -> onnx.ModelProto:
    """Two convolutions with what is fused into them, pooling, a product and a softmax."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1] * 4),
        node("Add", ["c2", "r1"], ["a2"], name="add2"),
        node("Relu", ["a2"], ["r2"], name="relu2"),
        node("GlobalAveragePool", ["r2"], ["g"], name="pool"),
        node("Flatten", ["g"], ["f"], name="flat"),
        node("Gemm", ["f", "k", "b"], ["m"], name="fc"),
        node("Softmax", ["m"], ["y"], name="soft"),
    ]
    constants = [weights("w1", 4, 3, 3, 3), weights("w2", 4, 4, 3, 3), weights("k", 4, 5), weights("b", 5)]
    return model(nodes, [("x", TensorProto.FLOAT, [batch, 3, 8, 8])], [("y", TensorProto.FLOAT, [batch, 5])], constants)


def mlp(layers: int = 3, width: int = 16, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Products, biases and pointwise runs that keep the width."""
    node = helper.make_node
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes, constants, now = [], [], "x"
    for i in range(layers):
        nodes += [
            node("MatMul", [now, f"w{i}"], [f"m{i}"], name=f"matmul{i}"),
            node("Add", [f"m{i}", f"b{i}"], [f"a{i}"], name=f"bias{i}"),
            node("Sigmoid", [f"a{i}"], [f"s{i}"], name=f"sigmoid{i}"),
            node("Mul", [f"a{i}", f"s{i}"], [f"u{i}"], name=f"mul{i}"),
            node("Tanh", [f"u{i}"], [f"t{i}"], name=f"tanh{i}"),
        ]
        constants += [weights(f"w{i}", width, width, seed=i, kind=dtype), weights(f"b{i}", width, seed=i, kind=dtype)]
        now = f"t{i}"
    return model(nodes, [("x", kind, [4, width])], [(now, kind, [4, width])], constants)


def nonzero() -> onnx.ModelProto:
    """An output whose size depends on the values."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("NonZero", ["r"], ["y"], name="nonzero"),
    ]
    return model(nodes, [("x", TensorProto.FLOAT, [3, 4])], [("y", TensorProto.INT64, [2, "k"])])


def reshaped() -> onnx.ModelProto:
    """A shape that comes in as an input."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"], name="reshape"),
        helper.make_node("Neg", ["r"], ["y"], name="neg"),
    ]
    inputs: list[Any] = [("x", TensorProto.FLOAT, [2, 6]), ("shape", TensorProto.INT64, [2])]
    return model(nodes, inputs, [("y", TensorProto.FLOAT, ["a", "b"])])


def looped(trips: int = 3) -> onnx.ModelProto:
    """A loop whose body multiplies by 0.5 and adds x."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"], name="keep"),
            helper.make_node("Mul", ["carried", "half"], ["halved"], name="halve"),
            helper.make_node("Add", ["halved", "x"], ["next"], name="plus"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [2, 3]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [2, 3]),
        ],
    )
    nodes = [helper.make_node("Loop", ["trips", "", "x"], ["y"], name="loop", body=body)]
    constants = [
        numpy_helper.from_array(np.array(trips, np.int64), "trips"),
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
    ]
    return model(nodes, [("x", TensorProto.FLOAT, [2, 3])], [("y", TensorProto.FLOAT, [2, 3])], constants)
