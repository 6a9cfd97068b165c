"""Every branch of the verdict on a layer, from numbers alone."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest

from surgeon_debug.attribution import Attribution
from surgeon_debug.layer_verdict import SUSPECT, WRONG, Facts, judge_layer
from surgeon_debug.noise_floor import Stripe
from surgeon_debug.screen import Screen
from surgeon_debug.verdict import Verdict

Array = np.ndarray[Any, Any]

ONES = np.ones(1000, np.float32)


def screen(target: Array, reference: Array = ONES) -> Screen:
    made = Screen()
    made.add(reference, target)
    return made


def off_by(error: float) -> Screen:
    return screen((ONES.astype(np.float64) * (1 + error)).astype(np.float64), ONES.astype(np.float64))


NUMBERS = Attribution(
    introduced=0.0,
    inherited=0.0,
    amplification=None,
    precision="float16",
    floor=None,
    ratio=None,
    bound=None,
    conditioning=None,
    own_inputs=None,
    stripe=None,
    worst_sample=0,
    introduced_worst=None,
    introduced_mean=None,
    unjudged="",
)
EQUAL = screen(ONES)
FACTS = Facts(
    total=EQUAL,
    introduced=EQUAL,
    attribution=NUMBERS,
    flips=0.0,
    overflowed=False,
    lost_inputs=(),
    accumulated="float16",
    rounds_to_integers=False,
)


def facts(*, numbers: dict[str, Any] | None = None, **changes: Any) -> Facts:
    return dataclasses.replace(FACTS, attribution=dataclasses.replace(NUMBERS, **(numbers or {})), **changes)


def rounded(introduced: float, floor: float | None, total: float | None = None, **numbers: Any) -> Facts:
    """A layer of floats with this error of its own."""
    ratio = None if floor is None else introduced / floor
    known = {"introduced": introduced, "floor": floor, "ratio": ratio, "inherited": 0.0, **numbers}
    both = off_by(introduced if total is None else total)
    return facts(numbers=known, introduced=off_by(introduced), total=both)


def special(value: float, **changes: Any) -> Facts:
    target = ONES.copy()
    target[7] = value
    seen = screen(target)
    return facts(introduced=seen, total=seen, numbers={"introduced": math.inf, "inherited": 0.0}, **changes)


def integers(count: int, *, step: int = 1, **changes: Any) -> Facts:
    reference = np.zeros(1000, np.int64)
    target = reference.copy()
    target[:count] = step
    seen = screen(target, reference)
    return facts(introduced=seen, total=seen, numbers={"introduced": count / 1000, "inherited": 0.0}, **changes)


OTHER_SHAPE = screen(np.ones(10, np.float32))
STRIPE = Stripe(1, 77, 60.0)

TABLE: dict[str, tuple[Facts, Verdict, str]] = {
    "equal": (facts(), Verdict.AGREE, "equal"),
    "another shape on the same inputs": (
        facts(introduced=OTHER_SHAPE, total=OTHER_SHAPE), Verdict.SHAPE, "shape 1000 against 10, on the reference's",
    ),
    "another shape, but not on the same inputs": (
        facts(total=OTHER_SHAPE), Verdict.INHERITS, "but not on the reference's inputs",
    ),
    # Special values.
    "NaN of its own": (special(math.nan), Verdict.WRONG, r"1 NaN on one side only \(0 against 1\) on the reference's"),
    "Inf of its own": (special(-math.inf), Verdict.WRONG, "1 -Inf on one side only"),
    "Inf beyond the range": (special(math.inf, overflowed=True), Verdict.OVERFLOW, "range of float16 .*65504"),
    "Inf that was handed over": (
        special(math.inf, overflowed=True, lost_inputs=("h",)), Verdict.INHERITS, "its input h is beyond the range",
    ),
    "NaN that was handed over": (
        dataclasses.replace(special(math.nan), introduced=EQUAL, attribution=NUMBERS), Verdict.INHERITS,
        "1 NaN .*; introduces nothing",
    ),
    # Rounding.
    "within the floor": (rounded(8e-4, 5e-4), Verdict.AGREE, "introduces 0.0008, explained by float16 .0.0005."),
    "not worth a look": (rounded(1e-7, None), Verdict.AGREE, "rounding of float16"),
    "at the edge of suspicion": (rounded(SUSPECT * 5e-4, 5e-4), Verdict.AGREE, "explained"),
    "suspect": (rounded(SUSPECT * 1.01 * 5e-4, 5e-4), Verdict.SUSPECT, "suspect: 4 times what float16 explains"),
    "at the edge of wrong": (rounded(WRONG * 5e-4, 5e-4), Verdict.SUSPECT, "suspect: 10 times"),
    "wrong": (rounded(0.155, 5e-4), Verdict.WRONG, "wrong: 310 times what float16 explains; introduces 0.1"),
    "wrong in a stripe": (
        rounded(1e-3, 5e-4, ratio=60.0, stripe=STRIPE), Verdict.WRONG, "60 times .* at index 77 of axis 1",
    ),
    "wrong in one element": (
        rounded(1e-3, 5e-4, bound=300.0), Verdict.WRONG, "an element is off by 300 times the bound on its rounding",
    ),
    "within the bound": (rounded(1e-3, 5e-4, bound=1.0), Verdict.AGREE, "explained"),
    "beyond measure": (rounded(0.5, 1e-300, ratio=math.inf), Verdict.WRONG, "inf times"),
    "ill-conditioned": (
        rounded(0.3, 0.2, conditioning=512.0), Verdict.ILL_CONDITIONED,
        "keep in float32; .* moves 512 times as much as the inputs",
    ),
    "wrong and ill-conditioned": (rounded(0.9, 0.05, conditioning=512.0), Verdict.WRONG, "18 times"),
    # No floor.
    "no floor, small": (rounded(1e-3, None, unjudged="no kernel"), Verdict.AGREE, ""),
    "no floor, large": (
        rounded(2e-2, None, unjudged="no kernel"), Verdict.SUSPECT, "0.02 > 0.01, table tolerance: no kernel",
    ),
    # Inherited.
    "inherits more than the table allows": (
        rounded(8e-4, 5e-4, total=0.5, inherited=0.5), Verdict.INHERITS, "inherits 0.5; introduces 0.0008, explained",
    ),
    "inherits little": (rounded(0.0, None, total=5e-3, inherited=5e-3), Verdict.AGREE, "introduces nothing"),
    # Without rounding.
    "integers differ": (integers(1), Verdict.WRONG, "1 of 1,000 elements differ in an exact type"),
    "integers flip as often as explained": (integers(30, flips=0.01), Verdict.AGREE, "30 of 1,000 .* what float16"),
    "integers flip more often than explained": (integers(101, flips=0.01), Verdict.WRONG, "101 of 1,000"),
    "off by one step behind rounding": (integers(10, rounds_to_integers=True), Verdict.AGREE, "off by what"),
    "off by one step too often": (integers(11, rounds_to_integers=True), Verdict.WRONG, "11 of 1,000"),
    "off by two steps": (integers(10, step=2, rounds_to_integers=True), Verdict.WRONG, "10 of 1,000"),
    "integers that were handed over": (
        dataclasses.replace(integers(500), introduced=screen(np.zeros(1000, np.int64), np.zeros(1000, np.int64))),
        Verdict.INHERITS, "500 of 1,000 elements differ",
    ),
    # Not isolated.
    "unknown, equal": (facts(introduced=None), Verdict.AGREE, "equal"),
    "unknown, within the table": (
        facts(introduced=None, total=off_by(5e-3)), Verdict.AGREE, "<= 0.01, table tolerance for float16",
    ),
    "unknown, beyond the table": (
        facts(introduced=None, total=off_by(2e-2), numbers={"unjudged": "it crashed"}), Verdict.DIFFER,
        r"0.02 > 0.01, table .* \(not isolated: it crashed\)",
    ),
    "unknown, NaN": (
        dataclasses.replace(special(math.nan), introduced=None), Verdict.DIFFER, "1 NaN on one side only",
    ),
    "unknown, shape": (facts(introduced=None, total=OTHER_SHAPE), Verdict.SHAPE, "1000 against 10"),
    "unknown, integers": (dataclasses.replace(integers(3), introduced=None), Verdict.DIFFER, "3 of 1,000"),
    "unknown, one step": (
        dataclasses.replace(integers(3, rounds_to_integers=True), introduced=None), Verdict.AGREE, "off by one step",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_every_branch(name: str) -> None:
    given, verdict, words = TABLE[name]
    found = judge_layer(given)
    assert found.verdict is verdict, found
    assert re.search(words, found.reason), found.reason


def test_a_worse_layer_never_gets_a_better_verdict() -> None:
    order = [Verdict.AGREE, Verdict.SUSPECT, Verdict.WRONG]
    for floor in (1e-6, 5e-4, 2e-3):
        seen = [order.index(judge_layer(rounded(floor * k, floor)).verdict) for k in np.geomspace(0.1, 100, 60)]
        assert seen == sorted(seen) and set(seen) == {0, 1, 2}


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16", "bfloat16", "quantisation", "float8_e4m3fn"])
def test_every_precision_is_named_in_its_reason(precision: str) -> None:
    found = judge_layer(rounded(0.9, 0.01, precision=precision))
    assert found.verdict is Verdict.WRONG and f"what {precision} explains" in found.reason
    assert found.limit == 0.01
