"""Carry a precision plan out: change types inside the regions, and put Casts at their borders, one a value and type.

A value has one home type, that of the node that makes it. Whoever wants the other type reads one shared Cast right
behind the value's producer, so that bodies share it with the graph around them. Constants need no Cast: they are
converted, and exist twice only where both types are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from typing import NamedTuple

import onnx_ir as ir

from surgeon_passes.constants import constant_of
from surgeon_passes.fidelity import VALUE_INFO
from surgeon_passes.low_precision import LowType, lowered_tensor
from surgeon_passes.names import FreshNames
from surgeon_passes.operator_types import Signatures
from surgeon_passes.precision_slots import FLOAT, LossOf, Lowering, TypeOf, any_type_inputs
from surgeon_passes.walk import Scope, is_onnx_op, main_scope, scopes_in


@dataclasses.dataclass
class Plan:
    """Which values change their type, and who reads which."""

    low: LowType
    """The type to convert to."""
    lowerings: dict[ir.Node, Lowering] = dataclasses.field(default_factory=dict)
    """What becomes low of each node that is converted."""
    inputs: set[ir.Value] = dataclasses.field(default_factory=set)
    """Inputs of the model that become low."""
    outputs: set[ir.Value] = dataclasses.field(default_factory=set)
    """Outputs of the model that become low."""

    def values(self) -> set[ir.Value]:
        """Every value that becomes low where it is made; constants are not among them."""
        found = set(self.inputs)
        for node, lowering in self.lowerings.items():
            found.update(node.outputs[i] for i in lowering.outputs)
            found.update(lowering.formals)
        return found

    def results(self) -> set[tuple[ir.Graph, int]]:
        """Every output of a body, as graph and index, that is read in the low type."""
        return {result for lowering in self.lowerings.values() for result in lowering.results}


class _Use(NamedTuple):
    """A place that reads a float32 value of the original model."""

    value: ir.Value
    low: bool | None
    """Whether it wants the low type; None if it takes either."""
    node: ir.Node | None
    graph: ir.Graph
    place: int


class CastBorders:
    """Carries a plan out on a model.

    Args:
        model: The model; :meth:`apply` changes it.
        plan: What is to become low.
        type_of: The types of the model's values as they are before.
        loss_of: What constants lose in the low type.
        signatures: Where operators are looked up.
        pinned: Names of values that keep their type because something refers to them by name alone.
    """

    def __init__(
        self,
        model: ir.Model,
        plan: Plan,
        type_of: TypeOf,
        loss_of: LossOf,
        signatures: Signatures,
        pinned: Collection[str],
    ) -> None:
        self.model, self.plan, self.low = model, plan, plan.low
        self._type_of, self._loss_of, self._signatures, self._pinned = type_of, loss_of, signatures, pinned
        self._names = FreshNames(model)
        self._home_low = plan.values()
        self._results = plan.results()
        self._others: dict[ir.Value, ir.Value] = {}
        self._starts: dict[ir.Graph, ir.Node | None] = {}
        self._graphs: dict[ir.Value, ir.Graph] = {}
        self._named: set[ir.Graph] = set()
        self._untyped: set[ir.Value] = set()

    def apply(self) -> None:
        """Convert: constants first, then the types, then the Casts."""
        scopes = list(scopes_in(main_scope(self.model)))
        for scope in scopes:
            # What a foreign operator reads out of its body may well go by name, as with the model itself.
            if scope.owner is None or scope.owner.domain not in ("", "ai.onnx"):
                self._named.add(scope.graph)
            self._starts[scope.graph] = next(iter(scope.graph), None)
            for value in [*scope.graph.inputs, *scope.graph.initializers.values()]:
                self._graphs[value] = scope.graph
        self._untyped = {value for value in self.model.graph.outputs if value.type is None}
        uses = [use for scope in scopes for use in self._uses(scope)]
        self._constants(uses)
        for value in self._home_low:
            self._retype(value)
        for node, lowering in self.plan.lowerings.items():
            for attr in lowering.attributes:
                node.attributes[attr.name] = attr
        # Outputs known by name come first: the Cast that makes one must take over its name, and is shared by the rest.
        for use in sorted(uses, key=lambda use: not self._is_named_output(use)):
            if use.low is not None and use.low != (use.value in self._home_low):
                self._connect(use)
        self._forget_value_infos(scopes)

    def _uses(self, scope: Scope) -> Iterator[_Use]:
        graph = scope.graph
        for node in graph:
            lowering = self.plan.lowerings.get(node)
            reads_low = lowering.inputs if lowering else frozenset()
            either = self._either(node, scope)
            for i, value in enumerate(node.inputs):
                if value is not None and self._type_of(value) == FLOAT:
                    yield _Use(value, None if i in either else i in reads_low, node, graph, i)
        main = graph is self.model.graph
        for i, value in enumerate(graph.outputs):
            if self._type_of(value) == FLOAT:
                wants = value in self.plan.outputs if main else (graph, i) in self._results
                yield _Use(value, wants, None, graph, i)

    def _either(self, node: ir.Node, scope: Scope) -> frozenset[int]:
        if not is_onnx_op(node, "Shape", "Size", "Cast", "CastLike", "EyeLike"):
            return frozenset()
        return any_type_inputs(node, self._signatures.get(node.op_type, scope.opset), self.low)

    def _is_named_output(self, use: _Use) -> bool:
        return use.node is None and use.graph in self._named

    def _forget_value_infos(self, scopes: list[Scope]) -> None:
        """Value infos kept beside a graph may name values of an outer one, in the type they had."""
        changed = {value.name for value in self._home_low}
        for scope in scopes:
            infos = scope.graph.meta.get(VALUE_INFO)
            if infos:
                scope.graph.meta[VALUE_INFO] = {name: info for name, info in infos.items() if name not in changed}

    def _constants(self, uses: list[_Use]) -> None:
        """Convert each constant that is read in the low type: in place if nobody reads the original."""
        wanted: dict[ir.Value, set[bool]] = {}
        for use in uses:
            if use.value in self._home_low or constant_of(use.value) is None:
                continue
            # A Cast reads a value that was rounded before without loss, but a constant was not rounded before.
            exact = use.low is None and use.node is not None and not is_onnx_op(use.node, "Shape", "Size")
            wants = False if exact else use.low
            if wants is not None:
                wanted.setdefault(use.value, set()).add(wants)
        for value, kinds in wanted.items():
            if kinds == {True} and value.name not in self._pinned:
                self._convert_constant(value)
                self._home_low.add(value)
            elif True in kinds:
                self._others[value] = self._second_constant(value)

    def _convert_constant(self, value: ir.Value) -> None:
        tensor, producer = constant_of(value), value.producer()
        assert tensor is not None
        lowered = lowered_tensor(tensor, self.low, tensor.name, self._loss_of(tensor))
        if producer is None:
            value.const_value = lowered
            return
        for name in list(producer.attributes):
            del producer.attributes[name]
        producer.attributes["value"] = ir.AttrTensor("value", lowered)
        value.const_value = None

    def _second_constant(self, value: ir.Value) -> ir.Value:
        """The same constant in the low type, beside the original."""
        tensor, producer = constant_of(value), value.producer()
        assert tensor is not None
        name = self._names.value(f"{value.name}{self.low.suffix}")
        lowered = lowered_tensor(tensor, self.low, name, self._loss_of(tensor))
        kind, shape = ir.TensorType(self.low.dtype), ir.Shape(tensor.shape.numpy())
        if producer is None:
            other = ir.Value(name=name, const_value=lowered, type=kind, shape=shape)
            self._graphs[value].register_initializer(other)
            return other
        node = ir.node("Constant", [], attributes={"value": lowered}, name=self._names.node(name))
        other = node.outputs[0]
        other.name, other.type, other.shape = name, kind, shape
        assert producer.graph is not None
        producer.graph.insert_after(producer, node)
        return other

    def _retype(self, value: ir.Value) -> None:
        denotation = value.type.denotation if isinstance(value.type, ir.TensorType) else None
        value.type = ir.TensorType(self.low.dtype, denotation=denotation)
        if value in self.plan.inputs and value.const_value is not None:
            loss = self._loss_of(value.const_value)
            value.const_value = lowered_tensor(value.const_value, self.low, value.name, loss)

    def _connect(self, use: _Use) -> None:
        """Let a use read the value in the type it wants."""
        other = self._others.get(use.value)
        if other is None:
            other = self._others[use.value] = self._cast(use.value)
        if use.node is not None:
            use.node.replace_input_with(use.place, other)
            return
        if self._is_named_output(use) and other.name != use.value.name and not other.is_graph_output():
            self._hand_over_name(use.value, other)
        use.graph.outputs[use.place] = other

    def _hand_over_name(self, value: ir.Value, other: ir.Value) -> None:
        """The model's output keeps its name; the value behind it gets one that says its type."""
        name = value.name or ""
        home = self.low.value if value in self._home_low else "float32"
        value.name = self._names.value(f"{name}_{home}")
        other.name = name
        if value in self._untyped:
            other.type = None  # callers see what they saw
        other.doc_string, value.doc_string = value.doc_string, None
        other.metadata_props.update(value.metadata_props)

    def _cast(self, value: ir.Value) -> ir.Value:
        """One Cast of a value to the other type, in the value's own graph, as early as possible."""
        to_low = value not in self._home_low
        dtype = self.low.dtype if to_low else ir.DataType.FLOAT
        base = f"{value.name}_to_{self.low.value if to_low else 'float32'}"
        node = ir.node("Cast", [value], attributes={"to": dtype.value}, name=self._names.node(base))
        out = node.outputs[0]
        out.name = self._names.value(base)
        out.type, out.shape = ir.TensorType(dtype), None if value.shape is None else value.shape.copy()
        producer = value.producer()
        if producer is not None and producer.graph is not None:
            producer.graph.insert_after(producer, node)
            return out
        graph = self._graphs[value]
        start = self._starts[graph]
        if start is None:
            graph.append(node)
        else:
            graph.insert_before(start, node)
        return out
