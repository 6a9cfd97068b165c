"""Let nodes that compute the same be one: same operator, attributes and inputs, in one graph or an enclosing one."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Hashable, Iterator

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog
from surgeon_passes.effects import Effects
from surgeon_passes.rewire import remove_node, replace
from surgeon_passes.takeover import Takeover
from surgeon_passes.tensor_content import ContentKeys
from surgeon_passes.walk import Scope, function_scope, is_control_flow, main_scope, title

# Swapping two operands of these changes no bit. Max and Min are missing: with a NaN or two zeros the order can show.
_COMMUTATIVE = ("Add", "Mul", "And", "Or", "Xor", "Equal", "BitwiseAnd", "BitwiseOr", "BitwiseXor")


def dedupe_nodes(model: ir.Model, log: ChangeLog, keys: ContentKeys, takeover: Takeover) -> None:
    """Merge equal nodes, one change for each that goes. The one that is computed first stays.

    Args:
        model: The model, changed in place.
        log: Asked before each change.
        keys: Knows which tensors are equal.
        takeover: Knows which values may stand for which.

    Raises:
        FileError: A file that holds weights cannot be read.
    """
    merger = _Merger(Effects(model), log, keys, takeover)
    merger.walk(main_scope(model))
    for function in model.functions.values():
        merger.walk(function_scope(function))


@dataclasses.dataclass
class _Frame:
    scope: Scope
    nodes: Iterator[ir.Node]
    seen: dict[Hashable, ir.Node]
    added: list[Hashable] = dataclasses.field(default_factory=list)
    bodies: list[Scope] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Merger:
    effects: Effects
    log: ChangeLog
    keys: ContentKeys
    takeover: Takeover

    def walk(self, root: Scope) -> None:
        """Visit a graph and its bodies in the order of computation, so that what was seen can be read from here."""
        frames = [_Frame(root, iter(root.graph), {})]
        while frames and not self.log.exhausted:
            frame = frames[-1]
            if frame.bodies:
                inner = frame.bodies.pop()
                sees = inner.owner is not None and is_control_flow(inner.owner)
                frames.append(_Frame(inner, iter(inner.graph), frame.seen if sees else {}))
                continue
            for node in frame.nodes:
                self._visit(frame, node)
                if node.graph is not None:
                    frame.bodies = frame.scope.bodies(node)[::-1]
                if frame.bodies or self.log.exhausted:
                    break
            else:
                for key in frame.added:
                    del frame.seen[key]
                frames.pop()

    def _visit(self, frame: _Frame, node: ir.Node) -> None:
        key = self._key(node)
        if key is None:
            return
        first = frame.seen.get(key)
        if first is None:
            frame.seen[key] = node
            frame.added.append(key)
        else:
            self._merge(frame.scope, node, first)

    def _key(self, node: ir.Node) -> Hashable | None:
        """What two nodes that compute the same have in common; None if this one must not be merged."""
        if not node.outputs or node.device_configurations or not self.effects.may_merge(node):
            return None
        attributes = []
        for name in sorted(node.attributes.data):
            value = self._attribute_key(node.attributes.data[name])
            if value is None:
                return None
            attributes.append((name, value))
        inputs: list[int | None] = [None if value is None else id(value) for value in node.inputs]
        if len(inputs) == 2 and self.effects.is_standard(node, *_COMMUTATIVE):
            inputs.sort(key=lambda number: number or 0)
        made = tuple(bool(value.name) for value in node.outputs)
        return node.domain, node.op_type, node.overload, tuple(attributes), tuple(inputs), made

    def _attribute_key(self, attr: ir.Attr) -> Hashable | None:
        kind = attr.type
        if attr.is_ref():
            return "reference", kind, attr.ref_attr_name
        if kind == ir.AttributeType.FLOAT:
            return kind, struct.pack("<d", attr.as_float())
        if kind == ir.AttributeType.FLOATS:
            numbers = attr.as_floats()
            return kind, struct.pack(f"<{len(numbers)}d", *numbers)
        if kind in (ir.AttributeType.INT, ir.AttributeType.STRING):
            return kind, attr.value
        if kind in (ir.AttributeType.INTS, ir.AttributeType.STRINGS):
            return kind, tuple(attr.value)
        if kind == ir.AttributeType.TENSOR:
            return kind, self.keys.key(attr.as_tensor())
        if kind == ir.AttributeType.TENSORS:
            return kind, tuple(self.keys.key(tensor) for tensor in attr.as_tensors())
        return None

    def _merge(self, scope: Scope, node: ir.Node, first: ir.Node) -> None:
        pairs = [
            (old, new)
            for old, new in zip(node.outputs, first.outputs, strict=True)
            if old.uses() or old.is_graph_output() or old.name in self.takeover.named
        ]
        for old, new in pairs:
            obstacle = self._obstacle(old, new)
            if obstacle:
                self.log.decline(title(node), f"computes what {title(first)} does, but {obstacle}", where=scope.path)
                return
        boundary = [old.name if old.is_graph_output() else new.name for old, new in pairs]
        before = [title(first), title(node)]
        if not self.log.permit("merge-node", before=before, after=before[:1], boundary=boundary, where=scope.path):
            return
        for old, new in pairs:
            kind = new.type
            replace(old, new)
            if new.type is None:
                new.type = kind or old.type
        remove_node(node)

    def _obstacle(self, old: ir.Value, new: ir.Value) -> str:
        if old.is_graph_output() and (new.is_graph_output() or new.graph is not old.graph):
            return "each is an output of its own graph"
        return self.takeover.obstacle(old, new)
