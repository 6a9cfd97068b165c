"""What a piece of a model takes along besides nodes: constants that stay in their files, and bodies of nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from surgeon_passes.weight_file import MappedTensor
from surgeon_passes.wire import MARK


@dataclasses.dataclass(frozen=True)
class PieceConstant:
    """A constant of the main graph."""

    tensor: onnx.TensorProto
    """Its type and dimensions, and its data where they are not in a file."""
    path: str
    """The file that holds its data; empty if ``tensor`` does."""
    offset: int
    nbytes: int
    held: ir.TensorProtocol | None
    """The tensor that maps the file."""


def constants_of(proto: onnx.ModelProto, taken: Sequence[ir.TensorProtocol]) -> dict[str, PieceConstant]:
    """Initializers and the tensors of Constant nodes, by the name of the value."""
    found = {tensor.name: _constant(tensor, taken) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
            continue
        attribute = node.attribute[0]
        if attribute.name == "value" and attribute.HasField("t"):
            found[node.output[0]] = _constant(attribute.t, taken)
        elif attribute.name in ("value_int", "value_ints"):
            array = np.array(list(attribute.ints) if attribute.name == "value_ints" else attribute.i, np.int64)
            found[node.output[0]] = _constant(onnx.numpy_helper.from_array(array), taken)
        elif attribute.name in ("value_float", "value_floats"):
            array = np.array(list(attribute.floats) if attribute.name == "value_floats" else attribute.f, np.float32)
            found[node.output[0]] = _constant(onnx.numpy_helper.from_array(array), taken)
    return found


def _constant(tensor: onnx.TensorProto, taken: Sequence[ir.TensorProtocol]) -> PieceConstant:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries.get("location") == MARK:
            held = taken[int(entries["offset"])]
            assert isinstance(held, (MappedTensor, ir.ExternalTensor))
            return PieceConstant(tensor, str(held.path), held.offset or 0, held.nbytes, held)
    return PieceConstant(tensor, "", 0, tensor.ByteSize(), None)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node, however deep."""
    stack = _own_bodies(node)
    while stack:
        graph = stack.pop()
        yield graph
        for inner in graph.node:
            stack += _own_bodies(inner)


def rename_reads(node: onnx.NodeProto, renamed: Mapping[str, str]) -> None:
    """Make a node, and the bodies in it, read other names; a name that a body defines anew keeps its meaning there."""
    for i, name in enumerate(node.input):
        if name in renamed:
            node.input[i] = renamed[name]
    stack = [(graph, renamed) for graph in _own_bodies(node)]
    while stack:
        graph, outer = stack.pop()
        hidden = names_in(graph)
        seen = {name: other for name, other in outer.items() if name not in hidden}
        for output in graph.output:
            output.name = seen.get(output.name, output.name)
        for inner in graph.node:
            for i, name in enumerate(inner.input):
                if name in seen:
                    inner.input[i] = seen[name]
            stack += [(body, seen) for body in _own_bodies(inner)]


def names_in(graph: onnx.GraphProto) -> set[str]:
    """What a body computes, holds or is given, by name; these names hide those of the graphs around it."""
    names = {value.name for value in (*graph.input, *graph.initializer)}
    names.update(tensor.values.name for tensor in graph.sparse_initializer)
    names.update(name for node in graph.node for name in node.output)
    return names


def reads_of_bodies(node: onnx.NodeProto) -> set[str]:
    """Names that the bodies in a node read, or give out, and that are of the graph around it."""
    found: set[str] = set()
    stack: list[tuple[onnx.GraphProto, frozenset[str]]] = [(graph, frozenset()) for graph in _own_bodies(node)]
    while stack:
        graph, outer = stack.pop()
        hidden = outer | names_in(graph)
        found.update(output.name for output in graph.output if output.name not in hidden)
        for inner in graph.node:
            found.update(name for name in inner.input if name and name not in hidden)
            stack += [(body, hidden) for body in _own_bodies(inner)]
    return found


def _own_bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    single = [a.g for a in node.attribute if a.HasField("g")]
    return single + [graph for a in node.attribute for graph in a.graphs]


def inline_weights(node: onnx.NodeProto, taken: Sequence[ir.TensorProtocol]) -> None:
    """Put the data of weights in a node and its bodies into the node; engines differ in where they look for files.

    Args:
        node: The node, changed in place.
        taken: The weights by the index in their marks.
    """
    for graph in (None, *_bodies(node)):
        nodes = [node] if graph is None else graph.node
        attributes = [attribute for inner in nodes for attribute in inner.attribute if attribute.HasField("t")]
        initializers = () if graph is None else graph.initializer
        for tensor in (*initializers, *(attribute.t for attribute in attributes)):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if entries.get("location") == MARK:
                del tensor.external_data[:]
                tensor.data_location = onnx.TensorProto.DEFAULT
                tensor.raw_data = taken[int(entries["offset"])].tobytes()
