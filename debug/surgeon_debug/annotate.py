"""Write what was found into a copy of the model: metadata of the nodes, which Netron shows beside each of them.

Node metadata came with IR version 10. They are written into models of older versions too, and the version is left as it
is: a reader older than the field skips it, as protobuf prescribes (onnxruntime 1.15 and the checker of onnx 1.14 do),
whereas an engine of that age refuses a model that states version 10.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from surgeon_passes.errors import BadOptionError
from surgeon_passes.graph import load, tensors_of
from surgeon_passes.save import Weights, save
from surgeon_passes.walk import scopes

PREFIX = "surgeon."
"""What the keys of all annotations start with."""


@dataclasses.dataclass(frozen=True)
class NodeNote:
    """What is to be written at one node."""

    tensor: str
    """A tensor that the node computes; of one in a body, ``PATH/TENSOR`` or the bare name if nothing else has it."""
    notes: Mapping[str, str]
    """Texts by key, such as ``verdict`` and ``introduced``; keys are written with :data:`PREFIX` before them."""
    node: str = ""
    """The node's label (see :meth:`surgeon_passes.walk.Scope.label`), used if no tensor is given or none is found."""


@dataclasses.dataclass(frozen=True)
class Annotated:
    """What became of a copy."""

    files: tuple[Path, ...]
    """The files written, the model last."""
    nodes: int
    """How many nodes carry annotations now, or carried those that were removed."""
    unmatched: tuple[str, ...]
    """Names in notes that fit no node, or several."""


def annotate(
    model_path: str | Path,
    notes: Sequence[NodeNote],
    out: str | Path,
    *,
    summary: Mapping[str, str] | None = None,
    weights: Weights | None = None,
    allow_external: bool = False,
) -> Annotated:
    """Write a copy of a model with notes at its nodes, in place of those that earlier calls left there.

    Weights are not read: they are copied as bytes, or stay in the file they are in.

    Args:
        model_path: The model.
        notes: What to write where. Several notes for one node are all written, keys that occur twice with the tensor's
            name behind them.
        out: The copy.
        summary: Texts for the model as a whole.
        weights: Where the copy has its weights; None to leave external weights where they are if the copy can refer
            to them there, which is below its own folder.
        allow_external: Accept weights outside the model's folder.

    Raises:
        BadModelError: The model cannot be used.
        BadOptionError: A key is empty.
        FileError: The copy cannot be written.
    """
    model = load(model_path, allow_external=allow_external)
    _strip(model)
    index = _Index(model)
    marked: set[int] = set()
    unmatched = []
    for note in notes:
        node = index.node_of(note)
        if node is None:
            unmatched.append(note.tensor or note.node)
            continue
        marked.add(id(node))
        for key, text in note.notes.items():
            full = _full(key)
            taken = full in node.metadata_props
            node.metadata_props[f"{full}:{_clean(note.tensor or note.node)}" if taken else full] = _clean(text)
    for key, text in (summary or {}).items():
        model.metadata_props[_full(key)] = _clean(text)
    return Annotated(_save(model, Path(out), weights), len(marked), tuple(dict.fromkeys(unmatched)))


def remove_annotations(
    model_path: str | Path, out: str | Path, *, weights: Weights | None = None, allow_external: bool = False
) -> Annotated:
    """Write a copy of a model without what :func:`annotate` added.

    Args:
        model_path: The annotated model.
        out: The copy.
        weights: As for :func:`annotate`.
        allow_external: Accept weights outside the model's folder.

    Raises:
        BadModelError: The model cannot be used.
        FileError: The copy cannot be written.
    """
    model = load(model_path, allow_external=allow_external)
    nodes = _strip(model)
    return Annotated(_save(model, Path(out), weights), nodes, ())


def _full(key: str) -> str:
    if not key.removeprefix(PREFIX):
        raise BadOptionError("an annotation needs a key")
    return _clean(key if key.startswith(PREFIX) else PREFIX + key)


def _clean(text: str) -> str:
    """Text that protobuf takes, which is everything but half a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode()


def _strip(model: ir.Model) -> int:
    """Remove annotations; how many nodes had any."""
    found = 0
    for node in _nodes(model):
        keys = [key for key in node.metadata_props if key.startswith(PREFIX)]
        found += bool(keys)
        for key in keys:
            del node.metadata_props[key]
    for key in [key for key in model.metadata_props if key.startswith(PREFIX)]:
        del model.metadata_props[key]
    return found


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    for scope in scopes(model):
        yield from scope.graph


class _Index:
    """The nodes of a model by what they compute and by their labels; names that several nodes have lead nowhere."""

    def __init__(self, model: ir.Model) -> None:
        self._main: dict[str, ir.Node] = {}
        self._tensors: dict[str, ir.Node | None] = {}
        self._labels: dict[str, ir.Node | None] = {}
        for scope in scopes(model):
            for node in scope.graph:
                self._add(self._labels, scope.label(node), node)
                for value in node.outputs:
                    if not value.name:
                        continue
                    if not scope.path:
                        self._main[value.name] = node
                        continue
                    self._add(self._tensors, value.name, node)
                    self._add(self._tensors, f"{scope.path}/{value.name}", node)

    @staticmethod
    def _add(names: dict[str, ir.Node | None], name: str, node: ir.Node) -> None:
        names[name] = node if names.get(name, node) is node else None

    def node_of(self, note: NodeNote) -> ir.Node | None:
        """The node of a note, if there is exactly one."""
        if note.tensor:
            node = self._main.get(note.tensor) or self._tensors.get(note.tensor)
            if node is not None:
                return node
        return self._labels.get(note.node) if note.node else None


def _save(model: ir.Model, out: Path, weights: Weights | None) -> tuple[Path, ...]:
    return tuple(save(model, out, weights=_place(model, out) if weights is None else weights))


def _place(model: ir.Model, out: Path) -> Weights:
    """Whether external weights can stay where they are."""
    external = [tensor for tensor in tensors_of(model) if isinstance(tensor, ir.ExternalTensor)]
    folder = out.resolve().parent
    # Links stay links: the copy may only name what is below it.
    below = (Path(os.path.abspath(tensor.path)).is_relative_to(folder) for tensor in external)  # noqa: PTH100
    return Weights.KEEP if external and all(below) else Weights.AUTO
