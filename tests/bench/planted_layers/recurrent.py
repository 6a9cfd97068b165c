"""Networks over time: the LSTM and GRU operators, cells spelt out in a Loop and a Scan, and branches."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto

from tests.bench.planted_layers.attention import layer_norm, linear
from tests.bench.planted_layers.net import Net


def _recurrent(net: Net, x: str, op_type: str, inside: int, hidden: int, *, both_ways: bool) -> str:
    """LSTM or GRU on (seq, batch, inside), as exporters write it; gives (seq, batch, hidden times directions)."""
    gates, ways = (4 if op_type == "LSTM" else 3), (2 if both_ways else 1)
    w, r = (
        net.constant(net.rng.standard_t(6, (ways, gates * hidden, size)) * gain / math.sqrt(1.5 * size), what)
        for size, gain, what in ((inside, 1.5, "W"), (hidden, 1.2, "R"))
    )
    b = net.constant(net.rng.normal(0, 0.2, (ways, 2 * gates * hidden)), "B")
    more = {} if op_type == "LSTM" else {"linear_before_reset": 1}
    direction = "bidirectional" if both_ways else "forward"
    x = net.ops(op_type, x, w, r, b, count=1, hidden_size=hidden, direction=direction, **more)[0]
    x = net.op("Transpose", x, perm=[0, 2, 1, 3])
    return net.op("Reshape", x, net.constant([0, 0, -1], "shape"))


def lstm(seed: int) -> onnx.ModelProto:
    """Embeddings, three bidirectional layers, a classification of each word."""
    net, width = Net("lstm", seed), 24
    ids = net.input("input_ids", ["batch", "seq"], TensorProto.INT64)
    x = net.op("Gather", net.constant(net.rng.normal(0, 1, (200, width)), "embedding"), ids)
    x = net.op("Transpose", x, perm=[1, 0, 2])
    for layer in range(3):
        with net.scope(f"lstm.{layer}"):
            y = _recurrent(net, x, "LSTM", width, width // 2, both_ways=True)
            x = layer_norm(net, net.op("Add", x, y), width, spelt_out=True)
    x = net.op("Transpose", x, perm=[1, 0, 2])
    net.output(net.op("LogSoftmax", linear(net, x, width, 12, 2.0), axis=-1), "tags")
    return net.model()


def gru(seed: int) -> onnx.ModelProto:
    """A spectrogram through convolutions and two GRUs, as in speech."""
    net, width = Net("gru", seed), 32
    x = net.input("features", ["batch", 16, "frames"])
    for i, inside in enumerate((16, width)):
        with net.scope(f"conv.{i}"):
            weight = net.constant(net.rng.normal(0, math.sqrt(2 / (3 * inside)), (width, inside, 3)), "weight")
            x = net.op("Conv", x, weight, net.bias(width), kernel_shape=[3], pads=[1, 1])
            variance = net.constant(np.exp(net.rng.normal(0, 0.2, width)), "running_var")
            x = net.op("BatchNormalization", x, net.gains(width), net.bias(width), net.bias(width), variance)
            x = net.op("HardSwish", x)
    x = net.op("Transpose", x, perm=[2, 0, 1])
    for layer in range(2):
        with net.scope(f"gru.{layer}"):
            x = layer_norm(net, _recurrent(net, x, "GRU", width, width, both_ways=False), width)
    x = net.op("Transpose", x, perm=[1, 0, 2])
    with net.scope("head"):
        x = net.op("Relu", linear(net, x, width, width, math.sqrt(2)))
        net.output(net.op("Softmax", linear(net, x, width, 10, 2.0), axis=-1), "letters")
    return net.model()


def _cell(net: Net, x: str, h: str, width: int, weights: list[str]) -> str:
    """A GRU cell, operator by operator."""
    into, back, bias = weights
    with net.scope("cell"):
        sizes = net.constant([width] * 3, "split")
        given = net.ops("Split", net.op("Add", net.op("MatMul", x, into), bias), sizes, count=3, axis=-1)
        kept = net.ops("Split", net.op("MatMul", h, back), sizes, count=3, axis=-1)
        reset = net.op("Sigmoid", net.op("Add", given[0], kept[0]))
        update = net.op("Sigmoid", net.op("Add", given[1], kept[1]))
        new = net.op("Tanh", net.op("Add", given[2], net.op("Mul", reset, kept[2])))
        old = net.op("Mul", update, h)
        return net.op("Add", old, net.op("Mul", net.op("Sub", net.constant(np.float32(1)), update), new))


def _weights(net: Net, inside: int, width: int) -> list[str]:
    return [net.matrix(inside, 3 * width, 1.5), net.matrix(width, 3 * width, 1.2), net.bias(3 * width)]


def loop_rnn(seed: int) -> onnx.ModelProto:
    """A cell in a Loop over time, and one in a Scan backwards in time; norms and a head around them."""
    net, width = Net("loop_rnn", seed), 24
    x = net.input("features", ["batch", "frames", width])
    x = layer_norm(net, linear(net, x, width, width), width, spelt_out=True)
    x = net.op("Transpose", x, perm=[1, 0, 2])
    batch = net.op("Shape", x, start=1, end=2)
    shape = net.op("Concat", batch, net.constant([width], "width"), axis=0)
    start = net.op("ConstantOfShape", shape)
    with net.scope("rnn"):
        weights = _weights(net, width, width)
        body = net.body("step")
        i, going = (
            body.input(body.fresh("i"), [], TensorProto.INT64),
            body.input(body.fresh("going"), [], TensorProto.BOOL),
        )
        h = body.input(body.fresh("h"), ["batch", width])
        out = _cell(body, body.op("Gather", x, i, axis=0), h, width, weights)
        body.typed_output(body.op("Identity", going), [], TensorProto.BOOL)
        body.typed_output(out, ["batch", width])
        body.typed_output(body.op("Mul", out, body.constant(np.float32(1.5))), ["batch", width])
        frames = net.op("Squeeze", net.op("Shape", x, start=0, end=1))
        yes = net.constant(np.array(True), "true")
        last, forward = net.ops("Loop", frames, yes, start, count=2, body=body.graph())
    forward = net.op("Add", x, forward)
    with net.scope("backwards"):
        weights = _weights(net, width, width)
        body = net.body("step")
        h, row = body.input(body.fresh("h"), ["batch", width]), body.input(body.fresh("row"), ["batch", width])
        out = _cell(body, row, h, width, weights)
        body.typed_output(out, ["batch", width])
        body.typed_output(body.op("Neg", out), ["batch", width])
        ways = {"scan_input_directions": [1], "scan_output_directions": [1]}
        backwards = net.ops("Scan", last, forward, count=2, body=body.graph(), num_scan_inputs=1, **ways)[1]
    x = net.op("Transpose", net.op("Concat", forward, backwards, axis=-1), perm=[1, 0, 2])
    x = net.op("Relu", linear(net, layer_norm(net, x, 2 * width), 2 * width, width, math.sqrt(2)))
    net.output(linear(net, x, width, 8, 1.5), "scores")
    return net.model()


def branches(seed: int) -> onnx.ModelProto:
    """Layers that are one thing or another, by what the data says; one If in another."""
    net, width = Net("branches", seed), 32
    x = net.input("x", ["batch", width])
    for layer in range(4):
        with net.scope(f"block.{layer}"):
            x = layer_norm(net, linear(net, x, width, width), width, spelt_out=layer % 2 == 0)
            x = net.op("Add", x, _either(net, x, width, nested=layer == 2))
    net.output(linear(net, x, width, 8, 1.5), "scores")
    return net.model()


def _either(net: Net, x: str, width: int, *, nested: bool) -> str:
    with net.scope("choice"):
        side = net.op("MatMul", x, net.matrix(width, 1, 1.0, "gate"))
        condition = net.op("Greater", net.op("ReduceMean", side, keepdims=0), net.constant(np.float32(0)))
    bodies = []
    for way in ("then_branch", "else_branch"):
        with net.scope(way):
            body = net.body(way)
            if nested and way == "else_branch":
                y = _either(body, x, width, nested=False)
            elif way == "then_branch":
                y = body.op("Tanh", linear(body, x, width, width, 1.5))
                y = linear(body, y, width, width)
            else:
                y = body.op("Relu", linear(body, x, width, 2 * width, math.sqrt(2)))
                y = body.op("Mul", linear(body, y, 2 * width, width), body.op("Sigmoid", x))
            body.typed_output(y, ["batch", width])
            bodies.append(body.graph())
    return net.ops("If", condition, count=1, then_branch=bodies[0], else_branch=bodies[1])[0]
