"""What a build leaves behind: a file with the model, the layers of the engine, their tactics and their faults."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from typing import Any

from tests.simulated_tensorrt.plan import Fault, Plan, from_json

_MAGIC = b"ftrt"
ENGINE_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Choice:
    """The tactic of a layer."""

    kernel: str
    hash: int
    rank: int
    """Its place among the tactics of the layer by undisturbed time."""
    layout: str


@dataclasses.dataclass(frozen=True)
class EngineLayer:
    """One layer of the engine under one profile."""

    name: str
    kind: str
    """conv, product, kgen, pool, shape, alone or reformat."""
    nodes: tuple[int, ...]
    """Indices of the nodes that it computes."""
    metadata: str
    inputs: tuple[str, ...]
    """Names of the tensors that it reads, as the engine calls them."""
    outputs: tuple[tuple[str, str], ...]
    """(name in the ONNX model, name in the engine) of what it makes and others read."""
    choice: Choice | None
    stream: int
    shown: tuple[str, ...]
    """Outputs, by ONNX name, that unfused debug tensors show."""


@dataclasses.dataclass(frozen=True)
class Sick:
    """A fault of the plan that this engine has."""

    fault: Fault
    layers: tuple[tuple[int, ...], ...]
    """For each profile the indices of the layers that it hits."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """Ranges of one optimisation profile."""

    shapes: dict[str, tuple[tuple[int, ...], ...]]
    values: dict[str, tuple[tuple[int, ...], ...]]


@dataclasses.dataclass(frozen=True)
class EngineData:
    """All that an engine is."""

    version: str
    device: str
    name: str
    layers: tuple[tuple[EngineLayer, ...], ...]
    """For each profile."""
    profiles: tuple[Profile, ...]
    outputs: tuple[str, ...]
    marked: tuple[str, ...]
    unfused: bool
    tf32: bool
    verbosity: int
    level: int
    refittable: bool
    tactic_sources: int
    sick: tuple[Sick, ...]
    traits: Plan
    """The traits of the plan, without its faults."""


def to_bytes(data: EngineData, model: bytes) -> bytes:
    """The file."""
    header = json.dumps({"format": ENGINE_FORMAT, "engine": dataclasses.asdict(data)}).encode()
    packed = zlib.compress(header, 1)
    return _MAGIC + struct.pack("<II", len(packed), zlib.crc32(model)) + packed + model


def version_of(blob: bytes) -> str:
    """The version that made a file; empty if it is no such file."""
    try:
        return str(_header(blob)[0]["engine"]["version"])
    except (ValueError, KeyError, zlib.error, struct.error):
        return ""


def from_bytes(blob: bytes) -> tuple[EngineData, bytes]:
    """Read a file.

    Raises:
        ValueError: It is damaged.
    """
    header, rest, check = _header(blob)
    model = blob[rest:]
    if zlib.crc32(model) != check:
        raise ValueError("the engine is truncated or damaged")
    return _engine(header["engine"]), model


def _header(blob: bytes) -> tuple[dict[str, Any], int, int]:
    if blob[:4] != _MAGIC:
        raise ValueError("magicTag does not match")
    length, check = struct.unpack("<II", blob[4:12])
    return json.loads(zlib.decompress(blob[12 : 12 + length])), 12 + length, check


def _engine(row: dict[str, Any]) -> EngineData:
    layers = tuple(tuple(_layer(layer) for layer in profile) for profile in row["layers"])
    profiles = tuple(Profile(_ranges(p["shapes"]), _ranges(p["values"])) for p in row["profiles"])
    sick = tuple(
        Sick(from_json({"faults": [s["fault"]]}).faults[0], tuple(tuple(part) for part in s["layers"]))
        for s in row["sick"]
    )
    fields = {**row, "layers": layers, "profiles": profiles, "sick": sick, "traits": from_json(row["traits"])}
    fields |= {name: tuple(row[name]) for name in ("outputs", "marked")}
    return EngineData(**fields)


def _layer(row: dict[str, Any]) -> EngineLayer:
    choice = Choice(**row["choice"]) if row["choice"] else None
    outputs = tuple((a, b) for a, b in row["outputs"])
    lists = {name: tuple(row[name]) for name in ("nodes", "inputs", "shown")}
    return EngineLayer(**{**row, **lists, "choice": choice, "outputs": outputs})


def _ranges(rows: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], ...]]:
    return {name: tuple(tuple(sizes) for sizes in row) for name, row in rows.items()}
