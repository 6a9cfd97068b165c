"""Random graphs of many operators: elementwise, matrices, shapes, reductions, joined at random.

A graph of one name has one structure; the seed decides its weights. Every tensor has a batch and two more dimensions,
and stays near one: sums are scaled, products squashed, norms strewn in.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from tests.bench.planted_layers.net import Net

_UNARY = ("Relu", "Tanh", "Sigmoid", "Erf", "Abs", "Neg", "Softplus", "Elu", "HardSwish", "Sin", "Cos", "LeakyRelu")
Tensor = tuple[str, int, int]
"""Name, rows, columns."""


def random_dag(index: int, size: int) -> Callable[[int], onnx.ModelProto]:
    """The builder of random graph number ``index``, of about ``size`` nodes."""

    def build(seed: int) -> onnx.ModelProto:
        """A random graph."""
        return _Grower(index, seed).grow(size)

    return build


class _Grower:
    def __init__(self, index: int, seed: int) -> None:
        self.net = Net(f"random_dag_{index}", seed)
        self.structure = np.random.default_rng([7, index])
        self.tensors: list[Tensor] = [
            (self.net.op("Tanh", self.net.input("x", ["batch", 8, 12])), 8, 12),
            (self.net.op("Sin", self.net.input("z", ["batch", 12, 8])), 12, 8),
        ]
        self._ways: list[Callable[[], None]] = [
            self.unary, self.unary, self.binary, self.binary, self.affine, self.linear, self.linear, self.left,
            self.product, self.shape, self.join, self.cut, self.reduce, self.softmax, self.norm, self.norm, self.pick,
            self.where, self.divide, self.pad,
        ]  # fmt: skip

    def grow(self, size: int) -> onnx.ModelProto:
        net, step = self.net, 0
        while len(net.nodes) < size:
            with net.scope(f"n{step}"):
                self._ways[self.structure.integers(len(self._ways))]()
            step += 1
        read = {name for node in net.nodes for name in node.input}
        ends = [t for t in self.tensors if t[0] not in read]
        for name, _, _ in ends[:4]:
            net.output(name)
        with net.scope("ends"):
            parts = [net.op("MatMul", net.op("Flatten", n), net.matrix(a * b, 4)) for n, a, b in ends[4:]]
            if parts:
                net.output(net.op("Concat", *parts, axis=-1), "rest")
        return net.model()

    def any(self) -> Tensor:
        """A tensor, rather a young one."""
        back = min(len(self.tensors), int(self.structure.geometric(0.12)))
        return self.tensors[-back]

    def add(self, name: str, rows: int, columns: int) -> None:
        self.tensors.append((name, rows, columns))

    def same(self, tensor: Tensor) -> str:
        """Another tensor of the same shape, made if there is none."""
        found = [name for name, *shape in self.tensors if shape == list(tensor[1:]) and name != tensor[0]]
        if found:
            return found[self.structure.integers(len(found))]
        return self.net.op("Sin", tensor[0])

    def unary(self) -> None:
        name, a, b = self.any()
        self.add(self.net.op(_UNARY[self.structure.integers(len(_UNARY))], name), a, b)

    def binary(self) -> None:
        tensor = self.any()
        op_type = ("Add", "Sub", "Mul", "Max", "Min")[self.structure.integers(5)]
        made = self.net.op(op_type, tensor[0], self.same(tensor))
        if op_type in ("Add", "Sub"):
            made = self.net.op("Mul", made, self.net.constant(np.float32(math.sqrt(0.5))))
        elif op_type == "Mul":
            made = self.net.op("Tanh", made)
        self.add(made, *tensor[1:])

    def affine(self) -> None:
        name, a, b = self.any()
        by_row = bool(self.structure.integers(2))
        gain = np.exp(self.net.rng.normal(0, 0.2, (a, 1) if by_row else (b,)))
        made = self.net.op("Mul", name, self.net.constant(gain, "gain"))
        self.add(self.net.op("Add", made, self.net.bias(b)), a, b)

    def linear(self) -> None:
        name, a, b = self.any()
        out = (6, 8, 12, 16)[self.structure.integers(4)]
        made = self.net.op("MatMul", name, self.net.matrix(b, out))
        self.add(self.net.op("Add", made, self.net.bias(out)), a, out)

    def left(self) -> None:
        name, a, b = self.any()
        out = (6, 8, 12)[self.structure.integers(3)]
        weight = self.net.rng.standard_t(6, (out, a)) / math.sqrt(1.5 * a)
        self.add(self.net.op("MatMul", self.net.constant(weight, "weight"), name), out, b)

    def product(self) -> None:
        tensor = self.any()
        other = self.net.op("Transpose", self.same(tensor), perm=[0, 2, 1])
        made = self.net.op("MatMul", tensor[0], other)
        made = self.net.op("Mul", made, self.net.constant(np.float32(1 / math.sqrt(tensor[2]))))
        self.add(self.net.op("Tanh", made), tensor[1], tensor[1])

    def shape(self) -> None:
        name, a, b = self.any()
        if self.structure.integers(2):
            self.add(self.net.op("Transpose", name, perm=[0, 2, 1]), b, a)
        elif a % 2 == 0 and b <= 16:
            self.add(self.net.op("Reshape", name, self.net.constant([0, a // 2, 2 * b], "shape")), a // 2, 2 * b)

    def join(self) -> None:
        tensor = self.any()
        made = self.net.op("Concat", tensor[0], self.same(tensor), axis=2)
        self.add(self.net.op("MatMul", made, self.net.matrix(2 * tensor[2], 12)), tensor[1], 12)

    def cut(self) -> None:
        name, a, b = self.any()
        if b < 4:
            return
        first = b // 2
        if self.structure.integers(2):
            parts = self.net.ops("Split", name, self.net.constant([first, b - first], "split"), count=2, axis=2)
            self.add(parts[0], a, first)
            self.add(parts[1], a, b - first)
        else:
            starts, ends = self.net.constant([b - first]), self.net.constant([2**62])
            self.add(self.net.op("Slice", name, starts, ends, self.net.constant([2], "axes")), a, first)

    def reduce(self) -> None:
        name, a, b = self.any()
        op_type = ("ReduceMean", "ReduceMax", "ReduceL2")[self.structure.integers(3)]
        made = self.net.op(op_type, name, axes=[2], keepdims=1)
        if op_type == "ReduceL2":
            made = self.net.op("Mul", made, self.net.constant(np.float32(1 / math.sqrt(b))))
        self.add(self.net.op("Sub", name, made), a, b)

    def softmax(self) -> None:
        name, a, b = self.any()
        made = self.net.op("Softmax", name, axis=-1)
        self.add(self.net.op("Mul", made, self.net.constant(np.float32(math.sqrt(b)))), a, b)

    def norm(self) -> None:
        name, a, b = self.any()
        self.add(self.net.op("LayerNormalization", name, self.net.gains(b), self.net.bias(b), axis=-1), a, b)

    def pick(self) -> None:
        name, a, b = self.any()
        rows = self.structure.permutation(a)[: max(2, a - 1)]
        self.add(self.net.op("Gather", name, self.net.constant(rows.astype(np.int64), "rows"), axis=1), len(rows), b)

    def where(self) -> None:
        tensor = self.any()
        other = self.same(tensor)
        larger = self.net.op("Greater", tensor[0], other)
        self.add(self.net.op("Where", larger, tensor[0], self.net.op("Neg", other)), *tensor[1:])

    def divide(self) -> None:
        tensor = self.any()
        below = self.net.op("Add", self.net.op("Abs", self.same(tensor)), self.net.constant(np.float32(0.5)))
        self.add(self.net.op("Div", tensor[0], below), *tensor[1:])

    def pad(self) -> None:
        name, a, b = self.any()
        if a + 2 <= 16:
            made = self.net.op("Pad", name, self.net.constant([0, 1, 0, 0, 1, 0], "pads"), mode="reflect")
            self.add(made, a + 2, b)
