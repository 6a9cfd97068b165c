"""Parts that the reports of searches over an engine's builds share."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from surgeon.report.cells import middle, plain
from surgeon_debug.find.finding import FindOutcome, Step

_PHRASE = 240
_COMMAND = 2000
_NOTES = 4
_NUMBERS = 40  # columns beside the words of a table of steps


def phrase(text: str, most: int = _PHRASE) -> str:
    """Words of others as text on one line, cut where nobody reads on."""
    words = " ".join(text.split())
    return plain(words if len(words) <= most else words[: most - 3] + "...")


def print_verdict(console: Console, outcome: FindOutcome, answer: str, reason: str) -> None:
    """The first line: who, or why nobody.

    Args:
        console: Where to.
        outcome: What the search came to.
        answer: Who is named, as markup.
        reason: Why nobody is.
    """
    if outcome is FindOutcome.FOUND:
        console.print(f"[bold red]culprit:[/] [bold]{answer}[/]")
    elif outcome is FindOutcome.NOTHING:
        console.print(f"[bold green]nothing to find:[/] {phrase(reason, _COMMAND)}")
    else:
        console.print(f"[bold yellow]could not decide:[/] {phrase(reason, _COMMAND)}")


def print_model(console: Console, words: Sequence[str], model: str, version: str) -> None:
    """The second line: what was looked at."""
    engine = f"TensorRT {plain(version)}" if version else "TensorRT"
    console.print(f"{middle(model, max(24, console.width // 2))} on {engine}: {', '.join(words)}")


def facts_grid() -> Table:
    """An empty list of facts, each a label and words."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, min_width=12)
    grid.add_column(overflow="fold")
    return grid


def step_table(steps: Sequence[Step], width: int) -> Table:
    """What was done, step by step, and what it took.

    Args:
        steps: The steps.
        width: Columns of the screen; words give way, numbers do not.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("step", no_wrap=True)
    table.add_column("what came out", overflow="ellipsis", no_wrap=True, max_width=max(12, width - _NUMBERS))
    for heading in ("known", "builds", "runs", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for step in steps:
        counts = (_count(step.cached), _count(step.builds), _count(step.runs), f"{step.seconds:.1f}")
        table.add_row(plain(step.name), phrase(step.words), *counts)
    if len(steps) > 1:
        known, builds, runs = (sum(getattr(s, name) for s in steps) for name in ("cached", "builds", "runs"))
        total = (_count(known), _count(builds), _count(runs), f"{sum(s.seconds for s in steps):.1f}")
        table.add_row("[bold]all[/]", "", *(f"[bold]{text}[/]" for text in total))
    return table


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def print_end(console: Console, steps: Sequence[Step], notes: Sequence[str], advice: str, command: str) -> None:
    """The rest: steps, notes, and what to do next."""
    if steps:
        console.print(step_table(steps, console.width))
    for line in notes[:_NOTES]:
        console.print(f"[bold]note:[/] {phrase(line)}")
    if len(notes) > _NOTES:
        console.print(f"[bold]note:[/] and {len(notes) - _NOTES} more (--json has them all)")
    if advice:
        console.print(f"[bold]next:[/] {phrase(advice)}")
    if command:
        console.print(f"[bold]next:[/] {phrase(command, _COMMAND)}", soft_wrap=True)


def listed(names: Sequence[str], most: int, width: int) -> str:
    """Names on one line, and how many there are beyond them."""
    shown = ", ".join(middle(name, width) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def error_words(error: float | None) -> str:
    """A relative error as the end of a phrase; empty if there is none."""
    return "" if error is None else f", relative L2 {error:.2g}"
