"""The networks that faults are planted in, by name; a seed decides all weights, nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from tests.bench.planted_layers.attention import bert
from tests.bench.planted_layers.convolutional import inception, mobilenet, resnet, resnet_folded, unet
from tests.bench.planted_layers.dense import mlp
from tests.bench.planted_layers.variants import bfloat16, half, quantised

__all__ = ["ARCHITECTURES", "bfloat16", "half", "quantised"]

ARCHITECTURES: dict[str, Callable[[int], onnx.ModelProto]] = {
    "mlp": mlp,
    "resnet": resnet,
    "resnet_folded": resnet_folded,
    "inception": inception,
    "unet": unet,
    "mobilenet": mobilenet,
    "bert": bert,
}
"""Builders of float32 models; each takes a seed."""
