"""The layout of ``surgeon bench``."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table

from surgeon.benching import Benched
from surgeon.report.cells import middle, plain
from surgeon_debug.bench import PERCENTILES, BenchResult

_LAYERS = 15  # rows for layers


def document(done: Benched) -> dict[str, Any]:
    """The JSON document; times are in seconds."""
    results = []
    for result in done.results:
        found = dataclasses.asdict(result)
        found["percentiles"] = {f"p{share:g}": value for share, value in result.percentiles.items()}
        found["layers"] = [{"layer": name, "seconds": value} for name, value in result.layers.items()]
        results.append(found)
    failed = [{"runner": runner, "reason": reason} for runner, reason in done.failed]
    return {"schema": "surgeon.bench/1", "model": str(done.model), "results": results, "failed": failed}


def print_bench(console: Console, done: Benched) -> None:
    """One row for each engine, then the slowest layers of those that tell."""
    console.print(f"[bold]{plain(str(done.model))}[/], latencies in milliseconds")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("runner", no_wrap=True)
    shares = [f"p{share:g}" for share in PERCENTILES]
    for title in ("mean", "dev", "min", *shares, "max", "runs/s", "runs", "prepare s"):
        table.add_column(title, justify="right", no_wrap=True)
    room = max(16, console.width - 90)
    for result in done.results:
        numbers = [result.mean, result.deviation, result.least, *result.percentiles.values(), result.most]
        cells = [f"{1000 * number:.4g}" for number in numbers]
        rest = (f"{result.throughput:.4g}", str(result.runs), f"{result.prepare:.3g}")
        table.add_row(middle(result.runner, room), *cells, *rest)
    console.print(table)
    streams = done.results[0].streams
    if streams > 1:
        console.print(f"{streams} streams at the same time; latencies are those of single runs among them")
    resident = [result.runner for result in done.results if result.resident]
    if resident:
        console.print(f"inputs and outputs stay on the device with {plain(', '.join(resident))}")
    for runner, reason in done.failed:
        console.print(f"[bold]note:[/] {plain(runner)} could not be measured: {plain(reason)}")
    for result in done.results:
        _print_layers(console, result)


def _print_layers(console: Console, result: BenchResult) -> None:
    if not result.layers:
        return
    total = sum(result.layers.values()) or 1.0
    ordered = sorted(result.layers.items(), key=lambda item: -item[1])
    console.print(f"[bold]layers of {plain(result.runner)}[/]: {len(ordered)}, {1000 * total:.4g} ms together")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for justify in ("right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for name, seconds in ordered[:_LAYERS]:
        table.add_row(f"{1000 * seconds:.4g} ms", f"{100 * seconds / total:.1f} %", middle(name, console.width - 24))
    console.print(table)
    if len(ordered) > _LAYERS:
        console.print(f"... and {len(ordered) - _LAYERS} more (--json lists all)")
