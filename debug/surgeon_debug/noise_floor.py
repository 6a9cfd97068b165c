"""How large an error the target's precision alone explains in one layer: its noise floor.

The reference engine runs the layer again on inputs that are off by what the precision rounds away. How much that moves
the output is the layer's own sensitivity, whatever its operator is and however badly conditioned its numbers are; the
floor is that movement for the rounding the layer really does, and the rounding of the output itself. Nothing here
knows what the target computed.

The rounding of a sum of K products that is accumulated one by one is a random walk over its partial sums (Higham and
Mary, "A new approach to probabilistic rounding error analysis", 2019). Its standard deviation is that of perturbing
every term by sqrt(K/6) units; what onnxruntime and OpenVINO differ by in large networks is half of that to all of it.
Sums of nearly equal terms, which round in the same direction, get more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surgeon_debug.precision import Precision
from surgeon_debug.values import kind_of

Array = np.ndarray[Any, Any]

DRAWS = 2
"""Runs with perturbed inputs, each with other signs."""

_MIN_AMPLITUDE = 2.0**-16
"""Relative size of a perturbation; float32's own rounding must not show in what it moves."""

_MOVES, _ARITHMETIC, _FUNCTION = 0.75, 2.0, 12.0
"""Units in the last place that a float32 output may be off by itself, in the root of the mean square: of operators that
move numbers, that do arithmetic, and that approximate a function, as vectorised libraries do, or take several steps."""

_LOW_MOVES, _LOW_FUNCTION = 0.6, 1.2
"""The same in units of a lower precision, in which the final rounding is nearly all."""

_ROUNDING = 1.0 / math.sqrt(3.0)
"""The root mean square of an error spread evenly over one unit to either side."""

_DRIFT = 2.0
"""Multiples of sqrt(K) units that a sum of K equal terms may be off: they all round in the same direction."""

_STEPS = {
    "Softmax": 3, "LogSoftmax": 3, "LayerNormalization": 4, "SkipLayerNormalization": 4, "InstanceNormalization": 4,
    "GroupNormalization": 4, "RMSNormalization": 3, "SimplifiedLayerNormalization": 3, "BatchNormalization": 2,
    "Gelu": 3, "FastGelu": 3, "BiasGelu": 3, "QuickGelu": 2, "Mish": 3, "LpNormalization": 3, "LRN": 4,
    "MeanVarianceNormalization": 4, "Attention": 4, "MultiHeadAttention": 4, "GroupQueryAttention": 4, "LSTM": 6,
    "GRU": 6, "RNN": 3, "Loop": 8, "Scan": 8, "If": 4, "Resize": 2, "GridSample": 3, "RotaryEmbedding": 2,
    "ReduceLogSumExp": 3, "ReduceL2": 2, "STFT": 4, "DFT": 4, "EyeLike": 1,
}  # fmt: skip
_THROUGH_ONE = {"LogSoftmax", "ReduceLogSumExp", "ReduceLogSum", "Softplus", "Mish", "Acosh", "Hardmax"}
"""Operators that round numbers around 1 on the way to results that may be much smaller."""

