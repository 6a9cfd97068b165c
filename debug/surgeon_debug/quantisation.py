"""How much of a layer's error its quantisation to integers explains.

A number that is rounded to a multiple of ``scale`` is off by up to half of it, evenly spread: scale / sqrt(12) in the
mean square. Clipping is not rounding and is not excused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surgeon_debug.piece_source import PieceSource
from surgeon_debug.values import Value, kind_of

_QUANTISE = ("QuantizeLinear", "DequantizeLinear")


def quantisation_noise(source: PieceSource, nodes: Sequence[int], golden: Sequence[Mapping[str, Value]]) -> float:
    """The relative error that quantising inputs and weights of some nodes makes, in the mean square.

    Args:
        source: The model.
        nodes: Positions of the nodes.
        golden: Values of what they read, one mapping a sample.
    """
    energy = 0.0
    for index in nodes:
        node = source.nodes[index]
        inputs = source.inputs_of(index)
        if node.op not in _QUANTISE or len(inputs) < 2:
            continue
        scale = source.constant(inputs[1])
        if scale is None or not scale.size:
            continue
        step = float(np.sqrt(np.mean(np.square(scale.astype(np.float64)))))
        rms = _rms(inputs[0], source, node.op, scale, golden)
        if rms:
            energy += (step / math.sqrt(12.0) / rms) ** 2
    return math.sqrt(energy)


def _rms(
    name: str, source: PieceSource, op: str, scale: np.ndarray[Any, Any], golden: Sequence[Mapping[str, Value]]
) -> float:
    """The size of the numbers that are rounded; 0 where it is not known or was counted already."""
    if op == "DequantizeLinear":
        weights = source.constant(name)
        if weights is None:
            return 0.0  # its QuantizeLinear counts
        numbers = weights.astype(np.float64)
        per_axis = float(np.sqrt(np.mean(np.square(numbers))))
        return per_axis * float(np.sqrt(np.mean(np.square(scale.astype(np.float64)))))
    values = [sample[name] for sample in golden if isinstance(sample.get(name), np.ndarray)]
    floats = [value for value in values if kind_of(value) == "float" and value.size]
    if not floats:
        return 0.0
    return float(np.sqrt(max(np.mean(np.square(value.astype(np.float64))) for value in floats)))
