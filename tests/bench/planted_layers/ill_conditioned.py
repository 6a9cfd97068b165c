"""Small networks with one part that no low precision computes well, however right the engine is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.bench.planted_layers.net import Net

_WIDTH = 32


def _started(name: str, seed: int) -> tuple[Net, str]:
    net = Net(name, seed)
    x = net.input("x", [4, _WIDTH])
    return net, net.op("Tanh", _dense(net, x))


def _dense(net: Net, x: str, gain: float = 1.0) -> str:
    return net.op("Add", net.op("MatMul", x, net.matrix(_WIDTH, _WIDTH, gain)), net.bias(_WIDTH))


def _scalar(net: Net, value: float) -> str:
    return net.constant(np.float32(value))


def _ended(net: Net, x: str) -> onnx.ModelProto:
    net.output(net.op("Tanh", _dense(net, x)), "y")
    return net.model()


def cancellation(seed: int) -> onnx.ModelProto:
    """The difference of two large tensors that are nearly equal."""
    net, x = _started("cancellation", seed)
    large = net.op("Add", _dense(net, x), _scalar(net, 300.0))
    nearly = net.op("Add", large, net.op("Mul", _dense(net, x), _scalar(net, 0.02)))
    return _ended(net, net.op("Sub", nearly, large))


def flat_norm(seed: int) -> onnx.ModelProto:
    """Normalising rows that hardly vary."""
    net, x = _started("flat_norm", seed)
    flat = net.op("Add", net.op("Mul", x, _scalar(net, 0.01)), _scalar(net, 5.0))
    return _ended(net, net.op("LayerNormalization", flat, net.gains(_WIDTH), net.bias(_WIDTH), epsilon=1e-9))


def flat_norm_spelt_out(seed: int) -> onnx.ModelProto:
    """The same, node by node."""
    net, x = _started("flat_norm_spelt_out", seed)
    flat = net.op("Add", net.op("Mul", x, _scalar(net, 0.01)), _scalar(net, 5.0))
    centred = net.op("Sub", flat, net.op("ReduceMean", flat, axes=[-1], keepdims=1))
    variance = net.op("ReduceMean", net.op("Mul", centred, centred), axes=[-1], keepdims=1)
    deviation = net.op("Sqrt", net.op("Add", variance, _scalar(net, 1e-7)))
    return _ended(net, net.op("Div", centred, deviation))


def moments(seed: int) -> onnx.ModelProto:
    """A variance as the mean of squares minus the square of the mean."""
    net, x = _started("moments", seed)
    x = net.op("Add", x, _scalar(net, 20.0))
    mean = net.op("ReduceMean", x, axes=[-1], keepdims=1)
    squares = net.op("ReduceMean", net.op("Mul", x, x), axes=[-1], keepdims=1)
    variance = net.op("Abs", net.op("Sub", squares, net.op("Mul", mean, mean)))
    return _ended(net, net.op("Div", x, net.op("Sqrt", net.op("Add", variance, _scalar(net, 1e-3)))))


def peaked_softmax(seed: int) -> onnx.ModelProto:
    """Softmax of logits in the hundreds."""
    net, x = _started("peaked_softmax", seed)
    return _ended(net, net.op("Softmax", net.op("Mul", _dense(net, x), _scalar(net, 200.0)), axis=-1))


def large_exp(seed: int) -> onnx.ModelProto:
    """Exp of numbers up to nine."""
    net, x = _started("large_exp", seed)
    power = net.op("Exp", net.op("Clip", net.op("Mul", _dense(net, x), _scalar(net, 5.0)), "", _scalar(net, 9.0)))
    return _ended(net, net.op("Mul", power, _scalar(net, 1e-3)))


def reciprocal(seed: int) -> onnx.ModelProto:
    """One over differences that come close to zero."""
    net, x = _started("reciprocal", seed)
    gap = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1], keepdims=1))
    safe = net.op("Add", net.op("Abs", gap), _scalar(net, 1e-3))
    return _ended(net, net.op("Mul", net.op("Reciprocal", safe), _scalar(net, 0.05)))


def log_near_one(seed: int) -> onnx.ModelProto:
    """Log of numbers just above one."""
    net, x = _started("log_near_one", seed)
    near = net.op("Add", net.op("Mul", net.op("Abs", x), _scalar(net, 0.01)), _scalar(net, 1.0))
    return _ended(net, net.op("Mul", net.op("Log", near), _scalar(net, 100.0)))


def many_turns(seed: int) -> onnx.ModelProto:
    """Sin of numbers in the hundreds."""
    net, x = _started("many_turns", seed)
    return _ended(net, net.op("Sin", net.op("Mul", _dense(net, x), _scalar(net, 300.0))))


def close_decision(seed: int) -> onnx.ModelProto:
    """A choice between two values by which of two nearly equal numbers is larger, and an ArgMax among such."""
    net, x = _started("close_decision", seed)
    other = net.op("Add", x, net.op("Mul", _dense(net, x), _scalar(net, 1e-3)))
    chosen = net.op("Where", net.op("Greater", x, other), net.op("Mul", x, _scalar(net, 2.0)), net.op("Neg", x))
    close = net.op("Add", net.op("Mul", x, _scalar(net, 1e-3)), _scalar(net, 1.0))
    at = net.op("ArgMax", close, axis=-1, keepdims=1)
    return _ended(net, net.op("Add", chosen, net.op("GatherElements", x, at, axis=1)))


ILL_CONDITIONED: dict[str, Callable[[int], onnx.ModelProto]] = {
    made.__name__: made
    for made in (
        cancellation, flat_norm, flat_norm_spelt_out, moments, peaked_softmax, large_exp, reciprocal, log_near_one,
        many_turns, close_decision,
    )
}  # fmt: skip
"""Builders by name; each takes a seed."""
