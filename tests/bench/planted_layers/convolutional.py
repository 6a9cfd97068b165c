"""Networks on images: residual, inception, U-shaped, depthwise, and a detector with its heads."""

from __future__ import annotations

import math

import numpy as np
import onnx

from tests.bench.planted_layers.net import Net

RELU = math.sqrt(2)
"""Gain of weights after which a Relu halves the second moment."""


def conv(
    net: Net,
    x: str,
    inside: int,
    out: int,
    size: int = 3,
    *,
    stride: int = 1,
    group: int = 1,
    norm: str = "batch",
    act: str = "Relu",
    gain: float = RELU,
    last: float = 1.0,
) -> str:
    """Convolution, norm and activation; ``norm`` is batch or anything else for a bias; ``last`` scales the result."""
    weight = net.kernel(out, inside // group, size, gain if norm == "batch" else gain * last)
    more = [] if norm == "batch" else [net.bias(out)]
    pad = [size // 2] * 4
    strides = [stride, stride]
    x = net.op("Conv", x, weight, *more, kernel_shape=[size, size], pads=pad, strides=strides, group=group)
    if norm == "batch":
        variance = net.constant(np.exp(net.rng.normal(math.log(gain * gain / 2), 0.2, out)), "running_var")
        mean = net.bias(out)
        x = net.op("BatchNormalization", x, net.gains(out, last), net.bias(out), mean, variance, epsilon=1e-5)
    if act == "HardSwish":
        return net.op("HardSwish", x)
    if act == "Clip":
        return net.op("Clip", x, net.constant(np.float32(0)), net.constant(np.float32(6)))
    return net.op(act, x) if act else x


def classifier(net: Net, x: str, channels: int, gain: float = 2.0) -> None:
    """Pool, flatten, classify: logits and probabilities are the outputs."""
    classes = 20
    with net.scope("head"):
        x = net.op("Flatten", net.op("GlobalAveragePool", x))
        logits = net.op("Gemm", x, net.matrix(channels, classes, gain), net.bias(classes))
        net.output(logits, "logits")
        net.output(net.op("Softmax", logits, axis=-1), "probabilities")


def resnet(seed: int, norm: str = "batch") -> onnx.ModelProto:
    """Residual blocks in three stages, the stages joined by strided projections."""
    net = Net("resnet", seed)
    x = net.input("image", ["batch", 3, 48, 48])
    with net.scope("stem"):
        x = conv(net, x, 3, 16, 7, stride=2, norm=norm)
        x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inside = 16
    for stage, (width, blocks) in enumerate([(16, 3), (32, 4), (64, 3)]):
        for block in range(blocks):
            with net.scope(f"layer{stage + 1}.{block}"):
                stride = 2 if block == 0 and stage else 1
                y = conv(net, x, inside, width, stride=stride, norm=norm)
                # The last norm of a trained block is small: the sum grows slowly.
                y = conv(net, y, width, width, norm=norm, act="", last=0.4)
                if inside != width:
                    with net.scope("downsample"):
                        x = conv(net, x, inside, width, 1, stride=stride, norm=norm, act="", gain=1.0)
                x = net.op("Relu", net.op("Add", y, x))
                inside = width
    classifier(net, x, inside, 0.7)
    return net.model()


def resnet_folded(seed: int) -> onnx.ModelProto:
    """The residual network as an optimiser leaves it: norms folded into the convolutions."""
    return resnet(seed, "folded")


def inception(seed: int) -> onnx.ModelProto:
    """Modules of four branches of different kernels, joined by Concat."""
    net = Net("inception", seed)
    x = net.input("image", ["batch", 3, 32, 32])
    x, inside = conv(net, x, 3, 24), 24
    for module in range(6):
        with net.scope(f"mixed_{module}"):
            with net.scope("branch1x1"):
                one = conv(net, x, inside, 12, 1)
            with net.scope("branch5x5"):
                five = conv(net, conv(net, x, inside, 8, 1), 8, 12, 5)
            with net.scope("branch3x3dbl"):
                three = conv(net, conv(net, conv(net, x, inside, 8, 1), 8, 12), 12, 12)
            with net.scope("branch_pool"):
                pool = net.op("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
                pool = conv(net, pool, inside, 12, 1)
            x, inside = net.op("Concat", one, five, three, pool, axis=1), 48
            if module in (1, 3):
                x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    classifier(net, x, inside)
    return net.model()


def unet(seed: int) -> onnx.ModelProto:
    """Down, across and up: long skips, transposed convolutions, Resize, group norms spelt out."""
    net = Net("unet", seed, opset=18)
    x = net.input("image", ["batch", 1, 32, 32])
    widths = [12, 24, 48]
    skips = []
    inside = 1
    for level, width in enumerate(widths):
        with net.scope(f"down.{level}"):
            x = _group_norm_conv(net, x, inside, width)
            x = _group_norm_conv(net, x, width, width)
            skips.append(x)
            x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            inside = width
    with net.scope("middle"):
        x = _group_norm_conv(net, x, inside, inside)
    for level in (2, 1, 0):
        with net.scope(f"up.{level}"):
            width = widths[level]
            if level == 1:
                scales = net.constant(np.array([1, 1, 2, 2], np.float32), "scales")
                x = net.op("Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
                x = conv(net, x, inside, width, 1, norm="none", act="")
            else:
                # Each output of a transposed convolution of stride 2 sums a quarter of the kernel.
                weight = net.kernel(inside, width, 2, RELU)
                x = net.op("ConvTranspose", x, weight, net.bias(width), kernel_shape=[2, 2], strides=[2, 2])
            x = net.op("Concat", skips[level], x, axis=1)
            x = _group_norm_conv(net, x, 2 * width, width)
            inside = width
    net.output(net.op("Sigmoid", conv(net, x, inside, 2, 1, norm="none", act="", gain=2.0)), "mask_scores")
    return net.model()


def _group_norm_conv(net: Net, x: str, inside: int, out: int, groups: int = 4) -> str:
    """Convolution, group norm as exporters write it, and SiLU."""
    x = conv(net, x, inside, out, norm="none", act="")
    with net.scope("norm"):
        shape = net.op("Shape", x)
        y = net.op("Reshape", x, net.constant([0, groups, -1], "groups"))
        ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
        y = net.op("InstanceNormalization", y, net.constant(ones), net.constant(zeros), epsilon=1e-5)
        y = net.op("Reshape", y, shape)
        gain = net.constant(np.exp(net.rng.normal(0, 0.2, (out, 1, 1))), "gain")
        y = net.op("Mul", y, gain)
        y = net.op("Add", y, net.constant(net.rng.normal(0, 0.2, (out, 1, 1)), "bias"))
    return net.op("Mul", y, net.op("Sigmoid", y))


def mobilenet(seed: int) -> onnx.ModelProto:
    """Inverted residuals: expand, depthwise, squeeze-and-excitation, project; Clip and HardSwish."""
    net = Net("mobilenet", seed)
    x = net.input("image", ["batch", 3, 48, 48])
    x, inside = conv(net, x, 3, 16, stride=2, act="HardSwish"), 16
    plan = [(16, 1, False), (24, 2, False), (24, 1, True), (40, 2, True), (40, 1, True), (40, 1, False), (64, 2, True)]
    for block, (width, stride, excite) in enumerate(plan):
        with net.scope(f"features.{block}"):
            act = "HardSwish" if block > 3 else "Clip"
            wide = inside * 3
            y = conv(net, x, inside, wide, 1, act=act)
            y = conv(net, y, wide, wide, 3, stride=stride, group=wide, act=act)
            if excite:
                with net.scope("se"):
                    s = net.op("ReduceMean", y, axes=[2, 3], keepdims=1)
                    s = conv(net, s, wide, 8, 1, norm="none")
                    s = net.op("HardSigmoid", conv(net, s, 8, wide, 1, norm="none", act="", gain=2.0), alpha=1 / 6)
                y = net.op("Mul", y, s)
            y = conv(net, y, wide, width, 1, act="", last=0.8)
            x = net.op("Add", x, y) if inside == width and stride == 1 else y
            inside = width
    x = conv(net, x, inside, 96, 1, act="HardSwish")
    classifier(net, x, 96)
    return net.model()
