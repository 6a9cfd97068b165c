"""Count a model's nodes, and compare its outputs with stored ones; prints one JSON document.

A process of its own, started by the benchmarks, so that they stay small themselves.

``python examine_model.py MODEL [--feeds FEEDS.npz] [--outputs OUT.npz] [--against OUT.npz]``
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort


def graphs_of(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """A graph and every graph in it."""
    found, stack = [], [graph]
    while stack:
        found.append(stack.pop())
        for node in found[-1].node:
            for attribute in node.attribute:
                stack += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    return found


def make_feeds(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Seeded inputs: images for four dimensions, ids, masks of ones; 2 for a batch, 17 for another symbol."""
    rng = np.random.default_rng(seed)
    stored = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for info in model.graph.input:
        if info.name in stored:
            continue
        tensor = info.type.tensor_type
        sizes = {"batch": 2}
        shape = [d.dim_value or sizes.get(d.dim_param, 17) for d in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if "mask" in info.name:
            feeds[info.name] = np.ones(shape, dtype)
        elif np.dtype(dtype).kind in "iu":
            feeds[info.name] = rng.integers(0, 1000, shape).astype(dtype)
        else:
            feeds[info.name] = rng.standard_normal(shape).astype(dtype)
    return feeds


def run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs under onnxruntime, by name."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = {i.name for i in session.get_inputs()}
    return dict(zip(names, session.run(names, {k: v for k, v in feeds.items() if k in wanted}), strict=True))


def difference(expected: dict[str, np.ndarray], seen: dict[str, np.ndarray]) -> str:
    """The largest error over the largest value, or what is wrong in words."""
    if list(expected) != list(seen):
        return "other outputs"
    worst = 0.0
    for name, value in expected.items():
        if value.shape != seen[name].shape or value.dtype != seen[name].dtype:
            return "other shapes"
        error = np.abs(value.astype(np.float64) - seen[name]).max(initial=0)
        worst = max(worst, float(error / max(np.abs(value).max(initial=0), 1e-30)))
    return "equal" if worst == 0 else f"{worst:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--outputs", type=Path, help="run it, and store its outputs here")
    parser.add_argument("--against", type=Path, help="run it, and compare its outputs with those stored here")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = onnx.load(arguments.model, load_external_data=False)
    graphs = graphs_of(model.graph)
    counts = Counter(node.op_type for graph in graphs for node in graph.node)
    sizes = [
        math.prod(t.dims) * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(t.data_type)).itemsize
        for graph in graphs
        for t in graph.initializer
    ]
    result: dict[str, Any] = {
        "largest": max(sizes, default=0),
        "nodes": sum(counts.values()),
        "constants": counts["Constant"],
        "operators": dict(counts.most_common()),
        "inputs": [i.name for i in model.graph.input],
    }
    if arguments.outputs or arguments.against:
        source = model
        stored = dict(np.load(arguments.against)) if arguments.against else {}
        feeds = {k.removeprefix("feed:"): v for k, v in stored.items() if k.startswith("feed:")}
        feeds = feeds or make_feeds(source, arguments.seed)
        try:
            outputs = run(arguments.model, feeds)
        except Exception as error:  # noqa: BLE001  (a tool's result that does not run is a finding, not an error)
            result["difference"] = f"does not run: {str(error)[:200]}"
            print(json.dumps(result))
            return
        if arguments.outputs:
            np.savez(arguments.outputs, **outputs, **{f"feed:{k}": v for k, v in feeds.items()})
        expected = {k: v for k, v in stored.items() if not k.startswith("feed:")}
        result["difference"] = difference(expected, outputs) if expected else "equal"
    print(json.dumps(result))


if __name__ == "__main__":
    main()
