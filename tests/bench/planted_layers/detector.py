"""A detector: features at two scales, shared heads, boxes decoded, the best kept."""

from __future__ import annotations

import numpy as np
import onnx

from tests.bench.planted_layers.convolutional import conv
from tests.bench.planted_layers.net import Net

_CLASSES, _ANCHORS = 5, 2


def detector(seed: int) -> onnx.ModelProto:
    """Backbone, feature pyramid, heads; NonMaxSuppression and TopK choose."""
    net = Net("detector", seed)
    x = net.input("image", ["batch", 3, 64, 64])
    with net.scope("backbone"):
        x = conv(net, x, 3, 16, stride=2)
        fine = conv(net, conv(net, x, 16, 32, stride=2), 32, 32)
        coarse = conv(net, conv(net, fine, 32, 48, stride=2), 48, 48)
    with net.scope("fpn"):
        coarse = conv(net, coarse, 48, 32, 1, norm="none", act="")
        scales = net.constant(np.array([1, 1, 2, 2], np.float32), "scales")
        up = net.op("Resize", coarse, "", scales, mode="nearest", nearest_mode="floor")
        fine = net.op("Add", conv(net, fine, 32, 32, 1, norm="none", act="", last=0.8), up)
        levels = [conv(net, level, 32, 32, norm="folded", last=0.8) for level in (fine, coarse)]
    heads = [_heads(net, level, i) for i, level in enumerate(levels)]
    with net.scope("decode"):
        moves = net.op("Concat", *[move for move, _ in heads], axis=1)
        scores = net.op("Sigmoid", net.op("Concat", *[score for _, score in heads], axis=1))
        boxes = _boxes(net, moves)
    with net.scope("choose"):
        by_class = net.op("Transpose", scores, perm=[0, 2, 1])
        most, overlap = net.constant([8], "most"), net.constant(np.array([0.5], np.float32), "overlap")
        least = net.constant(np.array([0.6], np.float32), "least")
        net.output(net.op("NonMaxSuppression", boxes, by_class, most, overlap, least), "selected")
        best = net.op("ReduceMax", scores, axes=[-1], keepdims=0)
        top, where = net.ops("TopK", best, net.constant([12], "k"), count=2, axis=-1)
        index = net.op(
            "Expand", net.op("Unsqueeze", where, net.constant([2], "axes")), net.constant([1, 1, 4], "shape")
        )
        net.output(net.op("GatherElements", boxes, index, axis=1), "top_boxes")
        net.output(top, "top_scores")
    return net.model()


def _heads(net: Net, x: str, level: int) -> tuple[str, str]:
    found = []
    for what, size, gain in (("box", 4, 0.1), ("class", _CLASSES, 0.2)):
        with net.scope(f"head.{level}.{what}"):
            y = conv(net, x, 32, 32, norm="folded")
            y = conv(net, y, 32, _ANCHORS * size, norm="none", act="", gain=gain)
            y = net.op("Reshape", y, net.constant([0, _ANCHORS, size, -1], "shape"))
            y = net.op("Transpose", y, perm=[0, 3, 1, 2])
            found.append(net.op("Reshape", y, net.constant([0, -1, size], "shape")))
    return found[0], found[1]


def _anchors() -> np.ndarray:
    """Centres and sizes, in the order of the heads: (anchors, 4)."""
    rows = [
        [(x + 0.5) * stride, (y + 0.5) * stride, scale * stride, scale * stride]
        for stride in (4, 8)
        for y in range(64 // stride)
        for x in range(64 // stride)
        for scale in (2.0, 3.5)
    ]
    return np.array(rows, np.float32)


def _boxes(net: Net, moves: str) -> str:
    anchors = _anchors()
    centre, size = net.ops("Split", moves, net.constant([2, 2], "split"), count=2, axis=-1)
    sizes = net.constant(anchors[:, 2:], "anchor_sizes")
    moved = net.op("Mul", net.op("Tanh", centre), sizes)
    centre = net.op("Add", moved, net.constant(anchors[:, :2], "anchor_centres"))
    limit = net.constant(np.float32(2)), net.constant(np.float32(-2))
    size = net.op("Mul", net.op("Exp", net.op("Clip", size, limit[1], limit[0])), sizes)
    half = net.op("Mul", size, net.constant(np.float32(0.5)))
    return net.op("Concat", net.op("Sub", centre, half), net.op("Add", centre, half), axis=-1)
