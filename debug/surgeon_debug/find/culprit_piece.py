"""The smallest model that holds a culprit: its nodes, what they read as inputs, and what a right engine makes of them.

The piece stands on its own: its weights are arrays, mapped where they come from a file, and nothing in it refers to
the model it was cut from. That is what can be made smaller, seeded anew and put into a bundle.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from surgeon_debug.element_types import Buffer, decode, element_type_of, packed
from surgeon_debug.feed_pieces import chain_piece, isolated_piece
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.runners.contract import Engine
from surgeon_debug.values import Value, kind_of, nbytes
from surgeon_passes.errors import BadOptionError, FileError

Array = np.ndarray[Any, Any]

INSIDE_LIMIT = 10**9
"""Bytes of weights from which on they are in a file beside the model."""

DATA_SUFFIX = ".data"
"""What that file's name ends with."""


@dataclasses.dataclass(frozen=True)
class CulpritPiece:
    """A model of a few nodes, with inputs and what the reference computes from them."""

    model: onnx.ModelProto
    """The model without the data of its initializers; not to be changed."""
    weights: Mapping[str, Array]
    """Initializers by name, in the order of the model; some are mapped from files that must stay."""
    feeds: tuple[Mapping[str, Value], ...]
    """Inputs, one mapping a sample."""
    outputs: tuple[str, ...]
    """What the model computes."""
    nodes: tuple[str, ...]
    """Its nodes as messages call them in the model they are from."""
    expected: tuple[Mapping[str, Value], ...] = ()
    """What the reference computes from the inputs, one mapping a sample; empty where that is not known."""

    @property
    def ops(self) -> tuple[str, ...]:
        """Operators of the nodes."""
        return tuple(node.op_type for node in self.model.graph.node)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(nbytes(array) for array in self.weights.values())

    @property
    def feed_bytes(self) -> int:
        """Bytes of all inputs."""
        return sum(nbytes(value) for sample in self.feeds for value in sample.values())

    def changed(
        self,
        *,
        feeds: Sequence[Mapping[str, Value]] | None = None,
        weights: Mapping[str, Array] | None = None,
        model: onnx.ModelProto | None = None,
    ) -> CulpritPiece:
        """The piece with other values; what is expected of it is then not known any more.

        Args:
            feeds: Other inputs; the model's declarations follow their shapes.
            weights: Other weights, all of them; likewise.
            model: Another model of the same interface.
        """
        copy = onnx.ModelProto()
        copy.CopyFrom(model if model is not None else self.model)
        kept = dict(self.weights if weights is None else weights)
        fed = tuple(self.feeds if feeds is None else feeds)
        for tensor in copy.graph.initializer:
            del tensor.dims[:]
            tensor.dims.extend(kept[tensor.name].shape)
        _declare(copy.graph.input, fed)
        for output in copy.graph.output:
            output.ClearField("type")
        return dataclasses.replace(self, model=copy, weights=kept, feeds=fed, expected=())

    def with_expected(self, values: Sequence[Mapping[str, Value]]) -> CulpritPiece:
        """The piece with what a right engine computes, which also tells the types of its outputs."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        _declare(copy.graph.output, values)
        return dataclasses.replace(self, model=copy, expected=tuple(values))

    def write(self, folder: Path, name: str = "model.onnx") -> Path:
        """Write the model with its weights; above 1 GB they go into ``NAME.data`` beside it.

        Raises:
            FileError: The folder cannot be written.
        """
        path = folder / name
        outside = self.weight_bytes > INSIDE_LIMIT
        whole = onnx.ModelProto()
        whole.CopyFrom(self.model)
        try:
            with contextlib.ExitStack() as stack:
                data = stack.enter_context((folder / (name + DATA_SUFFIX)).open("wb")) if outside else None
                for tensor in whole.graph.initializer:
                    array = self.weights[tensor.name]
                    if kind_of(array) == "text":
                        tensor.string_data.extend(str(item).encode("utf-8", "surrogateescape") for item in array.flat)
                        continue
                    raw = packed(array, tensor.data_type)
                    if data is None or raw.nbytes < 1024:
                        tensor.raw_data = raw.tobytes()
                        continue
                    entries = {"location": name + DATA_SUFFIX, "offset": data.tell(), "length": raw.nbytes}
                    tensor.data_location = onnx.TensorProto.EXTERNAL
                    for key, value in entries.items():
                        tensor.external_data.add(key=key, value=str(value))
                    data.write(raw.data)
            path.write_bytes(whole.SerializeToString(deterministic=True))
        except OSError as error:
            raise FileError(f"cannot be written: {error.strerror}", where=str(path)) from error
        return path


def cut_culprit(
    source: PieceSource,
    positions: Sequence[int],
    feeds: Sequence[Mapping[str, Value]],
    reference: Engine,
) -> CulpritPiece:
    """Cut the smallest model that holds some nodes.

    What the nodes read from elsewhere becomes inputs with the reference's values; short lists of integers that are
    the same in every sample (shapes, axes, counts) become constants. What others read becomes outputs. Nodes that hand
    a sequence or an optional to these nodes come along, for pieces exchange tensors only.

    Args:
        source: The model.
        positions: Nodes by their place in :attr:`PieceSource.nodes`.
        feeds: The model's inputs, one mapping a sample.
        reference: Computes what the nodes read, from the model's inputs; of the model only what that needs. Nothing
            else is kept.

    Raises:
        BadOptionError: There are no nodes, or no such nodes.
        EngineError: The reference refuses or fails.
        FileError: The piece cannot be written for the reference.
    """
    chosen = _with_sequences(source, positions)
    writes = {name for i in chosen for name in source.nodes[i].writes}
    reads = list(dict.fromkeys(name for i in chosen for name in source.nodes[i].reads if name not in writes))
    golden = _golden(source, reads, feeds, reference)
    wanted = _outputs(source, chosen, writes)
    # Not the closure of the outputs alone: it leaves out nodes nobody reads, and these may be what the engine dies of.
    fed = isolated_piece(source, [name for i in chosen for name in source.nodes[i].writes], reads, golden, {})
    cut = dataclasses.replace(fed.cut, nodes=chosen, outputs=wanted)
    path = source.write(cut)
    try:
        model, weights = _taken_in(path)
    finally:
        path.unlink(missing_ok=True)
    _name_nodes(model, [source.nodes[i].title for i in chosen])
    piece = CulpritPiece(model, weights, fed.feeds, tuple(wanted), tuple(source.nodes[i].title for i in chosen))
    return piece.changed()


def _with_sequences(source: PieceSource, positions: Sequence[int]) -> list[int]:
    if not positions:
        raise BadOptionError("no nodes are given to cut out")
    if wrong := [i for i in positions if not 0 <= i < len(source.nodes)]:
        raise BadOptionError(f"there is no node number {wrong[0]} among {len(source.nodes)}")
    chosen: set[int] = set()
    stack = list(positions)
    while stack:
        index = stack.pop()
        if index in chosen:
            continue
        chosen.add(index)
        stack += [
            source.producer[name]
            for name in source.nodes[index].reads
            if name in source.non_tensors and name in source.producer
        ]
    return sorted(chosen)


def _golden(
    source: PieceSource, reads: Sequence[str], feeds: Sequence[Mapping[str, Value]], reference: Engine
) -> list[dict[str, Value]]:
    """The values of what a piece reads; one mapping a sample."""
    given = [{name: sample[name] for name in reads if name in sample} for sample in feeds]
    computed = [name for name in reads if name in source.producer]
    if not computed:
        return given
    nodes, ports = source.closure(computed, ())
    before = chain_piece(nodes, ports, computed, feeds)
    path = source.write(before.cut)
    try:
        reference.prepare(path, computed)
        for own, sample in zip(given, before.feeds, strict=True):
            own.update(reference.run(sample))
    finally:
        path.unlink(missing_ok=True)
    return given


def _outputs(source: PieceSource, chosen: Sequence[int], writes: set[str]) -> list[str]:
    """What others read, or the graph gives out; all the nodes write if that is nothing."""
    inside = set(chosen)
    shown = {name for name in source.outputs if name in writes}
    for i, node in enumerate(source.nodes):
        if i not in inside:
            shown.update(name for name in node.reads if name in writes and name not in source.non_tensors)
    ordered = [name for i in chosen for name in source.nodes[i].writes]
    read_inside = {name for i in chosen for name in source.nodes[i].reads}
    last = [name for name in ordered if name not in read_inside] or ordered
    return [name for name in ordered if name in shown] or last


def _taken_in(path: Path) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A piece that was written, as a model without weights, and the weights; those in files are mapped."""
    model = onnx.load(str(path), load_external_data=False)
    weights: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        weights[tensor.name] = _array_of(tensor, path.parent)
        bare = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        tensor.CopyFrom(bare)
    called = {node.domain for node in _nodes_of(model)}
    used = [function for function in model.functions if function.domain in called]
    del model.functions[:]
    model.functions.extend(used)
    return model, weights


