"""The elements with the largest errors, NaN and Inf on one side only before any number."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from surgeon_debug.leaves import Leaf, plain
from surgeon_debug.screen import Element
from surgeon_debug.widen import Array


@dataclasses.dataclass
class WorstElements:
    """Keeps a few elements.

    Args:
        count: How many.
    """

    count: int = 16
    """Most elements that are kept."""
    kept: list[tuple[float, Element]] = dataclasses.field(default_factory=list)
    """Absolute error and element, the largest error first; of equal ones those that came first."""

    @property
    def threshold(self) -> float:
        """The error that an element must exceed to be kept."""
        return self.kept[-1][0] if len(self.kept) >= self.count else 0.0

    def add(self, leaf: Leaf, start: int, errors: Array, sample: int) -> None:
        """Look through a chunk.

        Args:
            leaf: The arrays it is from.
            start: The flat position of its first element; complex numbers count twice.
            errors: Magnitudes of the errors, float64; infinite where the class differs.
            sample: Number of the sample.
        """
        least = self.threshold
        if not errors.size or float(errors.max()) <= least:
            return
        chosen = np.flatnonzero(errors > least)
        if chosen.size > self.count:
            # Of equal errors the first ones, which a partition alone does not promise.
            sizes = errors[chosen]
            bar = float(np.partition(sizes, -self.count)[-self.count])
            above = chosen[sizes > bar]
            chosen = np.concatenate([above, chosen[sizes == bar][: self.count - above.size]])
        for at in chosen:
            self.kept.append((float(errors[at]), element_at(leaf, start + int(at), sample)))
        self._trim()

    def merge(self, other: WorstElements) -> None:
        """Take in the elements of another."""
        self.kept += other.kept
        self._trim()

    def _trim(self) -> None:
        self.kept.sort(key=lambda pair: -pair[0])
        del self.kept[self.count :]

    @property
    def elements(self) -> tuple[Element, ...]:
        """The elements, the largest error first."""
        return tuple(element for _, element in self.kept)

    def to_state(self) -> list[Any]:
        """Plain lists: error, index, reference, target and sample of each."""
        return [[error, list(e.index), e.reference, e.target, e.sample] for error, e in self.kept if error <= math.inf]


def element_at(leaf: Leaf, flat: int, sample: int) -> Element:
    """One element of a pair of arrays.

    Args:
        leaf: The arrays.
        flat: Its flat position; complex numbers count twice.
        sample: Number of the sample.
    """
    if leaf.reference.dtype.kind == "c":
        flat //= 2
    index = tuple(int(i) for i in np.unravel_index(flat, leaf.reference.shape))
    return Element((*leaf.where, *index), plain(leaf.reference[index]), plain(leaf.target[index]), sample)
