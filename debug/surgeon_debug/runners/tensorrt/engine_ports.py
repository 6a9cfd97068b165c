"""What goes into an engine and comes out of it, as a document tells it."""

from __future__ import annotations

from typing import Any

from surgeon_debug.runners.tensorrt.datatypes import onnx_number


def engine_ports(trt: Any, engine: Any) -> list[dict[str, Any]]:
    """Inputs and outputs of an engine as JSON: name, whether it is fed, ONNX type number, sizes, ranges by profile."""
    found = []
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        fed = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        port = {
            "name": name,
            "input": fed,
            "type": onnx_number(trt, engine.get_tensor_dtype(name)),
            "dims": [int(size) for size in engine.get_tensor_shape(name)],
            "shape_values": bool(engine.is_shape_inference_io(name)),
        }
        if fed:
            profiles = [engine.get_tensor_profile_shape(name, p) for p in range(engine.num_optimization_profiles)]
            port["ranges"] = [[[int(size) for size in dims] for dims in three] for three in profiles]
        found.append(port)
    return found
