"""Take out nodes that give back their input, and pairs of nodes that undo each other."""

from __future__ import annotations

import functools
from collections.abc import Callable

import onnx_ir as ir

from surgeon_passes.attributes import plain_attributes
from surgeon_passes.contract import ChangeLog
from surgeon_passes.effects import Effects
from surgeon_passes.inverse_pairs import Shortcut, shortcut, site_before, undone
from surgeon_passes.neutral import RULES, Site
from surgeon_passes.rewire import remove_node, replace
from surgeon_passes.takeover import Takeover
from surgeon_passes.trusted_shapes import TrustedShapes, trusted_shapes
from surgeon_passes.walk import Scope, scopes, title

_SECOND_OF_PAIR = frozenset({"Transpose", "Squeeze", "Unsqueeze", "Reshape", "Cast", "Neg", "Not"})


def remove_noops(model: ir.Model, log: ChangeLog) -> None:
    """Remove the nodes of ``model`` that do nothing, in the order of computation, one change each.

    What only they used is left for :func:`surgeon_passes.remove_unused.remove_unused`.
    """
    remover = _Remover(model, log)
    for scope in scopes(model):
        for node in scope.graph:
            if log.exhausted:
                return
            remover.look_at(scope, node)


class _Remover:
    def __init__(self, model: ir.Model, log: ChangeLog) -> None:
        self.log = log
        self.effects = Effects(model)
        self.takeover = Takeover(model)
        # Shapes cost an inference run, which many models need not pay. They stay right under what is done here: no
        # value is added, and none changes what it holds.
        self.shapes: Callable[[], TrustedShapes] = functools.cache(lambda: trusted_shapes(model))

    def look_at(self, scope: Scope, node: ir.Node) -> None:
        op = node.op_type
        if op not in RULES and op not in _SECOND_OF_PAIR:
            return
        if not node.inputs or not node.outputs or not self.effects.is_standard(node, op):
            return
        site = self._site(scope, node)
        if site is None or (op in _SECOND_OF_PAIR and self._pair(scope, site)):
            return
        site = self._site(scope, node)  # a merge has changed its input and attributes
        rule = RULES.get(op)
        source = rule(site) if rule is not None and site is not None else None
        if source is not None:
            self._take_out(scope, node, source, f"remove-{op.lower()}", [title(node)])

    def _site(self, scope: Scope, node: ir.Node) -> Site | None:
        attributes = plain_attributes(node)
        return None if attributes is None else Site(node, attributes, scope.opset, self.shapes)

    def _pair(self, scope: Scope, site: Site) -> bool:
        """Deal with ``site`` as the second of a pair; True if it is gone."""
        before = site_before(site)
        if before is None or not self.effects.is_standard(before.node, before.node.op_type):
            return False
        pair = [title(before.node), title(site.node)]
        source = undone(site, before)
        if source is not None:
            return self._take_out(scope, site.node, source, "remove-inverse-pair", pair)
        short = shortcut(site, before)
        if short is not None and self._only_reader(before.node):
            self._read_past(scope, site.node, short, pair)
        return False

    def _only_reader(self, node: ir.Node) -> bool:
        value = node.outputs[0]
        return len(value.uses()) == 1 and not value.is_graph_output() and value.name not in self.takeover.named

    def _take_out(self, scope: Scope, node: ir.Node, source: ir.Value, kind: str, before: list[str]) -> bool:
        """Let ``source`` stand for the first output of ``node``; True if that was done."""
        old = node.outputs[0]
        if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            return False
        obstacle = self.takeover.obstacle(old, source)
        if obstacle:
            self.log.decline(title(node), f"gives back its input, but {obstacle}", where=scope.path)
            return False
        kept = old.name if old.is_graph_output() else source.name
        if not self.log.permit(kind, before=before, after=before[:-1], boundary=[kept], where=scope.path):
            return False
        replace(old, source)
        remove_node(node)
        return True

    def _read_past(self, scope: Scope, node: ir.Node, short: Shortcut, pair: list[str]) -> None:
        if not self.takeover.is_visible(short.source, node):
            return
        boundary = [short.source.name, node.outputs[0].name]
        if not self.log.permit(short.kind, before=pair, after=pair[1:], boundary=boundary, where=scope.path):
            return
        node.replace_input_with(0, short.source)
        if short.attribute is not None:
            node.attributes[short.attribute.name] = short.attribute
