"""What an engine says of its own layers: the inspector's JSON, as 10.x and as 11.x write it.

Keys that are not known here are kept as they are. An engine built without detailed verbosity lists names only.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from surgeon_debug.runners.tensorrt.tactic_log import onnx_nodes
from surgeon_passes.errors import EngineError

_TENSOR_KEYS = ("Name", "Dimensions", "Format/Datatype", "Datatype", "DataType", "Type", "Format")
_SHUFFLED = re.compile(r"vectori[sz]ed|channel.major|HWC|CHW\d", re.IGNORECASE)
_LINEAR = re.compile(r"linear|row.major", re.IGNORECASE)
_LAYER_KEYS = ("Name", "LayerType", "Inputs", "Outputs", "TacticName", "TacticValue", "Metadata", "Origin")


@dataclasses.dataclass(frozen=True)
class EngineTensor:
    """A tensor as a layer reads or writes it."""

    name: str
    """Its name inside the engine."""
    dims: tuple[int, ...] | None
    """Its sizes, -1 where they are open; None if they are not said."""
    kind: str
    """Type and format in the engine's words; empty if not said."""

    @property
    def linear(self) -> bool | None:
        """Whether its elements lie in order; None if that is not said."""
        if _SHUFFLED.search(self.kind):
            return False
        return True if _LINEAR.search(self.kind) else None


@dataclasses.dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine, which may compute several nodes of the model."""

    name: str
    """Its name."""
    kind: str
    """Such as ``CaskConvolution``, ``gemm``, ``kgen`` or ``Reformat``; empty if not said."""
    inputs: tuple[EngineTensor, ...]
    """What it reads."""
    outputs: tuple[EngineTensor, ...]
    """What it writes."""
    nodes: tuple[str, ...]
    """Names of ONNX nodes that its metadata tell; empty for what the engine put in itself."""
    kernel: str
    """The name of its tactic; empty if it has none."""
    tactic: str
    """The hash of its tactic; empty if it is not said."""
    origin: str
    """Why a layer was put in."""
    rest: Mapping[str, Any]
    """All else that is said."""


@dataclasses.dataclass(frozen=True)
class EngineInfo:
    """An engine's layers."""

    layers: tuple[EngineLayer, ...]
    """In the order of execution."""
    bindings: tuple[str, ...]
    """Names of inputs and outputs."""
    names_only: bool
    """Whether it was built so that it says names only."""
    rest: Mapping[str, Any]
    """All else that is said."""

    def to_json(self) -> list[dict[str, Any]]:
        """The layers as JSON: name, kind, nodes, kernel, tactic, inputs and outputs."""
        return [
            {
                "name": layer.name,
                "kind": layer.kind,
                "nodes": list(layer.nodes),
                "kernel": layer.kernel,
                "tactic": layer.tactic,
                "origin": layer.origin,
                "inputs": [_tensor_json(tensor) for tensor in layer.inputs],
                "outputs": [_tensor_json(tensor) for tensor in layer.outputs],
            }
            for layer in self.layers
        ]


def _tensor_json(tensor: EngineTensor) -> dict[str, Any]:
    return {"name": tensor.name, "dims": None if tensor.dims is None else list(tensor.dims), "kind": tensor.kind}


def info_from_json(layers: Sequence[Mapping[str, Any]]) -> EngineInfo:
    """The layers that :meth:`EngineInfo.to_json` made a document of."""
    found = tuple(
        EngineLayer(
            held["name"],
            held["kind"],
            tuple(map(_tensor_of, held["inputs"])),
            tuple(map(_tensor_of, held["outputs"])),
            tuple(held["nodes"]),
            held["kernel"],
            held["tactic"],
            held["origin"],
            {},
        )
        for held in layers
    )
    return EngineInfo(found, (), False, {})


def _tensor_of(held: Mapping[str, Any]) -> EngineTensor:
    return EngineTensor(held["name"], None if held["dims"] is None else tuple(held["dims"]), held["kind"])


def inspect_engine(trt: Any, engine: Any, context: Any = None) -> str:
    """The inspector's JSON.

    Args:
        trt: The module.
        engine: An engine.
        context: An execution context of it with all input sizes set, to get sizes that are not open.

    Raises:
        EngineError: The engine has none.
    """
    inspector = engine.create_engine_inspector()
    if inspector is None:
        raise EngineError("tensorrt has no inspector for this engine")
    if context is not None:
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def parse_engine(text: str) -> EngineInfo:
    """Read the inspector's JSON.

    Raises:
        EngineError: It is not JSON, or lists no layers.
    """
    try:
        held = json.loads(text)
        layers = tuple(_layer(item) for item in held["Layers"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(f"the engine's description of itself cannot be read: {error!r}"[:200]) from error
    bindings = [*held.get("Bindings", ()), *held.get("I/O Tensors", ())]
    names = tuple(str(item.get("Name", "")) if isinstance(item, dict) else str(item) for item in bindings)
    rest = {key: value for key, value in held.items() if key != "Layers"}
    return EngineInfo(layers, names, bool(layers) and all(isinstance(i, str) for i in held["Layers"]), rest)


def _layer(item: Any) -> EngineLayer:
    if isinstance(item, str):
        return EngineLayer(item, "", (), (), onnx_nodes(item), "", "", "", {})
    inputs, outputs = (tuple(map(_tensor, item.get(key) or ())) for key in ("Inputs", "Outputs"))
    return EngineLayer(
        str(item.get("Name", "")),
        str(item.get("LayerType", "")),
        inputs,
        outputs,
        onnx_nodes(str(item.get("Metadata") or "")),
        str(item.get("TacticName") or ""),
        _hash(item.get("TacticValue")),
        str(item.get("Origin") or ""),
        {key: value for key, value in item.items() if key not in _LAYER_KEYS},
    )


def _hash(value: Any) -> str:
    if value in (None, ""):
        return ""
    try:
        return hex(value if isinstance(value, int) else int(str(value), 16))
    except ValueError:
        return str(value)


def _tensor(item: Any) -> EngineTensor:
    if not isinstance(item, dict):
        return EngineTensor(str(item), None, "")
    dims = item.get("Dimensions")
    shape = tuple(int(size) for size in dims) if isinstance(dims, list) else None
    kind = ", ".join(str(item[key]) for key in _TENSOR_KEYS[2:] if item.get(key))
    return EngineTensor(str(item.get("Name", "")), shape, kind)
