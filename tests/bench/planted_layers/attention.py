"""Transformers: encoders of text and images, a decoder with a cache, windows, experts."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto

from tests.bench.planted_layers.net import Net


def linear(net: Net, x: str, inside: int, out: int, gain: float = 1.0) -> str:
    """MatMul and Add, as exporters write a linear layer on more than two dimensions."""
    return net.op("Add", net.op("MatMul", x, net.matrix(inside, out, gain)), net.bias(out))


def layer_norm(net: Net, x: str, width: int, *, spelt_out: bool = False, outliers: int = 0) -> str:
    """LayerNormalization, or the nine nodes it was before opset 17."""
    with net.scope("LayerNorm"):
        gain, bias = net.gains(width, outliers=outliers), net.bias(width)
        if not spelt_out:
            return net.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-5)
        centred = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1], keepdims=1))
        squared = net.op("Pow", centred, net.constant(np.float32(2)))
        variance = net.op("ReduceMean", squared, axes=[-1], keepdims=1)
        deviation = net.op("Sqrt", net.op("Add", variance, net.constant(np.float32(1e-5))))
        return net.op("Add", net.op("Mul", net.op("Div", centred, deviation), gain), bias)


def gelu(net: Net, x: str) -> str:
    """The exact form, by Erf."""
    with net.scope("Gelu"):
        part = net.op("Erf", net.op("Div", x, net.constant(np.float32(math.sqrt(2)))))
        part = net.op("Add", part, net.constant(np.float32(1)))
        return net.op("Mul", net.op("Mul", x, part), net.constant(np.float32(0.5)))


def gelu_tanh(net: Net, x: str) -> str:
    """The approximation by Tanh."""
    with net.scope("Gelu"):
        cubed = net.op("Mul", net.op("Pow", x, net.constant(np.float32(3))), net.constant(np.float32(0.044715)))
        inner = net.op("Mul", net.op("Add", x, cubed), net.constant(np.float32(math.sqrt(2 / math.pi))))
        part = net.op("Add", net.op("Tanh", inner), net.constant(np.float32(1)))
        return net.op("Mul", net.op("Mul", x, net.constant(np.float32(0.5))), part)


def heads_first(net: Net, x: str, heads: int, width: int) -> str:
    """(batch, seq, width) to (batch, heads, seq, width / heads)."""
    x = net.op("Reshape", x, net.constant([0, -1, heads, width // heads], "shape"))
    return net.op("Transpose", x, perm=[0, 2, 1, 3])


def attend(net: Net, q: str, k: str, v: str, heads: int, width: int, mask: str = "") -> str:
    """Scaled dot product of (batch, heads, seq, size) tensors, and back to (batch, seq, width)."""
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Div", scores, net.constant(np.float32(math.sqrt(width / heads))))
    if mask:
        scores = net.op("Add", scores, mask)
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    mixed = net.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return net.op("Reshape", mixed, net.constant([0, -1, width], "shape"))


def attention(net: Net, x: str, heads: int, width: int, mask: str = "") -> str:
    """Self attention with three projections and one for the result."""
    with net.scope("attention"):
        # Trained queries and keys give peaked attention: their products have a larger variance than one.
        q, k, v = (heads_first(net, linear(net, x, width, width, gain), heads, width) for gain in (1.4, 1.4, 1.0))
        return linear(net, attend(net, q, k, v, heads, width, mask), width, width, 0.7)


def padding_mask(net: Net, attention_mask: str) -> str:
    """0 where the mask is one, a large negative number elsewhere: (batch, 1, 1, seq)."""
    with net.scope("mask"):
        mask = net.op("Unsqueeze", attention_mask, net.constant([1, 2], "axes"))
        mask = net.op("Cast", mask, to=TensorProto.FLOAT)
        mask = net.op("Sub", net.constant(np.float32(1)), mask)
        return net.op("Mul", mask, net.constant(np.float32(-10000)))


def bert(seed: int, layers: int = 4, width: int = 64, heads: int = 4, spelt_out: bool = True) -> onnx.ModelProto:
    """Embeddings, encoder layers with the norm after the sum, pooler."""
    net, vocabulary = Net("bert", seed), 300
    ids = net.input("input_ids", ["batch", "seq"], TensorProto.INT64)
    attention_mask = net.input("attention_mask", ["batch", "seq"], TensorProto.INT64)
    types = net.input("token_type_ids", ["batch", "seq"], TensorProto.INT64)
    mask = padding_mask(net, attention_mask)
    with net.scope("embeddings"):
        words = net.op("Gather", net.constant(net.rng.normal(0, 0.6, (vocabulary, width)), "word"), ids)
        kinds = net.op("Gather", net.constant(net.rng.normal(0, 0.2, (2, width)), "type"), types)
        length = net.op("Shape", ids, start=1, end=2)
        table = net.constant(net.rng.normal(0, 0.3, (64, width)), "position")
        places = net.op("Slice", table, net.constant([0]), length, net.constant([0]))
        x = net.op("Add", net.op("Add", words, kinds), places)
        x = layer_norm(net, x, width, spelt_out=spelt_out)
    for layer in range(layers):
        with net.scope(f"layer.{layer}"):
            x = net.op("Add", attention(net, x, heads, width, mask), x)
            # Trained encoders have a few channels that are much larger than the others.
            x = layer_norm(net, x, width, spelt_out=spelt_out, outliers=1)
            with net.scope("mlp"):
                y = linear(net, gelu(net, linear(net, x, width, 4 * width)), 4 * width, width)
            x = layer_norm(net, net.op("Add", y, x), width, spelt_out=spelt_out)
    with net.scope("pooler"):
        first = net.op("Gather", x, net.constant(np.int64(0)), axis=1)
        pooled = net.op("Tanh", net.op("Gemm", first, net.matrix(width, width), net.bias(width)))
    net.output(x, "last_hidden_state")
    net.output(pooled, "pooler_output")
    return net.model()
