"""Networks whose number of nodes is an argument: from two hundred to ten thousand, small tensors, always tame.

However deep, each block adds a share of what is there that gets smaller the more blocks there are. So values stay of
order one, rounding does not grow to chaos, and a change anywhere reaches the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from tests.bench.planted_layers.attention import attend, gelu, heads_first, layer_norm, linear
from tests.bench.planted_layers.convolutional import classifier, conv
from tests.bench.planted_layers.net import Net

SIZES = (200, 1000, 2000, 10_000)
"""Numbers of nodes that cases are drawn from."""


def chain(seed: int, nodes: int) -> onnx.ModelProto:
    """Residual blocks one after the other."""
    net, width = Net("chain", seed), 6
    x = conv(net, net.input("image", ["batch", 3, 6, 6]), 3, width)
    blocks = max(1, (nodes - len(net.nodes) - 4) // 4)
    for i in range(blocks):
        with net.scope(f"block.{i}"):
            x = _residual(net, x, width, blocks, 3 if i % 2 == 0 else 1)
    classifier(net, x, width)
    return net.model()


def _residual(net: Net, x: str, width: int, blocks: int, size: int = 3) -> str:
    """Four nodes: two convolutions whose result is a small part of the sum."""
    y = conv(net, x, width, width, size, norm="none")
    y = conv(net, y, width, width, size, norm="none", act="", last=1 / math.sqrt(blocks))
    return net.op("Add", x, y)


def inception(seed: int, nodes: int) -> onnx.ModelProto:
    """Modules of four branches that are joined, projected and added."""
    net, width, thin = Net("inception_scaled", seed), 8, 4
    x = conv(net, net.input("image", ["batch", 3, 6, 6]), 3, width)
    modules = max(1, (nodes - len(net.nodes) - 4) // 18)
    for i in range(modules):
        with net.scope(f"mixed.{i}"):
            parts = [conv(net, x, width, thin, 1, norm="none")]
            for repeats in (1, 2):
                y = conv(net, x, width, thin, 1, norm="none")
                for _ in range(repeats):
                    y = conv(net, y, thin, thin, norm="none")
                parts.append(y)
            pooled = net.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
            parts.append(conv(net, pooled, width, thin, 1, norm="none"))
            y = net.op("Concat", *parts, axis=1)
            y = conv(net, y, 4 * thin, width, 1, norm="none", act="", last=1 / math.sqrt(modules))
            x = net.op("Add", x, y)
    classifier(net, x, width)
    return net.model()


def unet(seed: int, nodes: int) -> onnx.ModelProto:
    """Hourglasses of three scales, each with its skips, one after the other."""
    net, width = Net("unet_scaled", seed), 6
    x = conv(net, net.input("image", ["batch", 3, 8, 8]), 3, width)
    glasses = max(1, round((nodes - len(net.nodes) - 1) / 42))
    for i in range(glasses):
        with net.scope(f"glass.{i}"):
            x = net.op("Add", x, _glass(net, x, width, glasses))
    net.output(conv(net, x, width, 2, 1, norm="none", act="", gain=1.0), "mask")
    return net.model()


def _glass(net: Net, x: str, width: int, glasses: int) -> str:
    skips = []
    for level in range(2):
        with net.scope(f"down.{level}"):
            x = _residual(net, x, width, 8)
            skips.append(x)
            x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            x = conv(net, x, width, width, 1, norm="none")
    with net.scope("middle"):
        x = _residual(net, _residual(net, x, width, 8, 1), width, 8, 1)
    region = net.constant(np.zeros(0, np.float32), "region")  # some tools trip over an input that is left out
    scales = net.constant(np.array([1, 1, 2, 2], np.float32), "scales")
    for level in (1, 0):
        with net.scope(f"up.{level}"):
            x = net.op("Resize", x, region, scales, mode="nearest", nearest_mode="floor")
            x = net.op("Concat", x, skips[level], axis=1)
            x = conv(net, x, 2 * width, width, 1, norm="none")
            x = _residual(net, x, width, 8)
    return conv(net, x, width, width, 1, norm="none", act="", last=0.4 / math.sqrt(glasses))


def transformer(seed: int, nodes: int) -> onnx.ModelProto:
    """Encoder layers with the norm before each block."""
    net, width, heads = Net("transformer_scaled", seed), 16, 2
    x = linear(net, net.input("tokens", ["batch", 6, width]), width, width)
    layers = max(1, round((nodes - len(net.nodes) - 5) / 35))
    last = 1 / math.sqrt(layers)
    for i in range(layers):
        with net.scope(f"layer.{i}"):
            with net.scope("attention"):
                y = layer_norm(net, x, width)
                q, k, v = (heads_first(net, linear(net, y, width, width, g), heads, width) for g in (1.4, 1.4, 1.0))
                x = net.op("Add", x, linear(net, attend(net, q, k, v, heads, width), width, width, 1.5 * last))
            with net.scope("mlp"):
                y = gelu(net, linear(net, layer_norm(net, x, width), width, 2 * width))
                x = net.op("Add", x, linear(net, y, 2 * width, width, 2 * last))
    net.output(linear(net, layer_norm(net, x, width), width, 8), "logits")
    return net.model()


def random_dag(seed: int, nodes: int) -> onnx.ModelProto:
    """Streams that random little graphs of many operators read from and add to."""
    return _Streams(seed, nodes).build(nodes)


_ROWS = 8
_UNARY = ("Relu", "Tanh", "Sigmoid", "Erf", "Abs", "Neg", "Softplus", "Elu", "HardSwish", "Sin", "Cos", "LeakyRelu")


Other = Callable[[], str]
"""Gives another tensor to read."""


def _nobody() -> str:
    raise LookupError("this operator reads one tensor")


class _Streams:
    """Writes a random graph; every tensor is a batch of eight by eight, but for halves that come together again."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.net = Net("random_dag_scaled", seed)
        self.draw = np.random.default_rng([11, seed, nodes])
        self._ways: list[Callable[[str, Other], str]] = [
            self._unary, self._unary, self._binary, self._binary, self._affine, self._linear, self._linear,
            self._product, self._turn, self._fold, self._halves, self._reduce, self._softmax, self._norm, self._pick,
            self._where, self._divide,
        ]  # fmt: skip

    def build(self, nodes: int) -> onnx.ModelProto:
        net = self.net
        inputs = [net.input(name, ["batch", _ROWS, _ROWS]) for name in ("x", "z")]
        streams = [self._affine(inputs[i % 2], _nobody) for i in range(5)]
        old = list(streams)
        steps = max(1.0, nodes / 11 / len(streams))
        step = 0
        while len(net.nodes) < nodes - 10:
            with net.scope(f"n{step}"):
                which = int(self.draw.integers(len(streams)))
                streams[which] = net.op("Add", streams[which], self._little(streams, old, 1 / math.sqrt(steps)))
                old.append(streams[which])
            step += 1
        with net.scope("ends"):
            for i, stream in enumerate(streams):
                net.output(net.op("MatMul", stream, net.matrix(_ROWS, 4)), f"end_{i}")
        return net.model()

    def _little(self, streams: list[str], old: list[str], share: float) -> str:
        """A random graph of a few nodes, all of which reach its result."""
        picks = self.draw.choice(len(streams), int(self.draw.integers(1, 4)), replace=False)
        pool = [streams[i] for i in picks]
        if self.draw.random() < 0.2:
            pool.append(old[self.draw.integers(len(old))])
        unread: list[str] = list(pool)
        for _ in range(int(self.draw.integers(2, 6))):
            first = unread[0] if self.draw.random() < 0.6 else pool[self.draw.integers(len(pool))]
            read = [first]

            def other(read: list[str] = read) -> str:
                others = [name for name in pool if name != read[0]] or [self.net.op("Cos", read[0])]
                read.append(others[self.draw.integers(len(others))])
                return read[-1]

            made = self._ways[self.draw.integers(len(self._ways))](first, other)
            unread = [name for name in unread if name not in read]
            pool.append(made)
            unread.append(made)
        while len(unread) > 1:
            unread = [*unread[2:], self._scaled_sum(unread[0], unread[1])]
        normed = self._norm(unread[0], _nobody)
        return self.net.op("Mul", normed, self.net.constant(np.exp(self.net.rng.normal(0, 0.2, _ROWS)) * share, "gain"))

    def _scaled_sum(self, a: str, b: str) -> str:
        return self.net.op("Mul", self.net.op("Add", a, b), self.net.constant(np.float32(math.sqrt(0.5))))

    def _unary(self, x: str, other: Other) -> str:
        return self.net.op(_UNARY[self.draw.integers(len(_UNARY))], x)

    def _binary(self, x: str, other: Other) -> str:
        op_type = ("Add", "Sub", "Mul", "Max", "Min")[self.draw.integers(5)]
        made = self.net.op(op_type, x, other())
        if op_type in ("Add", "Sub"):
            return self.net.op("Mul", made, self.net.constant(np.float32(math.sqrt(0.5))))
        return self.net.op("Tanh", made) if op_type == "Mul" else made

    def _affine(self, x: str, other: Other) -> str:
        made = self.net.op("Mul", x, self.net.constant(np.exp(self.net.rng.normal(0, 0.2, (_ROWS, 1))), "gain"))
        return self.net.op("Add", made, self.net.bias(_ROWS))

    def _linear(self, x: str, other: Other) -> str:
        return self.net.op("Add", self.net.op("MatMul", x, self.net.matrix(_ROWS, _ROWS)), self.net.bias(_ROWS))

    def _product(self, x: str, other: Other) -> str:
        turned = self.net.op("Transpose", other(), perm=[0, 2, 1])
        made = self.net.op("Mul", self.net.op("MatMul", x, turned), self.net.constant(np.float32(1 / math.sqrt(_ROWS))))
        return self.net.op("Tanh", made)

    def _turn(self, x: str, other: Other) -> str:
        return self.net.op("Transpose", x, perm=[0, 2, 1])

    def _fold(self, x: str, other: Other) -> str:
        made = self.net.op("Reshape", x, self.net.constant([0, _ROWS // 2, 2 * _ROWS], "shape"))
        return self.net.op("MatMul", self._tall(made), self.net.matrix(_ROWS, _ROWS))

    def _tall(self, x: str) -> str:
        return self.net.op("Reshape", self.net.op("LeakyRelu", x), self.net.constant([0, _ROWS, _ROWS], "shape"))

    def _halves(self, x: str, other: Other) -> str:
        sizes = self.net.constant([_ROWS // 2] * 2, "split")
        a, b = self.net.ops("Split", x, sizes, count=2, axis=2)
        return self.net.op("Concat", self.net.op("Neg", b), a, axis=2)

    def _reduce(self, x: str, other: Other) -> str:
        op_type = ("ReduceMean", "ReduceMax", "ReduceMin")[self.draw.integers(3)]
        return self.net.op("Sub", x, self.net.op(op_type, x, axes=[2], keepdims=1))

    def _softmax(self, x: str, other: Other) -> str:
        return self.net.op("Mul", self.net.op("Softmax", x, axis=-1), self.net.constant(np.float32(math.sqrt(_ROWS))))

    def _norm(self, x: str, other: Other) -> str:
        return self.net.op("LayerNormalization", x, self.net.gains(_ROWS), self.net.bias(_ROWS), axis=-1, epsilon=1e-2)

    def _pick(self, x: str, other: Other) -> str:
        rows = self.draw.permutation(_ROWS).astype(np.int64)
        return self.net.op("Gather", x, self.net.constant(rows, "rows"), axis=1)

    def _where(self, x: str, other: Other) -> str:
        second = other()
        # Which is larger must not hang on the last digits: where both are close, both results are close too.
        return self.net.op("Where", self.net.op("Greater", x, second), x, second)

    def _divide(self, x: str, other: Other) -> str:
        below = self.net.op("Add", self.net.op("Abs", other()), self.net.constant(np.float32(0.7)))
        return self.net.op("Div", x, below)


FAMILIES: dict[str, Callable[[int, int], onnx.ModelProto]] = {
    "chain": chain,
    "inception_scaled": inception,
    "unet_scaled": unet,
    "transformer_scaled": transformer,
    "random_dag_scaled": random_dag,
}
"""Builders by name; each takes a seed and about how many nodes."""
