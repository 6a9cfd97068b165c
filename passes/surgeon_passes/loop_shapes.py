"""Shapes inside loops that hold in every iteration, shown by induction.

onnx's inference gives the values that a loop carries no shape, because it may change. Here each is supposed to keep
the shape it starts with, all loops of a model at once; what a body then makes of it must have that shape again. What
does not is supposed less, until nothing contradicts.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

import onnx_ir as ir

from surgeon_passes.constants import constant_of
from surgeon_passes.infer_symbolic import infer_symbolic
from surgeon_passes.infer_types import Facts, infer_types, is_generated
from surgeon_passes.walk import is_onnx_op, main_scope, scopes_in

Dim = int | str | None
"""A number, a symbol (one unknown number wherever it can be seen), or nothing known."""

_ROUNDS = 12
"""How often more may be supposed, and then how often less."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Carried:
    """A value that a Loop or Scan hands from one iteration to the next."""

    initial: ir.Value
    """What the first iteration gets."""
    inside: ir.Value
    """The input of the body."""
    after: ir.Value
    """The output of the body."""
    final: ir.Value
    """The output of the node."""


def first_scanned(node: ir.Node) -> int:
    """The number of values that a Loop or Scan carries: the outputs from there on are stacked over iterations."""
    if is_onnx_op(node, "Loop"):
        return max(0, len(node.inputs) - 2)
    scanned = node.attributes.get("num_scan_inputs")
    return max(0, len(node.inputs) - (scanned.as_int() if scanned is not None and not scanned.is_ref() else 0))


def carried_values(node: ir.Node) -> list[Carried]:
    """The values a Loop, or a Scan from opset 9 on, carries; none where its parts do not fit together."""
    attr = node.attributes.get("body")
    if attr is None or attr.is_ref():
        return []
    body, count = attr.as_graph(), first_scanned(node)
    given, taken, made = (2, 2, 1) if is_onnx_op(node, "Loop") else (0, 0, 0)
    inputs = node.inputs[given : given + count]
    if len(body.inputs) < taken + count or len(body.outputs) < made + count or len(node.outputs) < count:
        return []
    parts = zip(inputs, body.inputs[taken:], body.outputs[made:], node.outputs, strict=False)
    return [Carried(*part) for part in parts if part[0] is not None]  # type: ignore[arg-type]


def stacked_values(node: ir.Node) -> list[tuple[ir.Value, ir.Value]]:
    """The outputs of a Loop, or of a Scan with default axes, that are stacks, each with the body's output of a row."""
    attr = node.attributes.get("body")
    if attr is None or attr.is_ref() or "scan_output_axes" in node.attributes:
        return []
    first = first_scanned(node)
    rows = attr.as_graph().outputs[first + (1 if is_onnx_op(node, "Loop") else 0) :]
    return list(zip(node.outputs[first:], rows, strict=False))


def loop_facts(model: ir.Model) -> Facts:
    """Types and shapes of the values of the main graph and the bodies that hold whenever the value is computed.

    What a model declares about computed values and about bodies is not believed. A symbol inside a body is one number
    in all iterations if it also occurs outside; another may change.

    Args:
        model: The model; it is only read, and its weights are not.
    """
    loops = [
        node
        for scope in scopes_in(main_scope(model))
        for node in scope.graph
        # The Scan of opset 8 has a batch dimension, which its body does not see.
        if is_onnx_op(node, "Loop") or (is_onnx_op(node, "Scan") and scope.opset >= 9)
    ]
    return _Induction(model, loops).run()


def dims_of(fact: ir.TypeAndShape | None) -> tuple[Dim, ...] | None:
    """The dimensions of a fact; None if the rank is not known."""
    if fact is None or fact.shape is None or not isinstance(fact.type, ir.TensorType):
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in fact.shape)


class _Forgotten:
    """What is not believed as it is declared: all but the inputs and constants of the main graph, and what is known."""

    def __init__(self, main: ir.Graph, known: Facts) -> None:
        self._main, self._known = main, known

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, ir.Value) or value in self._known:
            return False
        return value.producer() is not None or value.graph is not self._main


