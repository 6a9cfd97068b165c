"""If with a constant condition, Loop with a constant number of trips: what they do is written out in their place."""

from __future__ import annotations

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog
from surgeon_passes.foldable import Foldable
from surgeon_passes.inline_branch import NameCounts, inline_branch
from surgeon_passes.known_facts import KnownFacts
from surgeon_passes.names import FreshNames
from surgeon_passes.reads import names_read_unseen
from surgeon_passes.unroll_loop import unroll_loop
from surgeon_passes.walk import is_onnx_op, scopes


def fold_control_flow(
    model: ir.Model,
    facts: KnownFacts,
    foldable: Foldable,
    names: FreshNames,
    log: ChangeLog,
    *,
    fold_if: bool,
    loop_limit: int,
) -> bool:
    """Inline branches, the outer before the inner, and write out loops, the inner before the outer.

    Args:
        model: The model.
        facts: What is known of values; also of constants made after it was computed.
        foldable: Knows which nodes are excluded.
        names: Gives names to copies.
        log: Asked before each change.
        fold_if: Whether to inline branches.
        loop_limit: The most trips of a loop to write out; 0 for no loop.

    Returns:
        Whether anything was changed.
    """
    before = len(log.changes)
    if fold_if:
        _inline_branches(model, facts, foldable, names, log)
    if loop_limit > 0:
        pinned = names_read_unseen(model)
        # Inner loops first: what they become counts when the outer one is weighed.
        for scope in reversed(list(scopes(model))):
            for node in list(scope.graph):
                if is_onnx_op(node, "Loop") and _is_open(node, "body") and not foldable.excluded(node):
                    unroll_loop(scope, node, facts, names, log, limit=loop_limit, pinned=pinned)
    return len(log.changes) > before


def _inline_branches(model: ir.Model, facts: KnownFacts, foldable: Foldable, names: FreshNames, log: ChangeLog) -> None:
    counts: NameCounts | None = None
    for scope in scopes(model):
        # A branch comes to stand behind its If, so that this loop comes to what it holds.
        for node in scope.graph:
            branch = _taken(node, facts)
            if branch is None or foldable.excluded(node):
                continue
            counts = counts or NameCounts(model, names)
            inline_branch(scope, node, branch, counts, log)


def _taken(node: ir.Node, facts: KnownFacts) -> ir.Graph | None:
    """The branch an If certainly takes."""
    if not is_onnx_op(node, "If") or not node.inputs or node.inputs[0] is None:
        return None
    condition = facts[node.inputs[0]].known_ints
    if condition is None or len(condition) != 1 or not _is_open(node, "then_branch", "else_branch"):
        return None
    return node.attributes["then_branch" if condition[0] else "else_branch"].as_graph()


def _is_open(node: ir.Node, *attributes: str) -> bool:
    """Whether bodies are there, and not given by the caller of a function."""
    return all(name in node.attributes and not node.attributes[name].is_ref() for name in attributes)
