"""What must hold before and after every pass: the interface, and the graph rules that onnx_ir does not enforce.

Read-only. :func:`interface_of` and :func:`interface_changes` tell whether a pass kept its promise to the callers of
the model; :func:`broken_conditions` tells whether the model in memory means the same once it is written by names.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator

import onnx_ir as ir

from surgeon_passes.fidelity import SPARSE
from surgeon_passes.order import dependencies, find_cycle
from surgeon_passes.walk import Scope, function_scope, main_scope, scopes, title

_GRAPH_TYPES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output of a model."""

    name: str
    """Its name."""
    type: str
    """Its type as text, such as ``FLOAT`` or ``Sequence(FLOAT)``; empty if none is declared."""
    shape: tuple[int | str | None, ...] | None
    """Declared dimensions: numbers, symbols, None for an unknown one; None as a whole if the rank is not declared."""
    has_default: bool
    """Whether the caller may leave it out, because an initializer of the same name gives a default."""


@dataclasses.dataclass(frozen=True)
class Interface:
    """What callers of a model rely on."""

    inputs: tuple[Port, ...]
    """The graph inputs, in order."""
    outputs: tuple[Port, ...]
    """The graph outputs, in order."""


def _port(value: ir.Value) -> Port:
    shape = None
    if value.shape is not None:
        shape = tuple(d if isinstance(d, int) else d.value for d in value.shape)
    kind = str(value.type) if value.type is not None else ""
    return Port(value.name or "", kind, shape, value.is_initializer() and value.is_graph_input())


def interface_of(model: ir.Model) -> Interface:
    """The interface of the main graph, detached from the model: later changes of the model do not alter it."""
    return Interface(tuple(map(_port, model.graph.inputs)), tuple(map(_port, model.graph.outputs)))


def interface_changes(before: Interface, after: Interface) -> list[str]:
    """How an interface differs from what it was, one sentence each; empty if callers notice nothing.

    Names, order, types and defaults must be equal, and so must the dimensions of inputs. A dimension of an output may
    become better known (unknown to symbol to number), never less known or different.
    """
    found: list[str] = []
    for what, old, new in (("input", before.inputs, after.inputs), ("output", before.outputs, after.outputs)):
        if [p.name for p in old] != [p.name for p in new]:
            was, now = ", ".join(p.name for p in old), ", ".join(p.name for p in new)
            found.append(f"the {what}s were [{was}] and are [{now}]")
            continue
        for a, b in zip(old, new, strict=True):
            if a.type and a.type != b.type:
                found.append(f"{what} '{a.name}' was {a.type} and is {b.type or 'untyped'}")
            if a.has_default != b.has_default:
                lost = "lost its default value" if a.has_default else "became optional"
                found.append(f"{what} '{a.name}' {lost}")
            if a.shape != b.shape and not (what == "output" and _refines(a.shape, b.shape)):
                found.append(f"{what} '{a.name}' had shape {_dims(a.shape)} and has {_dims(b.shape)}")
    return found


def _refines(old: tuple[int | str | None, ...] | None, new: tuple[int | str | None, ...] | None) -> bool:
    """Whether ``new`` says all that ``old`` says: numbers stay; a symbol may become another symbol or a number."""
    if old is None:
        return True
    if new is None or len(old) != len(new):
        return False
    return all(a == b or a is None or (isinstance(a, str) and b is not None) for a, b in zip(old, new, strict=True))


def _dims(shape: tuple[int | str | None, ...] | None) -> str:
    return "unknown" if shape is None else "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def is_dangling(value: ir.Value) -> bool:
    """True if nothing in the model defines the value: it comes from a sparse initializer, an outer name, or nowhere."""
    return value.producer() is None and not value.is_graph_input() and not value.is_initializer()


def dangling_values(model: ir.Model) -> Iterator[ir.Value]:
    """Yield each value that is read, or is a graph output, although no node, input or initializer defines it.

    A body may name a value of an outer graph as its output: onnx_ir then has an output of that name which is a value
    of its own, so the outer value is used by its *name* and shows no use.
    """
    seen: set[int] = set()
    for scope in scopes(model):
        read = (value for node in scope.graph for value in node.inputs if value is not None)
        for value in itertools.chain(read, scope.graph.outputs):
            if is_dangling(value) and id(value) not in seen:
                seen.add(id(value))
                yield value


def broken_conditions(model: ir.Model, *, known_dangling: Collection[str] = ()) -> list[str]:
    """What is wrong with the graphs of a model, one sentence each; empty if nothing is.

    In every graph: each node input is a graph input, an initializer, or the output of an earlier node there or in an
    enclosing graph, and its name means that very value at that place; no graph gives a value name twice; graph
    outputs exist; initializers hold data; there is no cycle. Values of sparse initializers count as defined. Linear
    in the size of the model; no weight is read.

    Args:
        model: The model.
        known_dangling: Names that are read although nothing defines them, and that are not to be reported.
    """
    return _read_all(model, known_dangling).sentences


def clashing_names(model: ir.Model) -> list[str]:
    """Names that something else has too, one sentence each: a pass must not add any, ``name-everything`` mends them.

    A value in a body that hides one of an enclosing graph, which runs here and there; nodes of one graph that share
    a name, which onnxruntime refuses and others do not. Both are found in the wild.
    """
    return _read_all(model, ()).clashes


