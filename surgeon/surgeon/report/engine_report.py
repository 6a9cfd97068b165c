"""The layout of ``surgeon inspect`` for a TensorRT engine."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from surgeon.report.cells import middle, plain
from surgeon.report.long_list import print_rows
from surgeon_debug.element_types import type_of_number

_KINDS = 12  # kinds of layers that are named
_PORTS = 12
_FUSED = 8  # fusions that are shown


def print_engine(console: Console, path: Path, document: Mapping[str, Any], *, every: bool) -> None:
    """Inputs and outputs, kinds of layers, the largest fusions; or every layer."""
    layers: Sequence[Mapping[str, Any]] = document.get("layers", ())
    versions = document.get("versions", {})
    device = document.get("device", {}).get("name", "")
    where = f", {plain(device)}" if device else ""
    console.print(f"[bold]{plain(str(path))}[/]: TensorRT {plain(str(versions.get('tensorrt', '?')))}{where}")
    if document.get("model"):
        console.print(f"built from {plain(str(document['model']))}")
    for port in document.get("ports", ())[:_PORTS]:
        console.print(f"  {_port(port)}")
    if document.get("layers_lost"):
        console.print(f"[bold]note:[/] {plain(str(document['layers_lost']))}")
    if every:
        rows = [(layer["name"], layer["kind"], ", ".join(layer["nodes"]), layer["kernel"]) for layer in layers]
        print_rows(console, ("layer", "kind", "nodes", "kernel"), rows)
        return
    kinds = collections.Counter(layer["kind"] or "layer" for layer in layers)
    words = ", ".join(f"{count} {plain(kind)}" for kind, count in kinds.most_common(_KINDS))
    console.print(f"{len(layers)} layers: {words}")
    inserted = sum(not layer["nodes"] for layer in layers)
    tactics = sum(bool(layer["kernel"]) for layer in layers)
    console.print(f"{tactics} of them have a tactic, {inserted} stand for no node of the model")
    fused = sorted((layer for layer in layers if len(layer["nodes"]) > 1), key=lambda layer: -len(layer["nodes"]))
    if fused:
        console.print(f"[bold]{len(fused)} fusions[/], the largest are")
    for layer in fused[:_FUSED]:
        nodes = ", ".join(layer["nodes"][:4]) + (
            f" and {len(layer['nodes']) - 4} more" if len(layer["nodes"]) > 4 else ""
        )
        console.print(f"  {middle(layer['name'], 40)}: {len(layer['nodes'])} nodes: {plain(nodes)}")
    console.print("--layers lists all of them")


def _port(port: Mapping[str, Any]) -> str:
    kind = type_of_number(int(port["type"])).dtype_name
    sizes = "x".join("?" if size < 0 else str(size) for size in port["dims"]) or "scalar"
    ranges = [
        " to ".join("x".join(map(str, three[i])) for i in (0, 2))
        for three in port.get("ranges", ())
        if three and three[0] != three[2]
    ]
    spans = f", from {'; from '.join(ranges)}" if ranges else ""
    values = ", a shape on the host" if port.get("shape_values") else ""
    return f"{'input ' if port['input'] else 'output'} {plain(port['name'])} ({kind} {sizes}){spans}{values}"
