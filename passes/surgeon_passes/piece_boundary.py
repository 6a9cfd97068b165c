"""Decide what a piece of a graph consists of: its nodes, its inputs and outputs, and the constants that come along.

Nothing is copied here and nothing is read; the work is proportional to what is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence

import onnx_ir as ir

from surgeon_passes.errors import BadModelError, BadOptionError
from surgeon_passes.find_scope import Place, find_values, is_undefined, reads_of, sparse_names, values_of
from surgeon_passes.order import nodes_inside
from surgeon_passes.select_nodes import select_nodes
from surgeon_passes.walk import is_onnx_op


@dataclasses.dataclass(frozen=True)
class Piece:
    """What is to be taken out of a graph."""

    nodes: tuple[ir.Node, ...]
    """The nodes, in the order of their graph; Constant nodes of the graphs around it come first."""
    inputs: tuple[ir.Value, ...]
    """Values that the piece is given: those asked for, then those that were found to be needed."""
    outputs: tuple[ir.Value, ...]
    """Values that it returns."""
    initializers: tuple[ir.Value, ...]
    """Constants that come along; one that is also in ``inputs`` is a default."""
    sparse: frozenset[str]
    """Names of sparse initializers that come along."""
    added_inputs: tuple[str, ...]
    """Inputs that were not asked for, although inputs were, and that the outputs need all the same."""


class _Tracer:
    """Collects what a set of values needs, stopping at cuts."""

    def __init__(self, place: Place, cut: Collection[ir.Value]) -> None:
        self._graph = place.scope.graph
        self._place = place
        self._cut_names = {value.name for value in cut if is_undefined(value)}
        self._by_name: dict[str, ir.Value] | None = None
        self.cut = set(cut)
        self.seen: set[ir.Value] = set()
        self.nodes: dict[ir.Node, None] = {}
        self.inputs: dict[ir.Value, None] = {}
        self.initializers: dict[ir.Value, None] = {}
        self.sparse: set[str] = set()

    def trace(self, values: Iterable[ir.Value]) -> None:
        """Take everything ``values`` are computed from, up to the cuts."""
        stack = list(values)
        while stack:
            value = stack.pop()
            if value in self.seen:
                continue
            self.seen.add(value)
            if value in self.cut:
                continue
            if is_undefined(value):
                named = self.resolve(value)
                if named is not None:
                    stack.append(named)
                continue
            node = value.producer()
            if node is None or node.graph is not self._graph:
                self.take_leaf(value)
            elif node not in self.nodes:
                self.nodes[node] = None
                stack.extend(reads_of(node))

    def take_leaf(self, value: ir.Value) -> None:
        """Take a value that no node of the graph computes: a constant comes along, anything else becomes an input."""
        if value.is_initializer() and value.const_value is not None:
            self.initializers[value] = None
            self._take_quantization(value)
            if value.is_graph_input():
                self.inputs[value] = None
            return
        node = value.producer()
        if node is not None and is_constant_node(node):
            self.nodes[node] = None
        else:
            self.inputs[value] = None

    def resolve(self, value: ir.Value) -> ir.Value | None:
        """What an undefined value means by its name, as a runtime would look it up; None for a cut or a sparse tensor.

        Raises:
            BadModelError: Nothing has that name.
        """
        name = value.name or ""
        if name in self._cut_names:
            self.seen.update(v for v in self.cut if v.name == name)
            return None
        for graph in (self._graph, *self._place.outer):
            if name in sparse_names(graph):
                self.sparse.add(name)
                return None
        if self._by_name is None:
            graphs = (*reversed(self._place.outer), self._graph)
            self._by_name = {v.name: v for g in graphs for v in values_of(g) if v.name and not is_undefined(v)}
        if name not in self._by_name:
            raise BadModelError(f"tensor '{name}' is read but nothing produces it", hint="name it among the inputs")
        return self._by_name[name]

    def _take_quantization(self, value: ir.Value) -> None:
        """Keep the scale and zero point that an annotation of a tensor names, where they are initializers too."""
        for name in (value.meta.get("quant_parameter_tensor_names") or {}).values():
            parameter = self._graph.initializers.get(name)
            if parameter is not None and parameter.const_value is not None:
                self.initializers[parameter] = None


def is_constant_node(node: ir.Node) -> bool:
    """Whether a node is a Constant whose value does not depend on the call of a function."""
    return is_onnx_op(node, "Constant") and not any(attr.is_ref() for attr in node.attributes.values())


def piece_by_tensors(model: ir.Model, place: Place, inputs: Sequence[str], outputs: Sequence[str]) -> Piece:
    """The part of a graph that computes ``outputs`` from ``inputs``.

    Args:
        model: The model the graph is in.
        place: The graph.
        inputs: Where to cut; graph inputs and captured values that are still needed become inputs as well. Empty:
            all of these are found.
        outputs: What to compute; empty: the outputs of the graph, of those only the ones that depend on ``inputs``.

    Raises:
        BadOptionError: A name does not exist, or an input plays no part in computing the outputs.
    """
    cut = list(find_values(model, place, inputs, captured=True).values())
    if outputs:
        wanted = list(find_values(model, place, outputs).values())
    else:
        wanted = _dependent(place, list(dict.fromkeys(place.scope.graph.outputs)), cut)
    tracer = _Tracer(place, cut)
    tracer.trace(wanted)
    for value in cut:
        if value not in tracer.seen:
            raise _unused_input(place, value, wanted)
    for value in cut:
        # An input that has a default keeps it: the piece may be called as the model could.
        if value.is_graph_input() and value.is_initializer():
            tracer.initializers[value] = None
    found = _in_interface_order(place, [value for value in tracer.inputs if value not in tracer.cut])
    added = tuple(v.name or "" for v in found if not v.is_initializer()) if inputs else ()
    return _piece(place, tracer, [*cut, *found], wanted, added)


def _dependent(place: Place, outputs: list[ir.Value], cut: list[ir.Value]) -> list[ir.Value]:
    """Those of ``outputs`` that are computed from a cut; all of them if there is no cut."""
    if not cut:
        return outputs
    graph = place.scope.graph
    owner = {inner: node for node in graph if node.attributes for inner in nodes_inside(node)}
    reached, stack = set(cut), list(cut)
    while stack:
        for use in stack.pop().uses():
            node = owner.get(use.node, use.node)
            fresh = [value for value in node.outputs if value not in reached] if node.graph is graph else []
            reached.update(fresh)
            stack.extend(fresh)
    dependent = [value for value in outputs if value in reached]
    if not dependent:
        names = ", ".join(f"'{value.name}'" for value in cut)
        raise BadOptionError(f"no output of the graph depends on {names}", hint="name the outputs to compute")
    return dependent


def _unused_input(place: Place, value: ir.Value, outputs: list[ir.Value]) -> BadOptionError:
    """Say why a cut has no effect."""
    names = ", ".join(f"'{output.name}'" for output in outputs)
    uncut = _Tracer(place, ())
    uncut.trace(outputs)
    if value in uncut.seen:
        return BadOptionError(
            f"input '{value.name}' is not needed: the other inputs cut every path from it to {names}",
            hint="leave it out, or leave those inputs out",
        )
    after = _Tracer(place, ())
    after.trace([value])
    if not after.seen.isdisjoint(outputs):
        return BadOptionError(
            f"input '{value.name}' comes after the outputs: it is computed from them", hint="swap inputs and outputs"
        )
    return BadOptionError(f"input '{value.name}' is not needed to compute {names}", hint="leave it out")


def piece_by_nodes(place: Place, patterns: Sequence[str]) -> Piece:
    """The nodes whose names match, with the constants they read.

    What they read else becomes the inputs, what others read of theirs the outputs.

    Args:
        place: The graph.
        patterns: Names, shell patterns, or regular expressions after ``re:``.

    Raises:
        BadOptionError: A pattern matches no node, or the nodes compute nothing.
    """
    graph = place.scope.graph
    chosen = dict.fromkeys(select_nodes(graph, patterns))
    tracer = _Tracer(place, ())
    tracer.nodes.update(chosen)
    for node in chosen:
        for read in reads_of(node):
            value = tracer.resolve(read) if is_undefined(read) else read
            if value is not None and value.producer() not in chosen:
                _take_read(tracer, graph, value)
    inner = _all_inside(chosen)
    produced = [value for node in chosen for value in node.outputs if value.name]
    read_by_bodies = _named_outputs(place, chosen)
    outputs = [
        value
        for value in produced
        if value.is_graph_output() or value.name in read_by_bodies or any(use.node not in inner for use in value.uses())
    ]
    outputs = outputs or [value for value in produced if not value.uses()]
    return _piece(place, tracer, list(tracer.inputs), outputs, ())


def _take_read(tracer: _Tracer, graph: ir.Graph, value: ir.Value) -> None:
    """Take what a chosen node reads and no chosen node computes."""
    producer = value.producer()
    if producer is None or producer.graph is not graph:
        tracer.take_leaf(value)
    elif is_constant_node(producer):
        tracer.nodes[producer] = None
    else:
        tracer.inputs[value] = None


def _named_outputs(place: Place, chosen: Collection[ir.Node]) -> set[str]:
    """Names that bodies of nodes outside ``chosen`` return although only an outer graph defines them."""
    names: set[str] = set()
    for node in place.scope.graph:
        if node.attributes and node not in chosen:
            names.update(value.name for value in reads_of(node) if value.name and is_undefined(value))
    return names


def _all_inside(nodes: Iterable[ir.Node]) -> set[ir.Node]:
    """The nodes and every node in their bodies."""
    found = set(nodes)
    for node in list(found):
        if node.attributes:
            found.update(nodes_inside(node))
    return found


def _in_interface_order(place: Place, values: list[ir.Value]) -> list[ir.Value]:
    """Inputs of the graph in their order, then captured values in the order of their discovery from the front."""
    place_of = {value: i for i, value in enumerate(place.scope.graph.inputs)}
    own = sorted((v for v in values if v in place_of), key=place_of.__getitem__)
    return own + [v for v in reversed(values) if v not in place_of]


def _piece(
    place: Place, tracer: _Tracer, inputs: list[ir.Value], outputs: list[ir.Value], added: tuple[str, ...]
) -> Piece:
    if not outputs:
        raise BadOptionError("nothing is left to compute", where=place.scope.path, hint="name outputs or other nodes")
    graph = place.scope.graph
    outer = [node for node in tracer.nodes if node.graph is not graph]
    return Piece(
        nodes=(*outer, *(node for node in graph if node in tracer.nodes)),
        inputs=tuple(dict.fromkeys(inputs)),
        outputs=tuple(outputs),
        initializers=tuple(tracer.initializers),
        sparse=frozenset(tracer.sparse),
        added_inputs=added,
    )
