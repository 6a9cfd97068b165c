"""Make the body of a local function a model of its own, typed and filled in as one call of it uses it.

A function says nothing about types, and its nodes may refer to attributes of the call. Both come from a call site; in
the resulting model the body is an ordinary main graph, from which pieces can be cut like from any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import onnx_ir as ir

from surgeon_passes.clone_nodes import NodeCloner, call_attributes, clone_value, model_around
from surgeon_passes.errors import BadOptionError, RefusalError
from surgeon_passes.find_scope import find_place
from surgeon_passes.infer_types import fact_of, infer_types
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.walk import function_scope, scopes


@dataclasses.dataclass(frozen=True)
class FunctionModel:
    """A local function as a model."""

    model: ir.Model
    """The model; it shares the other local functions with the one it comes from."""
    path: str
    """What is left of the path that was asked for, within this model."""
    notes: tuple[str, ...]
    """What the reader should know: which call it stands for, if calls differ."""


def split_function_path(model: ir.Model, inside: str) -> tuple[ir.Function, str]:
    """The function that ``function:domain::name[:overload][/rest]`` starts with, and the rest.

    Raises:
        BadOptionError: There is no such function.
    """
    paths = {function_scope(function).path: function for function in model.functions.values()}
    for path in sorted(paths, key=len, reverse=True):
        if inside == path or inside.startswith(path + "/"):
            return paths[path], inside[len(path) + 1 :]
    hint = did_you_mean(inside, paths) or "the model has no local functions"
    raise BadOptionError(f"the model has no graph '{inside}'", hint=hint)


def function_as_model(model: ir.Model, inside: str) -> FunctionModel:
    """The local function at the head of ``inside`` as a model, typed from the first place that calls it.

    Values whose types the call does not tell stay untyped.

    Raises:
        BadOptionError: There is no such function.
        RefusalError: The call passes what cannot be filled in, or the function calls itself.
    """
    function, rest = split_function_path(model, inside)
    made, notes = _instantiate(model, function, ())
    return FunctionModel(made, rest, tuple(notes))


def _instantiate(model: ir.Model, function: ir.Function, within: tuple[ir.Function, ...]) -> tuple[ir.Model, list[str]]:
    """One level of recursion is one function that is called only from inside another."""
    if function in within:
        raise RefusalError(f"local function '{function.name}' calls itself")
    call, holder, notes = _first_call(model, function, within)
    if call is None:
        return _as_model(model, function, None, {}, []), notes
    unclear = [value for value in call.inputs if value is not None and _untyped(value)]
    facts = infer_types(holder, only=unclear) if unclear else {}
    return _as_model(model, function, call, facts, list(call.inputs)), notes


def _untyped(value: ir.Value) -> bool:
    return value.type is None or value.shape is None


def _first_call(
    model: ir.Model, function: ir.Function, within: tuple[ir.Function, ...]
) -> tuple[ir.Node | None, ir.Model, list[str]]:
    """The first call of ``function``, main graph first, and the model in which its inputs have types."""
    key = function.identifier()
    calls: list[tuple[ir.Node, str, ir.Function | None]] = []
    for scope in scopes(model):
        if scope.function is not function:
            calls += [(n, scope.path, scope.function) for n in scope.graph if n.op_identifier() == key]
    name = function_scope(function).path
    if not calls:
        return None, model, [f"'{name}' is never called, so its inputs have no types"]
    call, path, caller = calls[0]
    notes = []
    signatures = {tuple(str(attr) for attr in c.attributes.values()) for c, _, _ in calls}
    if len(signatures) > 1:
        notes.append(f"'{name}' is called with different attributes; the first call, '{call.name}', was taken")
    if caller is None:
        return call, model, notes
    outer, more = _instantiate(model, caller, (*within, function))
    rest = path.removeprefix(function_scope(caller).path).removeprefix("/")
    graph = find_place(outer, rest).scope.graph
    inner = next(n for n in graph if n.op_identifier() == key)
    return inner, outer, notes + more


def _as_model(
    model: ir.Model,
    function: ir.Function,
    call: ir.Node | None,
    facts: Mapping[ir.Value, ir.TypeAndShape],
    given: list[ir.Value | None],
) -> ir.Model:
    values: dict[ir.Value, ir.Value | None] = {}
    inputs = []
    for i, formal in enumerate(function.inputs):
        actual = given[i] if i < len(given) else None
        if call is not None and actual is None:
            values[formal] = None  # the call leaves this input out
            continue
        made = clone_value(formal)
        if actual is not None:
            fact = fact_of(actual, facts)
            made.type = fact.type if fact.type is not None else made.type
            made.shape = fact.shape.copy() if fact.shape is not None else made.shape
        values[formal] = made
        inputs.append(made)
    cloner = NodeCloner(values, attributes=call_attributes(function, call))
    nodes = cloner.clone_all(function.graph)
    outputs = [value for formal in function.outputs if (value := cloner.values.get(formal)) is not None]
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=nodes,
        opset_imports={**model.opset_imports, **function.opset_imports},
        name=function.name,
        doc_string=function.graph.doc_string,
        metadata_props=dict(function.metadata_props),
    )
    return model_around(graph, model, list(model.functions.values()))