class _Induction:
    def __init__(self, model: ir.Model, loops: Iterable[ir.Node]) -> None:
        self._model = model
        self._carried: list[Carried] = []
        self._heads: Facts = {}
        self._stacks: list[tuple[ir.Value, ir.Value]] = []
        for node in loops:
            self._carried += carried_values(node)
            self._stacks += stacked_values(node)
            if is_onnx_op(node, "Loop"):
                self._add_head(node)
        # What follows from sizes as expressions; a dimension that has none is left to onnx's inference.
        self._base = {value: fact for value, fact in infer_symbolic(model).items() if fact.shape is not None}
        self._supposed: dict[ir.Value, ir.TypeAndShape] = {}
        self._dropped: set[ir.Value] = set()
        self._stacked: Facts = {}

    def _add_head(self, node: ir.Node) -> None:
        """The number of the iteration and the condition: scalars, unless the body wants vectors of one element."""
        attr = node.attributes.get("body")
        for value, dtype in zip(
            attr.as_graph().inputs if attr is not None and not attr.is_ref() else (),
            (ir.DataType.INT64, ir.DataType.BOOL),
            strict=False,
        ):
            one = value.shape is not None and len(value.shape) == 1
            self._heads[value] = ir.TypeAndShape(ir.TensorType(dtype), ir.Shape([1] if one else []))

    def run(self) -> Facts:
        for attempt in range(2 * _ROUNDS):
            facts = self._infer()
            # Less is only supposed where nothing more is to be learned: a loop in a loop is known after its start is.
            more = attempt < _ROUNDS and (self._suppose(facts) | self._stack(facts))
            if not more and not self._weaken(facts):
                return facts
        _log.debug("shapes of loops do not settle, nothing is supposed of them")
        self._supposed.clear()
        self._stacked.clear()
        return self._infer()

    def _infer(self) -> Facts:
        known = {**self._base, **self._heads, **self._stacked}
        for carried in self._carried:
            fact = self._supposed.get(carried.inside)
            if fact is not None:
                known[carried.inside] = known[carried.final] = fact
        return infer_types(self._model, known=known, forget=_Forgotten(self._model.graph, known))

    def _suppose(self, facts: Facts) -> bool:
        """Suppose of each value whose start is known now that it keeps its shape; whether there is one."""
        more = False
        for carried in self._carried:
            start = certain(carried.initial, facts)
            seen = carried.inside in self._supposed or carried.inside in self._dropped
            if not seen and start is not None and dims_of(start) is not None:
                self._supposed[carried.inside] = start
                more = True
        return more

    def _stack(self, facts: Facts) -> bool:
        """Note the shapes of stacks that onnx leaves open, as it does where a body gives one value twice."""
        more = False
        for stack, row in self._stacks:
            known, row_fact = certain(stack, facts), certain(row, facts)
            dims = dims_of(row_fact)
            if row_fact is None or dims is None:
                continue
            if (known is None or known.shape is None) and stack not in self._stacked:
                own = [dim if isinstance(dim, int) or not is_generated(ir.SymbolicDim(dim)) else None for dim in dims]
                self._stacked[stack] = ir.TypeAndShape(row_fact.type, ir.Shape([None, *own]))
                more = True
        return more

    def _weaken(self, facts: Facts) -> bool:
        """Take back what neither the start nor the end of an iteration bears out; whether anything was."""
        less = False
        for carried in self._carried:
            supposed = self._supposed.get(carried.inside)
            wanted = dims_of(supposed)
            if supposed is None or wanted is None:
                continue
            start, end = (dims_of(certain(value, facts)) for value in (carried.initial, carried.after))
            if start is None or end is None or not len(start) == len(end) == len(wanted):
                del self._supposed[carried.inside]
                self._dropped.add(carried.inside)
                less = True
                continue
            kept = tuple(a if a == b == c else None for a, b, c in zip(wanted, start, end, strict=True))
            if kept != wanted:
                self._supposed[carried.inside] = ir.TypeAndShape(supposed.type, ir.Shape(kept))
                less = True
        if less:
            self._stacked.clear()  # it may follow from what was supposed wrongly
        return less


def certain(value: ir.Value, facts: Facts) -> ir.TypeAndShape | None:
    """What is known of a value for certain: found by inference, or of its tensor; None where that is nothing."""
    found = facts.get(value)
    if found is not None and found.type is not None:
        return found
    tensor = constant_of(value)
    if tensor is None:
        return None
    return ir.TypeAndShape(ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy()))


def constant_trips(node: ir.Node, facts: Facts) -> int | None:
    """How many iterations a Loop or Scan makes, where that is the same whenever it runs and known."""
    if is_onnx_op(node, "Scan"):
        return _scanned_length(node, facts)
    body = node.attributes["body"].as_graph()
    trips = constant_of(node.inputs[0]) if node.inputs else None
    start = node.inputs[1] if len(node.inputs) > 1 else None
    if trips is None or (start is not None and not _is_true(start)):
        return None
    again = body.outputs[0]
    while (producer := again.producer()) is not None and is_onnx_op(producer, "Identity") and producer.inputs[0]:
        again = producer.inputs[0]
    return max(0, int(trips.numpy().item())) if again is body.inputs[1] or _is_true(again) else None


def _is_true(value: ir.Value) -> bool:
    tensor = constant_of(value)
    return tensor is not None and tensor.size == 1 and bool(tensor.numpy().item())


def _scanned_length(node: ir.Node, facts: Facts) -> int | None:
    scanned = node.inputs[first_scanned(node) :]
    attr = node.attributes.get("scan_input_axes")
    axes = list(attr.as_ints()) if attr is not None else [0] * len(scanned)
    for value, axis in zip(scanned, axes, strict=False):
        dims = dims_of(certain(value, facts)) if value is not None else None
        if dims is not None and -len(dims) <= axis < len(dims) and isinstance(dims[axis], int):
            return int(dims[axis] or 0)
    return None
