"""A decoder of 1.1 billion parameters, written as exporters write one, tensor by tensor, in the memory of one tensor.

24 layers of width 1,920 with 15 heads; layer norms and GELU spelt out and shape arithmetic left in, so that about 1,600
tensors lie between input and output. The 4.4 GB of weights are drawn from a seed and go to one external data file.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
PAGE = 4096
POSITIONS = 4096
VOCABULARY = 8000


class Decoder:
    """Collects nodes; weights are drawn and written at once."""

    def __init__(self, data: BinaryIO, seed: int, width: int, heads: int) -> None:
        self.width, self.heads = width, heads
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._data, self._rng, self._scope = data, np.random.default_rng(seed), ""
        self._counts: dict[str, int] = {}

    def enter(self, scope: str) -> None:
        """Name the nodes that follow after a part of the network."""
        self._scope = scope

    def fresh(self, what: str) -> str:
        """A name in the current scope, numbered from the second on."""
        base = f"{self._scope}/{what}"
        count = self._counts[base] = self._counts.get(base, -1) + 1
        return f"{base}_{count}" if count else base

    def ops(self, op: str, *inputs: str, count: int = 1, **attributes: object) -> list[str]:
        """Append a node; its outputs."""
        name = self.fresh(op)
        outputs = [f"{name}_output_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=name, **attributes))
        return outputs

    def op(self, op: str, *inputs: str, **attributes: object) -> str:
        """Append a node; its only output."""
        return self.ops(op, *inputs, **attributes)[0]

    def weight(self, what: str, *shape: int, scale: float, centre: float = 0.0) -> str:
        """Draw a weight, write it to the data file at the start of a page, and return its name."""
        name = self.fresh(what).lstrip("/").replace("/", ".")
        values = self._rng.standard_normal(shape, dtype=np.float32)
        values *= np.float32(scale)
        values += np.float32(centre)
        self._data.write(b"\0" * (-self._data.tell() % PAGE))
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        where = {"location": "model.data", "offset": str(self._data.tell()), "length": str(values.nbytes)}
        for key, value in where.items():
            tensor.external_data.add(key=key, value=value)
        self._data.write(memoryview(values).cast("B"))
        self.initializers.append(tensor)
        return name

    def number(self, *values: float, dtype: type = np.float32, scalar: bool = False) -> str:
        """A small constant inside the model."""
        name = self.fresh("constant").lstrip("/").replace("/", ".")
        array = np.array(values[0] if scalar else values, dtype)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def linear(self, x: str, inside: int, out: int, gain: float = 1.0) -> str:
        """MatMul and Add."""
        x = self.op("MatMul", x, self.weight("weight", inside, out, scale=gain / math.sqrt(inside)))
        return self.op("Add", x, self.weight("bias", out, scale=0.02))

    def layer_norm(self, x: str) -> str:
        """Nine nodes."""
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        variance = self.op("ReduceMean", self.op("Pow", centred, self.number(2, scalar=True)), axes=[-1])
        deviation = self.op("Sqrt", self.op("Add", variance, self.number(1e-5, scalar=True)))
        x = self.op("Mul", self.op("Div", centred, deviation), self.weight("gain", self.width, scale=0.1, centre=1))
        return self.op("Add", x, self.weight("bias", self.width, scale=0.1))

    def gelu(self, x: str) -> str:
        """Eight nodes."""
        cubed = self.op("Mul", self.op("Pow", x, self.number(3, scalar=True)), self.number(0.044715, scalar=True))
        inner = self.op("Mul", self.op("Add", x, cubed), self.number(math.sqrt(2 / math.pi), scalar=True))
        factor = self.op("Add", self.op("Tanh", inner), self.number(1, scalar=True))
        return self.op("Mul", self.op("Mul", x, self.number(0.5, scalar=True)), factor)

    def sizes(self, x: str, *rest: int) -> str:
        """The shape (batch, sequence, *rest) of a reshaped ``x``, computed as exporters do."""
        shape, axes = self.op("Shape", x), self.number(0, dtype=np.int64)
        parts = []
        for axis in (0, 1):
            size = self.op("Gather", shape, self.number(axis, dtype=np.int64, scalar=True), axis=0)
            parts.append(self.op("Unsqueeze", size, axes))
        return self.op("Concat", *parts, self.number(*rest, dtype=np.int64), axis=0)

    def attention(self, x: str, mask: str) -> str:
        """Causal self attention."""
        size = self.width // self.heads
        joined = self.linear(x, self.width, 3 * self.width)
        parts = self.ops("Split", joined, self.number(*[self.width] * 3, dtype=np.int64), count=3, axis=2)
        shape = self.sizes(x, self.heads, size)
        perms = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        q, k, v = (
            self.op("Transpose", self.op("Reshape", part, shape), perm=perm)
            for part, perm in zip(parts, perms, strict=True)
        )
        scores = self.op("Div", self.op("MatMul", q, k), self.number(math.sqrt(size), scalar=True))
        shares = self.op("Softmax", self.op("Add", scores, mask), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", shares, v), perm=[0, 2, 1, 3])
        return self.linear(self.op("Reshape", mixed, self.sizes(x, self.width)), self.width, self.width, 0.5)

    def layer(self, x: str, mask: str) -> str:
        """One block, attention and MLP with their residuals."""
        x = self.op("Add", x, self.attention(self.layer_norm(x), mask))
        inner = self.gelu(self.linear(self.layer_norm(x), self.width, 4 * self.width))
        return self.op("Add", x, self.linear(inner, 4 * self.width, self.width, 0.5))


def _embed(net: Decoder, ids: str) -> tuple[str, str]:
    """Embedded tokens with their positions, and the causal mask."""
    shape = net.op("Shape", ids)
    length = net.op("Gather", shape, net.number(1, dtype=np.int64, scalar=True), axis=0)
    start, step = (net.number(i, dtype=np.int64, scalar=True) for i in (0, 1))
    places = net.op("Range", start, length, step)
    tokens = net.op("Gather", net.weight("tokens", VOCABULARY, net.width, scale=0.7), ids)
    x = net.op("Add", tokens, net.op("Gather", net.weight("positions", POSITIONS, net.width, scale=0.3), places))
    rows, columns = (net.op("Unsqueeze", places, net.number(axis, dtype=np.int64)) for axis in (1, 0))
    seen = net.op("LessOrEqual", columns, rows)
    return x, net.op("Where", seen, net.number(0, scalar=True), net.number(-1e9, scalar=True))


def build_decoder(folder: Path, layers: int = 24, width: int = 1920, heads: int = 15, seed: int = 0) -> Path:
    """Write ``FOLDER/model.onnx`` and ``FOLDER/model.data``.

    Args:
        folder: Where; made if it is not there.
        layers: Blocks of 44 million parameters each at the default width.
        width: Size of the hidden state, a multiple of ``heads``.
        heads: Attention heads.
        seed: Decides the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.data").open("wb") as data:
        net = Decoder(data, seed, width, heads)
        x, mask = _embed(net, "input_ids")
        for i in range(layers):
            net.enter(f"/layer.{i}")
            x = net.layer(x, mask)
        net.enter("/head")
        head = net.weight("weight", width, VOCABULARY, scale=1 / math.sqrt(width))
        logits = net.op("MatMul", net.layer_norm(x), head)
        data.flush()
    graph = helper.make_graph(
        net.nodes,
        folder.name,
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["batch", "sequence", VOCABULARY])],
        net.initializers,
    )
    path = folder / "model.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8), path)
    return path
