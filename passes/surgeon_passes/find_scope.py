"""Find the graph that a path such as ``loop_1/body`` or ``function:pkg::Norm`` names, and values in it by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from surgeon_passes.errors import BadOptionError
from surgeon_passes.fidelity import SPARSE
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.walk import Scope, main_scope, nested_graphs, scopes


@dataclasses.dataclass(frozen=True)
class Place:
    """A graph of a model together with the graphs around it."""

    scope: Scope
    """The graph."""
    outer: tuple[ir.Graph, ...]
    """The graphs whose values it may read without being given them, the innermost first."""


def find_place(model: ir.Model, path: str) -> Place:
    """The graph at ``path``, as :attr:`surgeon_passes.walk.Scope.path` writes it; empty for the main graph.

    Raises:
        BadOptionError: There is no such graph, or more than one.
    """
    if not path:
        return Place(main_scope(model), ())
    every = list(scopes(model))
    found = [scope for scope in every if scope.path == path]
    if not found:
        paths = [scope.path for scope in every if scope.path]
        hint = did_you_mean(path, paths) or "the model has no bodies and no local functions"
        raise BadOptionError(f"the model has no graph '{path}'", hint=hint)
    if len(found) > 1:
        raise BadOptionError(f"{len(found)} graphs are called '{path}'", hint="give their nodes different names first")
    around = {id(scope.graph): scope for scope in every}
    outer: list[ir.Graph] = []
    owner = found[0].owner
    while owner is not None and owner.graph is not None:
        outer.append(owner.graph)
        owner = around[id(owner.graph)].owner
    return Place(found[0], tuple(outer))


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value that can be named in a graph: inputs, initializers, outputs of nodes, and read but never defined."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
        for value in node.inputs:
            if value is not None and value.graph is None:
                yield value


def find_values(model: ir.Model, place: Place, names: Iterable[str], *, captured: bool = False) -> dict[str, ir.Value]:
    """The values called ``names`` in a graph, in the order of ``names``.

    Args:
        model: The model, for the hint that a name is in another graph.
        place: The graph to look in.
        names: The names wanted.
        captured: Look in the graphs around it too.

    Raises:
        BadOptionError: A name does not exist there; the hint says where it is, or what was perhaps meant.
    """
    found: dict[str, ir.Value] = {}
    wanted = set(names)
    for graph in (place.scope.graph, *(place.outer if captured else ())):
        if len(found) == len(wanted):
            break
        for value in values_of(graph):
            if value.name in wanted and value.name not in found:
                found[value.name] = value
    for name in names:
        if name not in found:
            where = f" in '{place.scope.path}'" if place.scope.path else ""
            raise BadOptionError(f"there is no tensor '{name}'{where}", hint=_where_else(model, place, name))
    return {name: found[name] for name in names}


def _where_else(model: ir.Model, place: Place, name: str) -> str:
    for scope in scopes(model):
        if scope.graph is not place.scope.graph and any(value.name == name for value in values_of(scope.graph)):
            return f"it is inside '{scope.path}': say inside={scope.path}" if scope.path else "it is in the main graph"
    return did_you_mean(name, (value.name or "" for value in values_of(place.scope.graph)))


def reads_of(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads: its inputs, and what its bodies read from the graphs around them.

    Includes values that nothing defines, except those of sparse initializers of the bodies themselves.
    """
    for value in node.inputs:
        if value is not None:
            yield value
    bodies = [graph for _, graph in nested_graphs(node)] if node.attributes else []
    if not bodies:
        return
    inner: set[ir.Graph] = set()
    own_sparse: set[str] = set()
    for graph in bodies:  # grows while it is walked
        inner.add(graph)
        own_sparse.update(sparse_names(graph))
        for nested in graph:
            bodies.extend(body for _, body in nested_graphs(nested))
    for graph in bodies:
        for nested in graph:
            for value in nested.inputs:
                if value is not None and _is_outer(value, inner, own_sparse):
                    yield value
        for value in graph.outputs:
            if _is_outer(value, inner, own_sparse):
                yield value


def _is_outer(value: ir.Value, inner: set[ir.Graph], own_sparse: set[str]) -> bool:
    if is_undefined(value):
        return value.name not in own_sparse
    return value.graph not in inner


def is_undefined(value: ir.Value) -> bool:
    """True if no node, input or initializer defines the value: a sparse initializer does, an outer name, or nothing."""
    return value.producer() is None and not value.is_graph_input() and not value.is_initializer()


def sparse_names(graph: ir.Graph) -> set[str]:
    """Names of the sparse initializers of a graph."""
    return {tensor.values.name for tensor in graph.meta.get(SPARSE, ())}
