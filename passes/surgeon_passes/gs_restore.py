"""Make a model of what onnx-graphsurgeon wrote, and give back to nodes, tensors and graphs what it cannot hold.

It has no place for metadata, for the documentation of nodes and inputs, for denotations, quantisation annotations,
overloads, initializers that are inputs as well, some types of attributes and some types of values. Where the node or
the tensor is still there, these are put back; where they cannot be, the loss is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir as ir

from surgeon_passes import fidelity, graph
from surgeon_passes.conditions import cycle_text
from surgeon_passes.errors import SurgeonError
from surgeon_passes.gs_bridge import Bridge, aligned_nodes, paired_protos, unmarked
from surgeon_passes.gs_origins import bodies, graphs_of, look_of
from surgeon_passes.order import dependencies, find_cycle, is_sorted
from surgeon_passes.walk import nested_graphs, scopes

_LOST_KINDS = {
    ir.AttributeType.TENSORS,
    ir.AttributeType.SPARSE_TENSOR,
    ir.AttributeType.SPARSE_TENSORS,
    ir.AttributeType.TYPE_PROTO,
    ir.AttributeType.TYPE_PROTOS,
}
_QUANTISATION = "quant_parameter_tensor_names"
"""Key in ``Value.meta`` where onnx_ir keeps a quantisation annotation."""


class Restored:
    """The model that a function of graphsurgeon left behind, with the losses repaired.

    Args:
        model: The model from before, still as it was.
        bridge: The bridge that made graphsurgeon's graph of it.
        after: graphsurgeon's graph now.
        proto: ``after`` as exported by the bridge.

    Raises:
        SurgeonError: The graph is not a valid one.
    """

    def __init__(self, model: ir.Model, bridge: Bridge, after: Any, proto: onnx.ModelProto) -> None:
        self.before, self.bridge, self.origins = model, bridge, bridge.origins
        self.losses: list[tuple[str, str]] = []
        """Node or tensor, and what of it could not be put back."""
        self.removed: list[str] = []
        """Names of nodes that are gone or changed."""
        self.added: list[str] = []
        """Names of nodes that are new or changed."""
        self._unchanged = self._compare(proto, after)
        self._put_overloads(proto, after)
        self._move_captured_constants(proto, after)
        self.model = graph.from_proto(proto)
        """The model now."""
        graph.replace_tensors(self.model, lambda tensor: unmarked(tensor, bridge.weights))
        self._after = after
        for foreign, now in self._paired_graphs():
            self._graph(foreign, now)
        self._lone_initializers()
        self._defaults()
        self._initializer_order()
        self._annotations()
        self._check()

    def put_into(self, model: ir.Model) -> None:
        """Let ``model`` be the result; what belongs to the model as a whole stays as it is there."""
        model.graph = self.model.graph
        functions = dict(self.model.functions)
        model.functions.clear()
        model.functions.update(functions)
        header, now = self.bridge.baseline, self._after
        if now.ir_version is not None and now.ir_version != header.ir_version:
            model.ir_version = now.ir_version
        producer = (now.producer_name or "", now.producer_version or "")
        if producer != (header.producer_name, header.producer_version):
            model.producer_name, model.producer_version = producer

    def _compare(self, proto: onnx.ModelProto, after: Any) -> set[int]:
        """Ids of graphsurgeon's nodes that say what they said before; the names of the others go into the lists."""
        said = self.bridge.said
        unchanged, seen = set(), set()
        for written, foreign in paired_protos(proto, after):
            for node_proto, node in aligned_nodes(written, foreign):
                origin = self.origins.node(node)
                if origin is not None:
                    seen.add(origin)
                    if said.get(origin) == node_proto.SerializeToString(deterministic=True):
                        unchanged.add(id(node))
                        continue
                    self.removed.append(_label(origin.name, origin.op_type))
                self.added.append(_label(node.name, node.op))
        self.removed += [_label(node.name, node.op_type) for node in said if node not in seen]
        return unchanged

    def _put_overloads(self, proto: onnx.ModelProto, after: Any) -> None:
        """Overloads tell functions of one name apart, so they must be there before the model is read again."""
        for written, foreign in zip(proto.functions, after.functions, strict=True):
            origin = self.origins.function(foreign)
            if origin is not None and origin.overload:
                written.overload = origin.overload
        for each, foreign in paired_protos(proto, after):
            for node_proto, node in aligned_nodes(each, foreign):
                origin_node = self.origins.node(node)
                if origin_node is None or not origin_node.overload:
                    continue
                if (origin_node.op_type, origin_node.domain) == (node_proto.op_type, node_proto.domain):
                    node_proto.overload = origin_node.overload
                else:
                    self.losses.append((node.name, f"overload '{origin_node.overload}' is lost with its operator"))

    def _move_captured_constants(self, proto: onnx.ModelProto, after: Any) -> None:
        """Take constants that a body uses from outside out of it, where graphsurgeon writes them a second time."""
        around = {id(each): outer for each, outer in graphs_of(after)}
        pairs = list(paired_protos(proto, after))
        written_of = {id(foreign): written for written, foreign in pairs}
        tensors_of = {id(foreign): foreign.tensors() for _, foreign in pairs}
        stored = {i: {t.name for t in w.initializer} for i, w in written_of.items() if isinstance(w, onnx.GraphProto)}
        for written, foreign in pairs:
            outer = [each for each in around[id(foreign)] if isinstance(written_of[id(each)], onnx.GraphProto)]
            if not outer:
                continue
            kept = []
            for tensor in written.initializer:
                constant = tensors_of[id(foreign)][tensor.name]
                home = self._home(constant, outer, tensors_of)
                if home is None or tensors_of[id(home)].setdefault(tensor.name, constant) is not constant:
                    kept.append(tensor)
                elif tensor.name not in stored[id(home)]:
                    written_of[id(home)].initializer.append(tensor)
                    stored[id(home)].add(tensor.name)
            if len(kept) < len(written.initializer):
                copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
                del written.initializer[:]
                written.initializer.extend(copies)
            own = {name for node in written.node for name in node.output}
            infos = [info for info in written.value_info if info.name not in own]
            for info in infos:
                written.value_info.remove(info)

    def _home(self, constant: Any, outer: list[Any], tensors_of: dict[int, Any]) -> Any | None:
        """The enclosing graph that holds a constant of a body; None if it is the body's own."""
        for each in outer:
            if tensors_of[id(each)].get(constant.name) is constant:
                return each
        origin = self.origins.value(constant)
        if origin is None:
            return None
        return next((each for each in outer if self.origins.graphs.get(id(each)) is origin.graph), None)

    def _paired_graphs(self) -> Iterator[tuple[Any, ir.Graph]]:
        """Each graph of graphsurgeon with the one that was read back."""
        stack: list[tuple[Any, ir.Graph]] = [(self._after, self.model.graph)]
        for foreign, function in zip(self._after.functions, self.model.functions.values(), strict=True):
            stack.append((foreign, function.graph))
        while stack:
            foreign, now = stack.pop()
            yield foreign, now
            for node, read in _aligned(foreign, now):
                inner = dict(nested_graphs(read))
                stack.extend((body, inner[name]) for name, body in bodies(node))

    def _graph(self, foreign: Any, now: ir.Graph) -> None:
        for node, read in _aligned(foreign, now):
            self._node(node, read)
            for tensor, value in [
                *zip(node.inputs, read.inputs, strict=True),
                *zip(node.outputs, read.outputs, strict=True),
            ]:
                if value is not None and tensor.name:
                    self._value(tensor, value)
        inputs = [value for value in now.inputs if not value.is_initializer()]
        for tensor, value in [
            *zip(foreign.inputs, inputs, strict=True),
            *zip(foreign.outputs, now.outputs, strict=True),
        ]:
            self._value(tensor, value)
        origin = self.origins.graphs.get(id(foreign))
        if origin is None and foreign is self._after:
            origin = self.before.graph
        if origin is not None:
            _restore_graph(origin, now)

    def _node(self, foreign: Any, read: ir.Node) -> None:
        origin = self.origins.node(foreign)
        if origin is None:
            return
        read.doc_string = origin.doc_string
        read.metadata_props.update(origin.metadata_props)
        read.meta.update(origin.meta)
        same_operator = (read.op_type, read.domain) == (origin.op_type, origin.domain)
        for name, attr in origin.attributes.items():
            if not attr.is_ref() and attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                continue
            if id(foreign) in self._unchanged:
                read.attributes[name] = attr
            elif attr.type in _LOST_KINDS and not attr.is_ref():
                if same_operator:
                    read.attributes.setdefault(name, attr)
                else:
                    self.losses.append((foreign.name, f"attribute '{name}' is lost with its operator"))

    def _value(self, foreign: Any, value: ir.Value) -> None:
        origin = self.origins.value(foreign)
        if origin is None:
            return
        value.doc_string = value.doc_string or origin.doc_string
        value.metadata_props.update(origin.metadata_props)
        value.meta.update(origin.meta)
        look = look_of(foreign)
        if look is None:
            return
        if look == self.origins.looks.get(origin):
            value.type = origin.type
            value.shape = None if origin.shape is None else origin.shape.copy()
        elif origin.type is not None and not isinstance(origin.type, ir.TensorType):
            self.losses.append((foreign.name, f"its type {origin.type} was changed to what graphsurgeon can say"))

    def _lone_initializers(self) -> None:
        """Initializers that no node reads: graphsurgeon does not write them."""
        now, taken = self.model.graph, _names_taken(self.model)
        for name, value in self.before.graph.initializers.items():
            if value.uses() or name in now.initializers or value.const_value is None:
                continue
            output = next((out for out in now.outputs if out.name == name and out.producer() is None), None)
            if output is not None:
                output.const_value = value.const_value
                now.register_initializer(output)
            elif not value.is_graph_output() and name not in taken:
                lone = ir.Value(name=name, const_value=value.const_value, type=value.type, shape=value.shape)
                now.register_initializer(lone)

    def _initializer_order(self) -> None:
        """The order they were in, the new ones behind; graphsurgeon writes them in the order of their first reader."""
        for foreign, now in self._paired_graphs():
            origin = self.before.graph if foreign is self._after else self.origins.graphs.get(id(foreign))
            stored = dict(now.initializers)
            if origin is None or len(stored) < 2:
                continue
            order = [name for name in origin.initializers if name in stored]
            order += [name for name in stored if name not in origin.initializers]
            if order == list(stored):
                continue
            for name in order:  # leaving and coming back puts it last
                now.initializers[name] = now.initializers.pop(name)

    def _defaults(self) -> None:
        """Initializers that are inputs as well: graphsurgeon takes them for constants."""
        now = self.model.graph
        for place, value in enumerate(self.before.graph.inputs):
            if not value.is_initializer():
                continue
            found = now.initializers.get(value.name or "")
            if found is None:
                self.losses.append((value.name or "", "it was an input with a default, and is not an input any more"))
            elif not found.is_graph_input():
                now.inputs.insert(min(place, len(now.inputs)), found)
                found.type, found.shape = value.type, value.shape
                found.doc_string = value.doc_string

    def _annotations(self) -> None:
        """Drop quantisation annotations that name tensors which are gone."""
        values = _defined(self.model)
        gone = {value.name for value in _defined(self.before)} - {value.name for value in values}
        for value in values:
            annotation = value.meta.get(_QUANTISATION)
            missing = sorted(name for name in annotation.values() if name in gone) if annotation else []
            if missing:
                del value.meta[_QUANTISATION]
                self.losses.append(
                    (value.name or "", f"its quantisation annotation named '{missing[0]}', which is gone")
                )

    def _check(self) -> None:
        """Refuse what cannot be a model, and sort what is out of order."""
        untyped = {
            value.name for value in [*self.before.graph.inputs, *self.before.graph.outputs] if value.type is None
        }
        for what, values in (("input", self.model.graph.inputs), ("output", self.model.graph.outputs)):
            for value in values:
                if value.type is None and value.const_value is None and value.name not in untyped:
                    raise SurgeonError(f"graph {what} '{value.name}' has no type", hint="set its dtype in the function")
        for scope in scopes(self.model):
            waits = dependencies(scope.graph)
            if is_sorted(waits):
                continue
            cycle = find_cycle(waits)
            if cycle:
                raise SurgeonError(f"the function left a cycle: {cycle_text(cycle)}")
            scope.graph.sort()


