"""The layout of ``surgeon compare``: one screen that says whether, where and how much."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from surgeon.report.cells import number, plain, short
from surgeon.report.ladder_report import ladder_advice, print_ladder
from surgeon.report.layer_table import print_layers
from surgeon.report.verdict_cells import VERDICT_COLOURS, worst_element
from surgeon_debug.compare import Difference
from surgeon_debug.comparison import Cause, Comparison, TensorResult
from surgeon_debug.verdict import Verdict

_OUTPUTS = 4  # lines for outputs; with everything else the report stays below 40 lines
_REMARKS = 4
_MORE = re.compile(r"(\d+) more tensors")  # what an entry is called that stands for all beyond the limit

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
_CAUSES = {
    Cause.LAYER: "a layer is wrong",
    Cause.PRECISION: "the precision does not suffice",
    Cause.FUSION: "but not while anybody looks inside",
}


def print_comparison(console: Console, done: Comparison, options: str = "") -> None:
    """Print a comparison in at most 40 lines.

    Args:
        console: Where.
        done: The comparison.
        options: What other commands need to ask the same question: options, with a space before each.
    """
    _print_head(console, done)
    _print_outputs(console, done)
    if done.ladder is not None:
        print_ladder(console, done.ladder)
    elif done.layered:
        print_layers(console, done)
    for line in _remarks(done):
        console.print(f"[bold]note:[/] {plain(line)}")
    for line in _advice(done) if done.ladder is None else ladder_advice(done, done.ladder, options):
        console.print(f"[bold]next:[/] {plain(line)}")


def _print_head(console: Console, done: Comparison) -> None:
    word, colour = ("agree", "green") if done.verdict == "agree" else ("DIFFER", "red")
    models = done.model if done.model == done.other else f"{done.model} and {done.other}"
    samples = "1 sample" if done.samples == 1 else f"{done.samples} samples"
    allowed = "outputs judged by the table of tolerances" if done.tolerance == "table" else done.tolerance
    why = f": {_CAUSES[done.cause]}" if done.cause in _CAUSES else ""
    # The end of a long path tells models apart; the command below has the whole of it.
    models = short(models, max(24, console.width - len(word) - len(why) - 2))
    console.print(f"[bold {colour}]{word}{why}[/]  [bold]{plain(models)}[/]")
    console.print(f"reference {plain(done.reference)}, target {plain(done.target)}; {samples}; {allowed}")


def _print_outputs(console: Console, done: Comparison) -> None:
    bad = [result for result in done.outputs if result.verdict is not Verdict.AGREE]
    shown = [*bad, *(result for result in done.outputs if result.verdict is Verdict.AGREE)][:_OUTPUTS]
    for result in shown:
        colour = VERDICT_COLOURS[result.verdict]
        name = plain(short(result.tensor, max(16, console.width // 3)))
        line = f"  output {name}: [{colour}]{result.verdict.value}[/], {plain(result.judgement.reason)}"
        console.print(line, no_wrap=result.verdict is Verdict.AGREE, overflow="ellipsis")
    if len(done.outputs) > len(shown):
        console.print(f"  ... and {len(done.outputs) - len(shown)} more outputs (--json lists all)")
    if not done.layered:
        worst = max((r for r in done.outputs if r.difference), key=_severity, default=None)
        if worst is not None and worst.difference is not None and worst.difference.unequal:
            console.print(f"  {plain(worst.tensor + worst_element(worst.difference).replace(';', ' is', 1))}")
        console.print(_table(console, [result for result in shown if result.difference]))


def _severity(result: TensorResult) -> tuple[int, float]:
    difference = result.difference
    if difference is None:
        return (0, 0.0)
    special = difference.special_mismatches + (1 if difference.mismatch else 0)
    error = difference.rel_l2 if not difference.exact else difference.unequal / max(1, difference.elements)
    return (2 if special else 1 if result.suspect else 0, math.inf if math.isnan(error) else error)


def _table(console: Console, rows: Sequence[TensorResult]) -> Table:
    columns = [name for name, width in _COLUMNS if console.width >= width]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    room = max(12, console.width - 9 * len(columns) - 13)
    table.add_column("output", no_wrap=True, overflow="ellipsis", max_width=room)
    table.add_column("verdict", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for result in rows:
        verdict = f"[{VERDICT_COLOURS[result.verdict]}]{result.verdict.value}[/]"
        cells = (_cell(name, result.difference) for name in columns)
        table.add_row(plain(short(result.tensor, room)), verdict, *cells)
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
    return "-" if value is None else number(value, signed=column == "gain")


def _remarks(done: Comparison) -> list[str]:
    lines = []
    if done.flaky:
        name, error = max(done.flaky, key=lambda entry: entry[1])
        more = f", and {len(done.flaky) - 1} more" if len(done.flaky) > 1 else ""
        lines.append(
            f"{done.target} is flaky: {name} differs by {number(error)} between two runs on one input{more}; "
            "what it seems to add may be chance"
        )
    for seen in done.observations:
        if seen.verdict_changed:
            lines.append(
                f"showing inner tensors changes the verdict of {_some(seen.verdict_changed)} on {seen.engine}: what is "
                "wrong depends on how the engine fuses, and the layers do not show it as it is"
            )
        elif seen.changed:
            lines.append(f"showing inner tensors changes the last digits of {_some(seen.changed)} on {seen.engine}")
    beyond = [found for name, _ in done.unobserved if (found := _MORE.fullmatch(name))]
    lost = [(name, reason) for name, reason in done.unobserved if not _MORE.fullmatch(name)]
    if lost:
        name, reason = lost[0]
        lines.append(f"{_count(len(lost))} could not be compared, the first is {name}: {reason}")
    lines += [f"{_count(int(found[1]))} of bodies left out; --inner says how many are looked at" for found in beyond]
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
    first = done.first
    if done.verdict == "agree":
        if first is None or not done.layered:
            return []
        beyond = first.verdict in (Verdict.OVERFLOW, Verdict.ILL_CONDITIONED)
        return _higher_precision(done) if beyond else _look(done, first)
    if any(result.verdict is Verdict.MISSING for result in done.outputs):
        return ["outputs are paired by name; give both models the same names"]
    if not done.layered:
        return ["add --layers to see where the error starts"]
    if done.cause is Cause.FUSION:
        return ["switch off the target's fusions one by one, or compare with fewer tensors shown", *_saturation(done)]
    if done.cause is Cause.PRECISION:
        return _higher_precision(done)
    if first is None:
        return ["the error is in a tensor that was not compared; see the notes"]
    return _look(done, first)


def _saturation(done: Comparison) -> list[str]:
    """The best known way in which fused layers with narrow integers go wrong, where it may be the case."""
    quantised = any(result.op in ("QuantizeLinear", "DequantizeLinear") for result in done.layers)
    if not quantised or not done.target.startswith("onnxruntime"):
        return []
    advice = (
        "without VNNI in the CPU onnxruntime's fused int8 products saturate: try config.session.x64quantprecision=1"
    )
    return [advice]


def _look(done: Comparison, first: TensorResult) -> list[str]:
    command = shlex.join(["surgeon", "extract", done.other, "--nodes", first.node, "-o", "layer.onnx"])
    return [f"look at {first.node} alone: {command}"]


def _higher_precision(done: Comparison) -> list[str]:
    """Which layers to compute in a higher precision, and how."""
    if any(r.attribution is not None and r.attribution.precision == "tf32" for r in done.layers):
        switch = "tf32=false" if done.target.startswith("tensorrt") else "provider.use_tf32=0"
        return [f"TF32 rounds the inputs of MatMul and Conv to 10 bits; {switch} turns it off"]
    beyond = [r for r in done.layers if r.verdict in (Verdict.OVERFLOW, Verdict.ILL_CONDITIONED)]
    if not beyond:
        worst = sorted((r for r in done.layers if r.introduced), key=lambda r: -(r.introduced or 0.0))[:3]
        return [f"no layer stands out; the largest share is added by {_some([r.node for r in worst])}"]
    nodes = list(dict.fromkeys(result.node for result in beyond))
    return [f"keep in float32: {_some(nodes)} (convert-precision has the option keep)"]
