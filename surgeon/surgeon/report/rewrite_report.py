"""The layout of ``surgeon rewrite``."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from surgeon.rewriting import Verified
from surgeon_passes.contract import Change
from surgeon_passes.pipeline import Report, StepReport

_REASONS = 5  # reasons for leaving something alone that still fit on the screen


def document(report: Report, verified: Verified | None, written: Sequence[Path]) -> dict[str, Any]:
    """The JSON document."""
    return {
        "schema": "surgeon.rewrite/1",
        "steps": [
            {
                "step": step.spec,
                "round": step.round,
                "changes": len(step.changes),
                "seconds": step.seconds,
                "nodes_before": step.nodes_before,
                "nodes_after": step.nodes_after,
            }
            for step in report.steps
        ],
        "changes": [dataclasses.asdict(change) for change in report.changes],
        "declined": [dataclasses.asdict(item) for item in report.declined],
        "withheld": report.withheld,
        "verification": None if verified is None else verified.to_json(),
        "files": [str(path) for path in written],
    }


def _merged(steps: Sequence[StepReport]) -> list[tuple[str, int, float, int, int]]:
    """Runs of the same pass over all rounds in one row: (spec, changes, seconds, nodes gone, runs)."""
    rows: dict[str, list[StepReport]] = {}
    for step in steps:
        rows.setdefault(step.spec, []).append(step)
    return [
        (
            spec,
            sum(len(run.changes) for run in runs),
            sum(run.seconds for run in runs),
            sum(run.nodes_before - run.nodes_after for run in runs),
            len(runs),
        )
        for spec, runs in rows.items()
    ]


def _print_steps(console: Console, report: Report) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("pass", overflow="fold")
    for title in ("changes", "nodes gone", "runs", "seconds"):
        table.add_column(title, justify="right")
    for spec, changes, seconds, gone, runs in _merged(report.steps):
        table.add_row(escape(spec), str(changes), str(gone), str(runs), f"{seconds:.2f}")
    console.print(table)


def change_line(change: Change) -> str:
    """One change on one line."""
    place = f" in {change.where}" if change.where else ""
    after = f" -> {', '.join(change.after[:4])}" if change.after else ""
    more = f" (+{len(change.before) - 4})" if len(change.before) > 4 else ""
    return f"#{change.number} {change.step} {change.kind}: {', '.join(change.before[:4])}{more}{after}{place}"


def print_report(
    console: Console,
    source: Path,
    report: Report,
    verified: Verified | None,
    written: Sequence[Path],
    *,
    show_changes: bool,
) -> None:
    """What was done, what was left alone and why, and whether the values are the same."""
    before = report.steps[0].nodes_before if report.steps else 0
    after = report.steps[-1].nodes_after if report.steps else 0
    console.print(f"[bold]{escape(str(source))}[/]: {before} -> {after} nodes, {len(report.changes)} changes")
    _print_steps(console, report)
    if show_changes:
        for change in report.changes:
            console.print("  " + escape(change_line(change)))
    reasons = collections.Counter((item.step, item.reason) for item in report.declined)
    for (step, reason), count in reasons.most_common(_REASONS):
        console.print(f"  left alone by {step}, {count} x: {escape(reason)}")
    if len(reasons) > _REASONS:
        console.print(f"  ... and {len(reasons) - _REASONS} more reasons (--json lists all)")
    if report.withheld:
        console.print(f"stopped at change {len(report.changes)} as asked")
    if verified is not None:
        for line in verified.sentences():
            console.print(escape(line))
    if written:
        console.print(f"wrote {escape(', '.join(str(path) for path in written))}")
    elif verified is not None and verified.altered:
        console.print("nothing was written")
