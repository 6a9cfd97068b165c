"""The inspector: what the engine says about its layers, in the schema of its version."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Mapping
from typing import Any

from tests.simulated_tensorrt.attributes import Recorded
from tests.simulated_tensorrt.engine_file import EngineData, EngineLayer
from tests.simulated_tensorrt.graph import Graph, infer

_TYPES = {"conv": "CaskConvolution", "product": "gemm", "kgen": "kgen", "pool": "CaskPooling", "reformat": "Reformat"}
_WORDS_10 = {"FLOAT": "Float", "HALF": "Half", "BF16": "BFloat16", "INT8": "Int8", "INT32": "Int32", "INT64": "Int64"}
_WORDS_11 = {"FLOAT": "FP32", "HALF": "FP16"}


class EngineInspector(Recorded):
    """Tells about an engine."""

    _trt: Any
    _engine: Any
    _context: Any
    _version: str
    _onnx_names: dict[str, str] | None = None
    _inputs: Any = None
    _concrete: Any = None

    @property
    def execution_context(self) -> Any:
        return self._context

    @execution_context.setter
    def execution_context(self, value: Any) -> None:
        self._context = value

    def get_layer_information(self, layer_index: int, format: Any) -> str:
        rows = self._rows()
        if not 0 <= layer_index < len(rows):
            return ""
        row = rows[layer_index]
        if format.name == "JSON":
            return json.dumps(row)
        return row + "\n" if isinstance(row, str) else _one_line(row) + "\n"

    def get_engine_information(self, format: Any) -> str:
        data: EngineData = self._engine._engine
        if any(one.fault.effect == "inspector_garbage" for one in data.sick):
            return '{"Layers": [{"Name": "'
        if data.verbosity == int(self._trt.ProfilingVerbosity.NONE):
            return "{}" if format.name == "JSON" else ""
        rows = self._rows()
        if format.name != "JSON":
            lines = [row if isinstance(row, str) else _one_line(row) for row in rows]
            return "Layers:\n" + "\n".join(lines) + "\n\nBindings:\n" + "\n".join(self._engine._names()) + "\n"
        document: dict[str, Any] = {"Layers": rows}
        if self._eleven:
            document["I/O Tensors"] = [self._io(name) for name in self._engine._names()]
        else:
            document["Bindings"] = self._engine._names()
        return json.dumps(document)

    @property
    def _eleven(self) -> bool:
        return not self._version.startswith("10.")

    def _rows(self) -> list[Any]:
        data: EngineData = self._engine._engine
        layers = [layer for profile in data.layers for layer in profile]
        if data.verbosity == int(self._trt.ProfilingVerbosity.LAYER_NAMES_ONLY):
            return [layer.name for layer in layers]
        rows = [self._row(layer) for layer in layers]
        for before, after in itertools.pairwise(rows):
            if after["Name"] == f"Reformatting CopyNode for Output Tensor 0 to {before['Name']}":
                before["Outputs"][0]["Name"] = after["Inputs"][0]["Name"]
                after["Inputs"][0] = dict(before["Outputs"][0])
        for row in rows:
            if row["LayerType"] == "Reformat":
                row["Outputs"][0]["Dimensions"] = row["Inputs"][0]["Dimensions"] or row["Outputs"][0]["Dimensions"]
        return rows

    def _row(self, layer: EngineLayer) -> dict[str, Any]:
        graph: Graph = self._engine._graph
        kinds = {graph.nodes[i].op_type for i in layer.nodes}
        row: dict[str, Any] = {
            "Name": layer.name,
            "LayerType": _layer_type(layer, kinds),
            "Inputs": [self._tensor(name) for name in layer.inputs],
            "Outputs": [self._tensor(inner, name) for name, inner in layer.outputs],
        }
        if layer.kind == "reformat":
            row |= {"ParameterType": "Reformat", "Origin": "REFORMAT", "TacticValue": "0x00000000000003e8"}
        elif layer.kind == "conv":
            row |= {"ParameterType": "Convolution", **_convolution(layer, graph)}
        if layer.choice is not None:
            row["TacticName"] = layer.choice.kernel
            if layer.kind == "conv":
                row["TacticValue"] = f"0x{layer.choice.hash:016x}"
        elif layer.kind == "kgen":
            row["TacticName"] = f"{layer.name}_0x{zlib.crc32(repr(layer.nodes).encode()):08x}"
        row |= {"StreamId": layer.stream, "Metadata": layer.metadata}
        return row

    def _tensor(self, name: str, onnx_name: str = "") -> dict[str, Any]:
        graph: Graph = self._engine._graph
        known = onnx_name or self._onnx_name(name)
        shape = list(self._shapes().get(known) or ())
        kind = graph.types.get(known, "FLOAT")
        if self._eleven:
            word = _WORDS_11.get(kind, kind)
            return {"Name": name, "Dimensions": shape, "Format": "LINEAR", "Datatype": word}
        word = _WORDS_10.get(kind, kind.capitalize())
        return {"Name": name, "Location": "Device", "Dimensions": shape, "Format/Datatype": f"{word}"}

    def _shapes(self) -> Mapping[str, Any]:
        """Shapes of all tensors; concrete ones where a context says the shapes of all inputs."""
        graph: Graph = self._engine._graph
        inputs = {} if self._context is None else self._context._input_shapes()
        if not inputs or any(-1 in sizes for sizes in inputs.values()):
            return graph.shapes
        if inputs != self._inputs:
            self._inputs, self._concrete = inputs, infer(graph.model, graph.constants, inputs)[1]
        found: Mapping[str, Any] = self._concrete
        return found

    def _onnx_name(self, inner: str) -> str:
        if self._onnx_names is None:
            layers = [layer for profile in self._engine._engine.layers for layer in profile]
            self._onnx_names = {shown: name for layer in layers for name, shown in layer.outputs if name}
        return self._onnx_names.get(inner, inner)

    def _io(self, name: str) -> dict[str, Any]:
        engine = self._engine
        is_input = name in engine._graph.inputs
        kind = engine._graph.types.get(name, "FLOAT")
        row: dict[str, Any] = {
            "Name": name,
            "IOMode": "INPUT" if is_input else "OUTPUT",
            "Datatype": _WORDS_11.get(kind, kind),
            "Dimensions": list(engine._graph.shapes.get(name) or ()),
            "Location": "HOST" if name in engine._hosted else "DEVICE",
            "IsShapeInferenceIO": name in engine._hosted,
            "ProfileInfo": [],
        }
        for profile in engine._engine.profiles:
            ranges = profile.shapes.get(name)
            if ranges:
                low, middle, high = (list(sizes) for sizes in ranges)
                row["ProfileInfo"].append({"MinShape": low, "OptShape": middle, "MaxShape": high, "Format": "LINEAR"})
        return row


def _layer_type(layer: EngineLayer, operators: set[str]) -> str:
    if layer.kind == "shape":
        return "shape_call"
    if layer.kind in _TYPES:
        return _TYPES[layer.kind]
    return sorted(operators)[0] if operators & {"Loop", "If", "Scan"} else "kgen"


def _convolution(layer: EngineLayer, graph: Graph) -> dict[str, Any]:
    head = next(graph.nodes[i] for i in layer.nodes if graph.nodes[i].op_type in ("Conv", "ConvTranspose"))
    weights = graph.constants.get(head.input[1])
    operators = {graph.nodes[i].op_type for i in layer.nodes}
    values = {a.name: list(a.ints) or a.i for a in head.attribute}
    return {
        "Kernel": list(weights.dims[2:]) if weights is not None else [],
        "Stride": values.get("strides", [1, 1]),
        "Dilation": values.get("dilations", [1, 1]),
        "Groups": values.get("group", 1),
        "OutMaps": weights.dims[0] if weights is not None else 0,
        "Activation": "RELU" if "Relu" in operators else "NONE",
        "HasBias": int(len(head.input) > 2),
        "HasReLU": int("Relu" in operators),
    }


def _one_line(row: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {json.dumps(value) if isinstance(value, list) else value}" for key, value in row.items())
