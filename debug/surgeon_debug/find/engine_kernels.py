"""Whether an engine runs the kernels that its timing cache names."""

from __future__ import annotations

from collections.abc import Mapping

from surgeon_debug.find.engine_builds import BuildRecord, EngineLayer
from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics


def kernels_disagree(record: BuildRecord, wanted: Mapping[str, KeyTactics]) -> list[str]:
    """Keys whose layer runs another kernel of the same table than the one that the cache names.

    What the engine does not tell, and names that stand in no table, prove nothing.

    Args:
        record: The build.
        wanted: What is wanted of each key.
    """
    telling = [layer for layer in record.layers if layer.nodes and (layer.kernel or layer.hash)]
    holders: dict[str, list[int]] = {}
    for index, layer in enumerate(telling):
        for node in layer.nodes:
            holders.setdefault(node, []).append(index)
    wrong = []
    for key, tactics in wanted.items():
        places = [set(holders.get(node, ())) for node in tactics.nodes]
        running = [telling[index] for index in set.intersection(*places)] if places else []
        if running and all(_another(layer, tactics) for layer in running):
            wrong.append(key)
    return wrong


def _another(layer: EngineLayer, tactics: KeyTactics) -> bool:
    """Whether a layer is seen to run another tactic of the same table."""
    if layer.hash:
        return layer.hash != tactics.chosen and any(row.hash == layer.hash for row in tactics.rows)
    right = tactics.kernel(tactics.chosen)
    return bool(right) and layer.kernel != right and any(row.kernel == layer.kernel for row in tactics.rows)
