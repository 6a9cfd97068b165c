"""Walk a model once in the order of computation and note what is known of every value before it runs.

Only what cannot be wrong is believed: the declared inputs of the model, and the constants. Value infos and the declared
inputs of loop bodies and functions are ignored, because exporters and tools leave false ones behind. Two inputs that
name a size alike are taken to agree when the model runs: that is what the name means, although engines only warn.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

import onnx_ir as ir

from surgeon_passes.constants import constant_of
from surgeon_passes.integer_rules import INTEGER_RULES, split_ints
from surgeon_passes.schema_inference import SchemaInference
from surgeon_passes.size_facts import (
    MAX_ELEMENTS,
    Elements,
    Fact,
    Operation,
    elements,
    fact_of_tensor,
    fits,
    is_counted,
)
from surgeon_passes.size_rules import SIZE_RULES
from surgeon_passes.symbolic_ints import Algebra, Int
from surgeon_passes.walk import Scope, function_scope, main_scope, nested_graphs

_log = logging.getLogger(__name__)

_GUESSED = 8
"""Unknown integer vectors of at most this size get a symbol for each element when they meet known ones."""

_STANDARD = ("", "ai.onnx", "ai.onnx.ml")


class KnownFacts:
    """What is known of each value of a model.

    Args:
        model: The model; it is only read.
        overridable: Believe initializers that are also inputs.
    """

    def __init__(self, model: ir.Model, *, overridable: bool = False) -> None:
        self.algebra = Algebra()
        self._overridable = overridable
        self._facts: dict[ir.Value, Fact] = {}
        self._schemas = SchemaInference(self.algebra)
        for value in model.graph.inputs:
            if not (overridable and value.is_initializer()):
                self._facts[value] = self._declared(value)
        self._walk(main_scope(model))
        for function in model.functions.values():
            self._walk(function_scope(function))

    def __getitem__(self, value: ir.Value) -> Fact:
        """What is known of a value, constants made after the walk included."""
        fact = self._facts.get(value)
        if fact is None:
            fact = self._facts[value] = self._of_constant(value)
        return fact

    def has_schema(self, node: ir.Node, version: int) -> bool:
        """Whether onnx defines the operator of a node in a version of its domain."""
        return self._schemas.schema(node, version) is not None

    def _declared(self, value: ir.Value) -> Fact:
        """A model input: engines enforce its numbers, and its names say which sizes agree."""
        if value.type is not None and not isinstance(value.type, ir.TensorType):
            return Fact()
        if value.shape is None:
            return Fact(value.dtype)
        dims: list[Int] = []
        for d in value.shape:
            if isinstance(d, int):
                dims.append(d if d >= 0 else self.algebra.fresh())
            else:
                dims.append(self.algebra.named(d.value) if d.value else self.algebra.fresh())
        return Fact(value.dtype, tuple(dims))

    def _of_constant(self, value: ir.Value) -> Fact:
        try:
            tensor = constant_of(value, overridable=self._overridable)
            return Fact() if tensor is None else fact_of_tensor(tensor)
        except (OSError, ValueError) as error:
            # Data that is missing or too short is a matter for whoever needs it.
            _log.debug("cannot read constant %s: %s", value.name, error)
            return Fact()

    def _walk(self, root: Scope) -> None:
        """Visit each node after the bodies it holds, without recursion."""
        stack: list[_Frame] = [_Frame(root, iter(root.graph))]
        while stack:
            frame = stack[-1]
            if frame.bodies:
                body = frame.bodies.pop()
                stack.append(_Frame(body, iter(body.graph)))
                continue
            if frame.owner is not None:
                self._note_owner(frame.owner)
                frame.owner = None
            for node in frame.nodes:
                bodies = frame.scope.bodies(node)[::-1]
                if bodies:
                    frame.owner, frame.bodies = node, bodies
                    break
                self._note(frame.scope, node)
            else:
                stack.pop()

    def _note(self, scope: Scope, node: ir.Node) -> None:
        if node.domain not in _STANDARD or any(attr.is_ref() for attr in node.attributes.data.values()):
            return
        facts = [None if value is None else self[value] for value in node.inputs]
        op = Operation(node, facts, self.algebra, scope.opset)
        try:
            found = self._sizes(op, scope)
            self._add_elements(op, found)
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError, OSError) as error:
            # A node that breaks the rules of its operator; the engine will say so.
            _log.debug("nothing known of %s: %s", node.name, error)
            return
        for value, fact in zip(node.outputs, found, strict=False):
            self._facts[value] = fact

    def _sizes(self, op: Operation, scope: Scope) -> list[Fact]:
        rule = SIZE_RULES.get(op.node.op_type) if op.node.domain in ("", "ai.onnx") else None
        found = rule(op) if rule is not None else None
        if found is None:
            version = scope.opset if op.node.domain in ("", "ai.onnx") else scope.opset_imports.get(op.node.domain, 1)
            return self._schemas.infer(op, version, self._tensors(op.node))
        return found if isinstance(found, list) else [found]

    def _tensors(self, node: ir.Node) -> dict[int, ir.TensorProtocol]:
        tensors = {}
        for i, value in enumerate(node.inputs):
            tensor = constant_of(value, overridable=self._overridable)
            if tensor is not None:
                tensors[i] = tensor
        return tensors

    def _add_elements(self, op: Operation, found: list[Fact]) -> None:
        first = found[0] if found else Fact()
        static = first.static
        if static is None or first.ints is not None or first.dtype is None or not is_counted(first.dtype):
            return
        if op.node.domain not in ("", "ai.onnx") or _count(static) > MAX_ELEMENTS:
            return
        if op.node.op_type == "Split":
            split_ints(op, found)
            return
        rule = INTEGER_RULES.get(op.node.op_type)
        if rule is None:
            return
        if len(op.facts) > 1:
            self._guess(op)
        ints = rule(op, static)
        if ints is not None and ints.shape == static and all(fits(first.dtype, x) for x in ints.reshape(-1).tolist()):
            first.ints = ints

    def _guess(self, op: Operation) -> None:
        """Name the unknown elements of a short vector that is put together with known ones."""
        if all(fact is None or fact.ints is None for fact in op.facts):
            return
        for fact in op.facts:
            if fact is None or fact.ints is not None or fact.dtype is None or not is_counted(fact.dtype):
                continue
            static = fact.static
            if static is not None and _count(static) <= _GUESSED:
                fact.ints = self._unknown(fact.dtype, static)

    def _unknown(self, dtype: ir.DataType, shape: tuple[int, ...]) -> Elements:
        low = 0 if dtype.name.startswith("U") or dtype == ir.DataType.BOOL else None
        high = 1 if dtype == ir.DataType.BOOL else None
        return elements([self.algebra.fresh(low=low, high=high) for _ in range(_count(shape))], shape)

    def _note_owner(self, node: ir.Node) -> None:
        """The outputs of an If are what both branches agree on; of a loop nothing is known."""
        if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
            return
        branches = [graph for _, graph in nested_graphs(node)]
        if len(branches) != 2 or any(len(graph.outputs) != len(node.outputs) for graph in branches):
            return
        for i, value in enumerate(node.outputs):
            one, other = (self[graph.outputs[i]] for graph in branches)
            self._facts[value] = _agreed(self.algebra, one, other)


def _agreed(algebra: Algebra, one: Fact, other: Fact) -> Fact:
    dtype = one.dtype if one.dtype == other.dtype else None
    if one.dims is None or other.dims is None or len(one.dims) != len(other.dims):
        return Fact(dtype)
    dims = tuple(a if a == b else algebra.fresh() for a, b in zip(one.dims, other.dims, strict=True))
    same = one.ints is not None and other.ints is not None and dims == one.dims
    if not same or dtype is None or one.ints is None or other.ints is None:
        return Fact(dtype, dims)
    pairs = zip(one.ints.reshape(-1).tolist(), other.ints.reshape(-1).tolist(), strict=True)
    merged = [a if a == b else algebra.fresh(low=None) for a, b in pairs]
    return Fact(dtype, dims, elements(merged, one.ints.shape))


@dataclasses.dataclass(slots=True)
class _Frame:
    scope: Scope
    nodes: Iterator[ir.Node]
    bodies: list[Scope] = dataclasses.field(default_factory=list)
    owner: ir.Node | None = None


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for d in shape:
        count *= d
    return count
