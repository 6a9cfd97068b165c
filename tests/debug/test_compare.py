from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from surgeon_debug.compare import Tally, compare
from surgeon_debug.values import kind_of, normalise

FLOATS = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
INTS = [np.int8, np.uint8, np.int32, np.int64, np.uint64, ml_dtypes.int4, ml_dtypes.uint4, np.bool_]


def slow(reference: np.ndarray, target: np.ndarray) -> dict[str, float | int]:
    """The definitions, element by element and in exact arithmetic."""
    r, t = [list(a.reshape(-1).tolist()) for a in (reference, target)]
    if kind_of(reference) != "float":
        r, t = [[int(x) for x in a.reshape(-1)] for a in (reference, target)]
    r, t = ([float(x) if kind_of(reference) == "float" else x for x in side] for side in (r, t))
    r, t = list(r), list(t)
    both = [(Fraction(a), Fraction(b)) for a, b in zip(r, t, strict=True) if math.isfinite(a) and math.isfinite(b)]
    dd = sum(((b - a) ** 2 for a, b in both), Fraction(0))
    rr = sum((a * a for a, _ in both), Fraction(0))
    equal = [a == b or (a != a and b != b) for a, b in zip(r, t, strict=True)]
    return {
        "unequal": equal.count(False),
        "max_abs": float(max((abs(b - a) for a, b in both), default=Fraction(0))),
        "mean_abs": float(sum((abs(b - a) for a, b in both), Fraction(0)) / len(both)) if both else 0.0,
        "rel_l2": root(dd, rr),
        "nan": sum(a != a for a in r),
        "target_nan": sum(b != b for b in t),
        "posinf": sum(a == math.inf for a in r),
    }


def root(top: Fraction, bottom: Fraction) -> float:
    if top == 0:
        return 0.0
    if bottom == 0:
        return math.inf
    ratio = top / bottom
    shift = (ratio.numerator.bit_length() - ratio.denominator.bit_length()) // 2
    try:
        return math.ldexp(math.sqrt(ratio / Fraction(4) ** shift), shift)
    except OverflowError:
        return math.inf


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    dtype = draw(st.sampled_from(FLOATS + INTS))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    wide = np.float64 if kind_of(np.zeros(1, dtype)) == "float" else None
    if wide is None:
        element = st.integers(-8, 7) if dtype not in (np.int64,) else st.integers(-(2**62), 2**62)
        base = np.int64
    else:
        element, base = st.floats(width=64) if dtype == np.float64 else st.floats(-1e4, 1e4) | st.just(math.nan), wide
    one, two = (draw(hnp.arrays(base, shape, elements=element)) for _ in range(2))
    if draw(st.booleans()):
        two = np.where(draw(hnp.arrays(bool, shape)), one, two)
    with np.errstate(all="ignore"):
        return one.astype(dtype), np.asarray(two).astype(dtype)


@given(pairs())
@settings(max_examples=300, deadline=None)
def test_agrees_with_the_slow_and_obvious_version(pair: tuple[np.ndarray, np.ndarray]) -> None:
    reference, target = pair
    found, expected = compare(reference, target), slow(reference, target)
    assert found.elements == reference.size
    assert found.unequal == expected["unequal"]
    assert found.equal == (expected["unequal"] == 0)
    assert (found.nan.reference, found.nan.target, found.posinf.reference) == (
        expected["nan"], expected["target_nan"], expected["posinf"],
    )  # fmt: skip
    assert found.max_abs == pytest.approx(expected["max_abs"], rel=1e-12)
    # Sums are in float64, which rounds integers of 64 bits.
    coarse = reference.dtype.itemsize == 8 and found.exact
    assert found.mean_abs == pytest.approx(expected["mean_abs"], rel=1e-12, abs=4096 if coarse else 1e-300)
    # Squares of numbers 150 orders of magnitude apart may vanish beside each other.
    close = found.rel_l2 == pytest.approx(expected["rel_l2"], rel=1e-12, abs=1e-15 if coarse else 1e-140)
    assert close or min(found.rel_l2, expected["rel_l2"]) > 1e100
    if found.worst is not None:
        index = found.worst.index
        for side, array in ((found.worst.reference, reference), (found.worst.target, target)):
            element = int(array[index]) if kind_of(array) in ("int", "bool") else float(array[index])
            assert side == element or (math.isnan(side) and math.isnan(element))


