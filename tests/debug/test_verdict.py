from __future__ import annotations

import numpy as np
import pytest

from surgeon_debug.compare import compare
from surgeon_debug.verdict import Judgement, Verdict, coarsest, judge, table_limit


def verdict_of(reference: object, target: object, **rules: object) -> Judgement:
    return judge(compare(reference, target), **rules)  # type: ignore[arg-type]


ONES = np.ones(1000, np.float32)


@pytest.mark.parametrize(
    ("precision", "passes", "fails"),
    [("float32", 5e-5, 2e-4), ("float16", 5e-3, 2e-2), ("bfloat16", 4e-2, 6e-2), ("float64", 1e-11, 1e-9)],
)
def test_the_table_by_precision(precision: str, passes: float, fails: float) -> None:
    good = verdict_of(ONES.astype(np.float64), ONES.astype(np.float64) * (1 + passes), precision=precision)
    bad = verdict_of(ONES.astype(np.float64), ONES.astype(np.float64) * (1 + fails), precision=precision)
    assert (good.verdict, bad.verdict) == (Verdict.AGREE, Verdict.DIFFER)
    assert f"table tolerance for {precision}" in bad.reason and bad.limit == table_limit(precision)


def test_no_precision_excuses_a_special_value_an_integer_a_type_or_a_shape() -> None:
    spoiled = ONES.copy()
    spoiled[3] = np.inf
    loose = {"precision": "float8_e5m2"}
    found = verdict_of(ONES, spoiled, **loose)
    assert found.verdict is Verdict.DIFFER and found.reason == "1 +Inf on one side only (0 against 1)"
    spoiled[3] = np.nan
    assert "1 NaN on one side only" in verdict_of(ONES, spoiled, **loose).reason
    assert verdict_of(ONES, ONES.reshape(10, 100), **loose).verdict is Verdict.SHAPE
    assert verdict_of(ONES, ONES.astype(np.int32), **loose).verdict is Verdict.SHAPE
    assert verdict_of(np.array([1]), np.array([2]), precision="float8_e5m2").verdict is Verdict.DIFFER
    assert verdict_of(np.array([True]), np.array([False]), **loose).verdict is Verdict.DIFFER
    assert verdict_of(np.array(["a"], object), np.array(["b"], object), **loose).verdict is Verdict.DIFFER


def test_special_values_on_both_sides_agree_and_are_shown() -> None:
    both = np.array([1, np.nan, np.inf], np.float32)
    found = verdict_of(both, both)
    assert found.verdict is Verdict.AGREE and found.reason == "equal (1 NaN, 1 +Inf on both sides)"


def test_one_step_is_allowed_behind_rounding_to_integers_only() -> None:
    r = np.arange(2000) % 100
    t = r.copy()
    t[:3] += 1
    assert verdict_of(r, t).verdict is Verdict.DIFFER
    assert verdict_of(r, t, rounds_to_integers=True).verdict is Verdict.AGREE
    t[:3] += 1
    assert verdict_of(r, t, rounds_to_integers=True).verdict is Verdict.DIFFER
    t = r + 1
    assert verdict_of(r, t, rounds_to_integers=True).verdict is Verdict.DIFFER


def test_an_error_hidden_by_a_mask_is_found() -> None:
    r = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    r[:, 40:] = -1e9
    t = r.copy()
    t[:, :40] *= 1.01
    found = verdict_of(r, t)
    assert found.verdict is Verdict.DIFFER and "hidden by 192 outsized" in found.reason
    t = r.copy()
    t[:, :40] *= 1 + 1e-6
    assert verdict_of(r, t).verdict is Verdict.AGREE


def test_ordinary_elements_that_the_precision_cannot_hold_are_not_off() -> None:
    r = np.full(256, 2.0**-23, np.float32)
    r[::4] = 3.5e-15  # below the smallest step of float16
    t = r.astype(np.float16).astype(np.float32)
    found = compare(r, t)
    assert found.ordinary_l2 == pytest.approx(1.0)
    assert judge(found, precision="float16").verdict is Verdict.AGREE
    assert judge(found, precision="float32").verdict is Verdict.DIFFER


def test_a_wrong_scale_is_not_excused_by_a_perfect_cosine() -> None:
    r = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    assert compare(r, 1.5 * r).cosine == pytest.approx(1.0)
    assert verdict_of(r, 1.5 * r).verdict is Verdict.DIFFER


def test_the_coarsest_precision_sets_the_limit() -> None:
    assert coarsest() == "float32"
    assert coarsest("float64") == "float64"
    assert coarsest("float32", "bfloat16", "float16") == "bfloat16"
    assert coarsest("float16", "quantised") == "quantised"
