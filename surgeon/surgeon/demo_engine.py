"""The engine of ``surgeon demo``: onnxruntime, but its matrix multiplication has a bug.

It works in tiles of 64 columns, and where the columns are no multiple of that, the last tile is never written. Engines
have had just this. The demo copies this file beside its models: it is also how a runner of one's own looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

TILE = 64


class Tiled:
    """Runs models with onnxruntime, and leaves the last tile of a MatMul with constant weights empty."""

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Compile a model; ``outputs`` are its outputs, those that are shown for debugging among them."""
        model = onnx.load(str(model_path))
        weights = {weight.name: weight for weight in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "MatMul" and node.input[1] in weights:
                weight = weights[node.input[1]]
                values = np.array(numpy_helper.to_array(weight))
                values[..., values.shape[-1] // TILE * TILE :] = 0
                weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        self._outputs = list(outputs)
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the compiled model once."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))
