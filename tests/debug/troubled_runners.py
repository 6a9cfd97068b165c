"""Runners that are right except in one layer, or from run to run; used by path, as a user's file is."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.debug.wrong_runner import Wrong


class Troubled(Wrong):
    """Crashes, hangs or refuses where one tensor is computed from inputs of the graph alone.

    Args:
        trouble: ``crash``, ``hang`` or ``refuse``.
        at: The tensor.
        tensor: Another tensor, which comes out wrong.
        gain: What it is multiplied with.
    """

    def __init__(self, trouble: str, at: str, tensor: str = "", gain: float = 1.5) -> None:
        super().__init__(tensor, gain)
        self.trouble, self.at = trouble, at

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        graph = onnx.load(str(model_path)).graph
        inputs = {value.name for value in graph.input}
        for node in graph.node:
            if self.at in node.output and inputs.issuperset(node.input):
                if self.trouble == "crash":
                    ctypes.string_at(0)
                if self.trouble == "hang":
                    time.sleep(600)
                raise RuntimeError(f"no kernel for {self.at}")
        super().prepare(model_path, outputs)


class Flaky(Wrong):
    """Multiplies every output by another number close to one in every run."""

    def __init__(self, size: float = 1e-3) -> None:
        super().__init__()
        self.size = size
        self.rng = np.random.default_rng(0)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        found = super().run(feeds)
        return {name: value * np.float32(1 + self.size * self.rng.random()) for name, value in found.items()}
