"""Make a piece smaller while the failure survives: samples, batch, other axes, and the values themselves.

Every step is a trial: a smaller piece is proposed, the reference says what is expected of it, and it is kept if the
suspect still fails in the same way. A crop halves a group of axes (see :mod:`surgeon_debug.find.axis_groups`) after
trying to jump to the one index where the error is largest, so a group of length n costs 2 log2 n + 1 trials at most.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from surgeon_debug.compare import Tally
from surgeon_debug.find.axis_groups import AxisGroup, axis_groups
from surgeon_debug.find.culprit_piece import Array, CulpritPiece
from surgeon_debug.find.seeded_weights import settings_of
from surgeon_debug.values import Value, kind_of

Attempt = Callable[[CulpritPiece], CulpritPiece | None]
"""Tries a piece: the piece with what is expected of it if the failure is there, else None; see
:meth:`surgeon_debug.find.piece_trials.PieceTrials.attempt`."""

_BITS = 4  # of a number's fraction that are kept where that will do
_WORTH_ROUNDING = 64  # elements


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """A smaller piece and how it came about."""

    piece: CulpritPiece
    steps: tuple[str, ...]
    """What was done, each a phrase."""


def shrink(
    piece: CulpritPiece,
    attempt: Attempt,
    *,
    worst_sample: int = 0,
    seen: Sequence[Mapping[str, Value]] = (),
) -> Shrunk:
    """Make a piece smaller.

    Args:
        piece: A piece that fails, with what is expected of it.
        attempt: Tries a smaller one; says None to everything once its budget is spent.
        worst_sample: The sample to keep if one is enough.
        seen: What the suspect made of the piece, one mapping a sample; tells where to look first.

    Returns:
        A piece that fails in the same way; the one given if nothing could be left out.
    """
    steps: list[str] = []
    aim = seen
    if len(piece.feeds) > 1:
        one = attempt(_one_sample(piece, worst_sample))
        if one is not None:
            steps.append(f"1 of {len(piece.feeds)} samples, the worst (number {worst_sample})")
            piece, aim = one, [seen[worst_sample]] if len(seen) > worst_sample else ()
    focus = _worst_places(piece, aim)
    piece = _crop_all(piece, attempt, focus, steps)
    return Shrunk(_plain_values(piece, attempt, steps), tuple(steps))


def _one_sample(piece: CulpritPiece, index: int) -> CulpritPiece:
    return piece.changed(feeds=[piece.feeds[index]])


def _worst_places(piece: CulpritPiece, seen: Sequence[Mapping[str, Value]]) -> dict[str, tuple[int, ...]]:
    """For each output the index where the error is largest."""
    places: dict[str, tuple[int, ...]] = {}
    if not piece.expected or not seen:
        return places
    for name in piece.outputs:
        ours, theirs = piece.expected[0].get(name), seen[0].get(name)
        if not isinstance(ours, np.ndarray) or not isinstance(theirs, np.ndarray) or ours.shape != theirs.shape:
            continue
        tally = Tally()
        tally.add(ours, theirs)
        worst = tally.difference().worst
        if worst is not None and all(isinstance(i, int) for i in worst.index) and len(worst.index) == ours.ndim:
            places[name] = tuple(int(i) for i in worst.index)
    return places


def _crop_all(
    piece: CulpritPiece, attempt: Attempt, focus: dict[str, tuple[int, ...]], steps: list[str]
) -> CulpritPiece:
    groups = axis_groups(piece, settings_of(piece))
    if len(groups) > 1:
        points = {group: (at := _aim(group, focus) or 0, at + 1) for group in groups}
        found = attempt(_cropped(piece, points))
        if found is not None:
            steps.append(f"all {len(groups)} axes that can be cropped to 1, the longest from {_longest(groups)}")
            return found
    for group in groups:
        if any(_length(piece, axis) != group.size for axis in group.members):
            continue  # an earlier crop has taken it along
        start, stop, smaller = _crop(piece, attempt, group, focus)
        if smaller is piece:
            continue
        what = "batch" if group.batch else " and ".join(f"axis {axis} of {name}" for name, axis in group.members[:3])
        steps.append(f"{what} cropped from {group.size} to {stop - start}")
        piece = smaller
        for name, axis in group.outputs:
            if name in focus and start <= focus[name][axis] < stop:
                place = list(focus[name])
                place[axis] -= start
                focus[name] = tuple(place)
            else:
                focus.pop(name, None)
    return piece


def _crop(
    piece: CulpritPiece, attempt: Attempt, group: AxisGroup, focus: Mapping[str, tuple[int, ...]]
) -> tuple[int, int, CulpritPiece]:
    """The smallest window found, and the piece with it."""
    aim = _aim(group, focus)
    first = aim or 0
    found = attempt(_cropped(piece, {group: (first, first + 1)}))
    if found is not None:
        return first, first + 1, found
    start, stop, best = 0, group.size, piece
    while stop - start > 1:
        half = (stop - start + 1) // 2
        windows = [(start, start + half), (stop - half, stop)]
        if aim is not None and aim >= start + half:
            windows.reverse()
        for low, high in windows:
            if high - low == 1 and low == first:
                continue
            found = attempt(_cropped(piece, {group: (low, high)}))
            if found is not None:
                start, stop, best = low, high, found
                break
        else:
            break
    return start, stop, best


def _length(piece: CulpritPiece, axis: tuple[str, int]) -> int:
    name, place = axis
    array = piece.weights.get(name)
    value = array if array is not None else piece.feeds[0][name]
    return int(value.shape[place])


def _aim(group: AxisGroup, focus: Mapping[str, tuple[int, ...]]) -> int | None:
    """The index along a group's axes where the error is largest; None if that is not known."""
    aims = [focus[name][axis] for name, axis in group.outputs if name in focus]
    return aims[0] if aims and aims[0] < group.size else None


