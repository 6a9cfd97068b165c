"""What ``surgeon compare --layers`` says of TensorRT: tensors that fusion has left, and the steps that were made."""

from __future__ import annotations

import itertools
import math
import shlex
from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from surgeon.report.cells import middle, number, plain
from surgeon.report.shared_path import shared_path, without_path
from surgeon.report.verdict_cells import VERDICT_COLOURS
from surgeon_debug.comparison import Comparison
from surgeon_debug.ladder import Group, Ladder, LadderVerdict, Row, Rung, Step
from surgeon_debug.ladder_words import named
from surgeon_debug.verdict import Verdict

_COLOURS = {
    LadderVerdict.RIGHT: "green",
    LadderVerdict.HIDDEN: "red",
    LadderVerdict.LOCATED: "red",
    LadderVerdict.FUSION: "red",
    LadderVerdict.PRECISION: "yellow",
    LadderVerdict.UNKNOWN: "yellow",
}
_ROWS = 15  # lines for tensors, those that stand for a gap included
_BEFORE, _AFTER = 1, 2  # rows around the first that is wrong
_LAYER = "engine layer"
_WIDE = 150  # columns of a console that has room for all names, shortened
_SPLIT = 3  # fusions, and other groups, that are named
_RANKS = (Verdict.WRONG, Verdict.DIFFER, Verdict.ILL_CONDITIONED, Verdict.INHERITS, Verdict.AGREE)
_HOW = {
    Step.WHOLE: "the engine as it is",
    Step.UNFUSED: "all that fusion has left, fusion is as it was",
    Step.MARKED: "a few tensors are kept out of fusion",
    Step.PIECE: "the group runs alone on right values",
    Step.OUTPUTS: "its tensors are outputs of the engine",
}


def print_ladder(console: Console, found: Ladder) -> None:
    """Print what came out, the table, and the steps in the order in which they were made."""
    console.print(f"[bold {_COLOURS[found.verdict]}]{found.verdict.value}[/]: {plain(found.words)}")
    if found.verdict is LadderVerdict.FUSION:
        # The step that heals is the last of the whole engine; a piece that runs alone splits nothing.
        apart = next((rung.split for rung in reversed(found.rungs) if rung.fails is False), ())
        for nodes in apart[: _SPLIT + 1]:
            if nodes != found.nodes:
                console.print(f"  also taken apart: {plain(', '.join(nodes))}")
    if found.rows:
        _print_table(console, found)
    if len(found.rungs) > 2 or any(rung.fails is not False for rung in found.rungs):
        _print_steps(console, found.rungs)


def _print_steps(console: Console, rungs: Sequence[Rung]) -> None:
    console.print("steps, each more of a disturbance than the one before; seen: how many tensors of it")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    for _ in range(2):
        table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    for rung in rungs:
        how = "[yellow]not made[/]" if rung.fails is None else "[red]wrong[/]" if rung.fails else "[green]right[/]"
        seen = f"{rung.seen} seen" if rung.seen else ""
        words = rung.words if rung.fails is None else _HOW[rung.step]
        if rung.fails:
            words += f": {rung.words.partition(', table tolerance')[0]}"
        table.add_row(f"  {rung.step.value}", how, seen, plain(words))
    console.print(table)


def _print_table(console: Console, found: Ladder) -> None:
    counts = Counter(row.verdict for row in found.rows)
    parts = [f"[{VERDICT_COLOURS[v]}]{counts[v]} {v.value}[/]" for v in Verdict if counts[v]]
    many = "1 tensor" if len(found.rows) == 1 else f"{len(found.rows)} tensors"
    rows = _chosen(found.rows)
    least = "; the largest errors:" if len(rows) < len(found.rows) and set(counts) <= {Verdict.AGREE} else ""
    console.print(f"{many} that fusion has left, by total error: {', '.join(parts)}{least}")
    console.print(_table(console, found.rows, rows))
    legend = "error: relative L2, what was handed down included"
    if any(len(found.rows[i].tensors) > 1 for i in rows):
        legend += "; a tensor that may be one of several was held against each, and has the error of the best fit"
    console.print(f"[dim]{legend}[/]")
    for group in (found.group, *found.others[:_SPLIT]):
        if group is not None and len(group.layers) > 1:
            console.print(f"[bold]note:[/] {plain(_span_words(group))}")


def _span_words(group: Group) -> str:
    """What a wrong tensor does not tell: which of several layers before it is to blame."""
    wrong = group.writes if group.writes and group.candidates == 1 else group.shown
    since = f"{named(group.reads) if group.reads else 'the inputs'} and {named(wrong)}"
    return f"between {since} no tensor was shown: as far as the table goes, any of {named(group.nodes)} may be wrong"


