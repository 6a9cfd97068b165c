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
from surgeon_passes.graph import load
from surgeon_passes.save import save
from surgeon_passes.select_nodes import select_nodes


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
        wanted = _border_candidates(model, inputs, outputs, nodes)
        shapes = observe(source, samples_of(model, feeds)[0], wanted)
    piece = extract(model, inputs=inputs, outputs=outputs, nodes=nodes, inside=inside, shapes=shapes)
    files = save(piece.model, target.path, weights=target.weights, shard_size=target.shard_size)
    return Extraction(source, tuple(files), census_of(piece.model), piece.added_inputs, piece.notes)


def _border_candidates(
    model: ir.Model, inputs: Sequence[str], outputs: Sequence[str], nodes: Sequence[str]
) -> list[str]:
    """Tensors of the main graph that may end up at the border of the piece."""
    names = {*inputs, *outputs}
    for node in select_nodes(model.graph, nodes) if nodes else ():
        names.update(value.name for value in (*node.inputs, *node.outputs) if value is not None and value.name)
    return [value.name for node in model.graph for value in node.outputs if value.name and value.name in names]


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
