"""Runners with planted faults, and one that does nothing but count; used by path, as a user's file is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort


class Wrong:
    """Computes with onnxruntime, and multiplies or poisons one tensor on the way.

    Args:
        tensor: The tensor that comes out wrong.
        gain: What it is multiplied with; ``nan`` and ``inf`` poison it.
        hidden: The fault goes away when more than two tensors are shown.
        refuse: A tensor that cannot be shown.
        lose: A tensor that is never delivered.
    """

    def __init__(
        self, tensor: str = "", gain: float = 1.5, hidden: bool = False, refuse: str = "", lose: str = ""
    ) -> None:
        self.tensor, self.gain, self.hidden, self.refuse, self.lose = tensor, gain, hidden, refuse, lose
        self.session: Any = None
        self.outputs: list[str] = []
        self.prepared: list[list[str]] = []

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        self.prepared.append(list(outputs))
        if self.refuse and self.refuse in outputs:
            raise RuntimeError(f"no kernel can show {self.refuse}")
        model = onnx.load(str(model_path))
        names = [output.name for output in model.graph.output]
        inner = [name for name in outputs if name not in names]
        computed = {name for node in model.graph.node for name in node.output}
        if self.tensor in computed and not (self.hidden and len(outputs) > 2):
            _spoil(model.graph, self.tensor, self.gain)
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
        self.outputs = [name for name in outputs if name != self.lose]
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(feeds)), strict=True))

    def close(self) -> None:
        self.session = None


def _spoil(graph: onnx.GraphProto, tensor: str, gain: float) -> None:
    """Rename what the node computes and put a Mul with the right name behind it."""
    at = next(i for i, node in enumerate(graph.node) if tensor in node.output)
    outputs = graph.node[at].output
    outputs[list(outputs).index(tensor)] = "spoiled_input"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(gain, np.float32), "gain"))
    graph.node.insert(at + 1, onnx.helper.make_node("Mul", ["spoiled_input", "gain"], [tensor]))


class Broken:
    """Fails in the way asked for."""

    def __init__(self, how: str) -> None:
        self.how = how

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        if self.how == "prepare":
            raise ValueError("the device\nis on fire")

    def run(self, feeds: Mapping[str, Any]) -> Any:
        if self.how == "run":
            return {}["missing"]
        if self.how == "type":
            return [1, 2]
        return {"stranger": np.zeros(1)}

    def close(self) -> None:
        raise RuntimeError("will not close")


class NoRun:
    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        time.sleep(0)


class Needy:
    def __init__(self, port: int, host: str = "here", **rest: str) -> None:
        self.port, self.host, self.rest = port, host, rest

    prepare = run = NoRun.prepare