def _label(name: str | None, op_type: str) -> str:
    return name or f"({op_type} without a name)"


def _aligned(foreign: Any, now: ir.Graph) -> Iterator[tuple[Any, ir.Node]]:
    """Each node of graphsurgeon with the one read back; those in front hold the constants of a function."""
    nodes = list(now)
    return zip(foreign.nodes, nodes[len(nodes) - len(foreign.nodes) :], strict=True)


def _restore_graph(origin: ir.Graph, now: ir.Graph) -> None:
    """Metadata, and what stands beside a graph because onnx_ir cannot hold it."""
    now.metadata_props.update(origin.metadata_props)
    for key, value in origin.meta.items():
        if key not in (fidelity.SPARSE, fidelity.VALUE_INFO):  # sparse initializers were read back
            now.meta[key] = value
    infos = origin.meta.get(fidelity.VALUE_INFO, {})
    interface = {value.name for value in [*now.inputs, *now.outputs]}
    defined = {value.name for value in [*origin.inputs, *origin.outputs]}
    now.meta[fidelity.VALUE_INFO] = {n: info for n, info in infos.items() if n in interface or n not in defined}


def _defined(model: ir.Model) -> list[ir.Value]:
    """Everything that is given or made in a model."""
    values = []
    for scope in scopes(model):
        values += [*scope.graph.inputs, *scope.graph.initializers.values()]
        values += [value for node in scope.graph for value in node.outputs]
    return values


def _names_taken(model: ir.Model) -> set[str | None]:
    """The names of everything that is given, made or read in a model."""
    taken = {value.name for value in _defined(model)}
    for scope in scopes(model):
        taken.update(value.name for node in scope.graph for value in node.inputs if value is not None)
    return taken
