"""Carry out a plan: evaluate in batches that fit in memory, and write each batch's results before the next."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import onnx_ir as ir

from surgeon_passes.constants import nbytes_of
from surgeon_passes.contract import ChangeLog
from surgeon_passes.direct_values import direct_value
from surgeon_passes.evaluate import evaluate
from surgeon_passes.known_facts import KnownFacts
from surgeon_passes.plan_folds import MEMORY, Fold, FoldPlan, size_text
from surgeon_passes.reads import values_read
from surgeon_passes.size_facts import MAX_ELEMENTS, is_counted
from surgeon_passes.write_folds import FoldWriter

_DIRECT = 2**20
"""Bytes from which on data is laid out anew without an engine, which would copy it."""


class FoldRun:
    """One pass over a plan.

    Args:
        plan: What to fold.
        facts: What is known of values.
        writer: Makes the changes.
        log: Says when to stop.
    """

    def __init__(self, plan: FoldPlan, facts: KnownFacts, writer: FoldWriter, log: ChangeLog) -> None:
        self._plan = plan
        self._facts = facts
        self._writer = writer
        self._log = log
        self._values: dict[ir.Value, ir.TensorProtocol] = {}
        self._waiting: dict[Fold, None] = {}
        self._reads: dict[Fold, list[ir.Value]] = {}
        self.refused: dict[ir.Node, str] = {}
        """Nodes that turned out not to be foldable, and why."""
        self.learned = False
        """Whether small integers were found that inference did not know: sizes may follow from them."""

    def run(self) -> None:
        """Evaluate and write everything in the plan, as far as the log permits."""
        order = self._needed()
        readers = collections.Counter(value for fold in order for value in self._reads[fold])
        batch: list[Fold] = []
        size = 0
        for fold in order:
            if self._log.exhausted:
                return
            cost = self._cost(fold)
            apart = batch and (size + cost > 2 * MEMORY or self._opsets(fold) != self._opsets(batch[0]))
            direct = cost > _DIRECT and self._plan.is_direct(fold.node)
            if apart or direct:
                self._finish(batch, readers)
                batch, size = [], 0
            if direct:
                self._finish([fold], readers, direct=True)
                continue
            batch.append(fold)
            size += cost
        self._finish(batch, readers)
        self._write([fold for fold in self._plan.folds if fold.known and fold.results])
        self._write(list(self._waiting))

    def _needed(self) -> list[Fold]:
        """The folds that must be evaluated, in order: those with results, and what they read."""
        needed: list[Fold] = []
        required: set[ir.Value] = set()
        for fold in reversed(self._plan.folds):
            if fold.known or not (fold.results or any(value in required for value in fold.node.outputs)):
                continue
            self._reads[fold] = values_read(fold.node)
            required.update(self._reads[fold])
            needed.append(fold)
        return needed[::-1]

    def _cost(self, fold: Fold) -> int:
        values = {*self._reads[fold], *fold.node.outputs}
        return sum(self._facts[value].nbytes or 0 for value in values)

    def _opsets(self, fold: Fold) -> tuple[int, int]:
        return fold.scope.opset, fold.scope.opset_imports.get("ai.onnx.ml", 0)

    def _finish(self, batch: list[Fold], readers: collections.Counter[ir.Value], *, direct: bool = False) -> None:
        """Evaluate some folds and write their results."""
        if not batch or self._log.exhausted:
            return
        for fold in batch:
            readers.subtract(self._reads[fold])
        results = {value for fold in batch for value in fold.results}
        wanted = [v for fold in batch for v in fold.node.outputs if v in results or readers[v] > 0]
        if direct:
            self._lay_out(batch[0])
        else:
            self._evaluate(batch, wanted)
        self._learn(wanted)
        self._write(batch)
        for fold in batch:
            for value in (*self._reads[fold], *fold.node.outputs):
                if readers[value] <= 0 and fold not in self._waiting:
                    self._values.pop(value, None)

    def _lay_out(self, fold: Fold) -> None:
        node, made = fold.node, self._facts[fold.node.outputs[0]]
        source = node.inputs[0]
        tensor = None if source is None else self._constant(source)
        if tensor is None or made.static is None or made.dtype is None:
            return
        try:
            self._values[node.outputs[0]] = direct_value(node, tensor, made.static, made.dtype)
        except (OSError, ValueError, TypeError) as error:
            self.refused[node] = f"cannot be evaluated: {error}"

    def _evaluate(self, batch: list[Fold], wanted: list[ir.Value]) -> None:
        nodes = [fold.node for fold in batch]
        own = {value for node in nodes for value in node.outputs}
        constants = {}
        for value in dict.fromkeys(v for node in nodes for v in values_read(node) if v not in own):
            tensor = self._constant(value)
            if tensor is not None:
                constants[value] = tensor
        ready = [node for node in nodes if all(v in own or v in constants for v in values_read(node))]
        imports = batch[0].scope.opset_imports
        found = evaluate(ready, constants, wanted, imports, lambda value: self._facts[value].dtype)
        self._values.update((value, found.values[value]) for value in wanted if value in found.values)
        for node, reason in found.failures.items():
            self.refused[node] = f"cannot be evaluated: {reason}"

    def _constant(self, value: ir.Value) -> ir.TensorProtocol | None:
        return self._values.get(value) or self._plan.tensor(value)

    def _learn(self, wanted: Iterable[ir.Value]) -> None:
        for value in wanted:
            tensor = self._values.get(value)
            if tensor is None or not is_counted(tensor.dtype) or tensor.size > MAX_ELEMENTS:
                continue
            if self._facts[value].known_ints is None:
                self.learned = True

    def _write(self, folds: list[Fold]) -> None:
        """Write results, the last first, so that whatever reads a node is gone before the node."""
        for fold in reversed(folds):
            if fold.results and not self._write_one(fold):
                return

    def _write_one(self, fold: Fold) -> bool:
        """Write one result; False if the log permits no more."""
        found = {value: self._values.get(value) for value in fold.results}
        if fold.known:
            found = {value: self._plan.tensor(value) for value in fold.results}
        tensors = {value: tensor for value, tensor in found.items() if tensor is not None}
        if len(tensors) < len(found) or self._writer.is_dead(fold.node):
            return True
        size = sum(nbytes_of(tensor) for tensor in tensors.values())
        if size > fold.room:
            self.refused[fold.node] = f"result of {size_text(size)} exceeds size_limit"
            return True
        if not self._writer.can_remove(fold.node, tensors):
            self._waiting[fold] = None
            return True
        kind = "fold" if fold.constant else "fold-shape"
        return self._writer.fold(fold.scope, fold.node, tensors, kind)
