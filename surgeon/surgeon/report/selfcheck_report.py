"""The layout of ``surgeon doctor --self-test tensorrt``: the device, five models, one tactic, eight answers."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from surgeon.report.cells import plain
from surgeon_debug.runners.tensorrt.self_check.answer import Reply
from surgeon_debug.runners.tensorrt.self_check.result import ModelCheck, SelfCheck

_COLOURS = {Reply.YES: "green", Reply.NO: "yellow", Reply.UNKNOWN: "dim"}


def print_self_check(console: Console, found: SelfCheck, record: Path | None) -> None:
    """Print a check on one screen."""
    verdict = "[bold green]works[/]" if found.right else "[bold red]does not work as it should[/]"
    device = found.system["device"]
    console.print(
        f"{verdict}  TensorRT {plain(found.system['tensorrt'])} on {plain(device['name'])}, compute capability "
        f"{plain(device['compute'])}, {device['memory'] / (1 << 30):.0f} GiB, CUDA driver {device['driver']}"
    )
    if found.system["lacking"]:
        console.print(f"this version lacks {', '.join(plain(name) for name in found.system['lacking'])}")
    console.print(_models(found))
    _print_pin(console, found)
    console.print(_answers(found))
    console.print(f"{found.seconds:.0f} seconds")
    if record is not None:
        console.print(f"wrote {plain(str(record))}; look through it before you send it")


def _models(found: SelfCheck) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, justify in (("model", "left"), ("layers", "right"), ("verdict", "left"), ("", "left")):
        table.add_column(title, justify="right" if justify == "right" else "left", overflow="fold")
    for model in found.models:
        table.add_row(model.name, str(model.layers), model.verdict, _words(model))
    return table


def _words(model: ModelCheck) -> str:
    disturbed = "looking inside changes the verdict" if model.disturbed else ""
    return plain("; ".join(part for part in (model.words if not model.right else "", disturbed) if part))


def _print_pin(console: Console, found: SelfCheck) -> None:
    said = {True: "followed", False: "[bold red]not followed[/]", None: "not tried"}[found.pin.followed]
    error = "" if found.pin.error is None else f"; against the builder's own choice: relative L2 {found.pin.error:.2g}"
    console.print(f"pinned tactic {said}: {plain(found.pin.words)}{error}")


def _answers(found: SelfCheck) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", justify="right")
    table.add_column("answer", no_wrap=True)
    table.add_column("question, and what was seen", overflow="fold")
    for answer in found.answers:
        colour = _COLOURS[answer.reply]
        words = f"{plain(answer.question)}\n[dim]{plain(answer.seen)}[/]"
        table.add_row(str(answer.number), f"[{colour}]{answer.reply.value}[/]", words)
    return table