def _read_all(model: ir.Model, known_dangling: Collection[str]) -> _Reader:
    reader = _Reader(known_dangling)
    reader.walk(main_scope(model))
    for function in model.functions.values():
        reader.walk(function_scope(function))
    return reader


@dataclasses.dataclass
class _Frame:
    """One graph on the way through the model."""

    scope: Scope
    nodes: Iterator[ir.Node]
    known: frozenset[str]
    own: set[str] = dataclasses.field(default_factory=set)
    titles: set[str] = dataclasses.field(default_factory=set)
    hidden: list[tuple[str, ir.Value]] = dataclasses.field(default_factory=list)
    bodies: list[Scope] = dataclasses.field(default_factory=list)
    waiting: ir.Node | None = None
    unsorted: bool = False


class _Reader:
    """Reads a model in the order of computation, as someone who knows values by name only."""

    def __init__(self, known_dangling: Collection[str]) -> None:
        self.known = frozenset(known_dangling)
        self.sentences: list[str] = []
        self.clashes: list[str] = []
        self.table: dict[str, ir.Value] = {}
        self.frames: list[_Frame] = []

    def walk(self, root: Scope) -> None:
        self.table = {}
        self._enter(root)
        while self.frames:
            frame = self.frames[-1]
            if frame.bodies:
                self._enter(frame.bodies.pop())
                continue
            if frame.waiting is not None:
                self._declare_outputs(frame, frame.waiting)
                frame.waiting = None
            for node in frame.nodes:
                self._read(frame, node)
                frame.bodies = frame.scope.bodies(node)[::-1]
                if frame.bodies:
                    frame.waiting = node
                    break
                self._declare_outputs(frame, node)
            else:
                self._leave(frame)

    def _say(self, scope: Scope, text: str, *, clash: bool = False) -> None:
        (self.clashes if clash else self.sentences).append(f"in {scope.path}: {text}" if scope.path else text)

    def _enter(self, scope: Scope) -> None:
        outer = self.frames[-1].known if self.frames else self.known
        sparse = scope.graph.meta.get(SPARSE, ())
        frame = _Frame(scope, iter(scope.graph), outer.union(t.values.name for t in sparse) if sparse else outer)
        self.frames.append(frame)
        for value in scope.graph.inputs:
            self._declare(frame, value, "an input")
        for name, value in scope.graph.initializers.items():
            if value.const_value is None:
                self._say(scope, f"initializer '{name}' has no data")
            if not value.is_graph_input():
                self._declare(frame, value, "an initializer")

    def _declare_outputs(self, frame: _Frame, node: ir.Node) -> None:
        for value in node.outputs:
            if value.name != "":
                self._declare(frame, value, node)

    def _declare(self, frame: _Frame, value: ir.Value, by: ir.Node | str) -> None:
        name = value.name
        if not name:
            who = by if isinstance(by, str) else f"an output of node {title(by)}"
            self._say(frame.scope, f"{who} has no name")
            return
        if name in frame.own:
            self._say(frame.scope, f"the name '{name}' is given twice")
        elif name in self.table:
            self._say(frame.scope, f"the name '{name}' hides a value of an enclosing graph", clash=True)
            frame.hidden.append((name, self.table[name]))
        frame.own.add(name)
        self.table[name] = value

    def _read(self, frame: _Frame, node: ir.Node) -> None:
        if node.name:
            if node.name in frame.titles:
                self._say(frame.scope, f"the node name '{node.name}' is given twice", clash=True)
            frame.titles.add(node.name)
        for value in node.inputs:
            if value is not None and self.table.get(value.name) is not value:  # type: ignore[arg-type]
                problem = self._problem(frame, value)
                if problem:
                    self._say(frame.scope, f"node {title(node)} reads {problem}")

    def _problem(self, frame: _Frame, value: ir.Value) -> str:
        """Why ``value`` cannot be read by its name here; empty if it is known to come from elsewhere."""
        if not value.name:
            return "a value without a name"
        if is_dangling(value):
            return "" if value.name in frame.known else f"'{value.name}', which nothing defines"
        home = next((f for f in self.frames if f.scope.graph is value.graph), None)
        if home is None:
            gone = value.graph is None
            return (
                f"'{value.name}', whose node is no longer in the model" if gone else f"'{value.name}' of another graph"
            )
        producer = value.producer()
        if producer is None or value.name in home.own:
            return f"'{value.name}', but another value of that name stands in between"
        home.unsorted = True
        return f"'{value.name}' before node {title(producer)} has made it"

    def _leave(self, frame: _Frame) -> None:
        for value in frame.scope.graph.outputs:
            found = self.table.get(value.name or "")
            by_name = is_dangling(value) and (found is not None or value.name in frame.known)
            if found is not value and not by_name:
                self._say(frame.scope, f"nothing makes the output '{value.name}'")
        if frame.unsorted:
            cycle = find_cycle(dependencies(frame.scope.graph))
            if cycle:
                self._say(frame.scope, f"there is a cycle: {cycle_text(cycle)}")
        for name in frame.own:
            self.table.pop(name, None)
        self.table.update(frame.hidden)
        self.frames.pop()


def cycle_text(cycle: list[ir.Node], *, limit: int = 8) -> str:
    """A cycle as ``a -> b -> a``; the middle of a long one is left out."""
    names = [title(node) for node in cycle]
    if len(names) > limit:
        names = [*names[: limit - 1], f"({len(names) - limit} more)", names[-1]]
    return " -> ".join([*names, names[0]])
