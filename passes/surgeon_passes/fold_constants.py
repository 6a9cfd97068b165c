"""The pass ``fold-constants``: compute ahead of time what does not depend on the inputs' data."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.fold_control_flow import fold_control_flow
from surgeon_passes.fold_shapes import fold_targets
from surgeon_passes.foldable import Foldable
from surgeon_passes.known_facts import KnownFacts
from surgeon_passes.lift_constants import lift_constants
from surgeon_passes.names import FreshNames
from surgeon_passes.plan_folds import FoldPlan
from surgeon_passes.run_folds import FoldRun
from surgeon_passes.write_folds import FoldWriter

_ROUNDS = 16
"""Each round can only go on where the last one opened something: a branch, a loop, an integer."""


@dataclasses.dataclass(frozen=True)
class FoldConstants(Pass):
    """Computes what does not depend on the data of the model's inputs, and keeps the result instead of the nodes.

    Touches, in the main graph, in bodies of If, Loop and Scan, and in local functions:

    - nodes whose inputs are all constant, evaluated together by onnxruntime without its optimisations (onnx's
      reference evaluator where it lacks a kernel); the result is an initializer under the name of the value it
      replaces, a Constant node where it is a graph output or in a function;
    - Constant nodes outside functions, which become initializers;
    - shape arithmetic whose result is certain although some sizes are not (fold_shapes): Shape, Size, Gather, Slice,
      Concat, arithmetic and comparisons on integers, with sizes that cancel; and targets of Reshape, Expand and Slice
      that a constant with 0, -1 or 1 can say;
    - If with a constant condition, which becomes the branch taken (fold_if);
    - Loop with a constant number of trips up to loop_limit and a condition that stays true, which is written out.

    Leaves alone: random operators and Dropout that may be in training mode; operators of other domains, and calls of
    local functions; QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear unless fold_qdq; initializers that are
    also inputs, because callers may override them, unless fold_overridable; results larger than what they replace by
    more than size_limit; sequences, optionals and maps as results; nodes that use an attribute of the function they
    are in; nodes that cannot be evaluated.

    Results are exact: every operator is rounded to its own type. An engine may still round differently where a weight
    that was computed is a constant now; onnxruntime packs constant weights and then sums in another order.

    Relies on two things about sizes: inputs that call a size by one name agree when the model runs, and a size is not
    0 where Reshape is asked to produce it (0 would mean "copy"). Shapes declared for values other than the model's
    inputs are not believed. A size N may be 0 elsewhere; (N*12)/N still becomes 12, because dividing by 0 fails.
    """

    name: ClassVar[str] = "fold-constants"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p fold-constants:size_limit=64MB -o folded.onnx"

    size_limit: int = option(
        2**20, "A result may be this much larger than the constants that it makes superfluous.", unit="bytes"
    )
    fold_qdq: bool = option(False, "Fold quantisation and dequantisation of constants too.")
    fold_overridable: bool = option(False, "Take initializers that are also inputs as constants.")
    fold_shapes: bool = option(True, "Fold what follows from sizes alone.")
    fold_if: bool = option(True, "Replace an If whose condition is constant by the branch taken.")
    loop_limit: int = option(16, "Write out loops of at most this many constant trips; 0 for never.")
    exclude: tuple[str, ...] = option((), "Names of nodes to leave alone; patterns with * and ? too.")

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Fold in rounds, because a branch taken or a loop written out shows new constants."""
        names = FreshNames(model)
        refused: dict[ir.Node, str] = {}
        for _ in range(_ROUNDS):
            if log.exhausted or not self._round(model, log, names, refused):
                return

    def _round(self, model: ir.Model, log: ChangeLog, names: FreshNames, refused: dict[ir.Node, str]) -> bool:
        """Fold everything that can be seen now; whether there may be more to see."""
        lift_constants(model, log, self.exclude)
        facts = KnownFacts(model, overridable=self.fold_overridable)
        foldable = Foldable(facts, self.fold_qdq, self.exclude)
        writer = FoldWriter(model, log, names)
        try:
            if self.fold_shapes:
                fold_targets(model, facts, writer, foldable, log)
            plan = FoldPlan(
                model,
                facts,
                writer,
                foldable,
                size_limit=self.size_limit,
                fold_shapes=self.fold_shapes,
                refused=refused,
                overridable=self.fold_overridable,
                log=log,
            )
            run = FoldRun(plan, facts, writer, log)
            run.run()
        finally:
            writer.close()
        refused.update(run.refused)
        opened = fold_control_flow(model, facts, foldable, names, log, fold_if=self.fold_if, loop_limit=self.loop_limit)
        return opened or run.learned or bool(run.refused)
