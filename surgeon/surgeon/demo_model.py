"""The model of ``surgeon demo``: a small transformer as an exporter writes it, seeded.

It has what real exports have: shapes computed by Shape, Gather and Concat, constants as nodes, Dropout left over, one
dynamic batch and one dynamic sequence dimension. And it has one trait of trained language models: in one MLP a single
hidden unit reaches about 1e5, far beyond the 65504 that float16 holds, and the next layer scales it back. In float32
nothing is wrong with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, BLOCKS, VOCABULARY = 64, 4, 4, 500
LOUD_BLOCK, LOUD_UNIT = 2, 7
"""The block and the hidden unit whose activation does not fit into float16."""


class _Export:
    """Collects nodes and initializers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], scope: str, **attributes: Any) -> str:
        base = f"{scope}/{op}"
        count = sum(1 for node in self.nodes if node.name == base or node.name.startswith(base + "_"))
        name = base if count == 0 else f"{base}_{count}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_output_0"], name=name, **attributes))
        return f"{name}_output_0"

    def constant(self, value: object, scope: str, dtype: type = np.int64) -> str:
        return self.add("Constant", [], scope, value=numpy_helper.from_array(np.array(value, dtype)))

    def weight(self, name: str, array: NDArray[np.float64]) -> str:
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def linear(self, x: str, scope: str, rows: int, columns: int) -> str:
        name = scope.lstrip("/").replace("/", ".")
        matrix = self.rng.standard_normal((rows, columns)) / np.sqrt(rows)
        if scope == f"/blocks.{LOUD_BLOCK}/mlp/fc1":
            matrix[:, LOUD_UNIT] = np.clip(2e4 * self.rng.standard_normal(rows), -5e4, 5e4)
        if scope == f"/blocks.{LOUD_BLOCK}/mlp/fc2":
            matrix[LOUD_UNIT] *= 2e-5
        product = self.add("MatMul", [x, self.weight(f"{name}.weight", matrix)], scope)
        return self.add("Add", [self.weight(f"{name}.bias", 0.02 * self.rng.standard_normal(columns)), product], scope)

    def norm(self, x: str, scope: str) -> str:
        name = scope.lstrip("/").replace("/", ".")
        scale = self.weight(f"{name}.weight", 1 + 0.1 * self.rng.standard_normal(WIDTH))
        bias = self.weight(f"{name}.bias", 0.1 * self.rng.standard_normal(WIDTH))
        return self.add("LayerNormalization", [x, scale, bias], scope, axis=-1, epsilon=1e-5)


def _heads(export: _Export, x: str, scope: str) -> str:
    """(batch, sequence, width) to (batch, heads, sequence, width / heads), the way exporters spell it."""
    shape = export.add("Shape", [x], scope)
    dims = [export.add("Gather", [shape, export.constant(axis, scope)], scope, axis=0) for axis in (0, 1)]
    dims += [export.constant(HEADS, scope), export.constant(WIDTH // HEADS, scope)]
    axes = export.constant([0], scope)
    target = export.add("Concat", [export.add("Unsqueeze", [d, axes], scope) for d in dims], scope, axis=0)
    return export.add("Transpose", [export.add("Reshape", [x, target], scope)], scope, perm=[0, 2, 1, 3])


def _attention(export: _Export, x: str, scope: str) -> str:
    query, key, value = (_heads(export, export.linear(x, f"{scope}/{n}", WIDTH, WIDTH), f"{scope}/{n}") for n in "qkv")
    scores = export.add("MatMul", [query, export.add("Transpose", [key], scope, perm=[0, 1, 3, 2])], scope)
    root = export.add("Sqrt", [export.constant(WIDTH / HEADS, scope, np.float32)], scope)
    weights = export.add("Softmax", [export.add("Div", [scores, root], scope)], scope, axis=-1)
    mixed = export.add("Transpose", [export.add("MatMul", [weights, value], scope)], scope, perm=[0, 2, 1, 3])
    joined = export.add("Reshape", [mixed, export.constant([0, 0, WIDTH], scope)], scope)
    return export.linear(joined, f"{scope}/out", WIDTH, WIDTH)


def _mlp(export: _Export, x: str, scope: str) -> str:
    hidden = export.linear(x, f"{scope}/fc1", WIDTH, 4 * WIDTH)
    act = f"{scope}/act"
    root = export.add("Sqrt", [export.constant(2.0, act, np.float32)], act)
    error = export.add("Erf", [export.add("Div", [hidden, root], act)], act)
    gate = export.add("Add", [error, export.constant(1.0, act, np.float32)], act)
    half = export.add("Mul", [export.add("Mul", [hidden, gate], act), export.constant(0.5, act, np.float32)], act)
    return export.linear(half, f"{scope}/fc2", 4 * WIDTH, WIDTH)


def build_demo_model(seed: int = 0) -> onnx.ModelProto:
    """The model: input ``input_ids`` int64 (batch, sequence), output ``logits`` float32 (batch, sequence, 500)."""
    export = _Export(seed)
    table = export.weight("embed.weight", export.rng.standard_normal((VOCABULARY, WIDTH)))
    x = export.add("Gather", [table, "input_ids"], "/embed")
    for block in range(BLOCKS):
        scope = f"/blocks.{block}"
        attended = _attention(export, export.norm(x, f"{scope}/norm1"), f"{scope}/attention")
        x = export.add("Add", [x, export.add("Dropout", [attended], f"{scope}/attention")], scope)
        x = export.add("Add", [x, _mlp(export, export.norm(x, f"{scope}/norm2"), f"{scope}/mlp")], scope)
    logits = export.linear(export.norm(x, "/norm"), "/head", WIDTH, VOCABULARY)
    export.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="/Identity"))
    graph = helper.make_graph(
        export.nodes,
        "demo",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", VOCABULARY])],
        export.weights,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="surgeon demo")
