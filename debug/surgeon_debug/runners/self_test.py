"""Which runners work here: version, and a tiny model run on each and checked against numpy."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import tempfile
from pathlib import Path

import numpy as np

from surgeon_debug.runners.catalogue import BUILT_IN, make_engine, names
from surgeon_debug.runners.contract import Engine
from surgeon_passes.errors import EngineError, SurgeonError

_MODEL = """
<ir_version: 8, opset_import: ["" : 13]>
self_test (float[2,3] x) => (float[2,3] y)
<float[3,3] w = {1.0, 0.5, 0.25, -1.0, 2.0, 0.0, 0.0, 1.0, -0.5}> {
    product = MatMul(x, w)
    y = Softmax<axis: int = -1>(product)
}
"""

_PATIENCE = 120.0


@dataclasses.dataclass(frozen=True)
class RunnerStatus:
    """Whether a runner works on this machine."""

    name: str
    """The runner, by name."""
    version: str
    """Version of the package it stands on; empty if unknown or not installed."""
    works: bool
    """Whether it computed a small model rightly, including a tensor inside it."""
    reason: str
    """Why it does not work; empty if it does."""


def available_runners() -> list[RunnerStatus]:
    """Try every runner that is known by name, in order of the names, each in a process of its own.

    The runner ``command`` is not among them: it is whatever the command is.
    """
    with contextlib.ExitStack() as stack:
        # All of them start before the first is waited for.
        engines = {
            name: stack.enter_context(make_engine(name, isolated=True, timeout=_PATIENCE))
            for name in names()
            if name != "command"
        }
        return [_status(name, engine) for name, engine in engines.items()]


def _status(name: str, engine: Engine) -> RunnerStatus:
    version = _version(name)
    try:
        self_test(engine)
    except SurgeonError as error:
        return RunnerStatus(name, version, False, str(error))
    return RunnerStatus(name, version, True, "")


def _version(name: str) -> str:
    if name not in BUILT_IN:
        entries = list(importlib.metadata.entry_points(group="surgeon.runners", name=name))
        return entries[0].dist.version if entries and entries[0].dist else ""
    package = BUILT_IN[name].package
    # A build of onnxruntime for another device is another distribution of the same package.
    for distribution in importlib.metadata.packages_distributions().get(package, [package]):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def self_test(engine: Engine) -> None:
    """Run a MatMul and a Softmax, fetch both, and compare with numpy.

    Raises:
        EngineError: The engine refuses, or its numbers are wrong.
    """
    import onnx

    x = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], np.float32)
    w = np.array([[1.0, 0.5, 0.25], [-1.0, 2.0, 0.0], [0.0, 1.0, -0.5]], np.float32)
    product = x @ w
    power = np.exp(product - product.max(axis=-1, keepdims=True))
    expected = {"product": product, "y": power / power.sum(axis=-1, keepdims=True)}
    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        path = Path(folder) / "self_test.onnx"
        onnx.save(onnx.parser.parse_model(_MODEL), str(path))
        engine.prepare(path, ["y", "product"])
        found = engine.run({"x": x})
    for name, value in expected.items():
        if name not in found:
            raise EngineError(f"{engine.label} did not deliver tensor '{name}' of a two-node model")
        if found[name].shape != value.shape or not np.allclose(found[name], value, rtol=1e-2, atol=1e-2):
            raise EngineError(f"{engine.label} computes a two-node model wrongly: '{name}' is off")
