"""Offer the names that were probably meant."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable

_COMPARED = 2_000


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A hint that offers up to three names close to ``name``, or the first few names if none is close."""
    names = list(dict.fromkeys(c for c in candidates if c))
    if not names:
        return ""
    tail = name.rsplit("/", 1)[-1]
    near = [c for c in names if name and name in c] or [c for c in names if tail and tail in c] or names
    # The comparison of two names takes its time; among very many, those of about the right length will do.
    near = heapq.nsmallest(_COMPARED, near, key=lambda c: abs(len(c) - len(name)))
    close = difflib.get_close_matches(name, near, n=3, cutoff=0.5) or near[:3]
    return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
