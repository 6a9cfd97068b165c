"""Which names of TensorRT a program uses: every call, property and enum member, written down while it runs.

``python -m tests.simulated_tensorrt.trace_uses MODEL OPTIONS...`` builds and runs a model with the runner ``tensorrt``
once for each text of options, in this process, and prints the names as JSON.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.simulated_tensorrt.pybind import EnumType


def trace(trt: Any) -> set[str]:
    """Write down from now on what is used of a module; returns the set that grows."""
    used: set[str] = set()
    EnumType.asked = used
    for owner, cls in vars(trt).items():
        if isinstance(cls, type) and "_generated" in vars(cls):
            for name, value in list(vars(cls).items()):
                if not name.startswith("_") or name == "__init__":
                    setattr(cls, name, _traced(f"{owner}.{name}", value, used))
    return used


def _traced(path: str, value: Any, used: set[str]) -> Any:
    if isinstance(value, property):
        get = _noting(path, value.fget, used) if value.fget else None
        return property(get, _noting(path, value.fset, used) if value.fset else None)
    if isinstance(value, staticmethod):
        return staticmethod(_noting(path, value.__func__, used))
    return _noting(path, value, used) if callable(value) and not isinstance(value, type) else value


def _noting(path: str, function: Any, used: set[str]) -> Any:
    @functools.wraps(function)
    def noted(*args: Any, **kwargs: Any) -> Any:
        used.add(path)
        return function(*args, **kwargs)

    return noted


def main(model: Path, options: list[str]) -> None:
    """Run the runner and print what it used."""
    import tensorrt

    used = trace(tensorrt)
    from surgeon_debug.runners.catalogue import make_engine

    graph = onnx.load(str(model)).graph
    feeds = {
        value.name: np.ones([d.dim_value for d in value.type.tensor_type.shape.dim], np.float32)
        for value in graph.input
    }
    inner = [name for node in graph.node for name in node.output]
    for text in options:
        with make_engine(f"tensorrt:{text}") as engine:
            engine.prepare(model, inner if "debug" in text else [value.name for value in graph.output])
            engine.run(feeds)
    sys.stdout.write("USED" + json.dumps(sorted(used)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
