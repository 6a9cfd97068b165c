"""Verdicts and differences as tables and lines of a comparison show them."""

from __future__ import annotations

from surgeon_debug.compare import Difference
from surgeon_debug.verdict import Verdict

VERDICT_COLOURS = {
    Verdict.AGREE: "green",
    Verdict.INHERITS: "dim",
    Verdict.ILL_CONDITIONED: "yellow",
    Verdict.OVERFLOW: "red",
    Verdict.SUSPECT: "yellow",
    Verdict.WRONG: "red",
    Verdict.DIFFER: "red",
    Verdict.SHAPE: "red",
    Verdict.MISSING: "red",
    Verdict.SKIPPED: "dim",
}
"""Colours of verdicts, as rich calls them."""


def worst_element(difference: Difference) -> str:
    """Where two values are furthest apart, as the end of a sentence; empty if they are equal."""
    worst = difference.worst
    if worst is None:
        return ""
    index = ",".join(str(i) for i in worst.index)
    sample = f" of sample {worst.sample}" if worst.sample else ""
    return f"; worst at [{index}]{sample}: reference {_value(worst.reference)}, target {_value(worst.target)}"


def _value(item: object) -> str:
    if isinstance(item, float):
        return f"{item:.6g}"
    return repr(item) if isinstance(item, str) else str(item)
