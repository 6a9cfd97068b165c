"""A model without its weights, as a ModelProto, for tools that want to see the graph only.

Every value gets a short name of its own, so that equal names in different graphs cannot be confused and results lead
back to the value they are about. Nothing is taken over that could be wrong: no value infos, no declared types of
graph outputs, no types of body inputs. What is left are facts: operators, attributes, the types of the model's
inputs, the types of constants, and the data of small constants (shapes, axes).
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from surgeon_passes.constants import nbytes_of

DATA_LIMIT = 4096
"""Constants of at most this many bytes keep their data."""


class Weightless:
    """The weightless form of a model, and the way back from its names to values.

    Args:
        model: The model; it is only read, and of its weights only the small ones.
        own_names: Keep the names of values and nodes, for messages that people read; :meth:`value_of` then finds
            nothing.
        data: Keep the data of small constants. Without it every constant is written with no elements at all, which
            is what onnx's checker accepts where data is missing.
    """

    def __init__(self, model: ir.Model, *, own_names: bool = False, data: bool = True) -> None:
        self._own_names, self._data = own_names, data
        self.proto = onnx.ModelProto(ir_version=model.ir_version or 8)
        """The model; initializers that a caller may override are plain inputs, large ones have no data."""
        self.values: list[ir.Value] = []
        """The values: the one called ``v7`` in the proto is ``values[7]``."""
        self._names: dict[ir.Value, str] = {}
        self._bodies: list[tuple[ir.Graph, onnx.GraphProto]] = []
        _add_opsets(self.proto, model.opset_imports)
        self._main_graph(model.graph)
        for function in model.functions.values():
            self._function(function)
        while self._bodies:
            self._body(*self._bodies.pop())

    @property
    def keeps_data(self) -> bool:
        """Whether small constants have their data."""
        return self._data

    def name_of(self, value: ir.Value) -> str:
        """The name in the proto of a value."""
        return self._name(value)

    def add_overridable(self, proto: onnx.GraphProto, graph: ir.Graph) -> None:
        """Add the initializers of a graph that are its inputs too, for those who take them for constants."""
        for value in graph.initializers.values():
            if value.const_value is not None and value.is_graph_input():
                self._tensor(proto.initializer.add(), value.const_value, self._name(value))

    def value_of(self, name: str) -> ir.Value | None:
        """The value that a name of the proto stands for."""
        number = name[1:]
        return self.values[int(number)] if number.isdecimal() and int(number) < len(self.values) else None

    def _name(self, value: ir.Value) -> str:
        if self._own_names:
            return value.name or ""
        name = self._names.get(value)
        if name is None:
            name = self._names[value] = f"v{len(self.values)}"
            self.values.append(value)
        return name

    def _main_graph(self, graph: ir.Graph) -> None:
        for value in graph.inputs:
            info = self.proto.graph.input.add(name=self._name(value))
            if value.type is not None:
                ir.serde.serialize_type_into(info.type, value.type)
                if value.shape is not None:
                    ir.serde.serialize_shape_into(info.type, value.shape)
        self._content(graph, self.proto.graph)

    def _body(self, graph: ir.Graph, proto: onnx.GraphProto) -> None:
        proto.input.extend(onnx.ValueInfoProto(name=self._name(value)) for value in graph.inputs)
        self._content(graph, proto)

    def _content(self, graph: ir.Graph, proto: onnx.GraphProto) -> None:
        proto.name = "g"
        for value in graph.initializers.values():
            if value.const_value is not None and not value.is_graph_input():
                self._tensor(proto.initializer.add(), value.const_value, self._name(value))
        for node in graph:
            self._node(node, proto.node.add())
        proto.output.extend(onnx.ValueInfoProto(name=self._name(value)) for value in graph.outputs)

    def _function(self, function: ir.Function) -> None:
        proto = self.proto.functions.add(name=function.name, domain=function.domain, overload=function.overload)
        _add_opsets(proto, function.opset_imports)
        proto.input.extend(self._name(value) for value in function.inputs)
        proto.output.extend(self._name(value) for value in function.outputs)
        for attr in function.attributes.values():
            if attr.value is None:
                proto.attribute.append(attr.name)
            else:
                self._attribute(attr, proto.attribute_proto.add())
        for node in function:
            self._node(node, proto.node.add())

    def _node(self, node: ir.Node, proto: onnx.NodeProto) -> None:
        proto.op_type = node.op_type
        if node.domain:
            proto.domain = node.domain
        if self._own_names and node.name:
            proto.name = node.name
        if node.overload:
            proto.overload = node.overload
        proto.input.extend("" if value is None else self._name(value) for value in node.inputs)
        proto.output.extend(self._name(value) if value.name else "" for value in node.outputs)
        for attr in node.attributes.data.values():
            self._attribute(attr, proto.attribute.add())

    def _attribute(self, attr: ir.Attr, proto: onnx.AttributeProto) -> None:
        if attr.is_ref():
            ir.serde.serialize_reference_attribute_into(proto, attr)
        elif attr.type == ir.AttributeType.GRAPH:
            proto.name, proto.type = attr.name, onnx.AttributeProto.GRAPH
            proto.g.SetInParent()
            self._bodies.append((attr.as_graph(), proto.g))
        elif attr.type == ir.AttributeType.GRAPHS:
            proto.name, proto.type = attr.name, onnx.AttributeProto.GRAPHS
            self._bodies.extend((graph, proto.graphs.add()) for graph in attr.as_graphs())
        elif attr.type == ir.AttributeType.TENSOR:
            proto.name, proto.type = attr.name, onnx.AttributeProto.TENSOR
            self._tensor(proto.t, attr.as_tensor(), "")
        elif attr.type == ir.AttributeType.TENSORS:
            proto.name, proto.type = attr.name, onnx.AttributeProto.TENSORS
            for tensor in attr.as_tensors():
                self._tensor(proto.tensors.add(), tensor, "")
        else:
            ir.serde.serialize_attribute_into(proto, attr)

    def _tensor(self, proto: onnx.TensorProto, tensor: ir.TensorProtocol, name: str) -> None:
        if self._data:
            _fill_tensor(proto, tensor, name)
        else:
            proto.name, proto.data_type = name, tensor.dtype.value
            proto.dims.append(0)


def _add_opsets(proto: onnx.ModelProto | onnx.FunctionProto, imports: dict[str, int]) -> None:
    for domain, version in imports.items():
        proto.opset_import.add(domain=domain, version=version)


def _fill_tensor(proto: onnx.TensorProto, tensor: ir.TensorProtocol, name: str) -> None:
    proto.name = name
    proto.data_type = tensor.dtype.value
    proto.dims.extend(tensor.shape.numpy())
    if tensor.dtype != ir.DataType.STRING and nbytes_of(tensor) <= DATA_LIMIT:
        proto.raw_data = tensor.tobytes()


def value_infos(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """Every value info of a graph and of the bodies in it: inputs, outputs and what is between."""
    stack = [graph]
    while stack:
        graph = stack.pop()
        yield from graph.input
        yield from graph.value_info
        yield from graph.output
        for node in graph.node:
            for attr in node.attribute:
                if attr.type == onnx.AttributeProto.GRAPH:
                    stack.append(attr.g)
                elif attr.type == onnx.AttributeProto.GRAPHS:
                    stack.extend(attr.graphs)
