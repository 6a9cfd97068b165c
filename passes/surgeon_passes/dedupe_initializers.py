"""Let initializers of equal content be one, across the graphs that see each other."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog
from surgeon_passes.takeover import Takeover, quantization_of
from surgeon_passes.tensor_content import ContentKeys
from surgeon_passes.walk import Scope, is_control_flow, scopes


def dedupe_initializers(model: ir.Model, log: ChangeLog, keys: ContentKeys, takeover: Takeover) -> None:
    """Merge equal initializers, one change for each that goes. The outermost, then the first, stays.

    Args:
        model: The model, changed in place.
        log: Asked before each change.
        keys: Knows which tensors are equal.
        takeover: Knows which values may stand for which.

    Raises:
        FileError: A file that holds weights cannot be read.
    """
    outer: dict[ir.Graph, ir.Graph] = {}
    kept: dict[Hashable, dict[ir.Graph, ir.Value]] = {}
    for scope in scopes(model):
        if scope.owner is not None and scope.owner.graph is not None and is_control_flow(scope.owner):
            outer[scope.graph] = scope.owner.graph
        for value in list(scope.graph.initializers.values()):
            if value.const_value is None or value.is_graph_input():
                continue
            same = kept.setdefault(keys.key(value.const_value), {})
            first = next((same[graph] for graph in _visible(scope.graph, outer) if graph in same), None)
            if first is None or not _merge(scope, value, first, log, takeover):
                same.setdefault(scope.graph, value)
            if log.exhausted:
                return


def _visible(graph: ir.Graph, outer: dict[ir.Graph, ir.Graph]) -> Iterator[ir.Graph]:
    """A graph and those around it, the innermost first."""
    current: ir.Graph | None = graph
    while current is not None:
        yield current
        current = outer.get(current)


def _merge(scope: Scope, value: ir.Value, first: ir.Value, log: ChangeLog, takeover: Takeover) -> bool:
    name = value.name or ""
    annotated = quantization_of(value) != quantization_of(first)
    obstacle = "their quantization annotations differ" if annotated else ""
    if value.is_graph_output():
        obstacle = "it is an output of its graph"
    obstacle = obstacle or takeover.obstacle(value, first)
    if obstacle:
        log.decline(name, f"equals '{first.name}', but {obstacle}", where=scope.path)
        return False
    if not log.permit(
        "merge-initializer", before=[first.name, name], after=[first.name], boundary=[first.name], where=scope.path
    ):
        return False
    value.replace_all_uses_with(first)
    del scope.graph.initializers[name]
    return True
