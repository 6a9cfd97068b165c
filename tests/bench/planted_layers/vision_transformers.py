"""Transformers on images: whole, and in shifted windows."""

from __future__ import annotations

import math

import numpy as np
import onnx

from tests.bench.planted_layers.attention import attend, attention, gelu, heads_first, layer_norm, linear
from tests.bench.planted_layers.net import Net


def vit(seed: int, layers: int = 4, width: int = 64, heads: int = 4) -> onnx.ModelProto:
    """Patches, a class token, encoder layers with the norm before each block."""
    net, patch, side = Net("vit", seed), 8, 4
    x = net.input("image", ["batch", 3, patch * side, patch * side])
    with net.scope("embeddings"):
        kernel = net.kernel(width, 3, patch)
        x = net.op("Conv", x, kernel, net.bias(width), kernel_shape=[patch] * 2, strides=[patch] * 2)
        x = net.op("Transpose", net.op("Reshape", x, net.constant([0, width, -1], "shape")), perm=[0, 2, 1])
        batch = net.op("Shape", x, start=0, end=1)
        shape = net.op("Concat", batch, net.constant([1, width], "shape"), axis=0)
        token = net.op("Expand", net.constant(net.rng.normal(0, 1, (1, 1, width)), "cls"), shape)
        x = net.op("Concat", token, x, axis=1)
        x = net.op("Add", x, net.constant(net.rng.normal(0, 0.3, (1, side * side + 1, width)), "positions"))
    for layer in range(layers):
        with net.scope(f"layer.{layer}"):
            x = net.op("Add", x, attention(net, layer_norm(net, x, width, outliers=layer % 2), heads, width))
            with net.scope("mlp"):
                y = linear(net, layer_norm(net, x, width), width, 4 * width)
                y = linear(net, gelu(net, y), 4 * width, width)
            x = net.op("Add", x, y)
    x = layer_norm(net, x, width)
    first = net.op("Gather", x, net.constant(np.int64(0)), axis=1)
    net.output(net.op("Gemm", first, net.matrix(width, 20, 1.5), net.bias(20)), "logits")
    return net.model()


def vit_deep(seed: int) -> onnx.ModelProto:
    """The same with sixteen narrow layers."""
    return vit(seed, layers=16, width=32, heads=2)


def swin(seed: int) -> onnx.ModelProto:
    """Attention in windows, every second time in windows that are shifted by half; patches merged once."""
    net, side, width, window = Net("swin", seed), 8, 32, 4
    x = net.input("image", ["batch", 3, 32, 32])
    with net.scope("patch_embed"):
        x = net.op("Conv", x, net.kernel(width, 3, 4), net.bias(width), kernel_shape=[4, 4], strides=[4, 4])
        x = net.op("Transpose", x, perm=[0, 2, 3, 1])
        x = layer_norm(net, x, width)
    for stage in range(2):
        for block in range(2):
            with net.scope(f"layers.{stage}.blocks.{block}"):
                shift = window // 2 if block and side > window else 0
                x = net.op("Add", x, _window_attention(net, layer_norm(net, x, width), side, width, window, shift))
                with net.scope("mlp"):
                    y = linear(net, layer_norm(net, x, width), width, 4 * width)
                    y = linear(net, gelu(net, y), 4 * width, width)
                x = net.op("Add", x, y)
        if stage == 0:
            x, side, width = _merged(net, x, side, width), side // 2, 2 * width
    with net.scope("head"):
        x = net.op("ReduceMean", layer_norm(net, x, width), axes=[1, 2], keepdims=0)
        net.output(net.op("Gemm", x, net.matrix(width, 20, 2.0), net.bias(20)), "logits")
    return net.model()


def _rolled(net: Net, x: str, by: int) -> str:
    """What torch.roll becomes, along height and width."""
    with net.scope("roll"):
        for axis in (1, 2):
            axes, at, end = net.constant([axis], "axes"), net.constant([by]), net.constant([2**62])
            start = net.op("Slice", x, net.constant([0]), at, axes)
            x = net.op("Concat", net.op("Slice", x, at, end, axes), start, axis=axis)
    return x


def _shift_mask(side: int, window: int, shift: int) -> np.ndarray:
    """What may not see each other in shifted windows: (windows, 1, tokens, tokens)."""
    regions = np.zeros((side, side))
    slices = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(slices):
        for j, columns in enumerate(slices):
            regions[rows, columns] = 3 * i + j
    parts = side // window
    flat = regions.reshape(parts, window, parts, window).transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(flat[:, None, :, None] == flat[:, None, None, :], 0.0, -100.0)


def _window_attention(net: Net, x: str, side: int, width: int, window: int, shift: int) -> str:
    heads, parts, tokens = width // 16, side // window, window * window
    with net.scope("attn"):
        x = _rolled(net, x, shift) if shift else x
        x = net.op("Reshape", x, net.constant([-1, parts, window, parts, window, width], "shape"))
        x = net.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
        x = net.op("Reshape", x, net.constant([-1, tokens, width], "shape"))
        q, k, v = (heads_first(net, linear(net, x, width, width, gain), heads, width) for gain in (1.3, 1.3, 1.0))
        bias = net.constant(net.rng.normal(0, 0.4, (1, heads, tokens, tokens)), "relative_position_bias")
        if shift:
            # The windows of one image follow each other; the mask differs by window.
            q, k, v = (
                net.op("Reshape", part, net.constant([-1, parts * parts, heads, tokens, width // heads], "shape"))
                for part in (q, k, v)
            )
            scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 2, 4, 3]))
            scores = net.op("Mul", scores, net.constant(np.float32(1 / math.sqrt(width / heads))))
            scores = net.op("Add", net.op("Add", scores, bias), net.constant(_shift_mask(side, window, shift), "mask"))
            mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
            mixed = net.op("Transpose", mixed, perm=[0, 1, 3, 2, 4])
            x = net.op("Reshape", mixed, net.constant([-1, tokens, width], "shape"))
        else:
            x = attend(net, q, k, v, heads, width, bias)
        x = linear(net, x, width, width, 0.8)
        x = net.op("Reshape", x, net.constant([-1, parts, parts, window, window, width], "shape"))
        x = net.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
        x = net.op("Reshape", x, net.constant([-1, side, side, width], "shape"))
        return _rolled(net, x, side - shift) if shift else x


def _merged(net: Net, x: str, side: int, width: int) -> str:
    with net.scope("downsample"):
        axes, ends, steps = net.constant([1, 2], "axes"), net.constant([2**62] * 2), net.constant([2, 2], "steps")
        corners = [
            net.op("Slice", x, net.constant([i, j]), ends, axes, steps) for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))
        ]
        x = layer_norm(net, net.op("Concat", *corners, axis=-1), 4 * width)
        return net.op("MatMul", x, net.matrix(4 * width, 2 * width))
