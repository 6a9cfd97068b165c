"""What the pattern of an error says: one channel, the tail of a tile, a shift, a transposition.

A hint is given only where it explains nine tenths of the error energy, so that most differences get none. It names no
culprit; it says where to look. Hints of this file follow from energies along the axes; those that need the arrays again
are in :mod:`surgeon_debug.rearranged`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable

import numpy as np

from surgeon_debug.channels import AxisEnergies, AxisSums
from surgeon_debug.screen import Screen
from surgeon_debug.widen import Array

EXPLAINED = 0.9
"""The least share of the error energy that a hint explains."""

_OWN = 0.45  # where the error sits, at most this share of the reference's energy may sit too
_FEW = 8
_LEAST = 16  # elements; of fewer anything is a pattern
_TILES = (8, 16, 32, 64, 128)


class HintKind(enum.StrEnum):
    """What a hint is about."""

    ELEMENT = "element"
    """One element holds the error."""
    CHANNEL = "channel"
    """One index of an axis holds it."""
    FEW_CHANNELS = "few-channels"
    """A few indices of an axis hold it."""
    RANGE = "range"
    """A range of an axis that is less than half of it holds it."""
    TILE_TAIL = "tile-tail"
    """The last indices of an axis hold it, those that fill no whole tile."""
    BORDER = "border"
    """The first and last indices of the last axes hold it."""
    ALL_ZERO = "all-zero"
    """The target is 0 everywhere."""
    SIGN = "sign"
    """The target is the reference with its sign changed."""
    GAIN = "gain"
    """The target is the reference times a constant."""
    CHANNEL_GAIN = "channel-gain"
    """The same with a constant for each index of an axis."""
    BIAS = "bias"
    """The target is the reference plus a constant."""
    CHANNEL_BIAS = "channel-bias"
    """The same with a constant for each index of an axis."""
    SHIFT = "shift"
    """The target is the reference moved by one along an axis."""
    TRANSPOSED = "transposed"
    """The target holds the reference's elements in the order of other axes."""
    ROW_LEAK = "row-leak"
    """Rows of the target are other rows of the reference."""
    SATURATED = "saturated"
    """The error sits where the target is the largest number of its type and the reference is not."""
    ZEROED = "zeroed"
    """The error sits where the target is 0 and the reference is not."""


@dataclasses.dataclass(frozen=True)
class Hint:
    """One pattern in an error."""

    kind: HintKind
    """What it is about."""
    axis: int | None
    """The axis, from 0; None where it is about none."""
    where: tuple[int, ...]
    """Indices on the axis; of a tail or a range its first index and the one after its last; of an element its index."""
    share: float
    """Share of the error energy that it explains, from 0.9 to 1."""
    sentence: str
    """The same in words."""


def hints_from_energies(energies: AxisEnergies, seen: Screen) -> list[Hint]:
    """What the energies of one pair of arrays say.

    Args:
        energies: Sums along the axes.
        seen: The screen of the same pair.
    """
    axes = {axis: sums for axis, sums in energies.axes.items() if sums.error.size > 1}
    if (
        not axes
        or math.prod(energies.shape) < _LEAST
        or not 0.0 < float(next(iter(axes.values())).error.sum()) < math.inf
    ):
        return []
    simple = _whole(energies, seen)
    if simple:
        return simple
    found = [hint for axis, sums in axes.items() if (hint := _along(axis, sums)) is not None]
    if not found:
        found = [hint for axis, sums in axes.items() for hint in _constants(axis, sums, math.prod(energies.shape))]
        found = sorted(found, key=lambda hint: -hint.share)[:1]
    return found


def _percent(share: float) -> str:
    return f"{100 * min(share, 1.0):.3g} %"


def _whole(energies: AxisEnergies, seen: Screen) -> list[Hint]:
    """What is about no axis, or about one element; at most one hint."""
    sums = next(iter(energies.axes.values()))
    dd, rr, rd, drift = (float(part.sum()) for part in sums.parts)
    size = math.prod(energies.shape)
    largest = math.ldexp(seen.max_abs, -energies.exponent) if seen.max_abs < math.inf else 0.0
    element = min(1.0, largest * largest / dd)
    if element >= EXPLAINED and size > 4 and seen.worst is not None and not seen.special_mismatches:
        at = tuple(i for i in seen.worst.index if isinstance(i, int))
        return [Hint(HintKind.ELEMENT, None, at, element, f"one element, {list(at)}, holds {_percent(element)} of it")]
    if seen.tt.mantissa == 0.0:
        return [Hint(HintKind.ALL_ZERO, None, (), 1.0, "the target is 0 everywhere")]
    factor = 1.0 + rd / rr if rr else 1.0
    gain = rd * rd / (rr * dd) if rr else 0.0
    if gain >= EXPLAINED:
        kind, words = HintKind.GAIN, f"the target is {factor:.6g} times the reference"
        if abs(factor + 1.0) < 0.05:
            kind, words = HintKind.SIGN, "the target is the reference with its sign changed"
        return [Hint(kind, None, (), min(1.0, gain), f"{words}; this explains {_percent(gain)} of the error")]
    bias = drift * drift / (size * dd)
    if bias >= EXPLAINED and size >= 8:
        constant = math.ldexp(drift / size, energies.exponent)
        words = f"the target is the reference plus {constant:.6g}; this explains {_percent(bias)} of the error"
        return [Hint(HintKind.BIAS, None, (), min(1.0, bias), words)]
    return []


