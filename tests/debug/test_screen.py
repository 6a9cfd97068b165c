from __future__ import annotations

import json
import math
import pickle
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from surgeon_debug.screen import Screen
from surgeon_debug.total import Total
from surgeon_debug.triple import Triple
from surgeon_debug.values import kind_of, normalise
from surgeon_debug.widen import boxes, chunks, column_sums, inner, row_sums, widener

NARROW = [
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e4m3fnuz,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e5m2fnuz,
    ml_dtypes.float4_e2m1fn,
]
FLOATS = [np.float16, np.float32, np.float64, *NARROW]
INTS = [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64, np.bool_]
NARROW_INTS = [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2]


def screen(reference: np.ndarray, target: np.ndarray) -> Screen:
    found = Screen()
    found.add(reference, target)
    return found


def numbers(array: np.ndarray) -> list[int | float]:
    kind = float if kind_of(array) == "float" else int
    return [kind(x) for x in array.reshape(-1)]


def slow(reference: np.ndarray, target: np.ndarray) -> dict[str, Fraction | int]:
    """The definitions, element by element and in exact arithmetic."""
    pairs = list(zip(numbers(reference), numbers(target), strict=True))
    both = [(Fraction(a), Fraction(b)) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    found: dict[str, Fraction | int] = {
        "elements": len(pairs),
        "finite": len(both),
        "unequal": sum(not (a == b or (a != a and b != b)) for a, b in pairs),
        "dd": sum(((b - a) ** 2 for a, b in both), Fraction(0)),
        "rr": sum((a * a for a, _ in both), Fraction(0)),
        "tt": sum((b * b for _, b in both), Fraction(0)),
        "rd": sum((a * (b - a) for a, b in both), Fraction(0)),
        "max_abs": max((abs(b - a) for a, b in both), default=Fraction(0)),
        "max_reference": max((abs(a) for a, _ in both), default=Fraction(0)),
    }
    for name, is_it in (("nan", math.isnan), ("posinf", lambda x: x == math.inf), ("neginf", lambda x: x == -math.inf)):
        found[f"{name}.reference"] = sum(is_it(a) for a, _ in pairs)
        found[f"{name}.target"] = sum(is_it(b) for _, b in pairs)
        found[f"{name}.mismatched"] = sum(is_it(a) != is_it(b) for a, b in pairs)
    return found


def as_float(number: Fraction | int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def root(number: Fraction) -> float:
    """The square root, of numbers beyond float64 too."""
    if number <= 0:
        return 0.0
    shift = (number.numerator.bit_length() - number.denominator.bit_length()) // 2
    try:
        return math.ldexp(math.sqrt(number / Fraction(4) ** shift), shift)
    except OverflowError:
        return math.inf


def assert_same_as_slow(found: Screen, reference: np.ndarray, target: np.ndarray) -> None:
    expected = slow(reference, target)
    for name in ("elements", "finite", "unequal"):
        assert getattr(found, name) == expected[name], name
    for name in ("nan", "posinf", "neginf"):
        for side in ("reference", "target", "mismatched"):
            assert getattr(getattr(found, name), side) == expected[f"{name}.{side}"], (name, side)
    assert found.equal == (expected["unequal"] == 0)
    assert found.max_abs == pytest.approx(as_float(expected["max_abs"]), rel=1e-15)
    assert found.max_reference == pytest.approx(as_float(expected["max_reference"]), rel=1e-15)
    for name in ("dd", "rr", "tt"):
        assert abs(exactly(getattr(found, name)) - expected[name]) <= Fraction(1e-13) * expected[name], name
    both = root(expected["rr"]) * root(expected["dd"])
    if both < math.inf:
        assert abs(exactly(found.rd) - expected["rd"]) <= Fraction(1e-13) * Fraction(both) + Fraction(5e-324)
    assert found.rel_l2 == pytest.approx(root(expected["dd"] / expected["rr"]) if expected["rr"] else found.rel_l2)


def exactly(total: Total) -> Fraction:
    return (Fraction(total.high) + Fraction(total.low)) * Fraction(2) ** total.exponent


@st.composite
def arrays(draw: st.DrawFn, count: int = 2) -> list[np.ndarray]:
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    family = draw(st.sampled_from(["float", "int", "narrow int", "huge"]))
    if family == "int":
        dtypes = [draw(st.sampled_from(INTS))] * count
        info = np.iinfo(dtypes[0]) if dtypes[0] is not np.bool_ else None
        elements = st.integers(int(info.min), int(info.max)) if info else st.booleans()
        base: type = dtypes[0]
    elif family == "narrow int":
        dtypes, base = [draw(st.sampled_from(NARROW_INTS))] * count, np.int8
        elements = st.integers(-8, 7)
    else:
        dtypes = [draw(st.sampled_from(FLOATS if family == "float" else [np.float64])) for _ in range(count)]
        elements, base = st.floats(width=64 if family == "huge" else 32), np.float64
    found = [draw(hnp.arrays(base, shape, elements=elements)) for _ in range(count)]
    for i in range(1, count):
        if draw(st.booleans()):
            found[i] = np.where(draw(hnp.arrays(bool, shape)), found[0], found[i])
    with np.errstate(all="ignore"):
        found = [np.asarray(array).astype(dtype) for array, dtype in zip(found, dtypes, strict=True)]
    if draw(st.booleans()):
        found = [strided(array) for array in found]
    for array in found:
        array.flags.writeable = False
    return found


def strided(array: np.ndarray) -> np.ndarray:
    """The same values in an array that is not contiguous."""
    wide = np.zeros((*array.shape, 3), array.dtype)
    wide[..., 1] = array
    return wide[..., 1]


@given(arrays())
@settings(max_examples=400, deadline=None)
def test_agrees_with_the_slow_and_obvious_version(pair: list[np.ndarray]) -> None:
    reference, target = pair
    found = screen(reference, target)
    assert_same_as_slow(found, reference, target)
    if found.worst is not None:
        index = found.worst.index
        for side, array in ((found.worst.reference, reference), (found.worst.target, target)):
            element = numbers(array[index])[0]
            assert side == element or (math.isnan(side) and math.isnan(element))
        if not found.special_mismatches:
            gap = Fraction(found.worst.target) - Fraction(found.worst.reference)
            assert as_float(abs(gap)) == pytest.approx(found.max_abs, rel=1e-15)
    else:
        assert found.unequal == 0 or reference.dtype.kind == "b"


@given(arrays(), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_parts_merge_to_the_whole_and_survive_json_and_pickle(pair: list[np.ndarray], cut: int) -> None:
    reference, target = (array.reshape(-1) for array in pair)
    whole = Screen()
    whole.add(reference, target)
    parts = [screen(reference[:cut], target[:cut]), Screen(), Screen()]
    parts[1].add(reference[cut:], target[cut:], sample=1)
    merged = Screen.from_state(json.loads(json.dumps(parts[2].to_state())))
    for part in parts[:2]:
        merged.merge(Screen.from_state(json.loads(json.dumps(pickle.loads(pickle.dumps(part)).to_state()))))
    if whole.max_abs < math.inf:
        assert_same_as_slow(merged, reference, target)
    assert (merged.reference_dtype, merged.exact, merged.coarse_epsilon) == (
        whole.reference_dtype, whole.exact, whole.coarse_epsilon,
    )  # fmt: skip
    assert (merged.worst is None) == (whole.worst is None)


@given(arrays(count=3))
@settings(max_examples=150, deadline=None)
def test_a_triple_is_three_screens(values: list[np.ndarray]) -> None:
    reference, target, isolated = values
    triple = Triple()
    triple.add(reference, target, isolated)
    for found, one, two in (
        (triple.total, reference, target),
        (triple.introduced, reference, isolated),
        (triple.inherited, isolated, target),
    ):
        assert json.dumps(found.to_state()) == json.dumps(screen(one, two).to_state())
    state = json.dumps(triple.to_state())
    assert json.dumps(Triple.from_state(json.loads(state)).to_state()) == state


@pytest.mark.parametrize("equal", ["none", "isolated is reference", "target is reference", "target is isolated", "all"])
def test_a_triple_of_many_chunks(equal: str) -> None:
    rng = np.random.default_rng(0)
    r = rng.standard_normal(100_003).astype(np.float32)
    t, i = (r + rng.standard_normal(r.size).astype(np.float32) * 1e-3 for _ in range(2))
    if "isolated is reference" in equal or equal == "all":
        i = r.copy()
    if equal in ("target is reference", "all"):
        t = r.copy()
    if equal == "target is isolated":
        t = i.copy()
    triple = Triple()
    triple.add(r, t, i)
    wide = [x.astype(np.longdouble) for x in (r, t, i)]
    for found, one, two in ((triple.total, 0, 1), (triple.introduced, 0, 2), (triple.inherited, 2, 1)):
        error = wide[two] - wide[one]
        assert found.dd.value == pytest.approx(float(error @ error), rel=1e-13)
        assert found.rr.value == pytest.approx(float(wide[one] @ wide[one]), rel=1e-13)
        assert found.rd.value == pytest.approx(float(wide[one] @ error), rel=1e-10, abs=1e-10)
        assert found.max_abs == float(np.abs(error).max())
        assert found.unequal == np.count_nonzero(error)


def test_a_triple_of_what_is_no_array() -> None:
    one = np.ones(2, np.float32)
    triple = Triple()
    triple.add([one], [one * 2], [one])
    assert triple.total.max_abs == 1.0 and triple.introduced.equal and triple.inherited.max_abs == 1.0
    triple.add(one, one, one[:1])
    assert triple.introduced.mismatch == "shape 2 against 1" and not triple.total.mismatch
    text = normalise(np.array(["a"]))
    triple.add(text, text, text)
    assert triple.total.elements == 2 + 2 + 1


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int8, np.int64]
)
def test_special_values_and_equal_bits_across_chunks(dtype: type) -> None:
    rng = np.random.default_rng(3)
    r = (rng.standard_normal(70_001) * 10).astype(dtype)
    if kind_of(r) == "float":
        r[[5, 40_000]] = np.nan
    t = r.copy()
    t[50_000] = 3 if int(r[50_000]) != 3 else 4
    found = screen(r, t)
    assert found.unequal == 1 and found.worst is not None and found.worst.index == (50_000,)
    assert found.elements == r.size and found.finite == r.size - found.nan.reference
    assert found.nan.mismatched == 0
    wide = r.astype(np.float64)
    assert found.rr.value == pytest.approx(float(np.nansum(wide * wide)), rel=1e-12)
    assert screen(r, r).equal and screen(r, r.copy()).rr.value == pytest.approx(found.rr.value)


def test_integers_are_exact_beyond_what_float64_holds() -> None:
    for dtype in (np.int64, np.uint64):
        found = screen(np.array([2**53, 5], dtype), np.array([2**53 + 1, 5], dtype))
        assert (found.unequal, found.max_abs, found.dd.value) == (1, 1.0, 1.0)
    mixed = screen(np.array([-1, 2**62], np.int64), np.array([2**64 - 1, 2**62 + 3], np.uint64))
    assert mixed.unequal == 2 and mixed.max_abs == 2.0**64
    assert screen(np.array([2**62], np.int64), np.array([2**62 + 3], np.uint64)).max_abs == 3.0
    low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    assert screen(np.array([low]), np.array([high])).max_abs == 2.0**64


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_squares_neither_overflow_nor_vanish(scale: float) -> None:
    found = screen(np.array([3.0, 4.0]) * 2 * scale, np.array([3.0, 4.5]) * 2 * scale)
    assert found.rel_l2 == pytest.approx(0.1)
    assert found.gain == pytest.approx(0.08)
    assert found.angle == pytest.approx(1 - (9 + 18) / (5 * math.hypot(3, 4.5)))
    small = screen(np.array([1e300]), np.array([1e300]) * (1 + 1e-15))
    assert small.rel_l2 == pytest.approx(1e-15, rel=0.2)
    found.merge(small)
    assert found.rel_l2 <= 1 and found.angle is not None


def test_complex_numbers_are_pairs() -> None:
    found = screen(np.array([1 + 2j, 3 + 0j]), np.array([1 + 2j, 3 + 4j]))
    assert found.max_abs == 4.0 and found.elements == 4
    again = Screen.from_state(json.loads(json.dumps(found.to_state())))
    assert again == found and again.worst is not None and again.worst.target == 3 + 4j
    found = screen(np.array(1 + 2j, np.complex64), np.array(1 + 3j, np.complex64))
    assert found.max_abs == 1.0 and found.worst is not None and found.worst.index == ()


def test_two_ends_of_float64() -> None:
    end = float(np.finfo(np.float64).max)
    found = screen(np.array([end, 1.0]), np.array([-end, 1.0]))
    assert found.max_abs == math.inf and found.rel_l2 == pytest.approx(2.0)
    assert found.angle == pytest.approx(2.0) and found.gain == pytest.approx(-2.0)
    assert found.worst is not None and found.worst.index == (0,)


def test_accuracy_does_not_fade_with_size() -> None:
    size = 3_000_000
    r = np.full(size, 0.1, np.float32)
    t = np.full(size, 0.2, np.float32)
    found = screen(r, t)
    a, d = Fraction(float(r[0])), Fraction(float(t[0])) - Fraction(float(r[0]))
    for total, exact in ((found.rr, a * a), (found.dd, d * d), (found.rd, a * d)):
        assert abs(Fraction(total.value) / (exact * size) - 1) < 1e-13


def test_chunks_cover_every_element_once() -> None:
    for shape in ((), (7,), (3, 5, 7), (40, 3), (1, 1), (0, 4), (2, 100)):
        array = np.arange(int(np.prod(shape))).reshape(shape)
        for given_array in (array, np.asfortranarray(array), strided(array)):
            for size in (1, 4, 36, 1000):
                parts = list(chunks([given_array], size))
                assert all(part.size <= size for _, [part] in parts)
                flat = np.concatenate([part for _, [part] in parts]) if parts else np.zeros(0)
                assert np.array_equal(flat, array.reshape(-1))
                assert [start for start, _ in parts] == np.cumsum([0, *(p.size for _, [p] in parts)])[:-1].tolist()
    assert list(boxes((2, 3), 2)) == [
        (0, (0, slice(0, 2))), (2, (0, slice(2, 3))), (3, (1, slice(0, 2))), (5, (1, slice(2, 3))),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", NARROW + NARROW_INTS)
def test_every_element_of_a_narrow_type_widens_to_itself(dtype: type) -> None:
    kind = np.dtype(dtype)
    if "int" in kind.name:
        signed, bits = kind.name.startswith("i"), int(kind.name[-1])
        elements = np.arange(-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed)).astype(dtype)
    else:
        codes = np.arange(2**16, dtype=np.uint16) if kind.itemsize == 2 else np.arange(256, dtype=np.uint8)
        elements = codes[: 16 if "float4" in kind.name else None].view(dtype)
    wide = np.empty(elements.size)
    with np.errstate(all="ignore"):
        widener(kind)(elements, wide)
    assert np.array_equal(wide, [float(x) for x in elements], equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (7, 5), (5000, 3), (3, 5000), (8192, 4), (9001, 16)])
def test_sums_of_rows_and_columns(shape: tuple[int, int]) -> None:
    grid = np.random.default_rng(0).standard_normal(shape)
    assert row_sums(grid) == pytest.approx(grid.sum(1), abs=1e-9)
    assert column_sums(grid) == pytest.approx(grid.sum(0), abs=1e-9)
    flat = grid.reshape(-1)
    assert inner(flat, flat[::-1].copy()) == pytest.approx(float((flat * flat[::-1]).sum()), abs=1e-8)
