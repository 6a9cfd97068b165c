"""onnxruntime, except that it ends in one of many ways where one node is in the model; used by path, as a user's is."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort


def _eat() -> None:
    kept = []
    while True:
        kept.append(np.ones(4 << 20, np.uint8))
        time.sleep(0.002)


def _refuse() -> None:
    raise RuntimeError("no kernel of this kind for the device (error 77)")


HOW: dict[str, Callable[[], object]] = {
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": os.abort,
    "exit": lambda: os._exit(9),
    "hang": lambda: time.sleep(600),
    "eat": _eat,
    "refuse": _refuse,
    "nothing": lambda: None,
}


class Ending:
    """The runner.

    Args:
        at: Nodes, by name, separated by ``;``, where it ends.
        how: One of ``HOW``.
        where: ``prepare`` or ``run``.
        together: End only where all of them are in the model.
        gain: What outputs of these nodes are multiplied with.
        seconds: How long it takes to prepare anything.
        log: A file that gets a line for each model: the names of its nodes.
    """

    def __init__(
        self,
        at: str = "",
        how: str = "nothing",
        where: str = "prepare",
        together: bool = False,
        gain: float = 1.0,
        seconds: float = 0.0,
        log: str = "",
    ) -> None:
        self.at = {name for name in at.split(";") if name}
        self.how, self.where, self.together, self.gain, self.log = how, where, together, gain, log
        self.seconds = seconds
        self.there = False

    def _end(self, where: str) -> None:
        if self.there and where == self.where:
            HOW[self.how]()

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        model = onnx.load(str(model_path))
        names = {node.name for node in model.graph.node}
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(";".join(sorted(names)) + "\n")
        time.sleep(self.seconds)
        self.there = self.at <= names if self.together else bool(self.at & names)
        self._end("prepare")
        if self.gain != 1.0 and self.there:
            self._spoil(model.graph)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        there = {value.name for value in self.session.get_outputs()}
        self.outputs = [name for name in outputs if name in there]

    def _spoil(self, graph: onnx.GraphProto) -> None:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(self.gain, np.float32), "spoiled.gain"))
        nodes = []
        for node in graph.node:
            nodes.append(node)
            if node.name in self.at:
                name = node.output[0]
                node.output[0] = f"{name}.right"
                nodes.append(onnx.helper.make_node("Mul", [f"{name}.right", "spoiled.gain"], [name]))
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self._end("run")
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(feeds)), strict=True))
