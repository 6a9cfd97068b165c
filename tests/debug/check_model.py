"""A check as users write one: looks for an operator, or runs the model with one wrong, and ends with a code.

Nodes are called as their operator is, so that an operator is found without what takes time to import.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--op", default="", help="the operator that is wrong")
    parser.add_argument("--code", default="1", help="an exit code, or hang, signal, or flaky")
    parser.add_argument("--otherwise", type=int, default=0, help="the exit code if the operator is not there")
    parser.add_argument("--cannot", default="", help="an operator without which nobody can tell")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--inputs", type=Path)
    parser.add_argument("--expected", type=Path)
    given = parser.parse_args()
    data = given.model.read_bytes()
    if given.log:
        with given.log.open("a") as file:
            file.write("asked\n")
    if given.inputs:
        return differs(given.model, given.inputs, given.expected, given.op)
    if given.cannot and f"/{given.cannot}".encode() not in data:
        sys.stdout.write("this piece says nothing\n")
        return 125
    if f"/{given.op}".encode() not in data:
        return given.otherwise
    if given.code == "hang":
        time.sleep(600)
    if given.code == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if given.code == "flaky":
        return int(len(given.log.read_text().splitlines()) % 2 == 0)
    sys.stdout.write(f"{given.op} is wrong\n")
    return int(given.code)


def differs(path: Path, inputs: Path, expected: Path, op: str) -> int:
    """Whether onnxruntime, with one operator wrong, computes other than was expected, for any of the samples."""
    import numpy as np  # what takes time to import is imported where it is needed
    import onnx
    import onnxruntime as ort

    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    names = [output.name for output in model.graph.output]
    for node in [node for node in model.graph.node if node.op_type == op]:
        node.op_type = "Identity"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    fed, right = np.load(inputs), np.load(expected)
    assert set(names) == {name.partition("/")[0] for name in right.files}, (names, right.files)
    samples = {name.partition("/")[2] for name in right.files}
    for sample in samples:
        behind = f"/{sample}" if sample else ""
        own = {name.removesuffix(behind): fed[name] for name in fed.files if name.endswith(behind)}
        for name, value in zip(names, session.run(names, own), strict=True):
            if not np.allclose(value, right[name + behind], rtol=1e-4):
                sys.stdout.write(f"{name} of sample {sample or 0} differs\n")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
