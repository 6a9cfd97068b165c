"""A deep network whose error under TF32 grows from layer to layer past what one tolerance for all allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx


def deep_net(folder: Path, layers: int = 12) -> Path:
    """Products and sines; each pair adds a rounding error of TF32, and lets what it was handed nearly double.

    Nodes are called by their outputs: ``/m0``, ``/h0``, ``/m1``, ...
    """
    steps = " ".join(f"m{i} = MatMul ({f'h{i - 1}' if i else 'x'}, w{i}) h{i} = Sin (m{i})" for i in range(layers))
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 17]> net (float[4, 64] x) => (float[4, 64] y) '
        f"{{ {steps} y = Relu (h{layers - 1}) }}"
    )
    rng = np.random.default_rng(0)
    for i in range(layers):
        weight = (rng.standard_normal((64, 64)) / 3).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, f"w{i}"))
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}"
    onnx.save(proto, str(folder / "deep.onnx"))
    return folder / "deep.onnx"