def _array_of(tensor: onnx.TensorProto, folder: Path) -> Array:
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        if tensor.data_type != onnx.TensorProto.STRING:
            return onnx.numpy_helper.to_array(tensor)
        texts = np.empty(len(tensor.string_data), object)  # onnx would cut a NUL at the end
        texts[:] = [item.decode("utf-8", "surrogateescape") for item in tensor.string_data]
        return texts.reshape(tuple(tensor.dims))
    entries = {entry.key: entry.value for entry in tensor.external_data}
    offset, length = int(entries.get("offset", 0)), int(entries["length"])
    if not length:
        return decode(b"", tensor.data_type, tensor.dims)  # type: ignore[no-any-return]
    raw = np.memmap(folder / entries["location"], np.uint8, "r", offset, (length,))
    return np.asarray(Buffer(tensor.data_type, tuple(tensor.dims), raw).array())


def _nodes_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Every node, in bodies and functions too."""
    found: list[onnx.NodeProto] = []
    stack = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while stack:
        node = stack.pop()
        found.append(node)
        for attribute in node.attribute:
            stack += attribute.g.node
            stack += [inner for graph in attribute.graphs for inner in graph.node]
    return found


def _name_nodes(model: onnx.ModelProto, titles: Sequence[str]) -> None:
    """Nodes without a name get the one that messages use, so that an engine's words can be followed."""
    for node, title in zip(model.graph.node, titles, strict=True):
        node.name = node.name or title


def _declare(interface: Iterable[onnx.ValueInfoProto], samples: Sequence[Mapping[str, Value]]) -> None:
    """Make declared inputs or outputs those of the values: types, dimensions where all samples agree."""
    for declared in interface:
        values = [sample.get(declared.name) for sample in samples]
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        if len(arrays) != len(values) or not arrays or declared.type.WhichOneof("value") not in (None, "tensor_type"):
            continue
        made = declared.type.tensor_type
        made.elem_type = element_type_of(arrays[0])
        made.ClearField("shape")
        if len({array.ndim for array in arrays}) > 1:
            continue
        made.shape.SetInParent()  # a scalar's shape is there and empty
        for i in range(arrays[0].ndim):
            dim = made.shape.dim.add()
            sizes = {array.shape[i] for array in arrays}
            if len(sizes) == 1:
                dim.dim_value = sizes.pop()
