"""Fresh names, unique over the whole model: engines and people find things by name, and scopes may not shadow."""

from __future__ import annotations

import onnx_ir as ir

from surgeon_passes.walk import scopes


class FreshNames:
    """Hands out names that occur nowhere in a model; collected once, in time linear in the model.

    Args:
        model: The model whose node and value names are taken.
    """

    def __init__(self, model: ir.Model) -> None:
        self._values: set[str] = set()
        self._nodes: set[str] = set()
        self._next: dict[str, int] = {}
        for scope in scopes(model):
            graph = scope.graph
            self._values.update(v.name for v in graph.inputs if v.name)
            self._values.update(graph.initializers)
            for node in graph:
                if node.name:
                    self._nodes.add(node.name)
                self._values.update(v.name for v in node.outputs if v.name)
                # Dangling inputs have no producer to declare them, yet their names are taken.
                self._values.update(v.name for v in node.inputs if v is not None and v.name)

    def value(self, base: str) -> str:
        """A value name that is ``base``, or ``base_1``, ``base_2`` and so on if that is taken."""
        return self._fresh(base or "value", self._values)

    def node(self, base: str) -> str:
        """A node name that is ``base``, or ``base_1``, ``base_2`` and so on if that is taken."""
        return self._fresh(base or "node", self._nodes)

    def _fresh(self, base: str, taken: set[str]) -> str:
        name, count = base, self._next.get(base, 0)
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        self._next[base] = count
        taken.add(name)
        return name