_MOVERS = {
    "Neg", "Abs", "Relu", "Clip", "Max", "Min", "Identity", "ReduceMax", "ReduceMin", "MaxPool", "GlobalMaxPool",
    "Where", "Transpose", "Reshape", "Concat", "Split", "Slice", "Gather", "GatherND", "GatherElements", "Cast",
    "Expand", "Squeeze", "Unsqueeze", "Flatten", "Pad", "Tile", "Dropout", "DepthToSpace", "SpaceToDepth",
    "ScatterND", "ScatterElements", "TopK", "LeakyRelu", "PRelu", "ThresholdedRelu",
}  # fmt: skip
_PLAIN = {
    "Add", "Sub", "Mul", "Div", "Sum", "Mean", "MatMul", "Gemm", "Conv", "ConvTranspose", "ReduceSum", "ReduceMean",
    "AveragePool", "GlobalAveragePool", "Sqrt", "Reciprocal", "HardSigmoid", "BatchNormalization", "Einsum",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Floor:
    """What precision explains in one layer."""

    relative: float
    """Relative L2 error that it explains."""
    conditioning: float
    """How many times larger the relative error of the output is than that of the inputs."""
    flips: float
    """For values without rounding: the share of elements that a perturbation of the inputs changes."""
    by_index: Mapping[int, Array]
    """Explained error energy along each axis, one number an index."""


def amplitude(precision: Precision) -> float:
    """The relative size of the perturbation that inputs get."""
    return max(precision.unit, _MIN_AMPLITUDE)


def perturb(value: Array, precision: Precision, rng: np.random.Generator) -> Array:
    """A value with every element moved by :func:`amplitude`, up or down at random; other than floats as they are."""
    if kind_of(value) != "float" or value.size == 0:
        return value
    wide = value.astype(np.float32 if value.dtype.itemsize <= 4 else np.float64)
    signs = rng.integers(0, 2, value.shape, np.int8).astype(wide.dtype)
    signs *= 2
    signs -= 1
    with np.errstate(all="ignore"):
        moved = np.atleast_1d(np.abs(wide))
        moved *= amplitude(precision)
        moved += precision.smallest
        moved *= signs
        moved += wide
        result: Array = moved.reshape(wide.shape).astype(value.dtype)
        # NaN and infinities stay, and no number at the end of the range becomes one.
        np.copyto(result, value, where=~np.isfinite(result))
    return result


def rounding_of(precision: Precision, op: str, terms: int, *, weighted: bool) -> float:
    """The relative error of inputs that stands for all rounding inside a layer.

    Args:
        precision: What the target computes in.
        op: The operator.
        terms: How many products are summed up for one output element.
        weighted: Whether constants take part, which are rounded to the precision too.
    """
    # Of a single operation in float32 all rounding is in the output; several in a row round what is in between.
    reading = _ROUNDING * precision.unit if precision.low or op in _STEPS else 0.0
    operands = 2.0 if weighted else 1.0
    sums = _ROUNDING * precision.sums * math.sqrt(terms / 2.0) if terms > 1 else 0.0
    return math.sqrt((operands * reading**2 + sums**2) * _STEPS.get(op, 1))


def output_units(op: str) -> float:
    """How many units in the last place of float32 the output may be off by itself."""
    return _MOVES if op in _MOVERS else _ARITHMETIC if op in _PLAIN else _FUNCTION


def output_rounding(precision: Precision, op: str) -> float:
    """The relative error that the output may have by itself, in the root of the mean square."""
    if not precision.low:
        return output_units(op) * precision.unit
    low = _LOW_MOVES if op in _MOVERS or op in _PLAIN else _LOW_FUNCTION
    return math.hypot(low * precision.unit, output_units(op) * precision.sums)


def floor_of(
    reference: Array,
    emulated: Sequence[Array],
    precision: Precision,
    op: str,
    rounding: float,
    terms: int,
) -> Floor:
    """The floor of one layer.

    Args:
        reference: Its output.
        emulated: Its output on inputs that went through :func:`perturb`, one a draw.
        precision: What the target computes in.
        op: Its operator.
        rounding: The relative error of inputs that stands for all rounding in it; see :func:`rounding_of`.
        terms: How many products are summed up for one output element.
    """
    if kind_of(reference) != "float":
        same_shape = [e for e in emulated if e.shape == reference.shape]
        changed = [float(np.mean(e != reference)) for e in same_shape if e.size]
        return Floor(0.0, 1.0, max(changed, default=0.0) if len(same_shape) == len(emulated) else 1.0, {})
    scale = (rounding / amplitude(precision)) ** 2
    own = output_rounding(precision, op) ** 2
    r = np.atleast_1d(reference.astype(np.float64))
    finite = np.isfinite(r)
    moved = np.zeros_like(r)
    with np.errstate(all="ignore"):
        energy = r * r
        for e in emulated:
            if e.shape == reference.shape:
                step = np.atleast_1d(e.astype(np.float64)) - r
                # What a small step makes infinite is as uncertain as it is large.
                moved += np.where(np.isfinite(step), step * step, energy)
        moved /= max(1, len(emulated))
    finite &= np.isfinite(moved)
    moved[~finite] = 0.0
    energy[~finite] = 0.0
    rr, mm = float(energy.sum()), float(moved.sum())
    conditioning = math.sqrt(mm / rr) / amplitude(precision) if rr else 1.0
    if terms > 1 and conditioning > 0.0:
        # Terms that add up instead of cancelling show in a conditioning far below 1, that of equal ones in 1/sqrt(K).
        own += (_DRIFT * precision.sums) ** 2 * min(terms, 4.0 / conditioning**2)
    # A number near zero is rounded to a multiple of the smallest step, whatever its size.
    absolute = (2.0 * precision.smallest) ** 2
    if op in _THROUGH_ONE:
        absolute += precision.unit**2
    explained = moved * scale + energy * own + absolute
    explained[~finite] = 0.0
    total = float(explained.sum())
    if rr == 0.0:
        return Floor(math.inf if total else 0.0, 1.0, 0.0, {})
    by_index = {axis: _along(explained, axis) for axis in range(r.ndim) if r.ndim > 1 and 2 <= r.shape[axis] <= 8192}
    return Floor(math.sqrt(total / rr), conditioning, 0.0, by_index)


def _along(energy: Array, axis: int) -> Array:
    result: Array = energy.sum(axis=tuple(i for i in range(energy.ndim) if i != axis))
    return result


@dataclasses.dataclass(frozen=True)
class Stripe:
    """The index along an axis where the error is largest against what is explained there."""

    axis: int
    index: int
    ratio: float


def worst_stripe(reference: Array, isolated: Array, floor: Floor) -> Stripe | None:
    """Where along an axis the introduced error exceeds the floor most; None if there is nothing to say.

    Catches what a norm over the whole tensor hides: one wrong channel, the wrong tail of a tile.
    """
    if not floor.by_index or isolated.shape != reference.shape or not reference.size:
        return None
    with np.errstate(all="ignore"):
        d = isolated.astype(np.float64) - reference.astype(np.float64)
    d[~np.isfinite(d)] = 0.0
    d *= d
    worst: Stripe | None = None
    for axis, explained in floor.by_index.items():
        if d.size // d.shape[axis] < _MIN_STRIPE:
            continue
        seen = _along(d, axis)
        with np.errstate(all="ignore"):
            ratios = np.where(explained > 0.0, seen / explained, np.where(seen > 0.0, np.inf, 0.0))
        at = int(ratios.argmax())
        if worst is None or math.sqrt(ratios[at]) > worst.ratio:
            worst = Stripe(axis, at, math.sqrt(float(ratios[at])))
    return worst


_MIN_STRIPE = 8  # elements below which a stripe's error is chance


def terms_of(op: str, inputs: Sequence[tuple[int, ...] | None], output: tuple[int, ...]) -> int:
    """How many terms are summed up for one element of the output, from the shapes; 1 where nothing is summed.

    Args:
        op: The operator.
        inputs: Shapes of the inputs, None where unknown or left out.
        output: Shape of the output.
    """
    first = inputs[0] if inputs and inputs[0] else ()
    second = inputs[1] if len(inputs) > 1 and inputs[1] else ()
    if op in ("Conv", "ConvInteger", "QLinearConv", "FusedConv") and len(second) > 2:
        return math.prod(second[1:])
    if op == "ConvTranspose" and len(second) > 2:
        return second[0] * math.prod(second[2:])
    if op in ("MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul"):
        return first[-1] if first else 1
    if op in ("LSTM", "GRU", "RNN"):
        return (first[-1] if first else 1) + (output[-1] if output else 1)
    if op in ("Softmax", "LogSoftmax", "LayerNormalization", "SkipLayerNormalization", "Attention", "Hardmax"):
        return max(first, default=1)
    if op in ("Gemm", "Einsum", "Loop", "Scan", "InstanceNormalization", "GroupNormalization"):
        return max((size for shape in inputs if shape for size in shape), default=1)
    if op.startswith("Reduce") or "Pool" in op or op in ("CumSum", "Mean", "Sum", "LRN", "DFT", "STFT"):
        return max(1, math.prod(first) // max(1, math.prod(output)))
    return 1
