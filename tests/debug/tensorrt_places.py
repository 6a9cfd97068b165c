"""Where the simulated TensorRT is, for tests whose engines run in processes of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.runners.catalogue import make_engine
from tests.simulated_tensorrt.plan import Fault, Plan, write

INSTALLED = Path(__file__).parent.parent / "simulated_tensorrt" / "installed"
VERSIONS = ("10.16", "11.4")

NET = """<ir_version: 9, opset_import: ["" : 17]>
    net (float[2, 8] x) => (float[2, 8] y) {
        a = MatMul (x, w)
        b = Relu (a)
        c = MatMul (b, v)
        d = Tanh (c)
        y = Add (d, x)
    }"""


def play(monkeypatch: pytest.MonkeyPatch, folder: Path, *faults: Fault, **traits: object) -> None:
    """Let processes that start from now on have these faults and traits."""
    for name, value in write(Plan(faults=faults, **traits), folder / "plan.json").items():  # type: ignore[arg-type]
        monkeypatch.setenv(name, value)


def saved(folder: Path, text: str, name: str = "model.onnx") -> Path:
    proto = onnx.parser.parse_model(text)
    onnx.save(proto, str(folder / name))
    return folder / name


def net(folder: Path) -> Path:
    """Two matrix products with two functions and an addition; nodes are called by their outputs."""
    proto = onnx.parser.parse_model(NET)
    rng = np.random.default_rng(0)
    for name in ("w", "v"):
        weight = (rng.standard_normal((8, 8)) / 3).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}"
    onnx.save(proto, str(folder / "net.onnx"))
    return folder / "net.onnx"


def x() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)}


def run(model: Path, feeds: dict[str, np.ndarray], outputs: list[str], options: str = "") -> dict[str, np.ndarray]:
    with make_engine(f"tensorrt:{options}", isolated=True, timeout=60) as engine:
        engine.prepare(model, outputs)
        return engine.run(feeds)