@given(pairs(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_samples_add_up_to_what_one_array_gives(pair: tuple[np.ndarray, np.ndarray], cut: int) -> None:
    reference, target = (a.reshape(-1) for a in pair)
    tally = Tally()
    tally.add(reference[:cut], target[:cut])
    tally.add(reference[cut:], target[cut:], sample=1)
    parts, whole = tally.difference(), compare(reference, target)
    assert (parts.unequal, parts.nan, parts.max_abs) == (whole.unequal, whole.nan, whole.max_abs)
    assert parts.rel_l2 == pytest.approx(whole.rel_l2, rel=1e-12, abs=1e-140)
    assert parts.mean_abs == pytest.approx(whole.mean_abs, rel=1e-12, abs=1e-300)


def test_many_pieces_give_what_one_gives(size: int = 100_003) -> None:
    rng = np.random.default_rng(0)
    r = rng.standard_normal(size).astype(np.float32)
    t = r + rng.standard_normal(size).astype(np.float32) * 1e-3
    t[70_000] = 50.0
    found = compare(r, t)
    wide = t.astype(np.float64) - r
    assert found.rel_l2 == pytest.approx(np.linalg.norm(wide) / np.linalg.norm(r.astype(np.float64)), rel=1e-12)
    assert found.worst is not None and found.worst.index == (70_000,)
    assert found.max_rel == pytest.approx(np.max(np.abs(wide) / np.maximum(np.abs(r), np.abs(r).max() * 2**-23)))


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_squares_neither_overflow_nor_vanish(scale: float) -> None:
    found = compare(np.array([3.0, 4.0]) * scale, np.array([3.0, 4.5]) * scale)
    assert found.rel_l2 == pytest.approx(0.1)
    assert found.gain == pytest.approx(0.08)
    tally = Tally()
    tally.add(np.array([3.0]), np.array([3.0]))
    tally.add(np.array([4.0]) * scale, np.array([4.5]) * scale, sample=1)
    big = max(3.0, 4.0 * scale)
    expected = 0.5 * scale / big / math.hypot(3.0 / big, 4.0 * scale / big)
    assert tally.difference().rel_l2 == pytest.approx(expected, rel=1e-2, abs=1e-161)


def test_special_values_are_counted_not_averaged() -> None:
    inf, nan = math.inf, math.nan
    r = np.array([1, nan, inf, -inf, 2, inf, nan], np.float32)
    t = np.array([1, nan, inf, -inf, inf, -inf, 3], np.float32)
    found = compare(r, t)
    assert (found.nan.reference, found.nan.target, found.nan.mismatched) == (2, 1, 1)
    assert (found.posinf.reference, found.posinf.target, found.posinf.mismatched) == (2, 2, 2)
    assert (found.neginf.reference, found.neginf.target, found.neginf.mismatched) == (1, 2, 1)
    assert found.unequal == 3
    assert found.rel_l2 == 0.0 and found.max_abs == 0.0  # the one number finite on both sides is equal
    assert found.worst is not None and found.worst.index == (4,)
    assert compare(np.array([nan, inf]), np.array([nan, inf])).equal


def test_the_angle_does_not_drown_in_rounding() -> None:
    rng = np.random.default_rng(1)
    r = rng.standard_normal(5000)
    side = rng.standard_normal(5000)
    side -= r * (side @ r) / (r @ r)
    for tilt in (1e-3, 1e-6, 1e-9):
        t = r + tilt * side * np.linalg.norm(r) / np.linalg.norm(side)
        exact = 1.0 - 1.0 / math.hypot(1.0, tilt) if tilt > 1e-4 else tilt**2 / 2
        assert compare(r, t).angle == pytest.approx(exact, rel=1e-4)
    scaled = compare(r, 1.25 * r)
    assert scaled.angle == pytest.approx(0.0, abs=1e-15) and scaled.gain == pytest.approx(0.25)
    assert compare(r, -r).cosine == pytest.approx(-1.0)
    assert compare(r, 0 * r).angle is None and compare(0 * r, 0 * r).angle == 0.0


def test_integers_are_exact_beyond_what_float64_holds() -> None:
    for dtype in (np.int64, np.uint64):
        found = compare(np.array([2**53, 5], dtype), np.array([2**53 + 1, 5], dtype))
        assert (found.unequal, found.max_abs, found.exact) == (1, 1.0, True)
        assert found.worst is not None and found.worst.target == 2**53 + 1
    assert compare(np.array([5], np.int32), np.array([5], np.int64)).unequal == 0
    assert compare(np.array([-128], np.int8), np.array([127], np.int8)).max_abs == 255
    assert compare(np.array([1, 5, 9]), np.array([2, 5, 11])).beyond_one == 1


def test_types_numpy_lacks_are_numbers() -> None:
    r = np.array([-8, 7, 3], ml_dtypes.int4)
    found = compare(r, np.array([-8, 6, 3], ml_dtypes.int4))
    assert (found.unequal, found.max_abs, found.reference_dtype) == (1, 1.0, "int4")
    halves = np.array([0.5, 448.0], ml_dtypes.float8_e4m3fn)
    found = compare(halves, np.array([0.5, 416.0], ml_dtypes.float8_e4m3fn))
    assert found.max_abs == 32.0 and found.coarse_epsilon == 0.125
    found = compare(np.array([1.0], np.float32), np.array([1.0078125], ml_dtypes.bfloat16))
    assert found.max_abs == 0.0078125 and found.target_dtype == "bfloat16"


def test_what_cannot_be_compared_says_why() -> None:
    one = np.zeros((2, 3), np.float32)
    assert compare(one, np.zeros((3, 2), np.float32)).mismatch == "shape 2x3 against 3x2"
    assert compare(one, np.float32(0).reshape(())).mismatch == "shape 2x3 against scalar"
    assert compare(one, np.zeros((2, 3), np.int32)).mismatch == "float32 against int32"
    assert compare(one, None).mismatch == "float32 against none"
    assert compare([one], [one, one]).mismatch == "1 items against 2"
    assert compare([one, one], [one, one[:1]]).mismatch == "shape 2x3 against 1x3 at 1"
    assert "other keys" in compare({"a": one}, {"b": one}).mismatch
    assert not compare(one, np.zeros((3, 2), np.float32)).equal


def test_sequences_maps_and_text() -> None:
    one = np.ones(2, np.float32)
    found = compare([one, {"k": one}], [one, {"k": one * 2}])
    assert found.max_abs == 1.0 and found.elements == 4
    assert found.worst is not None and found.worst.index == (1, "k", 0)
    found = compare(normalise(np.array(["a", "b"])), normalise(np.array(["a", "c"], object)))
    assert found.unequal == 1 and found.worst is not None and found.worst.target == "c"
    assert compare(None, None).equal


def test_complex_numbers_are_pairs() -> None:
    found = compare(np.array([1 + 2j, 3 + 0j]), np.array([1 + 2j, 3 + 4j]))
    assert found.max_abs == 4.0 and found.worst is not None and found.worst.target == 3 + 4j


def test_elements_outside_a_tolerance_are_counted() -> None:
    r, t = np.array([1.0, 10.0, math.nan, 0.0]), np.array([1.05, 10.05, 1.0, 0.0])
    assert compare(r, t).outside is None
    assert compare(r, t, rtol=0.01).outside == 2
    assert compare(r, t, atol=0.06).outside == 1
    assert compare(r, t, rtol=0.0, atol=0.0).outside == 3


def test_outsized_elements_do_not_hide_the_others() -> None:
    rng = np.random.default_rng(2)
    r = rng.standard_normal((64, 64)).astype(np.float32)
    r[:, 32:] = np.finfo(np.float32).min
    t = r.copy()
    t[:, :32] *= 1.5
    found = compare(r, t)
    assert found.rel_l2 < 1e-30
    assert found.outsized == 64 * 32 and found.ordinary_l2 == pytest.approx(0.5)
    assert compare(r[:, :32], t[:, :32]).ordinary_l2 is None


def test_an_array_in_any_order_of_memory() -> None:
    r = np.arange(12.0).reshape(3, 4)
    t = r.copy()
    t[2, 1] += 1
    found = compare(np.asfortranarray(r), t[:, :])
    assert found.worst is not None and found.worst.index == (2, 1)
    assert compare(r[::2], t[::2]).unequal == 1
