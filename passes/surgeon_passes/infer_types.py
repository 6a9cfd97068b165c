"""Ask onnx's shape inference what it knows about every value of a model, without changing or loading the model.

Runs on the model without its weights, so it works above two gigabytes and in the memory of the nodes. Unlike
:func:`surgeon_passes.trusted_shapes.trusted_shapes` it starts from everything that is declared, value infos included:
what an interface should say is more than what a rewrite may rely on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Mapping

import onnx
import onnx_ir as ir

from surgeon_passes.fidelity import SPARSE, TYPES, graph_pairs
from surgeon_passes.order import dependencies, is_sorted, sorted_nodes
from surgeon_passes.weightless import Weightless, value_infos

Facts = dict[ir.Value, ir.TypeAndShape]
"""What is known about values: types, and shapes with integers, symbols and unknown dimensions."""

_GENERATED = re.compile(r"^unk__\d+$")


class AllComputed:
    """As ``forget``: believe nothing that is declared about outputs of nodes, only inputs and constants."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, ir.Value) and value.producer() is not None


def is_generated(dim: int | ir.SymbolicDim) -> bool:
    """Whether inference made this symbol up; it then only says which dimensions are equal."""
    return not isinstance(dim, int) and dim.value is not None and _GENERATED.match(dim.value) is not None


def read_type(proto: onnx.TypeProto) -> ir.TypeAndShape | None:
    """The type and shape a TypeProto gives; None if it gives no element type, or one that onnx_ir cannot hold."""
    which = proto.WhichOneof("value")
    if which != "tensor_type":
        if which is None or which in ("map_type", "opaque_type"):
            return None
        try:
            found = ir.serde.deserialize_type_proto_for_type(proto)
        except (NotImplementedError, ValueError, RuntimeError):  # a sequence of maps
            return None
        return None if found is None else ir.TypeAndShape(found, ir.serde.deserialize_type_proto_for_shape(proto))
    tensor = proto.tensor_type
    if tensor.elem_type == onnx.TensorProto.UNDEFINED:
        return None
    shape = None
    if tensor.HasField("shape"):
        dims = [d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim]
        shape = ir.Shape([None if isinstance(d, int) and d < 0 else d for d in dims])
    return ir.TypeAndShape(ir.TensorType(ir.DataType(tensor.elem_type)), shape)


def write_type(proto: onnx.TypeProto, kind: ir.TypeProtocol | None, shape: ir.Shape | None) -> None:
    """Fill a TypeProto; an unknown type leaves it empty."""
    if kind is None:
        return
    if not isinstance(kind, ir.TensorType):
        ir.serde.serialize_type_into(proto, kind)
        if shape is not None:
            ir.serde.serialize_shape_into(proto, shape)
        return
    tensor = proto.tensor_type
    tensor.elem_type = kind.dtype.value
    if shape is None:
        return
    dims = tensor.shape
    dims.SetInParent()  # a scalar has a shape without dimensions, which is not the same as no shape
    for dim in shape:
        if isinstance(dim, int):
            dims.dim.add(dim_value=dim)
        elif dim.value:
            dims.dim.add(dim_param=dim.value)
        else:
            dims.dim.add()


def infer_types(
    model: ir.Model,
    *,
    known: Mapping[ir.Value, ir.TypeAndShape] | None = None,
    forget: Container[ir.Value] = (),
    only: Collection[ir.Value] | None = None,
) -> Facts:
    """Types and shapes of the values of the main graph and of all bodies, as onnx's inference finds them.

    Values of local functions are not among them: their types depend on the call.

    Args:
        model: The model; it is not changed.
        known: Facts that count instead of what the values declare.
        forget: Values whose declared type and shape are not to be believed.
        only: The values that are asked about; None for all.
    """
    weightless = Weightless(model)
    _declare(model, weightless, known or {}, forget)
    facts: Facts = dict(known or {})
    try:
        inferred = onnx.shape_inference.infer_shapes(weightless.proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError):
        return facts
    wanted = None if only is None else {weightless.name_of(value) for value in only}
    for info in value_infos(inferred.graph):
        if wanted is not None and info.name not in wanted:
            continue
        value = weightless.value_of(info.name)
        found = None if value is None else read_type(info.type)
        if value is not None and found is not None:
            facts[value] = found
    return facts


