"""What people do without isolation: run both sides once, each on its own values, and look at the differences.

All of them see the same tensors in topological order and the total error only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from tests.bench.planted_layers.ground import Array, relative_l2

LIMIT, COSINE = 1e-2, 0.99


@dataclasses.dataclass(frozen=True)
class Guesses:
    """The tensor that each baseline names; empty if it accuses none."""

    first_over_limit: str
    """The first with a relative L2 error over 1e-2."""
    low_cosine: str
    """The first with a cosine below 0.99."""
    largest_jump: str
    """The one whose error exceeds the largest of its inputs' errors most."""
    over_limit: int
    """How many tensors are over the limit in all."""
    low_cosines: int
    """How many have a low cosine."""
    compared: int
    """How many were compared."""


def cosine_of(reference: Array, value: Array) -> float:
    """Cosine in float64; 1 for equal values and for two zeros, NaN where a value is."""
    if reference.shape != value.shape:
        return float("nan")
    r, v = (np.asarray(x).astype(np.float64).reshape(-1) for x in (reference, value))
    with np.errstate(all="ignore"):
        size = np.linalg.norm(r) * np.linalg.norm(v)
        if size == 0.0:
            return 1.0 if not r.any() and not v.any() else 0.0
        return float(r @ v / size)


def guess(model: onnx.ModelProto, reference: Mapping[str, Array], target: Mapping[str, Array]) -> Guesses:
    """Ask all baselines about one case.

    Args:
        model: What the reference ran; its nodes are in topological order.
        reference: Its tensors.
        target: Those of the target, inputs included on both sides.
    """
    errors: dict[str, float] = {}
    low, over, jumps = [], [], {}
    for node in model.graph.node:
        before = max((errors.get(name, 0.0) for name in node.input), default=0.0)
        for name in _compared(node, reference, target):
            errors[name] = relative_l2(reference[name], target[name])
            if not errors[name] <= LIMIT:
                over.append(name)
            if not cosine_of(reference[name], target[name]) >= COSINE:
                low.append(name)
            if np.isfinite(before):
                jumps[name] = errors[name] - before
    jump = max(jumps, key=lambda name: jumps[name], default="")
    first, cosine = next(iter(over), ""), next(iter(low), "")
    return Guesses(first, cosine, jump, len(over), len(low), len(errors))


def _compared(node: onnx.NodeProto, reference: Mapping[str, Array], target: Mapping[str, Array]) -> Sequence[str]:
    if node.op_type == "Constant":
        return []
    return [
        name
        for name in node.output
        if name in reference and name in target and reference[name].dtype.kind != "O" and reference[name].size
    ]
