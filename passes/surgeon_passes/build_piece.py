"""Make a model out of a piece: copies of its nodes, shared tensors, a typed interface, the functions it calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from surgeon_passes.clone_nodes import NodeCloner, clone_value, copy_graph_facts, model_around
from surgeon_passes.errors import BadModelError, BadOptionError, RefusalError
from surgeon_passes.fidelity import TRAINING, TYPES
from surgeon_passes.find_scope import Place
from surgeon_passes.infer_types import AllComputed, check_model, fact_of, infer_types, is_generated
from surgeon_passes.order import dependencies, is_sorted, nodes_inside
from surgeon_passes.piece_boundary import Piece
from surgeon_passes.settle_shapes import settle, without_made_up


def build_piece(
    model: ir.Model, place: Place, piece: Piece, observed: Mapping[str, ir.TypeAndShape] | None = None
) -> ir.Model:
    """A new model of the piece; ``model`` is not changed.

    Args:
        model: The model the piece is cut from.
        place: The graph in it.
        piece: What to take.
        observed: Types and static shapes of tensors, by name, as a run has shown them. They fill what neither
            the model nor inference knows.

    Raises:
        BadOptionError: The type or rank of an input or output is not known.
        RefusalError: Two tensors of the piece have the same name.
        BadModelError: The nodes form a cycle, or the checker rejects the piece.
    """
    graph = place.scope.graph
    cloner = NodeCloner({})
    constants = [_constant(cloner, value) for value in piece.initializers]
    inputs = [_port(cloner, value) for value in piece.inputs]
    nodes = cloner.clone_all(piece.nodes)
    outputs = [new for value in piece.outputs if (new := cloner.values[value]) is not None]
    if model.ir_version < 4:
        inputs += [value for value in constants if value not in inputs]
    _refuse_equal_names(nodes, inputs, constants)
    main = model.graph
    made = ir.Graph(
        inputs,
        outputs,
        nodes=nodes,
        initializers=constants,
        doc_string=graph.doc_string or main.doc_string,
        opset_imports={**place.scope.opset_imports},
        name=graph.name or main.name or "piece",  # the checker does not take a graph without a name
        metadata_props={**graph.metadata_props},
    )
    _copy_facts(made, place, piece)
    _sort(made)
    types = _interface_types(model, piece, observed or {})
    for value, fact in types.items():
        _set_type(cloner.values[value], fact)
    result = _model_of(model, made)
    if observed:
        _infer_outputs(result, {v: new for v in piece.outputs if (new := cloner.values[v]) is not None}, types)
    for value, fact in types.items():
        _refuse_unknown(value, fact)
    _check(result)
    return result


def _infer_outputs(
    made: ir.Model, outputs: Mapping[ir.Value, ir.Value], types: dict[ir.Value, ir.TypeAndShape]
) -> None:
    """Fill what is unknown about outputs from the piece itself: what a run has shown of its inputs may tell it.

    Args:
        made: The piece.
        outputs: Its outputs by those they were copied from.
        types: What is known about these; completed.
    """
    unclear = {value: new for value, new in outputs.items() if _unknown_part(value, types[value])}
    told = infer_types(made, only=list(unclear.values())) if unclear else {}
    for value, new in unclear.items():
        types[value] = settle(types[value], told.get(new)).fact
        _set_type(new, types[value])


def _interface_types(
    model: ir.Model, piece: Piece, observed: Mapping[str, ir.TypeAndShape]
) -> dict[ir.Value, ir.TypeAndShape]:
    """The type of every input and output; inference runs only if something is not declared or may be wrong."""
    # A wrong value info harms nobody until it becomes an input's type, which runtimes enforce.
    cuts = {value for value in piece.inputs if value.producer() is not None}
    interface = dict.fromkeys((*piece.inputs, *piece.outputs))
    unclear = [value for value in interface if value in cuts or _incomplete(value, _declared(value))]
    types = {value: _declared(value) for value in interface}
    if unclear:
        certain = infer_types(model, only=unclear, forget=AllComputed())
        types.update({value: settle(types[value], certain.get(value)).fact for value in unclear})
        unclear = [value for value in unclear if _incomplete(value, types[value])]
    if unclear:
        told = {value: without_made_up(fact) for value, fact in infer_types(model, only=unclear).items()}
        types.update({value: settle(types[value], told.get(value)).fact for value in unclear})
    for value in interface:
        types[value] = _with_observed(types[value], observed.get(value.name or ""))
    return types


def _declared(value: ir.Value) -> ir.TypeAndShape:
    return fact_of(value, {})


def _incomplete(value: ir.Value, fact: ir.TypeAndShape) -> bool:
    if fact.type is None:
        return not has_other_type(value)
    if not isinstance(fact.type, ir.TensorType):
        return False
    return fact.shape is None or any(not isinstance(d, int) and d.value is None for d in fact.shape)


def _unknown_part(value: ir.Value, fact: ir.TypeAndShape) -> str:
    """What the checker wants of every input and output and nobody knows; empty if nothing."""
    if fact.type is None:
        return "" if has_other_type(value) else "type"
    return "number of dimensions" if fact.shape is None and isinstance(fact.type, ir.TensorType) else ""


def _refuse_unknown(value: ir.Value, fact: ir.TypeAndShape) -> None:
    if unknown := _unknown_part(value, fact):
        raise BadOptionError(
            f"the {unknown} of tensor '{value.name}' is not known, so the piece cannot be given it or return it",
            hint="run the model once to see it (--feeds), or cut elsewhere",
        )


def has_other_type(value: ir.Value) -> bool:
    """Whether the value has a type that onnx_ir cannot hold (a map), kept beside the graph."""
    return value.type is None and value.graph is not None and value.name in value.graph.meta.get(TYPES, ())


def _with_observed(fact: ir.TypeAndShape, seen: ir.TypeAndShape | None) -> ir.TypeAndShape:
    """Fill what is unknown from a run; where a run contradicts a number, the run is right."""
    if seen is None or seen.type is None:
        return fact
    if fact.type is None or fact.shape is None or seen.shape is None or len(fact.shape) != len(seen.shape):
        return seen
    dims: list[int | ir.SymbolicDim] = []
    for known, shown in zip(fact.shape, seen.shape, strict=True):
        keep = not isinstance(known, int) and known.value is not None and not is_generated(known)
        dims.append(known if keep else shown)
    return ir.TypeAndShape(seen.type, ir.Shape(dims))


def _set_type(value: ir.Value | None, fact: ir.TypeAndShape) -> None:
    if value is None:
        return
    if fact.type is not None:
        value.type = fact.type
    if fact.shape is not None:
        value.shape = fact.shape.copy()


def _constant(cloner: NodeCloner, value: ir.Value) -> ir.Value:
    made = clone_value(value)
    cloner.values[value] = made
    return made


def _port(cloner: NodeCloner, value: ir.Value) -> ir.Value:
    """An input of the piece; where it takes the place of a weight, the weight stays behind."""
    made = cloner.values.get(value)
    if made is None:
        made = cloner.values[value] = clone_value(value)
        made.const_value = None
    return made


def _refuse_equal_names(nodes: list[ir.Node], inputs: list[ir.Value], constants: list[ir.Value]) -> None:
    """An inner name may hide an outer one; side by side in one graph they cannot both stand."""
    produced = (value for node in nodes for value in node.outputs)
    seen: dict[str, ir.Value] = {}
    for value in (*inputs, *constants, *produced):
        if value.name and seen.setdefault(value.name, value) is not value:
            raise RefusalError(
                f"the piece would hold two tensors called '{value.name}', one of which comes from an outer graph",
                hint="give every tensor a name of its own first (name-everything)",
            )


def _copy_facts(made: ir.Graph, place: Place, piece: Piece) -> None:
    names = set(piece.sparse)
    names.update(value.name or "" for value in (*piece.inputs, *piece.initializers))
    names.update(value.name or "" for node in piece.nodes for value in node.outputs)
    for graph in (place.scope.graph, *place.outer):
        copy_graph_facts(graph, made, names)


def _sort(graph: ir.Graph) -> None:
    if is_sorted(dependencies(graph)):
        return
    try:
        graph.sort()
    except ValueError as error:
        raise BadModelError("the nodes of the piece form a cycle") from error


def _model_of(model: ir.Model, graph: ir.Graph) -> ir.Model:
    made = model_around(graph, model, _called_functions(model, graph))
    # Training would refer to what is not there any more.
    made.meta.pop(TRAINING, None)
    return made


def _called_functions(model: ir.Model, graph: ir.Graph) -> list[ir.Function]:
    """Copies of the local functions that a graph calls, directly or through others, in the order of the model."""
    called: set[ir.OperatorIdentifier] = set()
    graphs: list[Iterable[ir.Node]] = [graph]
    while graphs and model.functions:
        for node in graphs.pop():
            for each in (node, *(nodes_inside(node) if node.attributes else ())):
                key = each.op_identifier()
                if key in model.functions and key not in called:
                    called.add(key)
                    graphs.append(model.functions[key].graph)
    return [_clone_function(function) for key, function in model.functions.items() if key in called]


def _clone_function(function: ir.Function) -> ir.Function:
    return ir.Function(
        function.domain,
        function.name,
        function.overload,
        graph=NodeCloner({}).clone_graph(function.graph),
        attributes=dict(function.attributes),
    )


def _check(model: ir.Model) -> None:
    wrong = check_model(model)
    if wrong:
        raise BadModelError(f"the piece does not pass the checker: {wrong}", hint="check the model itself")
