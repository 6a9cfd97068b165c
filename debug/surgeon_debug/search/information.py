"""What a trial is expected to tell, in bits."""

from __future__ import annotations

import math


def bits(chance: float) -> float:
    """The entropy of one yes or no, in bits."""
    if chance <= 0.0 or chance >= 1.0:
        return 0.0
    return -chance * math.log2(chance) - (1 - chance) * math.log2(1 - chance)


def cut_bits(*, resolved: float = 1.0, share: float = 0.5) -> float:
    """What a cut tells of the place of a culprit.

    Args:
        resolved: How likely it is to come out clean or failing at all.
        share: How likely the culprit is before it.
    """
    return resolved * bits(share)


def census_bits(places: int, alone: float) -> float:
    """What trying every element alone tells: the place of a culprit, if it fails alone, else only that it does not.

    Args:
        places: How many elements there are.
        alone: How likely the failure is to show in one element alone.
    """
    return bits(alone) + alone * math.log2(max(1, places))


def run_bits(rate: float, *, share: float = 0.5, false_rate: float = 0.0) -> float:
    """What one run of a cut tells of the place of a culprit that shows in some runs only.

    Args:
        rate: The share of runs that fail with the culprit.
        share: How likely the culprit is before the cut.
        false_rate: The share of runs that fail without it.
    """
    return bits(share * rate + (1 - share) * false_rate) - share * bits(rate) - (1 - share) * bits(false_rate)


def capacity(rate: float, false_rate: float = 0.0) -> float:
    """The most that a run can tell, in bits: the capacity of the binary channel with these rates of failing.

    At a ``false_rate`` of 0 it is the Z channel's log2(1 + (1 - q) q^(q / (1 - q))) with q = 1 - rate; here it is found
    by ternary search over how likely the culprit is before the cut, in which the information is concave.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        behind = run_bits(rate, share=a, false_rate=false_rate) < run_bits(rate, share=b, false_rate=false_rate)
        low, high = (a, high) if behind else (low, b)
    return run_bits(rate, share=(low + high) / 2, false_rate=false_rate)
