"""The layout of ``surgeon inspect``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from surgeon.console import human_bytes
from surgeon_passes.census import Census, NodeInfo, TensorInfo

_LONGEST = 12  # rows of a list that still fit beside the rest on one screen


def document(census: Census, nodes: Sequence[NodeInfo] | None) -> dict[str, Any]:
    """The JSON document."""
    result = {"schema": "surgeon.inspect/1", **dataclasses.asdict(census)}
    if nodes is not None:
        result["listed"] = [dataclasses.asdict(node) for node in nodes]
    return result


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(justify="right" if column == "right" else "left", overflow="fold")
    return table


def _print_tensors(console: Console, title: str, infos: Sequence[TensorInfo]) -> None:
    if not infos:
        return
    console.print(f"[bold]{title}[/]")
    table = _plain_table("left", "left", "left")
    for info in infos[:_LONGEST]:
        table.add_row("  " + escape(info.name), info.dtype, escape(info.shape))
    console.print(table)
    if len(infos) > _LONGEST:
        console.print(f"  ... and {len(infos) - _LONGEST} more (--json lists all)")


def print_census(console: Console, path: Path, census: Census) -> None:
    """Print the census on one screen."""
    opsets = ", ".join(f"{domain} {version}" for domain, version in census.opsets.items()) or "none"
    producer = f", by {census.producer}" if census.producer else ""
    console.print(f"[bold]{escape(str(path))}[/]: IR {census.ir_version}, opset {escape(opsets)}{escape(producer)}")
    nested = f", {census.nested_nodes} of them in {len(census.graphs)} nested graphs" if census.graphs else ""
    total = sum(census.weight_bytes.values())
    types = ", ".join(f"{human_bytes(size)} {dtype}" for dtype, size in list(census.weight_bytes.items())[:4])
    console.print(
        f"{census.nodes} nodes{nested}; {census.weights} weights, {human_bytes(total)}"
        + (f" ({types})" if types else "")
    )
    for name, size in list(census.external_files.items())[:4]:
        console.print(f"  {human_bytes(size)} of them in {escape(name)}")
    if census.functions:
        console.print(f"local functions: {escape(', '.join(census.functions[:8]))}")
    _print_tensors(console, "inputs", census.inputs)
    _print_tensors(console, "inputs with a default", census.defaults)
    _print_tensors(console, "outputs", census.outputs)
    if census.ops:
        console.print("[bold]operators[/]")
        shown = [f"{count} {escape(op)}" for op, count in list(census.ops.items())[:30]]
        more = f", and {len(census.ops) - 30} more kinds" if len(census.ops) > 30 else ""
        console.print("  " + ", ".join(shown) + more)
    large = [info for info in census.largest[:5] if info.nbytes >= 1000]
    if large:
        console.print("[bold]largest weights[/]")
        table = _plain_table("left", "left", "left", "right")
        for info in large:
            table.add_row("  " + escape(info.name), info.dtype, escape(info.shape), human_bytes(info.nbytes))
        console.print(table)


def print_nodes(console: Console, nodes: Sequence[NodeInfo]) -> None:
    """Print nodes, one to a row."""
    table = _plain_table("left", "left", "left")
    for node in nodes:
        label = f"{node.where}/{node.name}" if node.where else node.name
        table.add_row(escape(label), escape(node.op), escape(f"{', '.join(node.inputs)} -> {', '.join(node.outputs)}"))
    console.print(table)
    console.print(f"{len(nodes)} nodes")
