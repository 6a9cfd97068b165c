"""The notes that onnxruntime takes of a session: how long each node took."""

from __future__ import annotations

import json
from pathlib import Path

from surgeon_passes.errors import EngineError

_ENDING = "_kernel_time"


def node_seconds(path: Path, runs: int) -> dict[str, float]:
    """Mean seconds by node, in the order in which they first ran.

    Args:
        path: What ``end_profiling`` names, a JSON list of events; durations are in microseconds.
        runs: How often the session ran.

    Raises:
        EngineError: The file is not of that form.
    """
    found: dict[str, float] = {}
    try:
        for event in json.loads(path.read_text(encoding="utf-8")):
            name = str(event.get("name", ""))
            if event.get("cat") == "Node" and name.endswith(_ENDING):
                node = name.removesuffix(_ENDING)
                found[node] = found.get(node, 0.0) + float(event["dur"]) / 1e6
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise EngineError(f"onnxruntime's notes on a session cannot be read: {error!r}") from error
    return {node: seconds / runs for node, seconds in found.items()}
