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
    first: dict[str, tuple[int, TensorResult]] = {}
    for result in results:
        found = inner.get(result.tensor)
        if found is None or found.steps[0].kind is StepKind.CALL or result.verdict is not Verdict.WRONG:
            continue
        if found.owner not in first or found.order < first[found.owner][0]:
            first[found.owner] = (found.order, result)
    if not first:
        return list(results)
    culprits = {id(result) for _, result in first.values()}
    changed = []
    for result in results:
        found = inner.get(result.tensor)
        owner = found.owner if found is not None else result.node
        if owner in first and id(result) not in culprits and result.verdict is Verdict.WRONG:
            reason = f"{first[owner][1].tensor} inside {owner} is wrong before it"
            result = dataclasses.replace(result, judgement=Judgement(Verdict.INHERITS, reason))
        changed.append(result)
    return changed
