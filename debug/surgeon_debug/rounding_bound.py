"""A bound on rounding for sums of products, element by element and without a tolerance.

Whatever the order of summation, the error of sum(a*b) is at most a few units of sum(|a|*|b|) for rounding the operands
and the result, and K units of the accumulator for adding up K terms (Higham, "Accuracy and Stability of Numerical
Algorithms", chapter 3). Its square root would do for errors that do not conspire; those of equal terms do. The operator
itself computes sum(|a|*|b|) from absolute values. An error beyond that is no rounding, in whichever single element.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from surgeon_debug.differential import SegmentValues, Walker
from surgeon_debug.feed_pieces import isolated_piece
from surgeon_debug.precision import Precision
from surgeon_debug.values import Value, kind_of
from surgeon_passes.errors import EngineError

LINEAR = {"MatMul", "Gemm", "Conv", "ConvTranspose", "ReduceSum", "ReduceMean", "GlobalAveragePool", "AveragePool"}
"""Operators that sum up products, or numbers, and do nothing else."""

_SLACK = 2.0  # for both sides round
_MAX_WEIGHTS = 64 << 20  # bytes of weights that are worth taking absolute values of


def bound_ratio(reference: Walker, name: str, precision: Precision, terms: int, values: SegmentValues) -> float | None:
    """The largest introduced error of any element over its rounding bound.

    Args:
        reference: The engine that computes the bound, and its model.
        name: The layer; what computes it must be one of :data:`LINEAR`.
        precision: What the target computes in.
        terms: How many terms are summed up.
        values: The segment it is in.

    Returns:
        Above 1 the error is no rounding; None if the bound cannot be computed.
    """
    source = reference.source
    nodes, _ = source.closure([name], values.available)
    if len(nodes) != 1 or source.nodes[nodes[0]].op not in LINEAR or source.has_negative_factor(nodes[0]):
        return None
    weights = source.nodes[nodes[0]].weights
    if sum(source.weight_bytes(weight) for weight in weights) > _MAX_WEIGHTS:
        return None
    fixed = {
        weight: constant for weight in weights if (constant := _absolute_weight(source.constant(weight))) is not None
    }
    try:
        piece = isolated_piece(source, [name], values.available, values.golden, {}, fixed=fixed)
        path = source.write(piece.cut)
        reference.engine.prepare(path, [name])
        sums = [reference.engine.run({k: _absolute(v) for k, v in feeds.items()})[name] for feeds in piece.feeds]
        path.unlink(missing_ok=True)
    except (EngineError, KeyError):
        return None
    unit = _unit(precision, terms)
    return max(
        (
            _ratio(r[name], i[name], total, unit, precision)
            for r, i, total in zip(values.reference, values.isolated, sums, strict=True)
        ),
        default=None,
    )


def _unit(precision: Precision, terms: int) -> float:
    operands = 2.0 * precision.unit if precision.low else 0.0
    return _SLACK * (operands + precision.unit + precision.sums * max(1, terms))


def _ratio(
    reference: np.ndarray[Any, Any], isolated: np.ndarray[Any, Any], sums: Value, unit: float, precision: Precision
) -> float:
    if not isinstance(sums, np.ndarray) or sums.shape != reference.shape or isolated.shape != reference.shape:
        return 0.0
    with np.errstate(all="ignore"):
        error = np.abs(isolated.astype(np.float64) - reference.astype(np.float64))
        allowed = np.abs(sums.astype(np.float64)) * unit + 2.0 * precision.smallest
        ratios = np.where(np.isfinite(error) & np.isfinite(allowed), error / allowed, 0.0)
    ratios[~np.isfinite(ratios)] = 0.0
    return float(ratios.max(initial=0.0))


def _absolute(value: Value) -> Value:
    return np.abs(value) if isinstance(value, np.ndarray) and kind_of(value) == "float" else value


def _absolute_weight(value: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any] | None:
    return np.abs(value) if value is not None and kind_of(value) == "float" else None
