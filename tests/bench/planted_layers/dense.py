"""A plain chain: the network where whatever goes wrong is inherited by all that follows."""

from __future__ import annotations

import math

import onnx

from tests.bench.planted_layers.net import Net


def mlp(seed: int, layers: int = 12, width: int = 48) -> onnx.ModelProto:
    """Linear layers with activations in turn, no way around any of them."""
    net = Net("mlp", seed)
    x = net.input("x", ["batch", width])
    for layer in range(layers):
        with net.scope(f"fc.{layer}"):
            act = ("Relu", "Tanh", "LeakyRelu", "Elu")[layer % 4]
            gain = 1.5 if act == "Tanh" else math.sqrt(2)
            x = net.op("Gemm", x, net.matrix(width, width, gain), net.bias(width))
            x = net.op(act, x)
    x = net.op("Gemm", x, net.matrix(width, 10, 1.5), net.bias(10))
    net.output(net.op("LogSoftmax", x, axis=-1), "log_probabilities")
    return net.model()
