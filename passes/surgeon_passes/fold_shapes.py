"""Targets of Reshape, Expand and Slice that are constant in effect, although some of their elements are not.

Reshape copies a size where its target says 0, and works one out where it says -1; Expand keeps a size where its target
says 1; Slice goes to the end of an axis where its end is far away. Where a symbolic element of a target is proven to
be just that, the whole target becomes a constant, and the arithmetic that computed it goes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from surgeon_passes.contract import ChangeLog
from surgeon_passes.foldable import Foldable
from surgeon_passes.known_facts import KnownFacts
from surgeon_passes.layout_rules import reshaped
from surgeon_passes.size_facts import Dims, Operation
from surgeon_passes.symbolic_ints import Algebra, Form, Int
from surgeon_passes.walk import Scope, is_onnx_op, scopes
from surgeon_passes.window_rules import slice_axes
from surgeon_passes.write_folds import FoldWriter

_TO_THE_END = 2**63 - 1

_TARGETS = {"Reshape": 1, "Expand": 1, "Slice": 2}
"""The input that holds the target, by operator."""


def fold_targets(model: ir.Model, facts: KnownFacts, writer: FoldWriter, foldable: Foldable, log: ChangeLog) -> None:
    """Give a constant target to each node where one is proven to do the same, as changes of kind ``fold-target``."""
    for scope in scopes(model):
        for node in scope.graph:
            if log.exhausted:
                return
            if is_onnx_op(node, *_TARGETS) and not writer.is_dead(node) and not foldable.excluded(node):
                _fold_target(scope, node, facts, writer)


def _fold_target(scope: Scope, node: ir.Node, facts: KnownFacts, writer: FoldWriter) -> None:
    i = _TARGETS[node.op_type]
    value = node.inputs[i] if i < len(node.inputs) else None
    if value is None or node.inputs[0] is None or any(attr.is_ref() for attr in node.attributes.data.values()):
        return
    fact = facts[value]
    if fact.ints is None or fact.ints.ndim != 1 or fact.known_ints is not None:
        return
    op = Operation(node, [None if v is None else facts[v] for v in node.inputs], facts.algebra, scope.opset)
    target = _constant_target(op, fact.ints.tolist())
    if target is not None and fact.dtype is not None:
        tensor = ir.Tensor(np.array(target, dtype=fact.dtype.numpy()))
        writer.retarget(scope, node, i, tensor, "fold-target")


def _constant_target(op: Operation, target: list[Int]) -> list[int] | None:
    dims = op.dims(0)
    if dims is None:
        return None
    if op.node.op_type == "Reshape":
        return None if op.int_attr("allowzero", 0) else reshape_target(op.algebra, dims, target)
    if op.node.op_type == "Expand":
        return expand_target(dims, target)
    return _slice_ends(op, dims, target)


def reshape_target(algebra: Algebra, dims: Dims, target: list[Int]) -> list[int] | None:
    """A constant target that gives the same shape in every run, or None.

    A size that may be 0 when the model runs can be copied, but not be next to a -1: what is left over is then
    undefined.

    Args:
        algebra: Proves that sizes are equal.
        dims: The sizes of the data.
        target: The elements of the target, at least one of them symbolic.
    """
    found: list[int | None] = []
    for i, d in enumerate(target):
        if isinstance(d, int):
            found.append(d)
        else:
            found.append(0 if i < len(dims) and dims[i] == d else None)
    if None not in found:
        return [d for d in found if d is not None]
    hole = found.index(None)
    rest = [d for i, d in enumerate(target) if i != hole]
    if found.count(None) > 1 or not all(_is_positive(algebra, d) for d in rest):
        return None
    if reshaped(algebra, dims, [-1 if i == hole else d for i, d in enumerate(target)], False)[hole] != target[hole]:
        return None
    return [-1 if d is None else d for d in found]


def _is_positive(algebra: Algebra, d: Int) -> bool:
    low = algebra.low(d)
    return low is not None and low > 0


def expand_target(dims: Dims, target: list[Int]) -> list[int] | None:
    """A constant target for Expand that gives the same shape in every run, or None."""
    found: list[int] = []
    for i, d in enumerate(target, len(dims) - len(target)):
        if isinstance(d, Form):
            if i < 0 or dims[i] != d:
                return None
            d = 1
        found.append(d)
    return found


def _slice_ends(op: Operation, dims: Dims, ends: list[Int]) -> list[int] | None:
    where = slice_axes(op, len(dims), len(ends))
    if where is None or op.opset < 10:
        return None
    found: list[int] = []
    for axis, step, end in zip(*where, ends, strict=True):
        if isinstance(end, Form):
            if step <= 0 or dims[axis] != end:
                return None
            end = _TO_THE_END if op.fact(2).dtype == ir.DataType.INT64 else 2**31 - 1
        found.append(end)
    return found
