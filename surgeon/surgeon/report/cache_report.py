"""The layout of ``surgeon inspect`` for timing caches, one or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from surgeon.report.cells import plain
from surgeon.report.long_list import print_rows
from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics, TacticChange, TacticDiff

_ROWS = 20  # rows that fit on one screen


def print_cache(
    console: Console, path: Path, document: Mapping[str, Any], tactics: Mapping[str, KeyTactics], *, every: bool
) -> None:
    """What is known of each key: op, kernel, time."""
    version = document.get("versions", {}).get("tensorrt", "?")
    times: Mapping[str, float] = document.get("milliseconds", {})
    console.print(f"[bold]{plain(str(path))}[/]: a timing cache of TensorRT {plain(str(version))}")
    if not tactics:
        console.print("no keys: it is empty, or was not filled as an editable one (surgeon build --timing-cache does)")
        return
    told = sum(bool(one.op) for one in tactics.values())
    choices = sum(len(one.rows) > 1 for one in tactics.values())
    console.print(f"{len(tactics)} keys; of {told} the op is known, of {choices} the other tactics")
    ordered = sorted(tactics.values(), key=lambda one: -times.get(one.key, 0.0))
    shown = ordered if every else ordered[:_ROWS]
    rows = [
        (one.title, one.kernel(one.chosen), one.chosen, f"{times.get(one.key, 0.0):.4g}", str(len(one.rows)))
        for one in shown
    ]
    print_rows(console, ("op", "kernel", "tactic", "ms", "tried"), rows)
    if len(shown) < len(ordered):
        console.print(f"... and {len(ordered) - len(shown)} more (--layers lists all)")


def print_difference(console: Console, paths: tuple[Path, Path], found: TacticDiff, *, every: bool) -> None:
    """What differs between two caches, and what that means."""
    first, second = (plain(str(path)) for path in paths)
    if found.equal:
        console.print(f"[bold green]equal[/]: {first} and {second} have the same {found.same} tactics")
        return
    console.print(f"[bold red]DIFFER[/]: {first} and {second}; {found.same} tactics are the same")
    for title, changes in (
        (f"{len(found.changed)} with another tactic", found.changed),
        (f"{len(found.rekeyed)} under another key, for another shape, type, flag or fusion", found.rekeyed),
        (f"{len(found.only_first)} only in {first}: the other fuses otherwise there", found.only_first),
        (f"{len(found.only_second)} only in {second}", found.only_second),
    ):
        if changes:
            console.print(f"[bold]{title}[/]")
            _print_changes(console, changes, every=every)


def _print_changes(console: Console, changes: Sequence[TacticChange], *, every: bool) -> None:
    shown = changes if every else changes[:_ROWS]
    print_rows(console, ("op", "before", "after"), [_row(change) for change in shown])
    if len(shown) < len(changes):
        console.print(f"... and {len(changes) - len(shown)} more (--layers lists all)")


def _row(change: TacticChange) -> tuple[str, str, str]:
    before = change.before_kernel or change.before or "-"
    after = change.after_kernel or change.after or "-"
    if before == after:  # one kernel with two sets of parameters
        before, after = f"{before} {change.before}", f"{after} {change.after}"
    return change.op, before, after
