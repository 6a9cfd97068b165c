"""Small networks with many tunable operators, seeded."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FAMILIES = ("residual", "branches", "attention", "convolutions", "dynamic")


class _Writer:
    def __init__(self, seed: int, width: int) -> None:
        self.random = np.random.default_rng(seed)
        self.width = width
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, shape: tuple[int, ...], scale: float) -> str:
        name = f"w{len(self.weights)}"
        value = (self.random.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op: str, *reads: str, **attributes: object) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(reads), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def dense(self, x: str, act: str = "") -> str:
        product = self.node("MatMul", x, self.weight((self.width, self.width), self.width**-0.5))
        found = self.node("Add", product, self.weight((self.width,), 0.1))
        return self.node(act, found) if act else found


def network(family: str, seed: int, depth: int) -> onnx.ModelProto:
    """A model.

    Args:
        family: One of :data:`FAMILIES`, or ``strided``: residual convolutions of many sizes, whose kernels want either
            order of channels.
        seed: Decides weights.
        depth: Blocks of it.
    """
    width = 16
    writer = _Writer(seed, width)
    shape: list[int | str] = ["N" if family == "dynamic" else 4, width]
    if family == "convolutions":
        shape, y = [1, 8, 8, 8], _convolutions(writer, depth)
    elif family == "strided":
        shape, y = [1, 3, 16, 16], _strided(writer, depth)
    elif family == "branches":
        y = _branches(writer, depth)
    elif family == "attention":
        y = _attention(writer, depth)
    else:
        y = _residual(writer, depth)
    graph = helper.make_graph(
        writer.nodes,
        family,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, None if family == "strided" else shape)],
        writer.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _residual(writer: _Writer, depth: int) -> str:
    x = "x"
    for _ in range(depth):
        x = writer.node("Add", writer.dense(x, "Tanh"), x)
    return x


def _branches(writer: _Writer, depth: int) -> str:
    x = writer.dense("x")
    for _ in range(max(1, depth // 2)):
        x = writer.node("Add", writer.dense(x, "Relu"), writer.dense(x, "Sigmoid"))
    return x


def _attention(writer: _Writer, depth: int) -> str:
    x = "x"
    for _ in range(max(1, depth // 4)):
        query, key, value = (writer.dense(x) for _ in range(3))
        scores = writer.node("MatMul", query, writer.node("Transpose", key, perm=[1, 0]))
        mixed = writer.node("MatMul", writer.node("Softmax", scores, axis=-1), value)
        x = writer.node("Add", x, writer.dense(mixed))
    return x


def _convolutions(writer: _Writer, depth: int) -> str:
    x = "x"
    for _ in range(depth):
        weight, bias = writer.weight((8, 8, 3, 3), 72**-0.5), writer.weight((8,), 0.1)
        x = writer.node("Relu", writer.node("Conv", x, weight, bias, pads=[1, 1, 1, 1]))
    return x


def _strided(writer: _Writer, depth: int) -> str:
    def conv(x: str, reads: int, writes: int, size: int, stride: int) -> str:
        weight = writer.weight((writes, reads, size, size), (reads * size * size) ** -0.5)
        pads, strides = [size // 2] * 4, [stride, stride]
        return writer.node("Conv", x, weight, writer.weight((writes,), 0.1), pads=pads, strides=strides)

    x, channels = writer.node("Relu", conv("x", 3, 8, 3, 1)), 8
    for number in range(depth):
        wider = 8 + 4 * (number // 3)
        stride = 2 if wider > channels else 1
        inner = writer.node("Relu", conv(x, channels, wider, 3, stride))
        skipped = conv(x, channels, wider, 1, stride) if stride > 1 else x
        x = writer.node("Relu", writer.node("Add", conv(inner, wider, wider, 3, 1), skipped))
        channels = wider
    return x