def _along(axis: int, sums: AxisSums) -> Hint | None:
    """The narrowest part of an axis that holds the error."""
    size = sums.error.size
    if size < 4:
        return None
    error, own = sums.error / sums.error.sum(), sums.reference / (sums.reference.sum() or 1.0)
    order = np.argsort(-error, kind="stable")
    count = int(np.searchsorted(np.cumsum(error[order]), EXPLAINED) + 1)
    few = order[:count]
    tail = None if count == 1 and few[0] != size - 1 else _tail(error, own)
    if tail is not None and (count > 1 or tail == 1):
        return _tail_hint(axis, size, tail, float(error[-tail:].sum()))
    if count <= min(_FEW, size // 4) and float(own[few].sum()) <= _OWN:
        return _few_hint(axis, size, sorted(int(i) for i in few), float(error[few].sum()), float(own[few].sum()))
    for rest in (1e-3, 2.5e-2):  # what may be left on either side
        low = int(np.searchsorted(np.cumsum(error), rest, side="right"))
        high = size - int(np.searchsorted(np.cumsum(error[::-1]), rest, side="right"))
        if high - low <= size // 2 and float(own[low:high].sum()) <= _OWN:
            share = float(error[low:high].sum())
            words = f"{low} to {high - 1} of the {size} indices of axis {axis} hold {_percent(share)} of it"
            return Hint(HintKind.RANGE, axis, (low, high), share, words)
    return None


def _tail(error: Array, own: Array) -> int | None:
    """The length of the shortest tail that fills no whole tile and holds the error; None if there is none."""
    size = error.size
    for length in sorted({size % tile for tile in _TILES if 0 < size % tile < size}):
        if float(error[-length:].sum()) >= EXPLAINED and float(own[-length:].sum()) <= _OWN:
            return length
    return None


def _tail_hint(axis: int, size: int, length: int, share: float) -> Hint:
    tile = next(tile for tile in _TILES if size % tile == length)
    which = f"the last {length}" if length > 1 else "the last"
    words = (
        f"{which} of the {size} indices of axis {axis} {'hold' if length > 1 else 'holds'} {_percent(share)} of it: "
        f"what is left over by tiles of {tile}"
    )
    return Hint(HintKind.TILE_TAIL, axis, (size - length, size), share, words)


def _few_hint(axis: int, size: int, few: list[int], share: float, own: float) -> Hint:
    which = ", ".join(map(str, few))
    if len(few) > 2 and few[-1] - few[0] == len(few) - 1:
        which = f"{few[0]} to {few[-1]}"
    kind = HintKind.CHANNEL if len(few) == 1 else HintKind.FEW_CHANNELS
    noun, verb = ("index", "holds") if len(few) == 1 else ("indices", "hold")
    words = f"{noun} {which} of axis {axis} ({size} long) {verb} {_percent(share)} of it"
    return Hint(kind, axis, tuple(few), share, f"{words} and {_percent(own)} of the reference's energy")


def _constants(axis: int, sums: AxisSums, size: int) -> Iterable[Hint]:
    """A constant for each index of an axis, added or multiplied."""
    length = sums.error.size
    each = size // length
    if each < 8:  # with one element an index, a constant explains everything
        return
    whole = float(sums.error.sum())
    bias = float((sums.drift * sums.drift).sum()) / each / whole
    if bias >= EXPLAINED:
        words = f"each index of axis {axis} is off by its own constant; this explains {_percent(bias)} of the error"
        yield Hint(HintKind.CHANNEL_BIAS, axis, (), min(1.0, bias), words)
    energy = np.where(sums.reference > 0.0, sums.reference, 1.0)
    gain = float((sums.dot * sums.dot / energy).sum()) / whole
    if gain >= EXPLAINED:
        words = f"each index of axis {axis} is scaled by its own factor; this explains {_percent(gain)} of the error"
        yield Hint(HintKind.CHANNEL_GAIN, axis, (), min(1.0, gain), words)
