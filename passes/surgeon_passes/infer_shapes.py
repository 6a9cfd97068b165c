"""Write down the types and shapes that follow from the inputs and the constants of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar

import onnx
import onnx_ir as ir

from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import RefusalError
from surgeon_passes.infer_onnxruntime import infer_with_onnxruntime
from surgeon_passes.infer_symbolic import infer_symbolic
from surgeon_passes.infer_types import AllComputed, Facts, contradiction_in, infer_types, is_generated
from surgeon_passes.settle_shapes import Settled, fill, merge, settle, type_text, without_made_up
from surgeon_passes.walk import Scope, is_onnx_op, main_scope, scopes_in

_ROUNDS = 4
"""How often inference may start again from what it found out."""


@dataclasses.dataclass(frozen=True)
class Learned:
    """What inference has to say about one value beyond what it declares."""

    value: ir.Value
    """The value."""
    where: Scope
    """The graph it is in."""
    settled: Settled
    """What holds, and what was declared wrongly."""


def best_types(model: ir.Model, *, symbolic: bool = True, onnxruntime: bool = True) -> Facts:
    """What is known of every value of the main graph and of the bodies, from all sources together.

    First what follows from inputs and constants alone, by onnx's inference and by following sizes as expressions; then,
    for what that leaves open, what the model declares and what onnxruntime knows of operators that onnx has no
    definition of.

    Args:
        model: The model; it is not changed, and its weights are not read.
        symbolic: Follow sizes as expressions.
        onnxruntime: Ask onnxruntime about operators that onnx does not define.
    """
    certain = infer_types(model, forget=AllComputed())
    if symbolic:
        for value, fact in infer_symbolic(model).items():
            merged = merge(certain.get(value), fact)
            if merged is not None:
                certain[value] = merged
    certain = {value: fact for value, fact in certain.items() if fact.type is not None}
    if onnxruntime:
        certain.update(_foreign_types(model, certain))
    values = list(_typed_values(model))
    if all(value in certain and _is_complete(certain[value]) for value in values):
        return certain
    wrong = {value for value, fact in certain.items() if settle(_declared(value), fact).wrong}
    facts = infer_types(model, known={v: f for v, f in certain.items() if v.producer() is not None}, forget=wrong)
    for _ in range(_ROUNDS):
        # onnx types the inputs of a body while it is at the node that holds it, too late for some nodes around it.
        if all(value in facts for value in values):
            break
        again = infer_types(model, known={value: facts[value] for value in values if value in facts}, forget=wrong)
        if len(again) == len(facts):
            break
        facts = again
    facts.update(_loop_counters(model, facts))
    return facts


def _is_complete(fact: ir.TypeAndShape) -> bool:
    """Whether nothing about a value is left open that a declaration could tell."""
    return fact.shape is not None and not any(
        not isinstance(dim, int) and (dim.value is None or is_generated(dim)) for dim in fact.shape
    )


def _typed_values(model: ir.Model) -> Iterator[ir.Value]:
    """Values that inference can tell the type of: outputs of nodes, and inputs of bodies."""
    for scope in scopes_in(main_scope(model)):
        if scope.owner is not None:
            yield from scope.graph.inputs
        for node in scope.graph:
            yield from (value for value in node.outputs if value.name)


def _loop_counters(model: ir.Model, facts: Facts) -> Facts:
    """Loop counters are scalars; onnx says so of their type only, and onnxruntime insists on a shape."""
    found: Facts = {}
    for scope in scopes_in(main_scope(model)):
        if scope.owner is not None and is_onnx_op(scope.owner, "Loop") and scope.graph.inputs:
            counter = scope.graph.inputs[0]
            if counter.shape is None and facts.get(counter, counter).shape is None:
                found[counter] = ir.TypeAndShape(ir.TensorType(ir.DataType.INT64), ir.Shape([]))
    return found


def _foreign_types(model: ir.Model, certain: Mapping[ir.Value, ir.TypeAndShape]) -> Facts:
    """What onnxruntime knows of outputs of operators without a definition, unless it misjudged their inputs."""
    nodes = [node for node in model.graph if node.op_identifier() not in model.functions and not _has_schema(node)]
    open_outputs = [value for node in nodes for value in node.outputs if value.name and value not in certain]
    if not open_outputs:
        return {}
    said = infer_with_onnxruntime(model)
    found: Facts = {}
    for value in open_outputs:
        node = value.producer()
        inputs = [i for i in node.inputs if i is not None] if node is not None else []
        if value in said and not any(i in said and i in certain and _disagree(certain[i], said[i]) for i in inputs):
            found[value] = said[value]
    return found


def _disagree(certain: ir.TypeAndShape, said: ir.TypeAndShape) -> bool:
    return bool(settle(said, certain).wrong)


def _has_schema(node: ir.Node) -> bool:
    return onnx.defs.has(node.op_type, node.domain)


def _declared(value: ir.Value) -> ir.TypeAndShape:
    return ir.TypeAndShape(value.type, value.shape)


@dataclasses.dataclass(frozen=True)
class InferShapes(Pass):
    """Write types and shapes into the value infos of the main graph and of all bodies.

    Combines onnx's inference, with data propagation, and expressions in the symbols of the inputs (``2*seq``); for
    operators that onnx does not define, onnxruntime's symbolic inference. Runs on the nodes alone, so the size of the
    weights does not matter. What the model declares about a value in the middle gives way where it contradicts what
    follows from inputs and constants. Inputs are left as they are; outputs get what they lack. Values inside local
    functions stay untyped: their types depend on the call.
    """

    name: ClassVar[str] = "infer-shapes"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p infer-shapes -o typed.onnx"

    symbolic: bool = option(True, "follow sizes as expressions in the symbols of the inputs")
    onnxruntime: bool = option(True, "ask onnxruntime about operators that onnx does not define")
    strict: bool = option(False, "refuse a model whose nodes contradict the definitions of their operators")

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Give every value what is known of it: one change for each value that learns something.

        Raises:
            RefusalError: A node contradicts its operator's definition (``strict`` only).
        """
        if self.strict:
            wrong = contradiction_in(model)
            if wrong:
                raise RefusalError(f"the shapes of the model contradict each other: {wrong}")
        facts = best_types(model, symbolic=self.symbolic, onnxruntime=self.onnxruntime)
        for learned in _learned(model, facts):
            value, where = learned.value, learned.where.path
            if learned.settled.wrong and value.is_graph_output() and learned.where.owner is None:
                log.decline(value.name, f"an output of the model: {learned.settled.wrong}", where=where)
                continue
            kind = "correct" if learned.settled.wrong else "infer"
            if not log.permit(kind, before=[value.name], after=[value.name], boundary=[value.name], where=where):
                return
            if learned.settled.wrong:
                log.decline(value.name, f"the value info was wrong: {learned.settled.wrong}", where=where)
            value.type, value.shape = learned.settled.fact.type, learned.settled.fact.shape


def _learned(model: ir.Model, facts: Facts) -> Iterator[Learned]:
    """Values about which more is known than they declare, outer graphs first, in the order of the nodes."""
    for scope in scopes_in(main_scope(model)):
        inputs = scope.graph.inputs if scope.owner is not None else ()
        for value in (*inputs, *(output for node in scope.graph for output in node.outputs)):
            declared = _declared(value)
            found = facts.get(value)
            if found is None or not value.name:
                continue
            settled = settle(declared, without_made_up(found))
            if value.is_graph_output() and scope.owner is None and not settled.wrong:
                settled = Settled(fill(declared, without_made_up(found)), "")
            if settled.wrong or type_text(settled.fact) != type_text(declared):
                yield Learned(value, scope, settled)
