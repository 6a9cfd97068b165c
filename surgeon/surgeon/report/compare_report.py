"""The layout of ``surgeon compare``: one screen that says whether, where and how much."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from surgeon_debug.compare import Difference
from surgeon_debug.comparison import Comparison, TensorResult
from surgeon_debug.verdict import Verdict

_OUTPUTS = 4  # lines for outputs; with everything else the report stays below 40 lines
_LAYERS = 16  # lines for layers, those that stand for a gap included
_REMARKS = 3
_BEFORE, _AFTER = 2, 3  # rows around the first suspect
_COLOURS = {Verdict.AGREE: "green", Verdict.DIFFER: "red", Verdict.SHAPE: "red", Verdict.MISSING: "red"}
_HALF_LIMIT = 65504.0

# Heading, least width of the console that has room for it.
_COLUMNS = (
    ("rel L2", 0),
    ("max abs", 60),
    ("mean abs", 118),
    ("max rel", 100),
    ("mean rel", 132),
    ("1-cos", 84),
    ("gain", 84),
    ("NaN/Inf", 72),
)


def print_comparison(console: Console, done: Comparison) -> None:
    """Print a comparison in at most 40 lines."""
    _print_head(console, done)
    _print_outputs(console, done)
    if done.layered:
        _print_first(console, done)
        _print_layers(console, done)
    for line in _remarks(done):
        console.print(f"[bold]note:[/] {escape(line)}")
    for line in _advice(done):
        console.print(f"[bold]next:[/] {escape(line)}")


def _print_head(console: Console, done: Comparison) -> None:
    word, colour = ("agree", "green") if done.verdict == "agree" else ("DIFFER", "red")
    models = done.model if done.model == done.other else f"{done.model} and {done.other}"
    samples = "1 sample" if done.samples == 1 else f"{done.samples} samples"
    allowed = "table of tolerances by precision" if done.tolerance == "table" else done.tolerance
    console.print(f"[bold {colour}]{word}[/]  [bold]{escape(models)}[/]")
    console.print(f"reference {escape(done.reference)}, target {escape(done.target)}; {samples}; {allowed}")


def _print_outputs(console: Console, done: Comparison) -> None:
    bad = [result for result in done.outputs if result.verdict is not Verdict.AGREE]
    shown = [*bad, *(result for result in done.outputs if result.verdict is Verdict.AGREE)][:_OUTPUTS]
    for result in shown:
        colour = _COLOURS[result.verdict]
        name = escape(_short(result.tensor, max(16, console.width // 3)))
        line = f"  output {name}: [{colour}]{result.verdict.value}[/], {escape(result.judgement.reason)}"
        console.print(line, no_wrap=result.verdict is Verdict.AGREE, overflow="ellipsis")
    if len(done.outputs) > len(shown):
        console.print(f"  ... and {len(done.outputs) - len(shown)} more outputs (--json lists all)")
    if not done.layered:
        worst = max((r for r in done.outputs if r.difference), key=_severity, default=None)
        if worst is not None and worst.difference is not None and worst.difference.unequal:
            console.print(f"  worst: {escape(worst.tensor)}{escape(_element(worst.difference))}")
        console.print(_table(console, [(i, result) for i, result in enumerate(shown) if result.difference], "output"))


def _print_first(console: Console, done: Comparison) -> None:
    first = done.first
    suspects = sum(result.suspect for result in done.layers)
    if first is None:
        console.print(f"no layer is beyond what is allowed ({len(done.layers)} compared)")
        return
    console.print(
        f"[bold]the error first appears at {escape(first.node)}[/] ({escape(first.op)}), tensor {escape(first.tensor)}"
    )
    detail = first.judgement.reason + (_element(first.difference) if first.difference else "")
    console.print(f"  {escape(detail)}")
    console.print(f"  {suspects} of {len(done.layers)} layers are beyond what is allowed; all before it agree")


def _print_layers(console: Console, done: Comparison) -> None:
    rows = _chosen(done.layers)
    if rows:
        console.print(_table(console, [(i, done.layers[i]) for i in rows], "tensor", len(done.layers)))


def _chosen(layers: Sequence[TensorResult]) -> list[int]:
    """Which layers to show: those around the first suspect, then the worst; in topological order."""
    first = next((i for i, result in enumerate(layers) if result.suspect), None)
    chosen: list[int] = []
    if first is not None:
        chosen += [first, *range(max(0, first - _BEFORE), min(len(layers), first + _AFTER + 1))]
    chosen += sorted(range(len(layers)), key=lambda i: _severity(layers[i]), reverse=True)[:_LAYERS]
    rows: list[int] = []
    for index in dict.fromkeys(chosen):
        wider = sorted([*rows, index])
        gaps = sum(b != a + 1 for a, b in itertools.pairwise(wider))
        if len(wider) + gaps > _LAYERS:
            break
        rows = wider
    return rows


def _severity(result: TensorResult) -> tuple[int, float]:
    difference = result.difference
    if difference is None:
        return (0, 0.0)
    special = difference.special_mismatches + (1 if difference.mismatch else 0)
    error = difference.rel_l2 if not difference.exact else difference.unequal / max(1, difference.elements)
    return (2 if special else 1 if result.suspect else 0, math.inf if math.isnan(error) else error)


def _table(console: Console, rows: Sequence[tuple[int, TensorResult]], title: str, total: int = 0) -> Table:
    columns = [name for name, width in _COLUMNS if console.width >= width]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    if total:
        table.add_column("#", justify="right", no_wrap=True)
    wide = total > 0 and console.width >= 72
    room = max(12, console.width - 9 * len(columns) - 13 - (15 if wide else 0))
    table.add_column(title, no_wrap=True, overflow="ellipsis", max_width=room)
    if wide:
        table.add_column("op", no_wrap=True, overflow="ellipsis", max_width=14)
    table.add_column("verdict", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for index, result in rows:
        if total and before is not None and index != before + 1:
            table.add_row("", "...")
        before = index
        cells = [escape(_short(result.tensor, room))]
        if total:
            cells = [str(index + 1), *cells, *([escape(result.op)] if wide else [])]
        verdict = f"[{_COLOURS[result.verdict]}]{result.verdict.value}[/]"
        table.add_row(*cells, verdict, *(_cell(name, result.difference) for name in columns))
    return table


def _cell(column: str, difference: Difference | None) -> str:
    if difference is None or difference.mismatch:
        return "-"
    if column == "NaN/Inf":
        seen = [(c.reference, c.target) for c in (difference.nan, difference.posinf, difference.neginf)]
        reference, target = (sum(pair[side] for pair in seen) for side in (0, 1))
        return f"{reference}/{target}" if reference or target else ""
    if difference.reference_dtype == "string":
        return str(difference.unequal) if column == "rel L2" else ""
    if difference.elements and not difference.finite:
        return "-"
    values = {
        "rel L2": difference.rel_l2,
        "max abs": difference.max_abs,
        "mean abs": difference.mean_abs,
        "max rel": difference.max_rel,
        "mean rel": difference.mean_rel,
        "1-cos": difference.angle,
        "gain": difference.gain,
    }
    value = values[column]
    return "-" if value is None else _number(value, signed=column == "gain")


def _number(value: float, *, signed: bool = False) -> str:
    if value == 0.0:
        return "0"
    if not math.isfinite(value):
        return f"{value:+}" if signed else f"{value}"
    return f"{value:+.1e}" if signed else f"{value:.2g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def _element(difference: Difference) -> str:
    worst = difference.worst
    if worst is None:
        return ""
    index = ",".join(str(i) for i in worst.index)
    sample = f" of sample {worst.sample}" if worst.sample else ""
    return f"; worst at [{index}]{sample}: {_value(worst.reference)} against {_value(worst.target)}"


def _value(item: object) -> str:
    if isinstance(item, float):
        return f"{item:.6g}"
    return repr(item) if isinstance(item, str) else str(item)


def _short(name: str, width: int) -> str:
    """The end of a long name, which is where names differ."""
    return name if len(name) <= width else "..." + name[-(width - 3) :]


def _remarks(done: Comparison) -> list[str]:
    lines = []
    for seen in done.observations:
        if seen.verdict_changed:
            lines.append(
                f"showing inner tensors changes the verdict of {_some(seen.verdict_changed)} on {seen.engine}: what is "
                "wrong depends on how the engine fuses, and the layers do not show it as it is"
            )
        elif seen.changed:
            lines.append(f"showing inner tensors changes the last digits of {_some(seen.changed)} on {seen.engine}")
    if done.unobserved:
        name, reason = done.unobserved[0]
        lines.append(f"{_count(len(done.unobserved))} could not be compared, the first is {name}: {reason}")
    if done.unmatched:
        lines.append(
            f"{_count(len(done.unmatched))} of {done.model} without a namesake in {done.other}: {_some(done.unmatched)}"
        )
    return [*lines, *done.notes][:_REMARKS]


def _count(tensors: int) -> str:
    return "1 tensor" if tensors == 1 else f"{tensors} tensors"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _advice(done: Comparison) -> list[str]:
    if done.verdict == "agree":
        return [] if done.first is None else ["the outputs do not show it with these inputs: try more --samples"]
    if any(result.verdict is Verdict.MISSING for result in done.outputs):
        return ["outputs are paired by name; give both models the same names"]
    if not done.layered:
        return ["add --layers to see where the error first appears"]
    first = done.first
    if first is None:
        if any(seen.verdict_changed for seen in done.observations):
            return ["switch off the target's fusions one by one, or compare with fewer tensors shown"]
        return ["the error is in a tensor that was not compared; see the notes"]
    if _overflows(first):
        return [f"values leave the range of float16 here: keep {first.node} in float32"]
    command = shlex.join(["surgeon", "extract", done.model, "--outputs", first.tensor])
    return [f"look at {first.node} alone: {command}"]


def _overflows(result: TensorResult) -> bool:
    """Whether an element is finite and too large for float16 in the reference, and infinite or NaN in the target."""
    difference = result.difference
    if difference is None or difference.worst is None or "float16" not in difference.target_dtype:
        return False
    reference, target = difference.worst.reference, difference.worst.target
    numbers = isinstance(reference, float) and isinstance(target, float)
    return bool(numbers and math.isfinite(reference) and abs(reference) > _HALF_LIMIT and not math.isfinite(target))
