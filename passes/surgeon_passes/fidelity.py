"""Carry through load and save what onnx_ir does not hold, so that what no pass touched comes out as it went in.

Set aside before a ModelProto becomes an ``onnx_ir.Model``, kept in the ``meta`` of the model and its graphs, put back
after the model became a ModelProto again:

* sparse initializers (their readers see a value without a producer);
* types onnx_ir cannot express: maps, opaque types, and sequences or optionals of them;
* value infos of names that are inputs, outputs, or not defined in their graph; and the *absence* of value infos for
  initializers, which onnx_ir would add;
* training information, and a list of opset imports that names a domain twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

SPARSE = "onnx_surgeon.sparse_initializers"
"""Key in ``Graph.meta``: list of ``onnx.SparseTensorProto``."""
TYPES = "onnx_surgeon.types"
"""Key in ``Graph.meta``: name -> ``onnx.TypeProto`` of values whose type onnx_ir cannot express."""
VALUE_INFO = "onnx_surgeon.value_info"
"""Key in ``Graph.meta``: name -> ``onnx.ValueInfoProto`` that onnx_ir would drop."""
INFORMED = "onnx_surgeon.informed_initializers"
"""Key in ``Graph.meta``: names of initializers that had a value info; present on every graph that was loaded."""
OPSETS = "onnx_surgeon.opset_imports"
"""Key in ``Model.meta``: the list of ``onnx.OperatorSetIdProto`` as it was, if a domain occurs in it twice."""
TRAINING = "onnx_surgeon.training_info"
"""Key in ``Model.meta``: list of ``onnx.TrainingInfoProto``."""


def _body_pairs(
    proto: onnx.GraphProto | onnx.FunctionProto, graph: ir.Graph
) -> Iterator[tuple[onnx.GraphProto, ir.Graph]]:
    """Pair each nested GraphProto with its ir.Graph; nodes correspond by position."""
    for node_proto, node in zip(proto.node, graph, strict=True):
        for attr in node_proto.attribute:
            if attr.type == onnx.AttributeProto.GRAPH and attr.HasField("g"):
                yield attr.g, node.attributes[attr.name].as_graph()
            elif attr.type == onnx.AttributeProto.GRAPHS:
                yield from zip(attr.graphs, node.attributes[attr.name].as_graphs(), strict=True)


def graph_pairs(proto: onnx.ModelProto, model: ir.Model) -> Iterator[tuple[onnx.GraphProto, ir.Graph]]:
    """Pair every GraphProto of a ModelProto with the ir.Graph it corresponds to, nested ones included."""
    stack: list[tuple[onnx.GraphProto, ir.Graph]] = [(proto.graph, model.graph)]
    for function in proto.functions:
        body = model.functions[(function.domain, function.name, function.overload)]
        stack.extend(_body_pairs(function, body.graph))
    while stack:
        pair = stack.pop()
        yield pair
        stack.extend(_body_pairs(*pair))


def _expressible(kind: onnx.TypeProto) -> bool:
    which = kind.WhichOneof("value")
    while which in ("sequence_type", "optional_type"):
        kind = getattr(kind, which).elem_type
        which = kind.WhichOneof("value")
    return which in (None, "tensor_type", "sparse_tensor_type")


class SetAside:
    """What was taken out of a ModelProto before onnx_ir read it, by position of the graph."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.types: list[dict[str, onnx.TypeProto]] = []
        self._cleared: list[tuple[onnx.ValueInfoProto, onnx.TypeProto]] = []
        self.training = [onnx.TrainingInfoProto.FromString(t.SerializeToString()) for t in proto.training_info]
        for graph in _all_graphs(proto):
            self.types.append(self._take_types(graph))

    def restore(self) -> None:
        """Give the ModelProto that was read its types back."""
        for info, kind in self._cleared:
            info.type.CopyFrom(kind)

    def _take_types(self, graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
        taken: dict[str, onnx.TypeProto] = {}
        for infos in (graph.input, graph.output, graph.value_info):
            for info in infos:
                if not _expressible(info.type):
                    kind = onnx.TypeProto()
                    kind.CopyFrom(info.type)
                    taken[info.name] = kind
                    self._cleared.append((info, kind))
                    info.ClearField("type")
        return taken


def _all_graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Every GraphProto, in the order of :func:`graph_pairs`."""
    stack = [proto.graph]
    for function in proto.functions:
        stack.extend(_bodies(function))
    while stack:
        graph = stack.pop()
        yield graph
        stack.extend(_bodies(graph))


def _bodies(proto: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.GraphProto]:
    for node in proto.node:
        for attr in node.attribute:
            if attr.type == onnx.AttributeProto.GRAPH and attr.HasField("g"):
                yield attr.g
            elif attr.type == onnx.AttributeProto.GRAPHS:
                yield from attr.graphs


def set_aside(proto: onnx.ModelProto) -> SetAside:
    """Take out of ``proto``, in place, the types that onnx_ir cannot read; ``restore`` undoes it."""
    return SetAside(proto)


def keep(proto: onnx.ModelProto, model: ir.Model, aside: SetAside) -> None:
    """Store what onnx_ir dropped, or would drop on the way back, in the ``meta`` of the model made from ``proto``."""
    if aside.training:
        model.meta[TRAINING] = aside.training
    if len({entry.domain for entry in proto.opset_import}) < len(proto.opset_import):
        model.meta[OPSETS] = list(proto.opset_import)
    for (graph_proto, graph), types in zip(graph_pairs(proto, model), aside.types, strict=True):
        if types:
            graph.meta[TYPES] = types
        if graph_proto.sparse_initializer:
            graph.meta[SPARSE] = list(graph_proto.sparse_initializer)
        initializers = {t.name for t in graph_proto.initializer}
        produced = {name for node in graph_proto.node for name in node.output}
        interface = {info.name for info in graph_proto.input} | {info.name for info in graph_proto.output}
        graph.meta[INFORMED] = {i.name for i in graph_proto.value_info if i.name in initializers}
        lost = {
            info.name: info
            for info in graph_proto.value_info
            if info.name in interface or (info.name not in produced and info.name not in initializers)
        }
        if lost:
            graph.meta[VALUE_INFO] = lost


def put_back(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Complete, in place, a ModelProto that onnx_ir made from ``model`` with what :func:`keep` stored."""
    proto.training_info.extend(model.meta.get(TRAINING, ()))
    opsets = model.meta.get(OPSETS, ())
    if {entry.domain: entry.version for entry in opsets} == dict(model.opset_imports) and opsets:
        del proto.opset_import[:]
        proto.opset_import.extend(opsets)
    for graph_proto, graph in graph_pairs(proto, model):
        _put_back_types(graph_proto, graph.meta.get(TYPES, {}))
        _put_back_sparse(graph_proto, graph.meta.get(SPARSE, ()))
        _put_back_value_infos(graph_proto, graph)


def _put_back_types(proto: onnx.GraphProto, types: dict[str, onnx.TypeProto]) -> None:
    if not types:
        return
    known = set()
    for infos in (proto.input, proto.output, proto.value_info):
        for info in infos:
            known.add(info.name)
            if info.name in types and not info.HasField("type"):
                info.type.CopyFrom(types[info.name])
    produced = {name for node in proto.node for name in node.output}
    for name, kind in types.items():
        if name in produced and name not in known:
            proto.value_info.add(name=name).type.CopyFrom(kind)


def _names_read(proto: onnx.GraphProto) -> set[str]:
    """Names read anywhere in a graph, nested graphs included."""
    names: set[str] = set()
    stack = [proto]
    while stack:
        graph = stack.pop()
        names.update(name for node in graph.node for name in node.input)
        names.update(info.name for info in graph.output)
        stack.extend(_bodies(graph))
    return names


def _put_back_sparse(proto: onnx.GraphProto, sparse: list[onnx.SparseTensorProto]) -> None:
    if not sparse:
        return
    read = _names_read(proto)
    proto.sparse_initializer.extend(tensor for tensor in sparse if tensor.values.name in read)


def _put_back_value_infos(proto: onnx.GraphProto, graph: ir.Graph) -> None:
    initializers = {t.name for t in proto.initializer}
    informed = graph.meta.get(INFORMED, set())
    if any(info.name in initializers and info.name not in informed for info in proto.value_info):
        # An initializer carries its own type: a value info for it says nothing.
        wanted = [info for info in proto.value_info if info.name not in initializers or info.name in informed]
        del proto.value_info[:]
        proto.value_info.extend(wanted)
    lost = graph.meta.get(VALUE_INFO, {})
    present = {info.name for info in proto.value_info}
    # Of a tensor whose type a pass has changed on purpose the old info says what is no longer true.
    kinds = {info.name: _element_type(info) for info in (*proto.input, *proto.output)}
    proto.value_info.extend(
        info for name, info in lost.items() if name not in present and kinds.get(name, 0) in (0, _element_type(info))
    )


def _element_type(info: onnx.ValueInfoProto) -> int:
    return info.type.tensor_type.elem_type if info.type.HasField("tensor_type") else 0
