"""The full set of metrics against definitions that are slow and obvious."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_debug.compare import Difference, Tally, compare
from surgeon_debug.element_classes import ElementClass, smallest_normal
from surgeon_debug.histogram import LogHistogram
from surgeon_debug.ulp import TF32, ordinals
from surgeon_debug.values import kind_of, normalise
from surgeon_debug.widen import epsilon, largest_finite
from tests.debug.test_screen import FLOATS, arrays, as_float, numbers

LEVELS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999, "p99_99": 0.9999}


def at_share(values: list[float], share: float) -> float:
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1] if values else 0.0


def slow_class(x: float, dtype: np.dtype, compute: np.dtype, *, target: bool) -> str:
    if x != x:
        return "nan"
    if math.isinf(x):
        return "+inf" if x > 0 else "-inf"
    if x == 0:
        return "zero"
    if kind_of(np.zeros(0, dtype)) != "float":
        top = float(largest_finite(dtype))
        low = -top - 1 if not dtype.name.startswith("u") else None
        return "saturated" if dtype.kind != "b" and (abs(float(x)) == top or float(x) == low) else "finite"
    if abs(x) == largest_finite(dtype) or (target and abs(x) == largest_finite(compute)):
        return "saturated"
    return "subnormal" if abs(x) < smallest_normal(compute) else "finite"


def slow_ulps(pairs: list[tuple[float, float]], compute: np.dtype) -> list[int]:
    """Counts the representable numbers between two, of the whole list of numbers there are."""
    width = compute.itemsize
    codes = np.arange(1 << (8 * width), dtype=np.uint32).astype(f"u{width}").view(compute)
    every = sorted({float(x) for x in codes if not math.isnan(float(x))})
    rank = {x: i for i, x in enumerate(every)}
    with np.errstate(all="ignore"):
        rounded = [[float(np.float64(x).astype(compute)) for x in pair] for pair in pairs]
    return [abs(rank[a] - rank[b]) for a, b in rounded if not math.isnan(a + b) or math.isinf(a)]


def assert_same_as_slow(found: Difference, reference: np.ndarray, target: np.ndarray) -> None:
    pairs = list(zip(numbers(reference), numbers(target), strict=True))
    both = [(Fraction(a), Fraction(b)) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    errors = [abs(b - a) for a, b in both]
    peak = max((abs(a) for a, _ in both), default=Fraction(0))
    gap = max(epsilon(reference.dtype), epsilon(target.dtype))
    floor = Fraction(1) if found.exact else peak * Fraction(gap)
    if floor:
        relative = [e / max(abs(a), floor) for e, (a, _) in zip(errors, both, strict=True)]
        assert found.max_rel == pytest.approx(as_float(max(relative, default=Fraction(0))), rel=1e-12, abs=1e-300)
        mean = as_float(sum(relative, Fraction(0)) / len(both)) if both else 0.0
        assert found.mean_rel == pytest.approx(mean, rel=1e-12, abs=1e-300)
        check_percentiles(found.rel_percentiles, [as_float(x) for x in relative])
    check_percentiles(found.abs_percentiles, [as_float(x) for x in errors])
    if not found.exact:
        assert found.sqnr == (math.inf if found.rel_l2 == 0 else pytest.approx(-20 * math.log10(found.rel_l2))) or (
            found.rel_l2 == math.inf
        )
    compute = target.dtype if epsilon(target.dtype) > epsilon(reference.dtype) else reference.dtype
    cells: dict[tuple[str, str], int] = {}
    for a, b in pairs:
        key = (
            slow_class(a, reference.dtype, compute, target=False), slow_class(b, target.dtype, compute, target=True),
        )  # fmt: skip
        cells[key] = cells.get(key, 0) + 1
    assert {(cell.reference.value, cell.target.value): cell.count for cell in found.confusion} == cells
    for name in ("saturated", "subnormal"):
        counts = getattr(found, name)
        assert counts.reference == sum(n for (a, _), n in cells.items() if a == name)
        assert counts.mismatched == sum(n for (a, b), n in cells.items() if (a == name) != (b == name))
    check_worst(found, reference, target, pairs)


def check_percentiles(found: object, values: list[float]) -> None:
    for name, share in LEVELS.items():
        exact = at_share(values, share)
        if exact < 2.0**-1022:
            assert getattr(found, name) < 2.0**-1021
        else:
            assert getattr(found, name) == pytest.approx(exact, rel=0.0323)


def check_worst(found: Difference, reference: np.ndarray, target: np.ndarray, pairs: list) -> None:
    def size(a: float, b: float) -> float:
        if a == b or (a != a and b != b):
            return 0.0
        return as_float(abs(Fraction(b) - Fraction(a))) if math.isfinite(a) and math.isfinite(b) else math.inf

    expected = sorted((size(a, b) for a, b in pairs if size(a, b)), reverse=True)[:16]
    seen = [size(e.reference, e.target) for e in found.worst_elements]
    assert seen == pytest.approx(expected, rel=1e-12)
    assert len({e.index for e in found.worst_elements}) == len(seen)
    for element in found.worst_elements:
        assert str(element.reference) == str(numbers(reference[element.index])[0])
        assert str(element.target) == str(numbers(target[element.index])[0])


@given(arrays())
@settings(max_examples=300, deadline=None)
def test_agrees_with_the_slow_and_obvious_version(pair: list[np.ndarray]) -> None:
    reference, target = pair
    found = compare(reference, target)
    if kind_of(reference) == "bool":
        assert found.unequal == np.count_nonzero(reference != target)
        return
    assert_same_as_slow(found, reference, target)


@given(arrays(), st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_tallies_of_parts_merge_to_that_of_the_whole(pair: list[np.ndarray], cut: int) -> None:
    reference, target = (array.reshape(-1) for array in pair)
    whole, parts = Tally(), [Tally(), Tally()]
    for i, some in enumerate((slice(None, cut), slice(cut, None))):
        whole.add(reference[some], target[some], sample=i)
        parts[i].add(reference[some], target[some], sample=i)
    parts[0].merge(pickle.loads(pickle.dumps(parts[1])))
    one, two = whole.difference(), parts[0].difference()
    for name in ("confusion", "abs_percentiles", "rel_percentiles", "worst_elements", "max_rel", "unequal", "worst"):
        assert str(getattr(one, name)) == str(getattr(two, name)), name
    assert one.mean_abs == pytest.approx(two.mean_abs, rel=1e-13)


@pytest.mark.parametrize("dtype", [d for d in FLOATS if np.dtype(d).itemsize <= 2])
def test_ulps_count_the_representable_numbers_between(dtype: type) -> None:
    wide = np.dtype(dtype)
    codes = np.random.default_rng(0).integers(0, 1 << (8 * wide.itemsize), (2, 300)).astype(f"u{wide.itemsize}")
    if "float4" in wide.name:
        codes &= 15
    r, t = (side.view(dtype) for side in codes)
    finite = np.isfinite(r.astype(np.float64)) & np.isfinite(t.astype(np.float64))
    r, t = r[finite], t[finite]
    expected = slow_ulps(list(zip(r.astype(float), t.astype(float), strict=True)), wide)
    found = compare(r, t).ulp
    assert found is not None and found.dtype == wide.name
    assert found.max == max(expected)
    assert found.p50 == pytest.approx(at_share(expected, 0.5), rel=0.0626)
    for limit in (1, 4, 16):
        assert getattr(found, f"beyond_{limit}") == pytest.approx(sum(e > limit for e in expected) / len(expected))


def test_ulps_of_wide_types_and_of_the_type_computed_in() -> None:
    for dtype, size in ((np.float32, 32), (np.float64, 64)):
        least, end = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
        found = compare(np.array([-least, -0.0, 1.0], dtype), np.array([least, 0.0, 1.0], dtype)).ulp
        assert found is not None and (found.max, found.p50, found.beyond_1) == (2, 0, pytest.approx(1 / 3))
        found = compare(np.array([-end], dtype), np.array([end], dtype)).ulp
        assert found is not None and found.max == pytest.approx(2.0**size, rel=1e-2)
    r = np.array([1.0, 2.0], np.float32)
    t = np.array([1.0 + 2**-10, 2.0 + 2**-8], np.float32)
    assert compare(r, t).ulp.max == 2**14 and compare(r, t, compute="float16").ulp.max == 2
    assert compare(r, t, compute=TF32).ulp.max == 2
    assert compare(r, t.astype(np.float16)).ulp.dtype == "float16"
    assert compare(r, t.astype(ml_dtypes.bfloat16)).ulp.max == 0
    assert ordinals(np.array([0.0, -0.0, 1e-45, -1e-45], np.float32), "float32").tolist() == [0, 0, 1, -1]
    # Beyond the largest number of the type computed in stands infinity, its neighbour.
    found = compare(np.array([70000.0], np.float32), np.array([65504.0], np.float32), compute="float16").ulp
    assert found.max == 1
    assert compare(np.array([1]), np.array([2])).ulp is None
    with pytest.raises(ValueError, match="not a floating-point type"):
        ordinals(r, "int8")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4])
def test_types_of_a_byte_give_the_same_in_any_number(dtype: type) -> None:
    rng = np.random.default_rng(0)
    r, t = ((rng.standard_normal((9, 10_000)) * 4).astype(np.float32).astype(dtype) for _ in range(2))
    t[4] = r[4]
    if kind_of(r) == "float":
        r[0, :3], t[0, 1:5] = np.nan, np.nan
    whole, parts = compare(r, t, rtol=0.1, atol=0.5), Tally(rtol=0.1, atol=0.5)
    for i in range(0, 90_000, 3000):
        parts.add(r.reshape(-1)[i : i + 3000], t.reshape(-1)[i : i + 3000])
    found = parts.difference()
    names = ["confusion", "abs_percentiles", "unequal", "outside", "beyond_one", "max_abs", "ulp", "saturated"]
    for name in names:
        assert getattr(found, name) == getattr(whole, name), name
    assert whole.mean_abs == pytest.approx(found.mean_abs) and whole.rel_l2 == pytest.approx(found.rel_l2)
    assert_worst_is_worst(whole, r, t)


def assert_worst_is_worst(found: Difference, r: np.ndarray, t: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        errors = np.abs(t.astype(np.float64) - r.astype(np.float64))
    apart = np.isnan(r.astype(np.float64)) != np.isnan(t.astype(np.float64))
    errors[np.isnan(errors)] = 0
    errors[apart] = math.inf
    expected = np.sort(errors.reshape(-1))[::-1][:16]
    assert [errors[e.index] for e in found.worst_elements] == expected.tolist()


def test_a_histogram_is_within_its_bins(size: int = 5000) -> None:
    rng = np.random.default_rng(0)
    values = np.exp(rng.standard_normal(size) * 30)
    values[:100] = 0.0
    values[100:110] = math.inf
    one, two = LogHistogram(), LogHistogram()
    one.add(values[:2000])
    two.add(values[2000:])
    one.merge(LogHistogram.from_state(two.to_state()))
    assert one.total == size and one.zeros == 100 and one.infinite == 10
    for share in (0.0, 0.01, 0.02, 0.3, 0.5, 0.99, 0.998, 0.9999, 1.0):
        assert one.quantiles([share])[0] == pytest.approx(at_share(values.tolist(), share), rel=0.0323)
    assert LogHistogram().quantiles([0.5]) == [0.0]
    whole = LogHistogram()
    whole.add(np.repeat(np.arange(40.0), 3))
    assert whole.quantiles([(3 * i + 1) / 120 for i in range(32)], whole=True) == list(range(32))
    assert [whole.beyond(limit) for limit in (1, 4, 16, 31)] == [114, 105, 69, 24]


def test_overflow_and_flushing_show_in_the_classes() -> None:
    r = np.array([1.0, 70000.0, -1e6, 1e-6, 0.0, math.nan], np.float32)
    t = np.array([1.0, 65504.0, -math.inf, 0.0, 0.0, 2.0], np.float32)
    found = compare(r, t, compute="float16")
    cells = {(cell.reference, cell.target): cell.count for cell in found.confusion}
    assert cells == {
        (ElementClass.FINITE, ElementClass.FINITE): 1,
        (ElementClass.FINITE, ElementClass.SATURATED): 1,
        (ElementClass.FINITE, ElementClass.NEGINF): 1,
        (ElementClass.SUBNORMAL, ElementClass.ZERO): 1,
        (ElementClass.ZERO, ElementClass.ZERO): 1,
        (ElementClass.NAN, ElementClass.FINITE): 1,
    }
    assert found.saturated.target == 1 and found.subnormal.reference == 1
    quantised = compare(np.array([100, -128, 127], np.int8), np.array([127, -128, 127], np.int8))
    assert (quantised.saturated.reference, quantised.saturated.target) == (2, 3)


def test_channels_hold_their_share_of_the_energy() -> None:
    rng = np.random.default_rng(0)
    tally, energy, own = Tally(), np.zeros(12), np.zeros(12)
    for sample in range(3):
        r = rng.standard_normal((2, 12, 50, 41))
        t = r + rng.standard_normal(r.shape) * np.arange(12)[:, None, None]
        tally.add(r, t, sample=sample)
        energy += ((t - r) ** 2).sum((0, 2, 3))
        own += (r**2).sum((0, 2, 3))
    found = tally.difference().channels
    assert [(shares.axis, shares.size, len(shares.top)) for shares in found] == [(1, 12, 8), (3, 41, 8)]
    assert [share.index for share in found[0].top] == np.argsort(-energy)[:8].tolist()
    for share in found[0].top:
        assert share.error == pytest.approx(energy[share.index] / energy.sum())
        assert share.reference == pytest.approx(own[share.index] / own.sum())
    tally.add(np.ones((2, 3)), np.zeros((2, 3)))
    assert tally.difference().channels == ()


def test_huge_numbers_of_float64_stay_finite_where_they_are() -> None:
    end = float(np.finfo(np.float64).max)
    found = compare(np.array([end, end, 1.0]), np.array([-end, end, 1.0]))
    assert found.max_abs == math.inf and found.rel_l2 == pytest.approx(math.sqrt(2))
    assert found.max_rel == pytest.approx(2.0) and found.worst_elements[0].index == (0,)
    assert found.abs_percentiles.p50 == 0.0 and found.abs_percentiles.p90 == math.inf
    found = compare(np.full(5000, end / 2), np.full(5000, -end / 2))
    assert found.mean_abs == pytest.approx(end) and found.gain == pytest.approx(-2)


def test_text_shows_what_differs() -> None:
    r = normalise(np.array([f"a{i}" for i in range(40)]))
    t = r.copy()
    t[5:35] = "b"
    found = compare(r, t)
    assert len(found.worst_elements) == 16 and found.worst_elements[0].index == (5,)
    assert found.worst_elements[0].target == "b" and found.unequal == 30


def test_nothing_gives_zeros() -> None:
    for shape in ((0,), (3, 0, 2)):
        found = compare(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        assert found.equal and found.rel_l2 == found.mean_abs == found.max_rel == 0.0
        assert found.sqnr == math.inf and found.ulp is None and found.hints == () == found.worst_elements
