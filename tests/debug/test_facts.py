from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from surgeon_debug.facts import Facts, facts_of

FOREIGN = [ml_dtypes.bfloat16, ml_dtypes.int4]


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.int8, bool, ml_dtypes.int4]
)
def test_ranges(dtype: type) -> None:
    facts = facts_of(np.array([[1, 0], [1, 0]]).astype(dtype))
    assert (facts.dtype, facts.shape) == (np.dtype(dtype).name, (2, 2))
    assert (facts.low, facts.mean, facts.high, facts.finite, facts.nan, facts.inf) == (0, 0.5, 1, 4, 0, 0)


def test_classes_and_what_is_no_number() -> None:
    facts = facts_of(np.array([np.nan, np.inf, -np.inf, 3, np.nan]))
    assert (facts.nan, facts.inf, facts.finite, facts.low, facts.high) == (2, 2, 1, 3, 3)
    assert facts_of(np.array([3 + 4j])).high == 5
    assert facts_of(np.array(["a"], object)) == Facts("string", (1,))
    assert facts_of([1, 2]) == Facts("sequence", (2,)) and facts_of(None) == Facts("none", ())
    assert facts_of(np.zeros((0, 3))).finite == 0
    assert facts_of(np.full(3, 1.7e308)).mean == pytest.approx(1.7e308)


FLOATS = arrays.arrays(np.float32, st.integers(0, 5), elements=st.floats(-100, 100, width=32) | st.just(np.nan))


@given(FLOATS, FLOATS, FLOATS)
@settings(max_examples=60, deadline=None)
def test_joining_samples_is_taking_them_together(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    joined = facts_of(a).joined(facts_of(b)).joined(facts_of(c))
    whole = facts_of(np.concatenate([a, b, c]))
    assert (joined.nan, joined.inf, joined.finite) == (whole.nan, whole.inf, whole.finite)
    assert (joined.low, joined.high) == (whole.low, whole.high)
    assert joined.mean == pytest.approx(whole.mean, abs=1e-6)
    assert joined.varies == (len({a.shape, b.shape, c.shape}) > 1)