def _longest(groups: Sequence[AxisGroup]) -> int:
    return max(group.size for group in groups)


def _cropped(piece: CulpritPiece, windows: Mapping[AxisGroup, tuple[int, int]]) -> CulpritPiece:
    """The piece with some groups of axes cropped, each to a window."""
    slices: dict[str, dict[int, slice]] = {}
    for group, (start, stop) in windows.items():
        for name, axis in group.members:
            slices.setdefault(name, {})[axis] = slice(start, stop)

    def part(name: str, value: Any) -> Any:
        if name not in slices or not isinstance(value, np.ndarray):
            return value
        return np.ascontiguousarray(value[tuple(slices[name].get(axis, slice(None)) for axis in range(value.ndim))])

    feeds = [{name: part(name, value) for name, value in sample.items()} for sample in piece.feeds]
    return piece.changed(feeds=feeds, weights={name: part(name, array) for name, array in piece.weights.items()})


def _plain_values(piece: CulpritPiece, attempt: Attempt, steps: list[str]) -> CulpritPiece:
    """Make values plain: zeros, else numbers of few bits, which a zip packs well."""
    fixed = settings_of(piece)
    names = [name for name, array in piece.weights.items() if name not in fixed and _worth(array)]
    names.sort(key=lambda name: -piece.weights[name].size)
    names += [name for name, value in piece.feeds[0].items() if isinstance(value, np.ndarray) and _worth(value)]
    for name in names:
        for what, make in (("zero", np.zeros_like), (f"rounded to {_BITS} bits", rounded)):
            found = attempt(_with_values(piece, name, make))
            if found is not None:
                piece = found
                steps.append(f"{name} {what}")
                break
    return piece


def _worth(array: Array) -> bool:
    return array.size > _WORTH_ROUNDING and kind_of(array) == "float"


def _with_values(piece: CulpritPiece, name: str, make: Callable[[Array], Array]) -> CulpritPiece:
    if name in piece.weights:
        return piece.changed(weights={**piece.weights, name: make(piece.weights[name])})
    return piece.changed(feeds=[{**sample, name: make(sample[name])} for sample in piece.feeds])


def rounded(array: Array) -> Array:
    """Numbers with a short fraction near those of an array, in its type; NaN and Inf as they are."""
    with np.errstate(all="ignore"):
        wide = array.astype(np.float64)
        fraction, exponent = np.frexp(wide)
        short = np.ldexp(np.round(np.ldexp(fraction, _BITS)), exponent - _BITS)
        made = np.where(np.isfinite(wide), short, wide).astype(array.dtype)
    return np.asarray(made)
