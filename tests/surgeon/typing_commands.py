"""What tests that type commands share: two models to type them at, runners that are wrong, processes of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import onnx

from tests.surgeon.conftest import Said

Type = Callable[..., Said]
"""What the fixture ``surgeon`` is: types a command."""

RUNNERS = Path(__file__).parents[1] / "debug"
"""The folder of runners that are not as they should be."""

WRONG = f"{RUNNERS / 'wrong_runner.py'}:Wrong"
ORT = "onnxruntime:optimize=none,threads=1"
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
"""For processes that are started: they find what this one finds."""

BRANCHED = """<ir_version: 8, opset_import: ["" : 17]>
    branched (float[N, 4] x) => (float[N, 4] y, float[N, 4] z)
    <float[4, 4] w = {1,2,-3,4,5,-6,7,8,-9,1,1,2,1,-1,1,1}> {
        a = MatMul (x, w)
        left = Relu (a)
        right = Neg (a)
        joined = Add (left, right)
        y = Abs (joined)
        z = Sigmoid (right)
    }"""

LOOP = """<ir_version: 8, opset_import: ["" : 17]>
    looped (float[2, 4] x) => (float[2, 4] y) <int64 trips = {6}, bool go = {1}> {
        a = Relu (x)
        b = Loop <body = body (int64 i, bool c, float[2, 4] carried) => (bool c_out, float[2, 4] next) {
            c_out = Identity (c)
            half = Add (carried, a)
            next = Sigmoid (half)
        }> (trips, go, a)
        y = Neg (b)
    }"""


def write_model(path: Path, text: str) -> Path:
    """A model whose nodes are called after what they compute."""
    proto = onnx.parser.parse_model(text)
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}"
    onnx.save(proto, str(path))
    return path
