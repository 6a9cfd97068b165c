"""The layer part of ``surgeon compare``: who is to blame, what each layer adds and what it was handed."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from surgeon.report.cells import number, plain, short
from surgeon.report.verdict_cells import VERDICT_COLOURS, worst_element
from surgeon_debug.comparison import Comparison, TensorResult
from surgeon_debug.verdict import Verdict

_ROWS = 15  # lines for layers, those that stand for a gap included
_BEFORE, _AFTER = 1, 2  # rows around the first

# Heading, least width of the console that has room for it.
_COLUMNS = (
    ("introduced", 0),
    ("floor", 72),
    ("ratio", 60),
    ("inherited", 60),
    ("amplif.", 110),
    ("total", 0),
    ("max abs", 132),
    ("NaN/Inf", 84),
)
_LEGEND = (
    "relative L2: introduced by the layer itself; floor, what its precision explains; "
    "ratio of the two where it is worst"
)
_BAD = (
    Verdict.WRONG, Verdict.SHAPE, Verdict.OVERFLOW, Verdict.DIFFER, Verdict.SUSPECT, Verdict.ILL_CONDITIONED,
)  # fmt: skip


def print_layers(console: Console, done: Comparison) -> None:
    """Print where it starts, a tally of verdicts, and the layers to look at."""
    _print_first(console, done)
    rows = _chosen(done.layers, done.first)
    _print_counts(console, done, bool(rows))
    if rows:
        console.print(_table(console, done.layers, rows))
    if rows and _isolated(done):
        console.print(f"[dim]{_LEGEND}[/]")


def _print_first(console: Console, done: Comparison) -> None:
    first = done.first
    if first is None:
        return
    # A layer can be beyond its precision while the outputs, which are computed without showing it, are right.
    words = "the error starts at" if done.verdict == "differ" else "the outputs agree, but look at"
    console.print(f"[bold]{words} {plain(first.node)}[/] ({plain(first.op)}), tensor {plain(first.tensor)}")
    detail = first.judgement.reason + (worst_element(first.difference) if first.difference else "")
    console.print(f"  {plain(detail)}")
    blamed = first.verdict in (Verdict.WRONG, Verdict.SUSPECT, Verdict.DIFFER)
    if blamed and first.difference is not None and first.difference.hints:
        console.print(f"  pattern: {plain(first.difference.hints[0].sentence)}")
    numbers = first.attribution
    if numbers is not None and numbers.own_inputs is not None and numbers.introduced is not None:
        apart = max(numbers.own_inputs, numbers.introduced) > 4 * min(numbers.own_inputs, numbers.introduced)
        words = ": the fault depends on the data" if apart else ""
        console.print(f"  on the target's own inputs it introduces {numbers.own_inputs:.2g}{words}")


def _print_counts(console: Console, done: Comparison, followed: bool) -> None:
    counts = Counter(result.verdict for result in done.layers)
    parts = [
        f"[{VERDICT_COLOURS[verdict]}]{counts[verdict]} {verdict.value}[/]" for verdict in Verdict if counts[verdict]
    ]
    judged = "each alone on the reference's inputs" if _isolated(done) else "by their total error"
    pieces = "" if done.segments <= 1 else f" in {done.segments} segments"
    most = "; the largest errors:" if followed and done.first is None else ""
    layers = "1 layer" if len(done.layers) == 1 else f"{len(done.layers)} layers"
    console.print(f"{layers}{pieces}, {judged}: {', '.join(parts)}{most}")


def _isolated(done: Comparison) -> bool:
    return any(result.introduced is not None for result in done.layers)


def _chosen(layers: Sequence[TensorResult], first: TensorResult | None) -> list[int]:
    """Which layers to show: those around the first, then the worst by introduced error; in topological order."""
    chosen: list[int] = []
    if first is not None:
        at = next(i for i, result in enumerate(layers) if result is first)
        chosen += [at, *range(max(0, at - _BEFORE), min(len(layers), at + _AFTER + 1))]
    worst = sorted(range(len(layers)), key=lambda i: _severity(layers[i]), reverse=True)[:_ROWS]
    chosen += [index for index in worst if _severity(layers[index]) > (0, 0.0, 0.0, 0.0)]
    rows: list[int] = []
    for index in dict.fromkeys(chosen):
        wider = sorted([*rows, index])
        gaps = sum(b != a + 1 for a, b in itertools.pairwise(wider))
        if len(wider) + gaps > _ROWS:
            break
        rows = wider
    return rows


def _severity(result: TensorResult) -> tuple[int, float, float, float]:
    rank = len(_BAD) - _BAD.index(result.verdict) if result.verdict in _BAD else 0
    ratio = result.ratio or 0.0
    handed = result.inherited if result.attribution is not None else _total(result)
    return (rank, ratio, _finite(result.introduced), _finite(handed))


def _total(result: TensorResult) -> float | None:
    """The total error, as a share of elements where the type is exact; None where shapes or types differ."""
    screen = result.screen
    if screen is None or screen.mismatch:
        return None
    return screen.unequal / max(1, screen.elements) if screen.exact else screen.rel_l2


def _finite(value: float | None) -> float:
    return 0.0 if value is None else math.inf if math.isnan(value) else value


def _table(console: Console, layers: Sequence[TensorResult], rows: Sequence[int]) -> Table:
    columns = [
        name for name, width in _COLUMNS if console.width >= width and any(_cell(name, layers[index]) for index in rows)
    ]
    wide = console.width >= 72
    op_room = 16 if console.width >= 100 else 12
    ops = min(op_room, max(len(layers[index].op) for index in rows))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("#", justify="right", no_wrap=True)
    verdicts = max(len(layers[index].verdict.value) for index in rows)
    room = max(12, console.width - sum(max(len(name), 7) + 1 for name in columns) - verdicts - (7 + ops if wide else 6))
    table.add_column("tensor", no_wrap=True, overflow="ellipsis", max_width=room)
    if wide:
        table.add_column("op", no_wrap=True, overflow="ellipsis", max_width=op_room)
    table.add_column("verdict", no_wrap=True, overflow="ellipsis", max_width=15)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for index in rows:
        if before is not None and index != before + 1:
            table.add_row("", "...")
        before = index
        result = layers[index]
        cells = [str(index + 1), plain(short(result.tensor, room)), *([plain(result.op)] if wide else [])]
        verdict = f"[{VERDICT_COLOURS[result.verdict]}]{result.verdict.value}[/]"
        table.add_row(*cells, verdict, *(_cell(name, result) for name in columns))
    return table


def _cell(column: str, result: TensorResult) -> str:
    screen = result.screen
    if column == "NaN/Inf":
        if screen is None:
            return ""
        seen = [(c.reference, c.target) for c in (screen.nan, screen.posinf, screen.neginf)]
        reference, target = (sum(pair[side] for pair in seen) for side in (0, 1))
        return f"{reference}/{target}" if reference or target else ""
    if column == "total":
        total = _total(result)
        return "-" if total is None else number(total)
    values = {
        "introduced": result.introduced,
        "floor": result.floor,
        "ratio": result.ratio,
        "inherited": result.inherited,
        "amplif.": result.amplification,
        "max abs": None if screen is None else screen.max_abs,
    }
    value = values[column]
    return "" if value is None else number(value)
