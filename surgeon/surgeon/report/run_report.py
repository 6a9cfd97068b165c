"""The layout of ``surgeon run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from surgeon.running import Run
from surgeon_debug.facts import Facts

_MOST = 40  # rows that fit on one screen


def _document(facts: Facts) -> dict[str, Any]:
    document: dict[str, Any] = {"dtype": facts.dtype, "shape": list(facts.shape), "varies": facts.varies}
    if facts.nan is not None:
        document |= {"nan": facts.nan, "inf": facts.inf}
    if facts.finite:
        document |= {"min": facts.low, "mean": facts.mean, "max": facts.high}
    return document


def document(run: Run) -> dict[str, Any]:
    """The JSON document."""
    return {
        "schema": "surgeon.run/1",
        "model": str(run.model),
        "runner": run.runner,
        "samples": run.samples,
        "seconds": run.seconds,
        "missing": list(run.missing),
        "tensors": [{"tensor": name, **_document(facts)} for name, facts in run.tensors.items()],
    }


def print_run(console: Console, run: Run, saved: Path | None) -> None:
    """One row for each tensor."""
    many = f" for each of {run.samples} samples" if run.samples > 1 else ""
    console.print(
        f"[bold]{escape(str(run.model))}[/] on {escape(run.runner)}: "
        f"{len(run.tensors)} tensors in {run.seconds:.3g} s{many}"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("tensor", "type", "shape"):
        table.add_column(title, overflow="fold")
    for title in ("min", "mean", "max", "NaN", "Inf"):
        table.add_column(title, justify="right")
    for name, facts in list(run.tensors.items())[:_MOST]:
        shape = "x".join(str(size) for size in facts.shape) or "scalar"
        numbers = [f"{number:.4g}" if facts.finite else "" for number in (facts.low, facts.mean, facts.high)]
        classes = [str(count) if count else "" for count in (facts.nan, facts.inf)]
        varies = " (varies)" if facts.varies else ""
        table.add_row(escape(name), facts.dtype, shape + varies, *numbers, *classes)
    console.print(table)
    if len(run.tensors) > _MOST:
        console.print(f"... and {len(run.tensors) - _MOST} more (--json lists all)")
    if run.missing:
        console.print(f"[bold]not shown by the engine:[/] {escape(', '.join(run.missing[:8]))}")
    if saved is not None:
        console.print(f"saved to {escape(str(saved))}")
