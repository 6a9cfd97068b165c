"""What an engine is built from: the options, checked, and the address of all that its content depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.runners.tensorrt.device_memory import DeviceInfo
from surgeon_debug.runners.tensorrt.profiles import Range
from surgeon_passes.errors import BadOptionError, FileError
from surgeon_passes.spec import parse_size

DEFAULT_WORKSPACE = 4 << 30
"""Bytes of scratch memory that tactics may take, on a device with at least twice as much."""

_CHUNK = 1 << 22


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """How an engine is built; the options of the runner, resolved."""

    workspace: int | None = None
    """Bytes of scratch memory for tactics; None for 4 GiB, or half of a smaller device. It is always set: otherwise
    tactics would depend on what memory is free that day."""
    level: int | None = None
    """Optimisation level, 0 to 5; None for TensorRT's own. At 0 it ignores timing caches."""
    tf32: bool = True
    """Whether float32 products may be rounded to TF32."""
    timing_iterations: int | None = None
    """How often a tactic is timed; None for TensorRT's own number."""
    aux_streams: int | None = None
    """The most auxiliary streams; None for TensorRT's own number."""
    cache: Path | None = None
    """A timing cache to load."""
    save_cache: Path | None = None
    """Where the timing cache is kept."""
    ignore_mismatch: bool = False
    """Take a cache of another device."""
    editable: bool = False
    """Keep a key for every op in the cache."""
    pins: Path | None = None
    """Tactics that the cache must decide on; see :func:`surgeon_debug.runners.tensorrt.timing_cache.read_pins`."""
    strict: bool = False
    """Refuse to time what the cache does not have."""
    route: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Knobs of the compiler and their values."""
    debug: str = "none"
    """``unfused``: the engine shows the tensors that fusion has left, without changing it."""
    observe: str = "debug"
    """How inner tensors are shown: ``debug`` marks them for a listener, ``output`` makes them outputs."""

    @property
    def uses_keys(self) -> bool:
        """Whether the cache needs a key for every op."""
        return self.editable or self.pins is not None or self.strict

    def check(self) -> None:
        """Refuse combinations that cannot work.

        Raises:
            BadOptionError: There is one.
        """
        if self.level is not None and not 0 <= self.level <= 5:
            raise BadOptionError(f"tensorrt has no optimisation level {self.level}", hint="use 0 to 5")
        if self.pins is not None and self.cache is None:
            raise BadOptionError("pins change what a timing cache holds, and there is none", hint="add cache=FILE")
        if self.strict and self.cache is None:
            raise BadOptionError("strict leaves nothing to time, and there is no timing cache", hint="add cache=FILE")
        if self.level == 0 and (self.cache is not None or self.uses_keys):
            raise BadOptionError("at level 0 tensorrt ignores timing caches", hint="use level 1 to 5")
        for name, value, known in (
            ("debug", self.debug, ("none", "unfused")),
            ("observe", self.observe, ("debug", "output")),
        ):
            if value not in known:
                raise BadOptionError(f"tensorrt has no {name}={value}", hint=f"use one of {', '.join(known)}")

    def workspace_on(self, device: DeviceInfo) -> int:
        """Bytes of scratch memory on a device."""
        return min(DEFAULT_WORKSPACE, device.memory // 2) if self.workspace is None else self.workspace

    def to_json(self) -> dict[str, Any]:
        """All of them, as JSON has it."""
        found = dataclasses.asdict(self)
        found["route"] = dict(self.route)
        return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


def parse_workspace(text: str) -> int | None:
    """Bytes from text such as ``4GiB``; None for an empty one."""
    return parse_size(text) if text else None


def parse_route(text: str) -> dict[str, str]:
    """Knobs from ``knob=value;knob=value`` or from a JSON file that holds an object.

    Raises:
        BadOptionError: It is neither.
        FileError: The file cannot be read.
    """
    if not text:
        return {}
    if text.endswith(".json"):
        try:
            held = json.loads(Path(text).read_text(encoding="utf-8"))
            return {str(name): str(value) for name, value in held.items()}
        except OSError as error:
            raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=text) from error
        except (AttributeError, ValueError) as error:
            raise BadOptionError(f"is no JSON object of knobs: {error}", where=text) from error
    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, equals, value = part.lstrip("-").partition("=")
        if not equals or not name:
            raise BadOptionError(f"'{part}' is no knob", hint="write KNOB=VALUE;KNOB=VALUE")
        found[name] = value
    return found


def route_text(route: Mapping[str, str]) -> str:
    """A route as TensorRT takes it: ``-knob=value -knob=value``."""
    return " ".join(f"-{name}={value}" for name, value in route.items())


def build_address(
    model: Path,
    weights: Sequence[Path],
    options: BuildOptions,
    ranges: Mapping[str, Range],
    *,
    shown: Sequence[str],
    version: str,
    device: DeviceInfo,
) -> str:
    """A digest of all that the content of an engine depends on.

    Args:
        model: The model's file.
        weights: Files of weights outside of it.
        options: How it is built; of files named there the content counts, of ``save_cache`` nothing.
        ranges: Sizes of dynamic inputs.
        shown: Inner tensors that it shows.
        version: TensorRT's.
        device: What it is built for.

    Returns:
        64 hexadecimal digits.

    Raises:
        FileError: A file cannot be read.
    """
    content = hashlib.sha256()
    for path in (model, *weights):
        _feed(content, path)
    said = dataclasses.replace(options, save_cache=None, cache=None, pins=None).to_json()
    said["workspace"] = options.workspace_on(device)
    for decided in (options.cache, options.pins):
        if decided is not None:
            _feed(content, decided)
    spans = {name: dataclasses.astuple(span) for name, span in sorted(ranges.items())}
    rest = [said, spans, sorted(shown), version, dataclasses.asdict(device)]
    content.update(json.dumps(rest, sort_keys=True).encode())
    return content.hexdigest()


def _feed(content: Any, path: Path) -> None:
    try:
        content.update(b"%d:" % path.stat().st_size)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                content.update(chunk)
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
