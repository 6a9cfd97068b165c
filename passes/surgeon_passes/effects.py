"""What an operator does besides computing its outputs, and whether it computes the same twice.

ONNX operators have no side effects. A custom operator may print, write or count, so nobody may drop or merge it. A
local function is as good as the nodes in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from surgeon_passes.order import nodes_inside

_STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml"})
# Operators of onnxruntime's own domain compute and nothing else, but some of them share buffers or draw numbers.
_SILENT = _STANDARD | {"com.microsoft"}
_DRAWS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)


class Effects:
    """Answers questions about the nodes of one model. Local functions are judged once, when it is made.

    Args:
        model: The model; it is only read.
    """

    def __init__(self, model: ir.Model) -> None:
        self._functions = model.functions
        self._loud = self._spread(lambda node: node.domain not in _SILENT)
        self._varying = self._spread(lambda node: node.domain not in _STANDARD or node.op_type in _DRAWS)

    def is_standard(self, node: ir.Node, *op_types: str) -> bool:
        """Whether ``node`` is one of the ONNX operators ``op_types``, and not a local function of that name."""
        return node.op_type in op_types and node.domain in ("", "ai.onnx") and not self._is_call(node)

    def may_drop(self, node: ir.Node) -> bool:
        """Whether nothing is lost with ``node``, and all in its bodies, if nobody reads its outputs."""
        return all(self._is_silent(inner) for inner in (node, *nodes_inside(node)))

    def may_merge(self, node: ir.Node) -> bool:
        """Whether ``node`` has no bodies and gives the same outputs whenever it gets the same inputs."""
        if any(
            attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.data.values()
        ):
            return False
        if self._is_call(node):
            return node.op_identifier() not in self._varying
        return node.domain in _STANDARD and node.op_type not in _DRAWS

    def _is_call(self, node: ir.Node) -> bool:
        return bool(self._functions) and node.op_identifier() in self._functions

    def _is_silent(self, node: ir.Node) -> bool:
        if self._is_call(node):
            return node.op_identifier() not in self._loud
        return node.domain in _SILENT

    def _spread(self, is_bad: Callable[[ir.Node], bool]) -> set[ir.OperatorIdentifier]:
        """The functions that hold a bad node, or call one that does."""
        callers: dict[ir.OperatorIdentifier, list[ir.OperatorIdentifier]] = {}
        bad: list[ir.OperatorIdentifier] = []
        for key, function in self._functions.items():
            for node in all_nodes(function):
                if self._is_call(node):
                    callers.setdefault(node.op_identifier(), []).append(key)
                elif is_bad(node):
                    bad.append(key)
        found: set[ir.OperatorIdentifier] = set()
        while bad:
            key = bad.pop()
            if key not in found:
                found.add(key)
                bad.extend(callers.get(key, ()))
        return found


def all_nodes(graph: ir.Graph | ir.Function) -> Iterator[ir.Node]:
    """Every node of a graph or function, and of the bodies in it."""
    for node in graph:
        yield node
        yield from nodes_inside(node)