def _chosen(rows: Sequence[Row]) -> list[int]:
    """Which rows to show: those around the first that is wrong, then the worst; in the engine's order."""
    order = sorted(range(len(rows)), key=lambda i: _severity(rows[i]))
    chosen: list[int] = []
    first = next((i for i, row in enumerate(rows) if row.verdict in (Verdict.WRONG, Verdict.DIFFER)), None)
    if first is not None:
        chosen += [first, *range(max(0, first - _BEFORE), min(len(rows), first + _AFTER + 1))]
    found: list[int] = []
    for index in dict.fromkeys((*chosen, *order)):
        wider = sorted([*found, index])
        gaps = sum(b != a + 1 for a, b in itertools.pairwise(wider))
        if len(wider) + gaps > _ROWS:
            break
        found = wider
    return found


def _severity(row: Row) -> tuple[int, float]:
    rank = _RANKS.index(row.verdict) if row.verdict in _RANKS else len(_RANKS)
    error = row.error or 0.0
    return (rank, -(math.inf if math.isnan(error) else error))


def _table(console: Console, rows: Sequence[Row], chosen: Sequence[int]) -> Table:
    unsure = any(len(rows[i].tensors) > 1 for i in chosen)
    names = {i: _names(rows[i], unsure=unsure) for i in chosen}
    rest = console.width - 4 - 11 - 16
    whole = sum(max(cell_len(" ".join(cells[name])) for cells in names.values()) for name in names[chosen[0]])
    # What a layer is called says little beside the nodes that it computes: it goes first where room is short.
    columns = [name for name in names[chosen[0]] if name != _LAYER or whole <= rest or console.width >= _WIDE]
    room = max(12, rest // len(columns))
    path = shared_path(name for i in chosen for name in (rows[i].title, *rows[i].nodes))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("#", justify="right", no_wrap=True)
    for name in columns:
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=room)
    table.add_column("error", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    last = None
    for index in chosen:
        if last is not None and index != last + 1:
            table.add_row("", "...")
        last, row = index, rows[index]
        cells = [_fitted(names[index][name], path, room) for name in columns]
        error = "-" if row.error is None else number(row.error)
        table.add_row(str(index + 1), *cells, error, f"[{VERDICT_COLOURS[row.verdict]}]{row.verdict.value}[/]")
    return table


def _names(row: Row, *, unsure: bool) -> dict[str, list[str]]:
    """What the columns of names say, in words."""
    nodes = [f"{name}," for name in row.nodes[:-1]] + list(row.nodes[-1:]) or ["not", "said"]
    late = [] if row.iteration is None else [f", iteration {row.iteration} on"]
    cells = {
        "tensor": [row.title],
        _LAYER: [row.layer or "not said"],
        "computes": [*([row.beside] if row.beside else []), *nodes, *late],
    }
    if unsure:
        between = [word for name in row.tensors for word in ("or", name)][1:]
        cells["may be"] = between if len(row.tensors) > 1 else []
    return cells


def _fitted(words: Sequence[str], path: str, room: int) -> str:
    """Words in a column: whole, or without the path that all have, or without their middle as well."""
    whole = " ".join(words).replace(" , ", ", ")
    if cell_len(whole) > room:
        whole = " ".join(without_path(word, path) for word in words).replace(" , ", ", ")
    return middle(whole, room)


def ladder_advice(done: Comparison, found: Ladder, options: str) -> list[str]:
    """What to do next.

    Args:
        done: The comparison.
        found: What its ladder came to.
        options: What other commands need to ask the same question.
    """
    model = shlex.quote(done.model)
    engine = (model if done.target == "tensorrt" else f"{model} --target {shlex.quote(done.target)}") + options
    if found.verdict is LadderVerdict.FUSION:
        return [f"surgeon find fusion {engine} says which fusion it is, and what breaks it"]
    if found.verdict in (LadderVerdict.LOCATED, LadderVerdict.HIDDEN):
        kernel = f"surgeon find tactic {engine} says whether one of its kernels is at fault"
        if found.verdict is LadderVerdict.LOCATED:
            return [kernel]
        nodes = " ".join(f"--nodes {shlex.quote(node)}" for node in found.nodes[:4])
        return [f"look at it alone: surgeon extract {model} {nodes} -o layer.onnx"]
    if found.verdict is LadderVerdict.PRECISION:
        if "tf32=false" not in done.target:
            text = f"{done.target}{',' if ':' in done.target else ':'}tf32=false"
            return [
                f"surgeon compare {model} --target {shlex.quote(text)}{options} computes float32 products in float32"
            ]
        return ["keep these nodes in a higher precision (convert-precision has the option keep)"]
    if found.verdict is LadderVerdict.UNKNOWN:
        return [f"surgeon find auto {engine} changes the build in ten ways; --pieces compares piece by piece"]
    return []
