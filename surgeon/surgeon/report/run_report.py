"""The layout of ``surgeon run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from surgeon.running import Run
from surgeon_debug.values import Value

_MOST = 40  # rows that fit on one screen


def _facts(value: Value) -> dict[str, Any]:
    """Type, shape, range and classes of one value."""
    if not isinstance(value, np.ndarray):
        count = len(value) if isinstance(value, list) else 0
        return {"dtype": "sequence" if isinstance(value, list) else type(value).__name__, "shape": [count]}
    facts: dict[str, Any] = {"dtype": str(value.dtype), "shape": list(value.shape)}
    if value.dtype.kind in "OSU" or not value.size:
        return facts
    numbers = value.astype(np.float64) if value.dtype.kind not in "biufc" or value.dtype.itemsize < 4 else value
    if value.dtype.kind == "c":
        numbers = np.abs(value)
    finite = np.isfinite(numbers)
    facts["nan"] = int(np.isnan(numbers).sum())
    facts["inf"] = int(np.isinf(numbers).sum())
    if finite.any():
        kept = numbers[finite]
        facts |= {"min": float(kept.min()), "mean": float(kept.mean(dtype=np.float64)), "max": float(kept.max())}
    return facts


def document(run: Run) -> dict[str, Any]:
    """The JSON document."""
    return {
        "schema": "surgeon.run/1",
        "model": str(run.model),
        "runner": run.runner,
        "seconds": run.seconds,
        "missing": list(run.missing),
        "tensors": [{"tensor": name, **_facts(value)} for name, value in run.values.items()],
    }


def print_run(console: Console, run: Run, saved: Path | None) -> None:
    """One row for each tensor."""
    console.print(
        f"[bold]{escape(str(run.model))}[/] on {escape(run.runner)}: {len(run.values)} tensors in {run.seconds:.3g} s"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("tensor", "type", "shape"):
        table.add_column(title, overflow="fold")
    for title in ("min", "mean", "max", "NaN", "Inf"):
        table.add_column(title, justify="right")
    for name, value in list(run.values.items())[:_MOST]:
        facts = _facts(value)
        shape = "x".join(str(size) for size in facts["shape"]) or "scalar"
        numbers = [f"{facts[key]:.4g}" if key in facts else "" for key in ("min", "mean", "max")]
        classes = [str(facts[key]) if facts.get(key) else "" for key in ("nan", "inf")]
        table.add_row(escape(name), facts["dtype"], shape, *numbers, *classes)
    console.print(table)
    if len(run.values) > _MOST:
        console.print(f"... and {len(run.values) - _MOST} more (--json lists all)")
    if run.missing:
        console.print(f"[bold]not shown by the engine:[/] {escape(', '.join(run.missing[:8]))}")
    if saved is not None:
        console.print(f"saved to {escape(str(saved))}")
