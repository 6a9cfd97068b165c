"""Whether the target holds the reference's numbers in other places: shifted, transposed, in another row, at a border.

Each question is asked about a few thousand elements first; the whole arrays are looked at, chunk by chunk, only where
those say yes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from surgeon_debug.channels import AxisEnergies
from surgeon_debug.screen import Screen
from surgeon_debug.structure import EXPLAINED, Hint, HintKind
from surgeon_debug.widen import Array

_LEAST = 1e-4  # relative error below which no element can be in another's place
_SAMPLE = 1 << 14  # elements asked first
_MAYBE = 0.5  # the share of the error that may be left among those, for the whole to be asked
_MOST_ROWS = 64
_SEED = 0


def hints_from_arrays(reference: Array, target: Array, energies: AxisEnergies, seen: Screen) -> list[Hint]:
    """What the arrays of one sample say about where its numbers went; at most one hint.

    Args:
        reference: The reference.
        target: The target, of the same shape.
        energies: Sums along the axes.
        seen: The screen of the same pair.
    """
    if not seen.rel_l2 >= _LEAST or reference.ndim == 0:
        return []
    with np.errstate(all="ignore"):
        for find in (_shift, _transposed, _row_leak):
            hint = find(reference, target)
            if hint is not None:
                return [hint]
        hint = _border(reference, target, energies)
    return [] if hint is None else [hint]


def _left_over(reference: Array, target: Array, moved: Array) -> float:
    """The share of the error that is left when the reference is replaced by what was moved; NaN if there is none."""
    before, after = Screen(), Screen()
    before.add(reference, target)
    after.add(moved, target)
    whole = before.dd.at(before.dd.exponent)
    return after.dd.at(before.dd.exponent) / whole if whole else math.nan


def _explains(reference: Array, target: Array, moved: Array, thin: tuple[slice, ...]) -> float:
    """The share of the error that moving explains; 0 as soon as a part of the arrays says no."""
    if reference.size > 2 * _SAMPLE and _left_over(reference[thin], target[thin], moved[thin]) > _MAYBE:
        return 0.0
    return 1.0 - _left_over(reference, target, moved)


def _thin(shape: tuple[int, ...], axis: int | None = None) -> tuple[slice, ...]:
    """A grid of elements out of a shape, with every index of one axis or the middle of it."""
    steps = [1] * len(shape)
    total = int(np.prod(shape))
    for i in sorted(range(len(shape)), key=lambda i: -shape[i]):
        if i != axis and total > _SAMPLE:
            steps[i] = min(shape[i], -(-total // _SAMPLE))
            total = total // shape[i] * -(-shape[i] // steps[i])
    index = [slice(None, None, step) for step in steps]
    if axis is not None and total > _SAMPLE:
        half, room = shape[axis] // 2, max(1, _SAMPLE * shape[axis] // total // 2)
        index[axis] = slice(max(0, half - room), half + room)
    return tuple(index)


def _shift(reference: Array, target: Array) -> Hint | None:
    for axis, size in enumerate(reference.shape):
        if size < 3:
            continue
        head = (slice(None),) * axis
        for step in (1, -1):
            here, there = (slice(1, None), slice(None, -1)) if step == 1 else (slice(None, -1), slice(1, None))
            ours, moved, theirs = reference[(*head, here)], reference[(*head, there)], target[(*head, here)]
            share = _explains(ours, theirs, moved, _thin(ours.shape, axis))
            if share >= EXPLAINED:
                way = "later" if step == 1 else "earlier"
                words = (
                    f"the target is the reference moved by one to {way} places along axis {axis}; "
                    f"this explains {100 * share:.3g} % of the error"
                )
                return Hint(HintKind.SHIFT, axis, (step,), share, words)
    return None


def _orders(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders of axes that happen: two exchanged, or channels moved to the end or back."""
    rank = len(shape)
    seen = {tuple(range(rank))}
    swaps = []
    for a, b in itertools.combinations([axis for axis in range(rank) if shape[axis] > 1], 2):
        order = list(range(rank))
        order[a], order[b] = b, a
        swaps.append(tuple(order))
    moves = [(0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))] if rank > 2 else []
    for candidate in (*swaps, *moves):
        if candidate not in seen:
            seen.add(candidate)
            yield candidate


