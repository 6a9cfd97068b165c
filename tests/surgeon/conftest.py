"""The command line as a function, and small models to type at it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from surgeon import cli
from tests.tensorrt_engines import any_tensorrt, each_simulated, each_tensorrt, new_tensorrt

__all__ = ["any_tensorrt", "each_simulated", "each_tensorrt", "new_tensorrt"]

MODEL = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "hand">
small (float[N, 4] x, int64[N] ids) => (float[N, 4] y, float[N, 4] looked_up)
<float[4, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, float[4] unused = {1, 1, 1, 1}> {
    two = Constant <value_float: float = 2.0> ()
    half = Constant <value_float: float = 0.5> ()
    one = Mul (two, half)
    product = MatMul (x, w)
    scaled = Mul (product, one)
    same = Identity (scaled)
    y = Relu (same)
    looked_up = Gather (w, ids)
}
"""


@dataclasses.dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out)


@pytest.fixture
def surgeon(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Type a command."""

    def type_command(*arguments: object) -> Said:
        capsys.readouterr()
        code = cli.run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return type_command


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model with dead, constant and foldable parts; every node is named after its output."""
    proto = onnx.parser.parse_model(MODEL)
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}/{node.op_type}"
    onnx.checker.check_model(proto)
    path = tmp_path / "small.onnx"
    onnx.save(proto, str(path))
    return path
