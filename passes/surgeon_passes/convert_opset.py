"""Bring a model to another version of the ONNX operator set, or refuse."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx
import onnx_ir as ir

from surgeon_passes.adapter_parts import Rewrite, Site, trim
from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import BadOptionError, RefusalError
from surgeon_passes.infer_shapes import best_types
from surgeon_passes.infer_types import Facts, fact_of
from surgeon_passes.names import FreshNames
from surgeon_passes.operator_history import (
    OLDEST,
    given_inputs,
    judge,
    next_step,
    schema_of,
    type_obstacle,
    used_outputs,
)
from surgeon_passes.opset_adapters import adapter_for
from surgeon_passes.walk import Scope, scopes

_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class ConvertOpset(Pass):
    """Change the version of the default operator set that the model imports, up or down, from version 7 on.

    Nodes whose operator is defined alike in both versions stay as they are; for many others there is a rewrite that
    keeps the values (axes become inputs or attributes, Softmax is flattened around, Upsample becomes Resize). Bodies
    and local functions are converted with the model. The IR version rises if the operator set needs it, never else.

    Refuses the whole model if one node cannot be shown to mean the same: its operator got another meaning, does not
    exist in the version, does not take the type, or is in a function whose types or attributes depend on the call
    (inline functions first).
    """

    name: ClassVar[str] = "convert-opset"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p convert-opset:to=17 -o opset17.onnx"
    # Engines have other kernels for other versions of an operator, and these may round elsewhere.
    reassociates: ClassVar[bool] = True

    to: int = option(0, "the version of the default operator set to import")

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Convert everything, as one change.

        Raises:
            BadOptionError: There is no such version.
            RefusalError: A node cannot be shown to mean the same there; nothing is changed.
        """
        newest = onnx.defs.onnx_opset_version()
        if not OLDEST <= self.to <= newest:
            raise BadOptionError(
                f"convert-opset:to={self.to} is not possible", hint=f"give a version from {OLDEST} to {newest}"
            )
        every = list(scopes(model))
        imports = [_imports(scope) for scope in every if scope.owner is None]
        if all(_version(each) in (0, self.to) for each in imports):
            return
        if any(0 < _version(each) < OLDEST for each in imports):
            raise RefusalError(
                f"the model uses an operator set before version {OLDEST}, which cannot be converted safely"
            )
        plans, refusals = self._plan(model, every)
        if refusals:
            more = f" (and {len(refusals) - _SHOWN} more nodes)" if len(refusals) > _SHOWN else ""
            raise RefusalError(
                f"operator set {self.to}: {'; '.join(refusals[:_SHOWN])}{more}",
                hint="inline functions first (inline-functions)" if "function" in "".join(refusals) else "",
            )
        touched = [plan.node.name for plan in plans]
        edges = [plan.node.outputs[0].name for plan in plans if plan.node.outputs]
        if not log.permit("convert-opset", before=touched, after=touched, boundary=edges):
            return
        for plan in plans:
            plan.carry_out()
        for each in imports:
            _set_version(each, self.to)
        needed = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", self.to)], ignore_unknown=True)
        model.ir_version = max(model.ir_version, needed)

    def _plan(self, model: ir.Model, every: list[Scope]) -> tuple[list[_Plan], list[str]]:
        """What to do to which nodes, and what stands in the way."""
        facts: Facts | None = None
        names: FreshNames | None = None
        plans, refusals = [], []
        for scope in every:
            if scope.opset in (0, self.to):
                continue
            for node in scope.graph:
                if node.domain != "" or node.op_identifier() in model.functions:
                    continue
                if not _changes(node.op_type, scope.opset, self.to):
                    continue
                facts = _all_types(model, every) if facts is None else facts
                names = FreshNames(model) if names is None else names
                types = facts if scope.function is None else {}
                plan = _plan_node(Site(node, scope, types, names), self.to)
                if isinstance(plan, str):
                    refusals.append(f"{node.op_type} '{scope.label(node)}': {plan}")
                elif plan.rewrites or plan.drop:
                    plans.append(plan)
        return plans, refusals


def _all_types(model: ir.Model, every: list[Scope]) -> Facts:
    facts = best_types(model)
    for scope in every:
        for value in (*scope.graph.inputs, *scope.graph.initializers.values()):
            facts.setdefault(value, fact_of(value, facts))
    return facts


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What carries a node over."""

    node: ir.Node
    rewrites: tuple[Rewrite, ...]
    drop: tuple[str, ...]

    def carry_out(self) -> None:
        for rewrite in self.rewrites:
            rewrite()
        for name in self.drop:
            self.node.attributes.pop(name, None)


def _plan_node(site: Site, to: int) -> _Plan | str:
    """How a node gets to version ``to``, change by change, or why it does not."""
    node, version = site.node, site.scope.opset
    op_type, up = node.op_type, to > version
    before = schema_of(op_type, version)
    if before is None:
        return f"it is not an operator of version {version}"
    rewrites: list[Rewrite] = []
    drop: list[str] = []
    given: int | None = given_inputs(node)
    while version != to:
        step = next_step(op_type, version, up)
        version += 1 if up else -1
        if step is None:
            continue
        verdict = judge(node, step, given)
        drop += verdict.drop
        if not verdict.reason:
            continue
        adapter = None if verdict.final else adapter_for(step)
        rewrite = verdict.reason if adapter is None else adapter(site)
        if isinstance(rewrite, str):
            return rewrite
        rewrites.append(rewrite)
        # On the way up an adapter adds what is needed, on the way down it takes away what has no place.
        given = None if up or given is None else min(given, schema_of(op_type, version).max_input)
        op_type = _RENAMED.get((op_type, step.new), op_type)
    after = schema_of(op_type, to)
    reason = type_obstacle(node, before, after, site.types)
    if len(node.inputs) > after.max_input:
        rewrites.append(lambda: trim(node))
    if used_outputs(node) < len(node.outputs):
        rewrites.append(lambda: _forget_unused(node, after.max_output))
    return reason or _Plan(node, tuple(rewrites), tuple(drop))


def _forget_unused(node: ir.Node, most: int) -> None:
    """Drop outputs at the end that nobody reads and the operator lost, and what was said of the others' types."""
    used = used_outputs(node)
    if len(node.outputs) > most:
        node.resize_outputs(max(used, most))
    for value in node.outputs[used:]:
        value.type, value.shape = None, None


_RENAMED = {("Upsample", 10): "Resize", ("Scatter", 11): "ScatterElements"}
"""What an operator is called from a version on."""


def _changes(op_type: str, old: int, new: int) -> bool:
    """Whether an operator has another definition in the other version, or none."""
    here, there = schema_of(op_type, old), schema_of(op_type, new)
    return here is None or there is None or here.since_version != there.since_version


def _imports(scope: Scope) -> dict[str, int]:
    return scope.function.opset_imports if scope.function is not None else scope.graph.opset_imports


def _version(imports: dict[str, int]) -> int:
    return imports.get("", imports.get("ai.onnx", 0))


def _set_version(imports: dict[str, int], version: int) -> None:
    for domain in ("", "ai.onnx"):
        if domain in imports:
            imports[domain] = version
