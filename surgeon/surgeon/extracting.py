"""What ``surgeon extract`` and the Python function share: cut, look at one run if asked, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from surgeon.rewriting import Target
from surgeon.running import samples_of
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.values import Value
from surgeon_passes.census import Census, census_of
from surgeon_passes.extract import extract
from surgeon_passes.find_scope import find_place
from surgeon_passes.graph import load
from surgeon_passes.save import save
from surgeon_passes.select_nodes import select_nodes
from surgeon_passes.walk import function_scope, scopes


@dataclasses.dataclass(frozen=True)
class Extraction:
    """A piece that was written."""

    source: Path
    """The model it was cut from."""
    files: tuple[Path, ...]
    """The files written, the model file last."""
    census: Census
    """What is in the piece."""
    added_inputs: tuple[str, ...]
    """Inputs it has although they were not asked for."""
    notes: tuple[str, ...]
    """Choices that were made on the way."""


def extract_file(
    source: Path,
    target: Target,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    nodes: Sequence[str] = (),
    inside: str = "",
    feeds: Path | None = None,
    allow_external: bool = False,
) -> Extraction:
    """Cut a piece out of a model file and write it.

    Args:
        source: The model.
        target: Where the piece goes.
        inputs: Tensors to cut at.
        outputs: Tensors to compute.
        nodes: Instead of tensors: node names or patterns.
        inside: The body or function to cut in.
        feeds: Inputs of the whole model; it is run once on them to learn types and shapes at the border.
        allow_external: Accept weights outside the model's folder.

    Raises:
        SurgeonError: A name does not exist, or the piece would not be valid; nothing is written then.
    """
    model = load(source, allow_external=allow_external)
    shapes = None
    if feeds is not None:
        wanted = _border_candidates(model, inputs, outputs, nodes, inside)
        shapes = observe(source, samples_of(model, feeds)[0], wanted)
        shapes |= _handed_in(model, inside, shapes)
    piece = extract(model, inputs=inputs, outputs=outputs, nodes=nodes, inside=inside, shapes=shapes)
    files = save(piece.model, target.path, weights=target.weights, shard_size=target.shard_size)
    return Extraction(source, tuple(files), census_of(piece.model), piece.added_inputs, piece.notes)


def _border_candidates(
    model: ir.Model, inputs: Sequence[str], outputs: Sequence[str], nodes: Sequence[str], inside: str
) -> list[str]:
    """Tensors of the main graph that may end up at the border of the piece."""
    names = {*inputs, *outputs}
    if inside:
        nested = (scope for scope in scopes(model) if scope.path)
        read = (value for scope in nested for node in scope.graph for value in node.inputs if value is not None)
        names.update(value.name for value in read if value.name)
        names.update(value.name for value in _hosts_inputs(model, inside) if value is not None and value.name)
    for node in select_nodes(model.graph, nodes) if nodes else ():
        names.update(value.name for value in (*node.inputs, *node.outputs) if value is not None and value.name)
    return [value.name for node in model.graph for value in node.outputs if value.name and value.name in names]


def _hosts_inputs(model: ir.Model, inside: str) -> Sequence[ir.Value | None]:
    """What the node of the main graph that holds a body, or first calls a function, is given."""
    for node in model.graph:
        called = f"function:{node.domain}::{node.op_type}"
        if inside.split("/")[0] == called and node.op_identifier() in model.functions:
            return node.inputs
    owner = find_place(model, inside).scope.owner if not inside.startswith("function:") else None
    return owner.inputs if owner is not None and owner.graph is model.graph else ()


def _handed_in(model: ir.Model, inside: str, shapes: Mapping[str, ir.TypeAndShape]) -> dict[str, ir.TypeAndShape]:
    """Types and ranks of what a body or function is given by name of its own inputs.

    Sizes stay open, for a loop may change them from one turn to the next. A Scan hands its last inputs in slice by
    slice, one dimension less.
    """
    if not inside:
        return {}
    given = list(_hosts_inputs(model, inside))
    if inside.startswith("function:"):
        function = next(f for f in model.functions.values() if inside.startswith(function_scope(f).path))
        formal, cut = list(function.inputs), 0
    else:
        scope = find_place(model, inside).scope
        formal, owner = list(scope.graph.inputs), scope.owner
        if owner is None or owner.op_type not in ("Loop", "Scan"):
            return {}
        slices = owner.attributes.get("num_scan_inputs")
        cut = slices.as_int() if owner.op_type == "Scan" and slices is not None else 0
    found: dict[str, ir.TypeAndShape] = {}
    for i, (inner, outer) in enumerate(zip(formal, given, strict=False)):
        seen = shapes.get(outer.name or "") if outer is not None else None
        if seen is not None and seen.shape is not None and inner.name:
            rank = len(seen.shape) - (i >= len(given) - cut)
            found[inner.name] = ir.TypeAndShape(seen.type, ir.Shape([None] * rank))
    return found


def observe(source: Path, sample: Mapping[str, Value], wanted: Sequence[str]) -> dict[str, ir.TypeAndShape]:
    """Types and shapes of tensors as one run under onnxruntime shows them, inputs included.

    Args:
        source: The model file.
        sample: Its inputs.
        wanted: Tensors of the main graph.
    """
    with make_engine("onnxruntime:optimize=none") as engine:
        engine.prepare(source, wanted)
        values = {**sample, **(engine.run(sample) if wanted else {})}
    return {
        name: ir.TypeAndShape(ir.TensorType(ir.DataType.from_numpy(value.dtype)), ir.Shape(value.shape))
        for name, value in values.items()
        if isinstance(value, np.ndarray) and value.dtype != object
    }
