"""Transformers that write text: with a cache of keys and values, with rotary positions, with experts."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto

from tests.bench.planted_layers.attention import (
    attend,
    attention,
    gelu,
    gelu_tanh,
    heads_first,
    layer_norm,
    linear,
    padding_mask,
)
from tests.bench.planted_layers.net import Net

_VOCABULARY, _LONGEST = 250, 64


def _start(net: Net) -> tuple[str, str, str]:
    """Inputs of a decoder with a cache: ids, the positions they are at, and what may attend to what."""
    ids = net.input("input_ids", ["batch", "seq"], TensorProto.INT64)
    attention_mask = net.input("attention_mask", ["batch", "past + seq"], TensorProto.INT64)
    mask = padding_mask(net, attention_mask)
    with net.scope("causal"):
        zero, one = net.constant(np.int64(0)), net.constant(np.int64(1))
        total = net.op("Squeeze", net.op("Shape", attention_mask, start=1, end=2))
        length = net.op("Squeeze", net.op("Shape", ids, start=1, end=2))
        positions = net.op("Range", net.op("Sub", total, length), total, one)
        column = net.op("Unsqueeze", positions, net.constant([1], "axes"))
        seen = net.op("LessOrEqual", net.op("Range", zero, total, one), column)
        causal = net.op("Where", seen, net.constant(np.float32(0)), net.constant(np.float32(-10000)))
        mask = net.op("Add", mask, causal)
    return ids, positions, mask


def _cached(net: Net, layer: int, k: str, v: str, heads: int, size: int) -> tuple[str, str]:
    """Keys and values after those of the cache, which are inputs and outputs."""
    found = []
    for what, new in (("key", k), ("value", v)):
        past = net.input(f"past_key_values.{layer}.{what}", ["batch", heads, "past", size])
        both = net.op("Concat", past, new, axis=2)
        found.append(net.output(both, f"present.{layer}.{what}"))
    return found[0], found[1]


def gpt(seed: int, layers: int = 4, width: int = 64, heads: int = 4) -> onnx.ModelProto:
    """Learned positions, norms before each block, one projection for queries, keys and values."""
    net = Net("gpt", seed)
    ids, positions, mask = _start(net)
    with net.scope("embeddings"):
        x = net.op("Gather", net.constant(net.rng.normal(0, 0.5, (_VOCABULARY, width)), "wte"), ids)
        x = net.op(
            "Add", x, net.op("Gather", net.constant(net.rng.normal(0, 0.3, (_LONGEST, width)), "wpe"), positions)
        )
    for layer in range(layers):
        with net.scope(f"h.{layer}"):
            with net.scope("attn"):
                y = linear(net, layer_norm(net, x, width, outliers=1), width, 3 * width, 1.2)
                q, k, v = net.ops("Split", y, net.constant([width] * 3, "split"), count=3, axis=-1)
                q, k, v = (heads_first(net, part, heads, width) for part in (q, k, v))
                k, v = _cached(net, layer, k, v, heads, width // heads)
                y = linear(net, attend(net, q, k, v, heads, width, mask), width, width, 0.7)
            x = net.op("Add", x, y)
            with net.scope("mlp"):
                y = linear(net, layer_norm(net, x, width), width, 4 * width)
                y = linear(net, gelu_tanh(net, y), 4 * width, width)
            x = net.op("Add", x, y)
    x = layer_norm(net, x, width)
    net.output(net.op("MatMul", x, net.matrix(width, _VOCABULARY, 1.5)), "logits")
    return net.model()


def llama(seed: int, layers: int = 3, width: int = 64, heads: int = 4) -> onnx.ModelProto:
    """Rotary positions, RMS norms spelt out, two heads of keys for four of queries, gated linear units."""
    net, size = Net("llama", seed), width // heads
    ids, positions, mask = _start(net)
    with net.scope("rotary"):
        angles = np.arange(_LONGEST)[:, None] * 100.0 ** (-np.arange(0, size, 2) / size)
        angles = np.concatenate([angles, angles], axis=1)
        cosine = net.op("Gather", net.constant(np.cos(angles), "cosine"), positions)
        sine = net.op("Gather", net.constant(np.sin(angles), "sine"), positions)
    x = net.op("Gather", net.constant(net.rng.normal(0, 0.6, (_VOCABULARY, width)), "embed_tokens"), ids)
    for layer in range(layers):
        with net.scope(f"layers.{layer}"):
            with net.scope("self_attn"):
                y = rms_norm(net, x, width, outliers=1)
                q = heads_first(net, net.op("MatMul", y, net.matrix(width, width, 1.3)), heads, width)
                k, v = (
                    heads_first(net, net.op("MatMul", y, net.matrix(width, width // 2, gain)), heads // 2, width // 2)
                    for gain in (1.3, 1.0)
                )
                q, k = (_rotated(net, part, cosine, sine, size) for part in (q, k))
                k, v = _cached(net, layer, k, v, heads // 2, size)
                k, v = (_repeated(net, part, heads, size) for part in (k, v))
                y = net.op("MatMul", attend(net, q, k, v, heads, width, mask), net.matrix(width, width, 0.7))
            x = net.op("Add", x, y)
            with net.scope("mlp"):
                y = rms_norm(net, x, width)
                gate = net.op("MatMul", y, net.matrix(width, 3 * width))
                gate = net.op("Mul", gate, net.op("Sigmoid", gate))
                y = net.op("Mul", gate, net.op("MatMul", y, net.matrix(width, 3 * width)))
                y = net.op("MatMul", y, net.matrix(3 * width, width, 1.2))
            x = net.op("Add", x, y)
    net.output(net.op("MatMul", rms_norm(net, x, width), net.matrix(width, _VOCABULARY, 1.5)), "logits")
    return net.model()


def rms_norm(net: Net, x: str, width: int, outliers: int = 0) -> str:
    """Root mean square norm as exporters write it."""
    with net.scope("norm"):
        mean = net.op("ReduceMean", net.op("Pow", x, net.constant(np.float32(2))), axes=[-1], keepdims=1)
        root = net.op("Sqrt", net.op("Add", mean, net.constant(np.float32(1e-6))))
        x = net.op("Mul", x, net.op("Reciprocal", root))
        return net.op("Mul", x, net.gains(width, outliers=outliers))


def _rotated(net: Net, x: str, cosine: str, sine: str, size: int) -> str:
    with net.scope("rotate"):
        ends, axis = net.constant([2**62]), net.constant([3], "axes")
        half = net.constant([size // 2])
        first, second = net.op("Slice", x, net.constant([0]), half, axis), net.op("Slice", x, half, ends, axis)
        turned = net.op("Concat", net.op("Neg", second), first, axis=-1)
        return net.op("Add", net.op("Mul", x, cosine), net.op("Mul", turned, sine))


def _repeated(net: Net, x: str, heads: int, size: int) -> str:
    """Each head of keys for two of queries."""
    with net.scope("repeat"):
        x = net.op("Unsqueeze", x, net.constant([2], "axes"))
        x = net.op("Expand", x, net.constant([1, 1, 2, 1, 1], "shape"))
        return net.op("Reshape", x, net.constant([0, heads, -1, size], "shape"))


def moe(seed: int, layers: int = 3, width: int = 32, experts: int = 6, chosen: int = 2) -> onnx.ModelProto:
    """Encoder layers whose linear layers are picked token by token among experts: TopK, Gather, weighted sum."""
    net, hidden = Net("moe", seed), 48
    ids = net.input("input_ids", ["batch", "seq"], TensorProto.INT64)
    attention_mask = net.input("attention_mask", ["batch", "seq"], TensorProto.INT64)
    mask = padding_mask(net, attention_mask)
    x = net.op("Gather", net.constant(net.rng.normal(0, 1, (_VOCABULARY, width)), "embedding"), ids)
    for layer in range(layers):
        with net.scope(f"layers.{layer}"):
            x = net.op("Add", x, attention(net, layer_norm(net, x, width), 4, width, mask))
            with net.scope("experts"):
                tokens = net.op("Reshape", layer_norm(net, x, width), net.constant([-1, width], "shape"))
                gates = net.op("Softmax", net.op("MatMul", tokens, net.matrix(width, experts, 2.0, "router")), axis=-1)
                best, which = net.ops("TopK", gates, net.constant([chosen], "k"), count=2, axis=-1)
                total = net.op("ReduceSum", best, net.constant([-1], "axes"), keepdims=1)
                best = net.op("Reshape", net.op("Div", best, total), net.constant([-1, chosen, 1, 1], "shape"))
                y = net.op("Reshape", tokens, net.constant([-1, 1, 1, width], "shape"))
                y = net.op("MatMul", y, net.op("Gather", _bank(net, experts, width, hidden), which))
                y = net.op("MatMul", gelu(net, y), net.op("Gather", _bank(net, experts, hidden, width), which))
                y = net.op("ReduceSum", net.op("Mul", y, best), net.constant([1, 2], "axes"), keepdims=0)
                y = net.op("Reshape", y, net.op("Shape", x))
            x = net.op("Add", x, y)
    net.output(net.op("MatMul", layer_norm(net, x, width), net.matrix(width, 40, 1.5)), "logits")
    return net.model()


def _bank(net: Net, experts: int, rows: int, columns: int) -> str:
    weights = net.rng.standard_t(6, (experts, rows, columns)) / math.sqrt(1.5 * rows)
    return net.constant(weights * math.sqrt(1.5), "experts")
