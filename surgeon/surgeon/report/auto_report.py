"""The layout of ``surgeon find auto``: what to search for, which builds say so, and the command."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from surgeon.report.cells import middle, number, plain
from surgeon.report.engine_search import phrase, print_end, print_model
from surgeon_debug.find.auto import AutoFinding
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.triage import Suspect
from surgeon_debug.search.trial import Outcome

_ANSWERS = {
    Suspect.TACTIC: "a tactic",
    Suspect.FUSION: "a fusion",
    Suspect.PRECISION: "the precision",
    Suspect.NODES: "a node",
    Suspect.GRAPH: "the graph",
}
_OUTCOMES = {
    Outcome.CLEAN: "[green]right[/]",
    Outcome.REPRODUCES: "[red]fails[/]",
    Outcome.UNRESOLVED: "[dim]no verdict[/]",
}


def print_auto(console: Console, found: AutoFinding) -> None:
    """Print a finding on one screen."""
    if found.outcome is FindOutcome.FOUND:
        console.print(f"[bold red]look for {_ANSWERS[found.suspect]}:[/] [bold]{phrase(found.why)}[/]")
    elif found.outcome is FindOutcome.NOTHING:
        console.print(f"[bold green]nothing to find:[/] {phrase(found.reason)}")
    else:
        console.print(f"[bold yellow]could not decide:[/] {phrase(found.reason)}")
    samples = "1 sample" if found.samples == 1 else f"{found.samples} samples"
    print_model(console, [samples, f"reference {middle(found.reference, 60)}"], found.model, found.version)
    if found.failure:
        console.print(f"the engine: {phrase(found.failure)}")
    if found.tried:
        console.print(_table(console, found))
    print_end(console, found.steps, found.notes, found.advice, found.command)


def _table(console: Console, found: AutoFinding) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("change", no_wrap=True)
    table.add_column("engine", no_wrap=True)
    table.add_column("error", justify="right", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis", max_width=max(12, console.width - 70))
    for one in found.tried:
        error = "" if one.error is None else number(one.error)
        time = "" if one.milliseconds is None else f"{one.milliseconds:.3g}"
        words = phrase(one.words, 120) if one.outcome is Outcome.UNRESOLVED else ""
        table.add_row(plain(one.change), _OUTCOMES[one.outcome], error, time, words)
    return table