def _transposed(reference: Array, target: Array) -> Hint | None:
    if reference.ndim < 2 or reference.ndim > 6 or not target.flags.c_contiguous:
        return None
    some = np.sort(np.random.default_rng(_SEED).integers(0, reference.size, min(reference.size, _SAMPLE // 4)))
    index = np.unravel_index(some, reference.shape)
    ours, theirs = reference[index], target[index]
    for order in _orders(reference.shape):
        turned = reference.transpose(order)
        if _left_over(ours, theirs, turned[np.unravel_index(some, turned.shape)]) > _MAYBE:
            continue
        before, after = Screen(), Screen()
        before.add(reference, target)
        after.add(turned, target.reshape(turned.shape))
        share = 1.0 - after.dd.at(before.dd.exponent) / before.dd.mantissa if before.dd.mantissa else 0.0
        if share >= EXPLAINED:
            words = (
                f"the target holds the reference with its axes in the order {list(order)}; "
                f"this explains {100 * share:.3g} % of the error"
            )
            return Hint(HintKind.TRANSPOSED, None, order, share, words)
    return None


def _row_leak(reference: Array, target: Array) -> Hint | None:
    rows = reference.shape[0]
    if reference.ndim < 2 or not 2 <= rows <= _MOST_ROWS or reference[0].size < 4:
        return None
    thin = _thin(reference.shape, 0)
    ours, theirs = (array[thin].reshape(rows, -1).astype(np.float64) for array in (reference, target))
    finite = np.isfinite(ours).all(0) & np.isfinite(theirs).all(0)
    ours, theirs = ours[:, finite], theirs[:, finite]
    if ours.shape[1] < 4:
        return None
    scale = float(np.abs(ours).max()) or 1.0
    ours, theirs = ours / scale, theirs / scale
    left = np.stack([((theirs - row) ** 2).sum(1) for row in ours], axis=1)  # by row of the target, of the reference
    own = left.diagonal()
    source = np.where(left.min(1) <= _MAYBE * own, left.argmin(1), np.arange(rows))
    taken = np.flatnonzero((source != np.arange(rows)) & (own > 0.0))
    if not taken.size:
        return None
    before, after = Screen(), Screen()
    for row in range(rows):
        before.add(reference[row], target[row])
        after.add(reference[int(source[row])], target[row])
    share = 1.0 - after.dd.at(before.dd.exponent) / before.dd.mantissa if before.dd.mantissa else 0.0
    if not share >= EXPLAINED:
        return None
    which = ", ".join(f"{row} holds row {source[row]}" for row in taken[:4]) + (", ..." if taken.size > 4 else "")
    words = f"rows of axis 0 stand in other rows' places: {which}; this explains {100 * share:.3g} % of the error"
    return Hint(HintKind.ROW_LEAK, 0, tuple(int(row) for row in taken), share, words)


def _border(reference: Array, target: Array, energies: AxisEnergies) -> Hint | None:
    """Whether the error sits at the edge of the last one or two axes, as where padding is wrong."""
    rank = reference.ndim
    axes = [axis for axis in range(max(2, rank - 2), rank) if reference.shape[axis] >= 4 and axis in energies.axes]
    if not axes:
        return None
    edges = sum(float(energies.axes[axis].error[[0, -1]].sum()) for axis in axes)
    if edges < EXPLAINED * float(energies.axes[axes[0]].error.sum()):
        return None
    inside = tuple(slice(1, -1) if axis in axes else slice(None) for axis in range(rank))
    whole, inner = Screen(), Screen()
    whole.add(reference, target)
    inner.add(reference[inside], target[inside])
    share = 1.0 - inner.dd.at(whole.dd.exponent) / whole.dd.mantissa if whole.dd.mantissa else 0.0
    own = 1.0 - inner.rr.at(whole.rr.exponent) / whole.rr.mantissa if whole.rr.mantissa else 0.0
    if share < EXPLAINED or 1.0 - share > 0.25 * (1.0 - own):
        return None
    named = " and ".join(map(str, axes))
    words = f"the first and last indices of axes {named} hold {100 * share:.3g} % of it, as where padding is wrong"
    return Hint(HintKind.BORDER, None, tuple(axes), share, words)
