"""Cut a piece out of a model: by tensors, by nodes, from a body or a function; in the memory of what is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.build_piece import build_piece
from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import BadOptionError
from surgeon_passes.extract_body import function_as_model
from surgeon_passes.find_scope import find_place
from surgeon_passes.pause_collector import collector_paused
from surgeon_passes.piece_boundary import piece_by_nodes, piece_by_tensors


@dataclasses.dataclass(frozen=True)
class Extracted:
    """A piece as a model, and what its reader should know."""

    model: ir.Model
    """The piece; its tensors are those of the model it was cut from."""
    added_inputs: tuple[str, ...]
    """Inputs it has although they were not asked for: the outputs need them."""
    notes: tuple[str, ...]
    """Choices that were made: which call of a function the piece stands for."""


def extract(
    model: ir.Model,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    nodes: Sequence[str] = (),
    inside: str = "",
    shapes: Mapping[str, ir.TypeAndShape] | None = None,
) -> Extracted:
    """Cut a piece out of ``model``, which is not changed, and say what was added on the way.

    Weights are not read; time and memory beyond one walk over the nodes go with the size of the piece.

    Args:
        model: The model.
        inputs: Tensors at which to cut. Empty: the inputs of the graph that the outputs need. Inputs of the graph
            that are still needed become inputs of the piece in any case.
        outputs: Tensors to compute. Empty: the outputs of the graph that depend on ``inputs``.
        nodes: Instead of tensors: names of nodes, shell patterns, or regular expressions after ``re:``.
        inside: The graph to cut from: ``NODE/then_branch``, ``NODE/body``, ``function:DOMAIN::NAME``; empty for the
            main graph. Values it captures become inputs; captured constants come along.
        shapes: Types and shapes by tensor name, as one run has shown them, for what inference does not know.

    Raises:
        BadOptionError: A name does not exist, an input plays no part, or a type at the border is unknown.
        BadModelError: The model is not valid where it is cut.
        RefusalError: Names clash, or a function's call cannot be filled in.
    """
    if nodes and (inputs or outputs):
        raise BadOptionError("nodes and tensors are given together", hint="cut by one or the other")
    if not (inputs or outputs or nodes or inside):
        raise BadOptionError("nothing says what to extract", hint="give inputs, outputs, nodes or inside")
    notes: tuple[str, ...] = ()
    with collector_paused():
        if inside.startswith("function:"):
            body = function_as_model(model, inside)
            model, inside, notes = body.model, body.path, body.notes
        place = find_place(model, inside)
        piece = piece_by_nodes(place, nodes) if nodes else piece_by_tensors(model, place, inputs, outputs)
        return Extracted(build_piece(model, place, piece, shapes), piece.added_inputs, notes)


@dataclasses.dataclass(frozen=True)
class Extract(Pass):
    """Cut a piece out of the model and drop the rest.

    By tensors: the nodes that compute ``outputs`` from ``inputs``; inputs of the model that are still needed stay
    inputs, and are reported. By nodes: those whose names match, what they read and others read of theirs becoming
    the interface. ``inside`` cuts from the body of an If, Loop or Scan, whose captured values become inputs, or from a
    local function, typed by its first call. Nodes and tensors keep their names, weights are shared and not read.

    Refuses names that do not exist, inputs that play no part, and a border whose type is not known.
    """

    name: ClassVar[str] = "extract"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p 'extract:outputs=/encoder/layer.3/out' -o piece.onnx"
    changes_interface: ClassVar[bool] = True

    inputs: tuple[str, ...] = option((), "tensors at which to cut; found by itself if empty")
    outputs: tuple[str, ...] = option((), "tensors to compute; the outputs that depend on the inputs if empty")
    nodes: tuple[str, ...] = option((), "names of nodes, patterns with * and ?, or regular expressions after re:")
    inside: str = option("", "the graph to cut from: NODE/then_branch, NODE/body or function:DOMAIN::NAME")

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Replace the content of ``model`` by the piece: one change."""
        done = extract(model, inputs=self.inputs, outputs=self.outputs, nodes=self.nodes, inside=self.inside)
        piece = done.model
        ports = [value.name for value in (*piece.graph.inputs, *piece.graph.outputs)]
        before = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
        if not log.permit("extract", before=before, after=ports, boundary=ports, where=self.inside):
            return
        for name in done.added_inputs:
            log.decline(name, "the outputs still need this input of the graph, so it stays one", where=self.inside)
        for note in done.notes:
            log.decline(self.inside, note)
        model.graph = piece.graph
        model.functions.clear()
        model.functions.update(piece.functions)
