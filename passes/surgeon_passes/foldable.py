"""Which nodes may be evaluated ahead of time: deterministic ones of ONNX's own domains."""

from __future__ import annotations

import dataclasses
import fnmatch

import onnx_ir as ir

from surgeon_passes.known_facts import KnownFacts
from surgeon_passes.reads import holds_graphs, inner_nodes
from surgeon_passes.walk import Scope, is_onnx_op

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
"""Domains whose operators depend on nothing but their inputs and have no effect but their outputs."""

_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")

_MAX_TRIPS = 10_000


def is_random(node: ir.Node) -> bool:
    """Whether a node draws random numbers; of Dropout, whether it might."""
    return is_onnx_op(node, *_RANDOM)


def has_effect_or_unknown(node: ir.Node) -> bool:
    """Whether a node may do more than compute its outputs from its inputs, in a body it holds included."""
    nodes = [node, *inner_nodes(node)] if holds_graphs(node) else [node]
    return any(n.domain not in DOMAINS or is_random(n) for n in nodes)


def is_excluded(node: ir.Node, patterns: tuple[str, ...]) -> bool:
    """Whether the name of a node matches one of some patterns."""
    return bool(patterns) and any(fnmatch.fnmatchcase(node.name or "", p) for p in patterns)


@dataclasses.dataclass(frozen=True)
class Foldable:
    """Answers for nodes whose inputs are constant."""

    facts: KnownFacts
    """What is known of values."""
    fold_qdq: bool
    """Whether quantisation may be folded."""
    exclude: tuple[str, ...]
    """Patterns of names of nodes to leave alone."""

    def excluded(self, node: ir.Node) -> bool:
        """Whether the user wants a node left alone."""
        return is_excluded(node, self.exclude)

    def objection(self, node: ir.Node, scope: Scope) -> str | None:
        """Why a node must not be evaluated, or None if it may."""
        own = self._own_objection(node, scope)
        if own is not None or not holds_graphs(node):
            return own
        for inner in inner_nodes(node):
            found = self._own_objection(inner, scope)
            if found is not None:
                return f"in its body: {found}"
        return None

    def _own_objection(self, node: ir.Node, scope: Scope) -> str | None:
        if self.excluded(node):
            return "excluded by name"
        if node.domain not in DOMAINS:
            return f"operator {node.domain}::{node.op_type} is not ONNX's own"
        if is_random(node) or (is_onnx_op(node, "Dropout") and self._drops(node, scope)):
            return f"{node.op_type} draws random numbers"
        if not self.fold_qdq and is_onnx_op(node, *_QUANTISED):
            return "quantisation is kept unless fold_qdq is set"
        if any(attr.is_ref() for attr in node.attributes.data.values()):
            return "an attribute is given by the caller of the function"
        if is_onnx_op(node, "Loop") and not self._ends(node):
            return "the loop may run for long"
        version = scope.opset if node.domain != "ai.onnx.ml" else scope.opset_imports.get(node.domain, 1)
        if not self.facts.has_schema(node, version):
            return f"onnx does not define {node.op_type} in version {version}"
        return None

    def _drops(self, node: ir.Node, scope: Scope) -> bool:
        """Whether Dropout may be in training mode."""
        if scope.opset < 7:
            attr = node.attributes.data.get("is_test")
            return attr is None or attr.is_ref() or not attr.value
        if len(node.inputs) < 3 or node.inputs[2] is None:
            return False
        return self.facts[node.inputs[2]].known_ints != [0]

    def _ends(self, node: ir.Node) -> bool:
        trips = None if not node.inputs or node.inputs[0] is None else self.facts[node.inputs[0]].known_ints
        return trips is not None and len(trips) == 1 and trips[0] <= _MAX_TRIPS
