"""What the network holds: the nodes of an ONNX model, named, typed and with their constants apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx
import onnx.inliner
from onnx import TensorProto

_SMALL = 4096  # elements; larger constants do not matter for shapes
TYPES: dict[int, str] = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.DOUBLE: "FLOAT",  # the parser casts down
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
    TensorProto.FLOAT8E4M3FN: "FP8",
    TensorProto.INT4: "INT4",
    TensorProto.FLOAT4E2M1: "FP4",
}
"""Members of DataType by ONNX type; others the parser refuses."""


@dataclasses.dataclass
class Graph:
    """The main graph of a model whose functions are inlined."""

    model: onnx.ModelProto
    """The model; weights inside."""
    nodes: list[onnx.NodeProto]
    """All nodes but constants, in topological order, uniquely named."""
    constants: dict[str, onnx.TensorProto]
    """Initializers and values of Constant nodes, by tensor name."""
    types: dict[str, str]
    """Member of DataType by tensor name, as far as inference knows."""
    shapes: dict[str, tuple[int, ...] | None]
    """Shape by tensor name, -1 where unknown; None for an unknown rank."""
    dimension_names: dict[str, tuple[str, ...]]
    """Names of dimensions of the inputs, empty where there is none."""

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return [value.name for value in self.model.graph.input if value.name not in self.constants]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [value.name for value in self.model.graph.output]

    def producers(self) -> dict[str, int]:
        """The index of the node that makes a tensor, by tensor."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.output if name}

    def readers(self) -> dict[str, list[int]]:
        """Indices of the nodes that read a tensor, by tensor."""
        found: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in reads(node):
                found.setdefault(name, []).append(i)
        return found


def reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those that its bodies take from outside included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for body in bodies(attribute):
            names += captured(body)
    return list(dict.fromkeys(names))


def bodies(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    """Graphs inside an attribute."""
    if attribute.type == onnx.AttributeProto.GRAPH:
        yield attribute.g
    yield from attribute.graphs


def captured(body: onnx.GraphProto) -> list[str]:
    """Names that a body takes from outside."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    found: list[str] = []
    for node in body.node:
        found += [name for name in reads(node) if name not in own]
        own |= set(node.output)
    found += [value.name for value in body.output if value.name not in own]
    return list(dict.fromkeys(found))


def from_model(model: onnx.ModelProto) -> Graph:
    """Inline functions, name every node, set constants apart, infer types and shapes."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    model = _apart(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    taken: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            constants[node.output[0]] = _constant(node)
            continue
        node.name = _unique(node, taken)
        taken.add(node.name)
        nodes.append(node)
    types, shapes = infer(model, constants)
    names = {
        value.name: tuple(d.dim_param for d in value.type.tensor_type.shape.dim)
        for value in model.graph.input
        if value.name not in constants
    }
    return Graph(model, nodes, constants, types, shapes, names)


def _apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """As the real parser does: of an output that is an input the input gets another name."""
    constants = {tensor.name for tensor in model.graph.initializer}
    both = {v.name for v in model.graph.input} & {v.name for v in model.graph.output} - constants
    if not both:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for value in made.graph.input:
        if value.name in both:
            node = onnx.helper.make_node(
                "Identity", [f"__{value.name}"], [value.name], name=f"identity of {value.name}"
            )
            made.graph.node.insert(0, node)
            value.name = f"__{value.name}"
    return made


def _unique(node: onnx.NodeProto, taken: set[str]) -> str:
    # The real parser invents a name for an unnamed node and puts a number behind a name that is taken.
    base = node.name or f"node_of_{node.output[0]}"
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name


def _constant(node: onnx.NodeProto) -> onnx.TensorProto:
    attribute = node.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
    else:
        kind = TensorProto.FLOAT if "float" in attribute.name else TensorProto.INT64
        values = value if isinstance(value, (list, tuple)) else list(value) if attribute.name.endswith("s") else [value]
        tensor = onnx.helper.make_tensor("", kind, [len(values)] if attribute.name.endswith("s") else [], values)
    tensor.name = node.output[0]
    return tensor


def infer(
    model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto], inputs: Mapping[str, Iterable[int]] | None = None
) -> tuple[dict[str, str], dict[str, tuple[int, ...] | None]]:
    """Types and shapes of all tensors of the main graph.

    Args:
        model: The model.
        constants: Its constants by name.
        inputs: Concrete shapes of inputs, to infer with.
    """
    light = onnx.ModelProto()
    light.CopyFrom(_without_weights(model))
    for value in light.graph.input:
        if inputs and value.name in inputs:
            del value.type.tensor_type.shape.dim[:]
            for size in inputs[value.name]:
                value.type.tensor_type.shape.dim.add().dim_value = int(size)
    if inputs:
        del light.graph.value_info[:]
        for value in light.graph.output:
            value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    types: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...] | None] = {}
    for value in [*inferred.value_info, *inferred.output, *inferred.input]:
        kind = value.type.tensor_type
        if kind.elem_type in TYPES:
            types[value.name] = TYPES[kind.elem_type]
        if kind.HasField("shape"):
            shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
        else:
            shapes.setdefault(value.name, None)
    for name, tensor in constants.items():
        types[name] = TYPES.get(tensor.data_type, "FLOAT")
        shapes[name] = tuple(tensor.dims)
    return types, shapes


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    known = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        size = 1
        for d in tensor.dims:
            size *= d
        if size <= _SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in known:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return light


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def elements(tensor: Any) -> int:
    """How many elements a tensor proto has."""
    count = 1
    for size in tensor.dims:
        count *= size
    return count
