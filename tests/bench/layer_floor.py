"""What :mod:`bench_layers` runs in processes of its own: making inputs, and the floor that tools are held against.

``layer_floor.py inputs MODEL STEM --dims batch=1`` writes STEM.npz, STEM.polygraphy.json and STEM.tail (the bytes that,
behind the model's own, make every computed tensor an output).
``layer_floor.py floor MODEL STEM`` loads the model twice, unoptimised and optimised, with all tensors as outputs, and
runs each once: nothing is compared, written or judged, and nothing but onnxruntime and NumPy is imported.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def write_inputs(model_path: Path, stem: Path, dims: dict[str, int]) -> int:
    """Seeded inputs in both forms, and the tail; returns the number of tensors computed."""
    import numpy as np
    import onnx
    from polygraphy.json import save_json

    from surgeon_debug.feeds import make_feeds
    from surgeon_passes.graph import load

    model = load(model_path)
    known = {name: size for name, size in dims.items() if name in _symbols(model.graph.inputs)}
    feeds = make_feeds(model, dims=known)
    np.savez(stem.with_suffix(".npz"), **feeds)
    save_json([feeds], str(stem.with_suffix(".polygraphy.json")))
    shown = {value.name for value in model.graph.outputs}
    names = [
        value.name
        for node in model.graph
        if node.op_type != "Constant"
        for value in node.outputs
        if value.name and value.name not in shown
    ]
    tail = onnx.ModelProto()
    tail.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    stem.with_suffix(".tail").write_bytes(tail.SerializeToString())
    return len(names) + len(shown)


def _symbols(inputs: Sequence[object]) -> set[str]:
    shapes = [getattr(value, "shape", None) or () for value in inputs]
    return {str(getattr(dim, "value", dim)) for shape in shapes for dim in shape}


def run_floor(model_path: Path, stem: Path) -> dict[str, float]:
    """Load and run twice; seconds by step, megabytes that one run delivers, and how many tensors."""
    import numpy as np
    import onnxruntime as ort

    found: dict[str, float] = {}
    with np.load(stem.with_suffix(".npz")) as file:
        feeds = dict(file)
    tail = stem.with_suffix(".tail").read_bytes()
    levels = ort.GraphOptimizationLevel
    for word, level in (("none", levels.ORT_DISABLE_ALL), ("all", levels.ORT_ENABLE_ALL)):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = level
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(model_path.resolve().parent)
        )
        started = time.perf_counter()
        session = ort.InferenceSession(model_path.read_bytes() + tail, options, providers=["CPUExecutionProvider"])
        loaded = time.perf_counter()
        values = session.run(None, feeds)
        found[f"load_{word}"], found[f"run_{word}"] = loaded - started, time.perf_counter() - loaded
        found["tensors"], found["megabytes"] = len(values), sum(v.nbytes for v in values) / 1e6
        del session, values
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["inputs", "floor"])
    parser.add_argument("model", type=Path)
    parser.add_argument("stem", type=Path)
    parser.add_argument("--dims", nargs="*", default=[], metavar="NAME=SIZE")
    arguments = parser.parse_args()
    if arguments.what == "floor":
        json.dump(run_floor(arguments.model, arguments.stem), sys.stdout)
        return
    dims = {name: int(size) for name, _, size in (item.partition("=") for item in arguments.dims)}
    json.dump({"tensors": write_inputs(arguments.model, arguments.stem, dims)}, sys.stdout)


if __name__ == "__main__":
    main()