def contradiction_in(model: ir.Model, forget: Container[ir.Value] = ()) -> str:
    """What onnx's inference, in its strict mode, objects to; empty if nothing.

    Args:
        model: The model; it is not changed.
        forget: Values whose declared type and shape are not to be believed.
    """
    weightless = Weightless(model, own_names=True)
    _declare(model, weightless, {}, forget)
    try:
        onnx.shape_inference.infer_shapes(weightless.proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError) as error:
        return " ".join(str(error).split())[:400]
    return ""


def check_model(model: ir.Model) -> str:
    """What onnx's checker objects to, the data of tensors aside; empty if nothing."""
    weightless = Weightless(model, own_names=True, data=False)
    _declare(model, weightless, {}, ())
    try:
        onnx.checker.check_model(weightless.proto)
    except (onnx.checker.ValidationError, ValueError) as error:
        return " ".join(str(error).split())[:400]
    return ""


def _declare(
    model: ir.Model, weightless: Weightless, known: Mapping[ir.Value, ir.TypeAndShape], forget: Container[ir.Value]
) -> None:
    """Complete a weightless model with what its values declare."""
    name_of = weightless.name_of
    constant_inputs = model.ir_version < 4  # every initializer had to be an input then, and runtimes fold them
    weightless.proto.ir_version = max(model.ir_version, 4) if weightless.keeps_data else model.ir_version
    # Pairs go by position, so they are all made before any nodes are sorted.
    for proto, graph in list(graph_pairs(weightless.proto, model)):
        types = graph.meta.get(TYPES, {})
        for value, info in zip((*graph.inputs, *graph.outputs), (*proto.input, *proto.output), strict=True):
            info.ClearField("type")
            if value in known:
                write_type(info.type, known[value].type, known[value].shape)
            elif value not in forget:
                write_type(info.type, value.type, value.shape)
                if value.type is None and value.name in types:
                    info.type.CopyFrom(types[value.name])
        outputs = set(graph.outputs)
        for node in graph:
            for value in node.outputs:
                fact: ir.Value | ir.TypeAndShape = known.get(value, value)
                if fact.type is not None and value.name and value not in outputs and value not in forget:
                    write_type(proto.value_info.add(name=name_of(value)).type, fact.type, fact.shape)
        if graph.meta.get(SPARSE):
            _declare_sparse(proto, graph, weightless)
        if constant_inputs:
            weightless.add_overridable(proto, graph)
        if weightless.keeps_data:
            _sort(proto, graph)


def _sort(proto: onnx.GraphProto, graph: ir.Graph) -> None:
    """Put the nodes into topological order: inference goes through them once, and knows nothing that comes later."""
    waits = dependencies(graph)
    if is_sorted(waits):
        return
    by_node = dict(zip(graph, list(proto.node), strict=True))
    order = sorted_nodes(waits)
    if len(order) == len(by_node):
        nodes = [by_node[node] for node in order]
        del proto.node[:]
        proto.node.extend(nodes)


def _declare_sparse(proto: onnx.GraphProto, graph: ir.Graph, weightless: Weightless) -> None:
    """Give the readers of sparse initializers their dense type, as if these were inputs of the graph."""
    left = {sparse.values.name: sparse for sparse in graph.meta[SPARSE]}
    for node in graph:
        for value in node.inputs:
            if value is not None and value.name in left and value.graph is None:
                sparse = left.pop(value.name)
                info = proto.input.add(name=weightless.name_of(value))
                dense = ir.TensorType(ir.DataType(sparse.values.data_type))
                write_type(info.type, dense, ir.Shape(sparse.dims))


def fact_of(value: ir.Value, facts: Mapping[ir.Value, ir.TypeAndShape]) -> ir.TypeAndShape:
    """What is known about a value: inferred, else declared, else that of its tensor."""
    found = facts.get(value)
    if found is not None and found.type is not None:
        return found
    if value.type is None and value.const_value is not None:
        tensor = value.const_value
        return ir.TypeAndShape(ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy()))
    return ir.TypeAndShape(value.type, value.shape)
