"""The layout of ``surgeon find fusion``: which layer, what breaks it, at what cost, and how that was found."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from surgeon.report.cells import middle, plain
from surgeon.report.engine_search import facts_grid, listed, phrase, print_end, print_model, print_verdict
from surgeon_debug.find.fusion_finding import FusionCulprit, FusionFinding

_CULPRITS = 4
_REGROUPED = 3


def print_fusion(console: Console, found: FusionFinding) -> None:
    """Print a finding on one screen."""
    print_verdict(console, found.outcome, _answer(console, found), found.reason)
    samples = "1 sample" if found.samples == 1 else f"{found.samples} samples"
    words = [f"{found.layers:,} fused layers", samples, f"reference {middle(found.reference, 60)}"]
    print_model(console, words, found.model, found.version)
    grid = facts_grid()
    for label, text in _facts(found, max(24, console.width - 18)):
        grid.add_row(label, text)
    if grid.row_count:
        console.print(grid)
    print_end(console, found.steps, found.notes, found.advice, found.command)


def _answer(console: Console, found: FusionFinding) -> str:
    width = max(24, console.width - 60)
    if len(found.culprits) == 1:
        return f"fused layer '{_title(found.culprits[0], width)}' makes the engine wrong"
    if found.culprits:
        return f"{len(found.culprits)} fused layers make the engine wrong"
    return "a fusion that " + ", ".join(plain(flip.text) for flip in found.knobs) + " breaks"


def _title(one: FusionCulprit, width: int) -> str:
    return middle(one.layer or " + ".join(one.nodes), width)


def _facts(found: FusionFinding, room: int) -> Iterator[tuple[str, str]]:
    if found.failure:
        yield "the engine", phrase(found.failure)
    if found.rate is not None:
        yield "flaky", f"it fails in {found.rate:.0%} of its runs"
    if found.culprits or found.knobs:
        yield "fusion", "fusion dependent: it is right as soon as this is computed in parts"
    for one in found.culprits[:_CULPRITS]:
        yield "fused", listed(one.nodes, 6, room)
        yield "broken by", listed(one.broken_by, 4, room) + " as output" + ("s" if len(one.broken_by) > 1 else "")
    if len(found.culprits) > _CULPRITS:
        yield "and", f"{len(found.culprits) - _CULPRITS} more (--json has them all)"
    if found.knobs:
        yield "knobs", ", ".join(plain(flip.text) for flip in found.knobs)
    for other in found.regrouped[:_REGROUPED]:
        parts = " | ".join(listed(part, 4, 30) for part in other.parts)
        yield "regrouped", f"{middle(other.layer, 40)}: {parts}"
    if len(found.regrouped) > _REGROUPED:
        yield "", f"and {len(found.regrouped) - _REGROUPED} more layers (--json has them all)"
    if found.before_ms and found.after_ms:
        yield "cost", f"{found.before_ms:.3g} ms a run before, {found.after_ms:.3g} ms with the remedy, copies included"
