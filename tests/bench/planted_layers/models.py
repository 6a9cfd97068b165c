"""The networks that faults are planted in, by name; a seed decides all weights, nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from tests.bench.planted_layers.attention import bert
from tests.bench.planted_layers.convolutional import inception, mobilenet, resnet, resnet_folded, unet
from tests.bench.planted_layers.decoders import gpt, llama, moe
from tests.bench.planted_layers.dense import mlp
from tests.bench.planted_layers.detector import detector
from tests.bench.planted_layers.random_graphs import random_dag
from tests.bench.planted_layers.recurrent import branches, gru, loop_rnn, lstm
from tests.bench.planted_layers.variants import bfloat16, half, quantised
from tests.bench.planted_layers.vision_transformers import swin, vit, vit_deep

__all__ = ["ARCHITECTURES", "bfloat16", "half", "quantised"]

_RANDOM = {0: 40, 2: 80, 5: 150, 8: 230, 11: 450}
"""Structures, and sizes up to which they are grown, in which no tensor is nothing but rounding."""

ARCHITECTURES: dict[str, Callable[[int], onnx.ModelProto]] = {
    "mlp": mlp,
    "resnet": resnet,
    "resnet_folded": resnet_folded,
    "inception": inception,
    "unet": unet,
    "mobilenet": mobilenet,
    "bert": bert,
    "detector": detector,
    "vit": vit,
    "vit_deep": vit_deep,
    "swin": swin,
    "gpt": gpt,
    "llama": llama,
    "moe": moe,
    "lstm": lstm,
    "gru": gru,
    "loop_rnn": loop_rnn,
    "branches": branches,
    **{f"random_dag_{number}": random_dag(number, size) for number, size in _RANDOM.items()},
}
"""Builders of float32 models; each takes a seed."""
