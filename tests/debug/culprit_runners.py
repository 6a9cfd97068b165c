"""Runners that fail at one operator, whatever model it is in; each stands in this file alone, as a user's would."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort


class AtOperator:
    """Computes with onnxruntime, except where a model has one operator.

    Args:
        op: The operator.
        how: ``gain`` (its outputs come out multiplied), ``crash``, ``abort``, ``hang``, ``leave``, ``refuse`` or
            ``eat`` (all the memory there is).
        gain: The factor.
        least: Multiply only outputs whose last axis is at least so long.
        channel: Multiply only this index of axis 1; -1 for all.
        above: Multiply only where the sum of the first input is above this.
    """

    def __init__(
        self,
        op: str,
        how: str = "gain",
        gain: float = 1.5,
        least: int = 0,
        channel: int = -1,
        above: float = float("-inf"),
    ) -> None:
        self.op, self.how, self.gain, self.least, self.channel, self.above = op, how, gain, least, channel, above

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        model = onnx.load(str(model_path), load_external_data=False)
        nodes = [node for node in model.graph.node if node.op_type == self.op]
        self.wrong = [node.output[0] for node in nodes]
        if nodes:
            self.act()
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = ort.InferenceSession(str(model_path), options, providers=["CPUExecutionProvider"])
        self.outputs = [value.name for value in self.session.get_outputs() if value.name in outputs]

    def act(self) -> None:
        if self.how == "crash":
            ctypes.string_at(0)
        if self.how == "eat":
            kept = []
            while True:
                kept.append(np.ones(32 << 20, np.uint8))
        if self.how == "abort":
            os.abort()
        if self.how == "hang":
            time.sleep(600)
        if self.how == "leave":
            os._exit(7)
        if self.how == "refuse":
            raise RuntimeError(f"no kernel for {self.op} of '{self.wrong[0]}' with 3 inputs")

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(zip(self.outputs, self.session.run(self.outputs, dict(feeds)), strict=True))
        first = next(iter(feeds.values()), np.zeros(1))
        for name in self.wrong:
            value = found.get(name)
            if value is None or value.shape[-1] < self.least or float(np.sum(first)) <= self.above:
                continue
            if self.channel < 0:
                found[name] = (value * value.dtype.type(self.gain)).astype(value.dtype)
            elif self.channel < value.shape[1]:
                value = value.copy()
                value[:, self.channel] *= value.dtype.type(self.gain)
                found[name] = value
        return found
