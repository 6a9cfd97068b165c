"""The layout of ``surgeon find``: one screen that says who, how it shows, how that was found out, and what next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.markup import render
from rich.table import Table

from surgeon.report.cells import middle, plain, short
from surgeon_debug.find.finding import Culprit, Finding, FindOutcome, Step
from surgeon_debug.find.oracle import FailureKind

_CULPRITS = 10  # rows for culprits where there are several
_LATENT = 4  # lines for latent faults
_NODES = 8  # nodes of a window that are named
_TENSORS = 3
_NOTES = 4
_PHRASE = 240  # characters of a phrase that others wrote
_ADVICE = 600  # it may hold a command, which is no use without its end

# What a node does that fails so, of one and of several.
_DEEDS = {
    FailureKind.WRONG_NUMBERS: ("computes wrongly", "compute wrongly"),
    FailureKind.NOT_FINITE: ("computes NaN or Inf", "compute NaN or Inf"),
    FailureKind.SHAPE: ("computes a wrong shape or type", "compute a wrong shape or type"),
    FailureKind.REFUSED: ("is refused", "are refused"),
    FailureKind.CRASHED: ("crashes", "crash"),
    FailureKind.HUNG: ("hangs", "hang"),
    FailureKind.OUT_OF_MEMORY: ("runs out of memory", "run out of memory"),
    FailureKind.CHECK: ("fails the check", "fail the check"),
}
_FOUND_BY = {
    "census": "alone it is wrong, on the reference's values",
    "report": "the engine itself names it",
    "cut": "by cutting the model",
    "window": "by shrinking a window: only together",
}


def print_finding(console: Console, found: Finding) -> None:
    """Print a finding on one screen."""
    _print_answer(console, found)
    _print_facts(console, found)
    if len(found.culprits) > 1:
        console.print(_culprit_table(console, found))
    _print_latent(console, found)
    if found.steps:
        console.print(_step_table(console, found))
    for line in found.notes[:_NOTES]:
        console.print(f"[bold]note:[/] {_phrase(line)}")
    if len(found.notes) > _NOTES:
        console.print(f"[bold]note:[/] and {len(found.notes) - _NOTES} more (--json has them all)")
    if found.advice:
        console.print(f"[bold]next:[/] {_phrase(found.advice, _ADVICE)}")
    if found.bundle:
        console.print(f"[bold]bundle:[/] {plain(found.bundle)}; 'surgeon replay' runs it again, anywhere")


def _print_answer(console: Console, found: Finding) -> None:
    if found.outcome is FindOutcome.UNDECIDED:
        console.print(f"[bold yellow]could not decide:[/] {_phrase(found.reason)}")
    elif len(found.culprits) == 1:
        console.print(f"[bold red]culprit:[/] [bold]{_sentence(console, found, found.culprits[0])}[/]")
    elif found.culprits:
        each = "each alone is enough" if all(c.alone for c in found.culprits) else "each is to blame on its own"
        under = "by the check" if _by_check(found) else f"under {_target(console, found)}"
        console.print(f"[bold red]{len(found.culprits)} culprits[/] [bold]{under}:[/] {each}")
    elif found.latent:
        nodes = "1 latent fault" if len(found.latent) == 1 else f"{len(found.latent)} latent faults"
        console.print(f"[bold yellow]{nodes}:[/] the model's outputs are right, but not what is inside")
        if found.reason:
            console.print(f"  {_phrase(found.reason)}")
    else:
        console.print(f"[bold green]nothing to find:[/] {_phrase(found.reason)}")


def _sentence(console: Console, found: Finding, culprit: Culprit) -> str:
    """Who does what: ``node 'conv_17' (Conv) computes wrongly under openvino``."""
    width = max(24, console.width - 48)
    several = len(culprit.nodes) > 1
    deed = _DEEDS[culprit.kind][several] + _how(found, culprit)
    under = "" if culprit.kind is FailureKind.CHECK else f" under {_target(console, found)}"
    if not several:
        return f"node '{middle(culprit.nodes[0], width)}' ({plain(culprit.ops[0])}) {deed}{under}"
    ops = list(dict.fromkeys(culprit.ops))
    kinds = ", ".join(plain(op) for op in ops[:4]) + (", ..." if len(ops) > 4 else "")
    return f"{len(culprit.nodes)} nodes together ({kinds}) {deed}{under}"


def _how(found: Finding, culprit: Culprit) -> str:
    """The signal of a crash, where it is known."""
    same = found.signature is not None and found.signature.kind is culprit.kind is FailureKind.CRASHED
    detail = found.signature.detail if same and found.signature is not None else ""
    return f" ({plain(short(detail, 40))})" if detail else ""


def _by_check(found: Finding) -> bool:
    return found.signature is not None and found.signature.kind is FailureKind.CHECK


def _target(console: Console, found: Finding) -> str:
    return middle(found.target, max(24, console.width // 3)) or "the engine"


def _print_facts(console: Console, found: Finding) -> None:
    samples = "1 sample" if found.samples == 1 else f"{found.samples} samples"
    nodes = "1 node" if found.elements == 1 else f"{found.elements:,} nodes"
    sides = f"; reference {middle(found.reference, 60)}" if found.reference else ""
    model = middle(found.model, max(24, console.width // 2))
    role = "check" if _by_check(found) else "target"
    console.print(f"{model}: {nodes}, {samples}{sides}; {role} {middle(found.target, 60)}")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, min_width=12)
    grid.add_column(overflow="fold")
    if found.failure:
        grid.add_row("the model", _phrase(found.failure))
    if found.rate is not None:
        grid.add_row("flaky", f"it fails in {found.rate:.0%} of its runs")
    if len(found.culprits) == 1:
        for label, words in _facts(console, found.culprits[0]):
            grid.add_row(label, words)
    if grid.row_count:
        console.print(grid)


def _facts(console: Console, culprit: Culprit) -> Iterator[tuple[str, str]]:
    several = len(culprit.nodes) > 1
    room = max(24, console.width - 18)
    if several:
        pairs = list(zip(culprit.nodes, culprit.ops, strict=True))[:_NODES]
        names = [f"{middle(name, room - 24)} ({plain(op)})" for name, op in pairs]
        yield "nodes", _listed(names, len(culprit.nodes), room)
    yield "measured", _phrase(culprit.reason)
    if culprit.inside:
        yield "inside", _phrase(culprit.inside)
    if culprit.tensors:
        names = [middle(name, room) for name in culprit.tensors[:_TENSORS]]
        yield "computes", _listed(names, len(culprit.tensors), room)
    yield "found", _FOUND_BY.get(culprit.found_by, plain(culprit.found_by))
    if culprit.alone is False or (culprit.alone and culprit.found_by != "census"):  # a census has said it
        them = "they are" if several else "it is"
        fails = "the failure is there" if culprit.alone else "no failure"
        yield "alone", f"{fails} when {them} all that the target computes"
    if culprit.cured is not None:
        them = "they are" if several else "it is"
        state = "right" if culprit.cured else "still not right"
        yield "without", f"the model is {state} when {them} all that the reference computes"
    if culprit.confidence < 1:
        yield "confidence", _percent(culprit.confidence)


def _listed(names: Sequence[str], count: int, room: int) -> str:
    """Names on one line if they fit, else one on each, and how many there are beyond them."""
    more = [f"and {count - len(names)} more (--json has them all)"] if count > len(names) else []
    line = ", ".join([*names, *more])
    return line if cell_len(line) <= room else "\n".join([*names, *more])


def _percent(share: float) -> str:
    # Rounding up would claim what was not shown.
    return f"{int(share * 1000) / 10:g} %"


def _culprit_table(console: Console, found: Finding) -> Table:
    shown = found.culprits[:_CULPRITS]
    flaky = any(culprit.confidence < 1 for culprit in found.culprits)
    wide = console.width >= 100
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    names = [_title(culprit, max(20, console.width // 3)) for culprit in shown]
    ops = [middle(", ".join(dict.fromkeys(culprit.ops)), 18) for culprit in shown]
    room = console.width - 3
    for heading, cells in (("node", names), ("op", ops)):
        least = max(len(heading), *(cell_len(render(cell).plain) for cell in cells))
        table.add_column(heading, no_wrap=True, min_width=least)
        room -= least + 1
    if wide:
        table.add_column("alone", no_wrap=True, min_width=10)
    if flaky:
        table.add_column("sure", no_wrap=True, justify="right", min_width=6)
    room -= 11 * wide + 7 * flaky
    table.add_column("measured", no_wrap=True, overflow="ellipsis", max_width=max(12, room))
    for culprit, name, op in zip(shown, names, ops, strict=True):
        cells = [name, op]
        if wide:
            cells.append({None: "", True: "fails", False: "no failure"}[culprit.alone])
        if flaky:
            cells.append(_percent(culprit.confidence))
        words = culprit.reason or _DEEDS[culprit.kind][len(culprit.nodes) > 1]
        table.add_row(*cells, _phrase(f"{culprit.inside}: {words}" if culprit.inside else words))
    if len(found.culprits) > _CULPRITS:
        table.add_row(f"and {len(found.culprits) - _CULPRITS} more")
    return table


def _title(culprit: Culprit, width: int) -> str:
    extra = len(culprit.nodes) - 1
    return middle(culprit.nodes[0], width - 6) + f" + {extra}" if extra else middle(culprit.nodes[0], width)


def _print_latent(console: Console, found: Finding) -> None:
    for culprit in found.latent[:_LATENT]:
        name = middle(culprit.nodes[0], max(24, console.width - 48))
        more = f" and {len(culprit.nodes) - 1} more" if len(culprit.nodes) > 1 else ""
        deed = _DEEDS[culprit.kind][len(culprit.nodes) > 1]
        inside = f" (inside: {_phrase(culprit.inside)})" if culprit.inside else ""
        console.print(
            f"[bold yellow]latent:[/] node '{name}' ({plain(culprit.ops[0])}){more} {deed}, but no output shows it: "
            f"{_phrase(culprit.reason)}{inside}"
        )
    if len(found.latent) > _LATENT:
        console.print(f"[bold yellow]latent:[/] and {len(found.latent) - _LATENT} more (--json has them all)")


def _step_table(console: Console, found: Finding) -> Table:
    columns = [(name, width) for name, width in _COUNTS if console.width >= width and any(_count(found.steps, name))]
    widths = [max(len(name), len(_total(found.steps, name))) for name, _ in columns]
    steps = max(4, *(cell_len(step.name) for step in found.steps))
    room = console.width - steps - 1 - sum(widths) - len(widths) - 1
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("step", no_wrap=True, min_width=steps)
    table.add_column("what came out", no_wrap=console.width < 100, overflow="ellipsis", max_width=max(12, room))
    for (name, _), width in zip(columns, widths, strict=True):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for step in found.steps:
        cells = (_cell(step, name) for name, _ in columns)
        table.add_row(plain(step.name), _phrase(step.words), *cells)
    if len(found.steps) > 1:
        totals = (_total(found.steps, name) for name, _ in columns)
        table.add_row("[bold]all[/]", "", *(f"[bold]{total}[/]" for total in totals))
    return table


# Heading, least width of the console that has room for it.
_COUNTS = (("trials", 0), ("known", 0), ("builds", 0), ("runs", 70), ("ref. runs", 100), ("seconds", 0))
_FIELDS = {"trials": "trials", "known": "cached", "builds": "builds", "runs": "runs", "ref. runs": "reference_runs"}


def _count(steps: Sequence[Step], column: str) -> list[float]:
    name = _FIELDS.get(column, column)
    return [float(getattr(step, name)) for step in steps]


def _cell(step: Step, column: str) -> str:
    value = _count([step], column)[0]
    return f"{value:.1f}" if column == "seconds" else f"{value:,.0f}" if value else ""


def _total(steps: Sequence[Step], column: str) -> str:
    value = sum(_count(steps, column))
    return f"{value:.1f}" if column == "seconds" else f"{value:,.0f}"


def _phrase(text: str, most: int = _PHRASE) -> str:
    """Words of others as text on one line, cut where nobody reads on."""
    words = " ".join(text.split())
    return plain(words if len(words) <= most else words[: most - 3] + "...")
