"""The layout of ``surgeon replay``: is the failure still there, what was expected, what is not as it was."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from surgeon.report.cells import middle, number
from surgeon_debug.replay import ReplayResult
from surgeon_debug.search.trial import Outcome

_OUTPUTS = 6
_LINES = 4  # for changes and for notes
_PHRASE = 200  # characters of a phrase that others wrote

_ANSWERS = {
    Outcome.REPRODUCES: ("[bold red]it still fails[/]", 1),
    Outcome.CLEAN: ("[bold green]it does not fail here[/]", 0),
    Outcome.UNRESOLVED: ("[bold yellow]could not decide[/]", 3),
}


def exit_code(done: ReplayResult) -> int:
    """1 if the failure is still there, 0 if it is not, 3 if it fails in another way or nobody can tell."""
    return _ANSWERS[done.outcome][1]


def print_replay(console: Console, done: ReplayResult) -> None:
    """Print a replay on one screen."""
    console.print(f"{_ANSWERS[done.outcome][0]}: {_phrase(done.words)}")
    names = ", ".join(f"'{middle(name, 40)}'" for name in done.nodes[:4])
    more = f" and {len(done.nodes) - 4} more" if len(done.nodes) > 4 else ""
    nodes = "node" if len(done.nodes) == 1 else f"{len(done.nodes)} nodes:"
    console.print(f"{middle(done.bundle, 60)}: {nodes} {names}{more}; target {middle(done.target, 60)}")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, min_width=12)
    grid.add_column(overflow="fold")
    if done.then and done.then != done.words:
        grid.add_row("then", _phrase(done.then))
    if done.same_bits is not None:
        grid.add_row("outputs", "the same as then, bit by bit" if done.same_bits else "other bits than then")
    if done.reference_agrees is not None:
        agrees = "computes what the bundle expects" if done.reference_agrees else "does not compute what it did then"
        grid.add_row("reference", agrees)
    if grid.row_count:
        console.print(grid)
    if done.outputs:
        console.print(_table(console, done))
    if len(done.outputs) > _OUTPUTS:
        console.print(f"... and {len(done.outputs) - _OUTPUTS} more outputs (--json lists all)")
    for line in done.changes[:_LINES]:
        console.print(f"[bold]other:[/] {_phrase(line)}")
    for line in done.notes[:_LINES]:
        console.print(f"[bold]note:[/] {_phrase(line)}")


def _table(console: Console, done: ReplayResult) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    room = max(20, console.width // 3)
    shown = sorted(done.outputs, key=lambda output: not output.wrong)[:_OUTPUTS]
    table.add_column("output", no_wrap=True, max_width=room)
    for name in ("", "rel L2", "max abs", "NaN"):
        table.add_column(name, no_wrap=True, justify="left" if not name else "right", min_width=len(name))
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    for output in shown:
        nan = f"{output.nan[0]}/{output.nan[1]}" if any(output.nan) else ""
        numbers = ("-" if value is None else number(value) for value in (output.rel_l2, output.max_abs))
        word = "[red]wrong[/]" if output.wrong else "[green]right[/]"
        table.add_row(middle(output.name, room), word, *numbers, nan, _phrase(output.words))
    return table


def _phrase(text: str) -> str:
    """Words of others as text on one line, without the middle of long ones."""
    words = " ".join(text.split())
    return middle(words, _PHRASE)
