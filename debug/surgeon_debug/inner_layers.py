"""Layers inside bodies and functions: how they are called, and which of them is to blame."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from surgeon_debug.comparison import TensorResult
from surgeon_debug.layer_plan import Layer
from surgeon_debug.verdict import Judgement, Verdict
from surgeon_passes.inner_tensor import InnerTensor, StepKind
from surgeon_passes.observe_bodies import Observed, observe_bodies
from surgeon_passes.walk import nested_graphs


def with_bodies_shown(model: ir.Model, *, iterations: int, limit: int) -> Observed:
    """The model with the tensors of its bodies and functions in the main graph; changed in place if it has any."""
    if not model.functions and not any(True for node in model.graph for _ in nested_graphs(node)):
        return Observed(model, (), (), frozenset())
    return observe_bodies(model, iterations=iterations, limit=limit)


def named_inside(layers: Sequence[Layer], observed: Observed) -> list[Layer]:
    """Layers under the names of the nodes that compute them inside, without those that only carry others."""
    found = []
    for layer in layers:
        if layer.tensor in observed.carriers:
            continue
        inner = observed.find(layer.tensor)
        if inner is not None:
            layer = dataclasses.replace(layer, node=f"{inner.path}/{inner.node}", op=inner.op_type)
        found.append(layer)
    return found


def blame_inside(results: Sequence[TensorResult], inner: Mapping[str, InnerTensor]) -> list[TensorResult]:
    """Leave the blame with the first wrong tensor inside a node with bodies.

    Such a node is isolated as a whole: behind the first wrong tensor in it, everything else in it is wrong too.
    """
    first: dict[str, TensorResult] = {}
    for result in results:
        found = inner.get(result.tensor)
        if found is None or found.steps[0].kind is StepKind.CALL or result.verdict is not Verdict.WRONG:
            continue
        if found.owner not in first or _precedes(result, first[found.owner], inner):
            first[found.owner] = result
    if not first:
        return list(results)
    culprits = {id(result) for result in first.values()}
    changed = []
    for result in results:
        found = inner.get(result.tensor)
        owner = found.owner if found is not None else result.node
        if found is not None and id(result) in culprits:
            result = _with_iteration(result, found)
        elif owner in first and result.verdict is Verdict.WRONG:
            reason = f"{first[owner].tensor} inside {owner} is wrong before it"
            result = dataclasses.replace(result, judgement=Judgement(Verdict.INHERITS, reason))
        changed.append(result)
    return changed


def _precedes(one: TensorResult, other: TensorResult, inner: Mapping[str, InnerTensor]) -> bool:
    """Whether one tensor goes wrong earlier: in an earlier iteration of the loops both are in, else earlier in it."""
    a, b = inner[one.tensor], inner[other.tensor]
    shared = 0
    for step, another in zip(a.steps, b.steps, strict=False):
        if step != another:
            break
        shared += step.kind.iterates
    return (_onset(one)[:shared], a.order) < (_onset(other)[:shared], b.order)


def _onset(result: TensorResult) -> tuple[int, ...]:
    return result.attribution.onset if result.attribution is not None else ()


def _with_iteration(result: TensorResult, found: InnerTensor) -> TensorResult:
    """The result with the iteration in which it begins to be wrong in its reason."""
    if not _onset(result):
        return result
    words = found.words(_onset(result)).rpartition(", tensor ")[0]
    judgement = dataclasses.replace(result.judgement, reason=f"{result.judgement.reason}; first in {words}")
    return dataclasses.replace(result, judgement=judgement)
