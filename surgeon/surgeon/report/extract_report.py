"""The layout of ``surgeon extract``."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.markup import escape

from surgeon.console import human_bytes
from surgeon.extracting import Extraction
from surgeon_passes.census import TensorInfo


def document(done: Extraction) -> dict[str, Any]:
    """The JSON document."""
    return {
        "schema": "surgeon.extract/1",
        "source": str(done.source),
        "files": [str(path) for path in done.files],
        "added_inputs": list(done.added_inputs),
        "notes": list(done.notes),
        "inputs": [dataclasses.asdict(info) for info in done.census.inputs],
        "outputs": [dataclasses.asdict(info) for info in done.census.outputs],
        "nodes": done.census.nodes,
        "weight_bytes": sum(done.census.weight_bytes.values()),
    }


def _listed(infos: tuple[TensorInfo, ...]) -> str:
    words = [f"{escape(info.name)} ({info.dtype} {escape(info.shape)})" for info in infos[:6]]
    return ", ".join(words) + (f" and {len(infos) - 6} more" if len(infos) > 6 else "")


def print_extraction(console: Console, done: Extraction) -> None:
    """What was written, its inputs and outputs."""
    weights = sum(done.census.weight_bytes.values())
    console.print(f"{done.census.nodes} nodes and {human_bytes(weights)} of weights out of {escape(str(done.source))}")
    console.print(f"  inputs   {_listed(done.census.inputs) or 'none'}")
    console.print(f"  outputs  {_listed(done.census.outputs)}")
    for name in done.added_inputs:
        console.print(f"  note: the outputs also need '{escape(name)}', which became an input")
    for note in done.notes:
        console.print(f"  note: {escape(note)}")
    console.print(f"wrote {escape(', '.join(str(path) for path in done.files))}")
