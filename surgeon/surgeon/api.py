"""The Python face: the same deeds as on the command line, on files, ``onnx_ir.Model`` or ``ModelProto``.

No function changes the model it is given.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_ir as ir

from surgeon import rewriting
from surgeon_passes import extract as extracting
from surgeon_passes import graph
from surgeon_passes import save as saving
from surgeon_passes.contract import Change, Pass
from surgeon_passes.errors import BadOptionError, BrokenPassError
from surgeon_passes.pipeline import Report
from surgeon_passes.recipe import Recipe

ModelLike: TypeAlias = str | Path | ir.Model | onnx.ModelProto
"""A path, a model of onnx_ir, or a ModelProto."""


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """A rewritten model and how it came about."""

    model: ir.Model
    """The new model."""
    changes: tuple[Change, ...]
    """Every change, by number."""
    report: Report
    """What each pass did and left alone."""
    verified: rewriting.Verified | None
    """The comparison before against after; None if it was not asked for."""


def load(path: str | Path, *, allow_external: bool = False) -> ir.Model:
    """Read a model without its weights, which stay mapped; see :func:`surgeon_passes.graph.load`."""
    return graph.load(path, allow_external=allow_external)


def save(model: ModelLike, path: str | Path, *, weights: str = "auto", shard_size: int | None = None) -> list[Path]:
    """Write a model whole or not at all; see :func:`surgeon_passes.save.save`.

    Args:
        model: The model.
        path: The target.
        weights: ``auto``, ``inline``, ``external`` or ``keep``.
        shard_size: Bytes after which a new data file is started.
    """
    try:
        layout = saving.Weights(weights)
    except ValueError:
        raise BadOptionError(f"weights='{weights}' is unknown", hint="use auto, inline, external or keep") from None
    return saving.save(model_of(model), path, weights=layout, shard_size=shard_size)


def to_proto(model: ModelLike) -> onnx.ModelProto:
    """A ModelProto with every weight inside it; see :func:`surgeon_passes.graph.to_proto`."""
    return graph.to_proto(model_of(model))


def model_of(model: ModelLike) -> ir.Model:
    """An ``onnx_ir.Model`` from whatever stands for a model; one in memory is returned as it is."""
    if isinstance(model, ir.Model):
        return model
    if isinstance(model, onnx.ModelProto):
        return graph.from_proto(model)
    return graph.load(model)


def rewrite(
    model: ModelLike,
    steps: Sequence[str | Pass] | str | Recipe,
    *,
    verify: bool = False,
    limit: int | None = None,
    samples: int = 1,
    dims: Mapping[str, int] | None = None,
) -> Rewritten:
    """Run passes on a copy of a model.

    Args:
        model: The model; it is not changed.
        steps: Passes as text or objects, or a recipe by name, file or object.
        verify: Compare before and after under onnxruntime.
        limit: Make the first changes only.
        samples: Seeded inputs for ``verify``.
        dims: Sizes of symbolic dimensions for ``verify``.

    Raises:
        BrokenPassError: ``verify`` found that a value changed; the message names the first change that did it.
        SurgeonError: The model, a pass or an option does not do.
    """
    if isinstance(steps, Recipe):
        recipe = steps
    else:
        recipe = rewriting.recipe_of(steps, ()) if isinstance(steps, str) else rewriting.recipe_of(None, steps)
    source = Path(model) if isinstance(model, str | Path) else model_of(model)
    order = rewriting.Order(source, recipe, limit=limit)
    report = rewriting.perform(order)
    verified = rewriting.verify(order, report, samples=samples, dims=dims or {}) if verify else None
    if verified is not None and verified.altered:
        raise BrokenPassError(" ".join(verified.sentences()))
    return Rewritten(report.model, report.changes, report, verified)


def simplify(model: ModelLike, *, verify: bool = False) -> ir.Model:
    """The model after the recipe ``simplify``: fewer nodes, same values."""
    return rewrite(model, "simplify", verify=verify).model


def extract(
    model: ModelLike,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    nodes: Sequence[str] = (),
    inside: str = "",
) -> ir.Model:
    """Cut a piece out of a model; see :func:`surgeon_passes.extract.extract`."""
    return extracting.extract_piece(model_of(model), inputs=inputs, outputs=outputs, nodes=nodes, inside=inside)
