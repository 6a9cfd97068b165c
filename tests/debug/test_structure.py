"""Patterns in an error: each planted once, in several shapes and orders of memory; noise has none."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from surgeon_debug.compare import Tally, compare
from surgeon_debug.structure import Hint, HintKind

SHAPE = (3, 20, 18, 21)


def values(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def noisy(array: np.ndarray, size: float = 1e-3) -> np.ndarray:
    return (array + size * values(array.shape, 7)).astype(array.dtype)


def hints(reference: np.ndarray, target: np.ndarray) -> dict[HintKind, Hint]:
    return {hint.kind: hint for hint in compare(reference, target).hints}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int8])
@pytest.mark.parametrize("shape", [(64, 64), (1, 77, 100), SHAPE, (40_000,), (8, 8, 8, 8), (12, 10, 7, 7), (5, 3)])
def test_rounding_noise_has_no_pattern(dtype: type, shape: tuple[int, ...]) -> None:
    for seed in range(2):
        r = values(shape, seed) * (30 if dtype == np.int8 else 1)
        scale = 0.7 if dtype == np.int8 else 0.01
        t = r + scale * values(shape, seed + 50)
        found = hints(r.astype(dtype), t.astype(dtype))
        assert not found.keys() - {HintKind.ZEROED}, found


def test_outliers_of_the_reference_make_no_pattern_of_rounding() -> None:
    r = values((4, 64, 100))
    r[:, 5] *= 300  # where numbers are larger, rounding is
    t = r * (1 + 1e-3 * values(r.shape, 3))
    assert hints(r, t.astype(np.float32)) == {}


def test_one_element() -> None:
    r = values()
    t = noisy(r)
    t[1, 2, 3, 4] += 50
    found = hints(r, t)
    assert found.keys() == {HintKind.ELEMENT} and found[HintKind.ELEMENT].where == (1, 2, 3, 4)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_one_channel_on_any_axis(axis: int) -> None:
    r = values()
    t = noisy(r)
    at = (slice(None),) * axis + (5,)
    t[at] = noisy(r[at], 1.0)
    hint = hints(r, t)[HintKind.CHANNEL]
    assert (hint.axis, hint.where) == (axis, (5,)) and hint.share > 0.99
    assert hint.sentence.startswith(f"index 5 of axis {axis} ({SHAPE[axis]} long) holds ")


def test_a_few_channels_and_a_range_of_them() -> None:
    r = values((2, 40, 300))
    t = noisy(r)
    t[:, [3, 17, 30]] = noisy(r[:, [3, 17, 30]], 1.0)
    assert hints(r, t)[HintKind.FEW_CHANNELS].where == (3, 17, 30)
    t = noisy(r)
    t[:, 10:25] = noisy(r[:, 10:25], 1.0)
    hint = hints(r, t)[HintKind.RANGE]
    assert (hint.axis, hint.where) == (1, (10, 25))


@pytest.mark.parametrize(("size", "tail", "tile"), [(65, 1, 8), (77, 5, 8), (100, 36, 64), (44, 12, 16)])
def test_the_tail_of_a_tile(size: int, tail: int, tile: int) -> None:
    r = values((30, size))
    t = noisy(r)
    t[:, -tail:] = noisy(r[:, -tail:], 1.0)
    hint = hints(r, t)[HintKind.TILE_TAIL]
    assert (hint.axis, hint.where) == (1, (size - tail, size)) and f"tiles of {tile}" in hint.sentence


def test_a_border() -> None:
    r = values((2, 8, 14, 14))
    t = noisy(r)
    edge = np.ones((14, 14), bool)
    edge[1:-1, 1:-1] = False
    t[..., edge] = noisy(r[..., edge], 1.0)
    assert hints(r, t)[HintKind.BORDER].where == (2, 3)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("step", [1, -1])
def test_a_shift_along_any_axis(axis: int, step: int, order: str) -> None:
    shape = (6, 20, 18, 21)
    r = np.asarray(values(shape), order=order)
    t = noisy(np.roll(r, step, axis))
    hint = hints(r, t)[HintKind.SHIFT]
    assert (hint.axis, hint.where) == (axis, (step,)) and hint.share > 0.99


def test_a_shift_in_a_long_row_that_is_wrong_only_far_out() -> None:
    r = values((200_000,))
    t = r.copy()
    t[:1000] = np.roll(r, 1)[:1000]
    low, high = hints(r, t)[HintKind.RANGE].where
    assert low < 30 and 970 < high <= 1000
    t = np.roll(r, -1)
    assert hints(r, t)[HintKind.SHIFT].where == (-1,)


def test_transposed() -> None:
    r = values((2, 16, 16, 5))
    hint = hints(r, noisy(r.swapaxes(1, 2)))[HintKind.TRANSPOSED]
    assert hint.where == (0, 2, 1, 3)
    r = values((2, 12, 7, 9))
    # Channels moved to the end, and nobody told the shape.
    moved = noisy(np.ascontiguousarray(r.transpose(0, 2, 3, 1)).reshape(r.shape))
    assert hints(r, moved)[HintKind.TRANSPOSED].where == (0, 2, 3, 1)
    r = values((300, 200))
    assert HintKind.TRANSPOSED in hints(r, noisy(np.ascontiguousarray(r.T).reshape(300, 200)))


def test_sign_gain_and_bias() -> None:
    r = values()
    assert hints(r, noisy(-r)).keys() == {HintKind.SIGN}
    assert "1.25 times" in hints(r, noisy(1.25 * r))[HintKind.GAIN].sentence
    assert "plus -0.5" in hints(r, noisy(r - 0.5))[HintKind.BIAS].sentence
    assert hints(r, 0 * r).keys() == {HintKind.ALL_ZERO}
    each = values((20,), 3)[:, None, None]
    assert hints(r, noisy(r + each))[HintKind.CHANNEL_BIAS].axis == 1
    assert hints(r, noisy(r * (1 + each)))[HintKind.CHANNEL_GAIN].axis == 1


def test_rows_that_are_other_rows() -> None:
    r = values((6, 50, 40))
    t = noisy(r)
    t[2], t[5] = r[0], r[0]
    hint = hints(r, t)[HintKind.ROW_LEAK]
    assert hint.where == (2, 5) and "2 holds row 0, 5 holds row 0" in hint.sentence


def test_saturated_and_zeroed() -> None:
    r = values() * 1e4
    r[:, :, 3:9] *= 20
    t = np.clip(r, -65504, 65504).astype(np.float16)
    assert HintKind.SATURATED in hints(r, t)
    r = values()
    t = noisy(r)
    t[np.random.default_rng(0).random(r.shape) < 0.3] = 0
    assert HintKind.ZEROED in hints(r, t)


def test_the_worst_sample_speaks_and_special_values_do_not() -> None:
    tally = Tally()
    r = values()
    for sample, size in enumerate((0.001, 1.0, 0.01)):
        t = noisy(r, 1e-6)
        t[:, sample] += size * values(r[:, 0].shape, 9)
        t[0, 0, 0, 0] = np.nan
        tally.add(r, t, sample=sample)
    found = tally.difference()
    assert [(hint.kind, hint.where) for hint in found.hints] == [(HintKind.CHANNEL, (1,))]
    assert found.worst is not None and found.worst.index == (0, 0, 0, 0)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_patterns_of_any_magnitude(scale: float) -> None:
    r = values().astype(np.float64)
    t = noisy(r)
    t[:, 4] = noisy(r[:, 4], 1.0)
    assert hints(r * scale, t * scale)[HintKind.CHANNEL].where == (4,)
    assert HintKind.SHIFT in hints(r * scale, np.roll(r, 1, 2) * scale)
    assert HintKind.SIGN in hints(r * scale, -r * scale)


def test_shapes_that_have_no_axes_to_speak_of() -> None:
    for shape in ((), (1,), (1, 1), (2,), (2, 2), (0, 3)):
        r = values(shape)
        assert compare(r, r + np.float32(1)).hints == ()
    assert compare(np.arange(20) + 1j, np.arange(20) + 2j).hints == ()
    assert compare(np.arange(30).reshape(5, 6) % 2 == 0, np.zeros((5, 6), bool)).unequal == 15
