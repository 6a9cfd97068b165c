"""Timing caches: loaded, attached, edited and read, with every answer of the engine looked at.

Two caches are compared by their map from key to tactic, never by their bytes: the times in them differ from device to
device and from day to day.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon_debug.runners.tensorrt.failures import BuildFailure, BuildStatus
from surgeon_debug.runners.tensorrt.tactic_log import normal_hash
from surgeon_passes.errors import BadOptionError, FileError

INVALID_HASH = (1 << 64) - 1
"""What the value of a missing key holds instead of a tactic."""


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """What a cache says of one key."""

    tactic: str
    """The tactic's hash, ``0x`` and hexadecimal digits."""
    milliseconds: float
    """What it took when it was timed."""


CacheMap = Mapping[str, CacheEntry]
"""Entries by key, ``0x`` and 32 lower-case hexadecimal digits."""


@dataclasses.dataclass(frozen=True)
class Pin:
    """A tactic that an engine is to have."""

    key: str
    """The key in the cache."""
    tactic: str
    """The tactic's hash."""
    kernel: str = ""
    """Its kernel; if it is said, the engine is asked whether it has it."""
    nodes: tuple[str, ...] = ()
    """ONNX nodes that the key's op computes, by which its engine layer is found; likewise."""


def read_pins(path: Path) -> list[Pin]:
    """Pins from a JSON file: by key a hash, or ``{"tactic": HASH, "kernel": NAME, "nodes": [NAMES]}``.

    Raises:
        FileError: It cannot be read.
        BadOptionError: It is not of that form.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
    except ValueError as error:
        raise BadOptionError(f"is not JSON: {error}", where=str(path)) from error
    if not isinstance(held, dict):
        raise BadOptionError("pins are a JSON object", where=str(path), hint='write {"0xKEY": "0xTACTIC"}')
    try:
        return [_pin(str(key), value) for key, value in held.items()]
    except (KeyError, TypeError, ValueError) as error:
        raise BadOptionError(
            f"holds a pin that is none: {error}", where=str(path), hint='write {"0xKEY": "0xTACTIC"}'
        ) from error


def _pin(key: str, value: Any) -> Pin:
    int(key, 16)
    if isinstance(value, str):
        return Pin(key.lower(), normal_hash(value))
    return Pin(
        key.lower(), normal_hash(value["tactic"]), str(value.get("kernel", "")), tuple(map(str, value.get("nodes", ())))
    )


def attach(config: Any, path: Path | None, *, ignore_mismatch: bool) -> Any:
    """Give a builder's configuration a timing cache; the caller keeps it for as long as the build takes.

    Args:
        config: The configuration, with all flags set: an editable cache must have been asked for before.
        path: A file that holds a cache; None for an empty one.
        ignore_mismatch: Take it though it is of another device.

    Returns:
        The cache.

    Raises:
        FileError: The file cannot be read.
        BuildFailure: TensorRT refuses the cache.
    """
    blob = b""
    if path is not None:
        try:
            blob = path.read_bytes()
        except OSError as error:
            raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
    name = path.name if path is not None else "an empty cache"
    cache = config.create_timing_cache(blob)
    if cache is None:
        words = f"{name} is no timing cache that this TensorRT can read"
        raise BuildFailure(BuildStatus.CACHE_REFUSED, words, hint="name another file, or one that does not exist yet")
    if not config.set_timing_cache(cache, ignore_mismatch):
        hint = "make a new one here, or take it anyway with ignore_mismatch=true"
        raise BuildFailure(BuildStatus.CACHE_REFUSED, f"{name} is of another version or device", hint=hint)
    return cache


def read_map(cache: Any) -> dict[str, CacheEntry]:
    """The entries of a cache by key; empty for one that was not filled as an editable one."""
    if cache is None:
        return {}
    found = {}
    for key in cache.queryKeys():
        value = cache.query(key)
        if int(value.tacticHash) != INVALID_HASH:
            found[str(key).lower()] = CacheEntry(hex(int(value.tacticHash)), float(value.timingMSec))
    return found


def apply_pins(trt: Any, cache: Any, pins: list[Pin]) -> None:
    """Write pins into a cache. Whether a tactic suits its key only the build tells.

    Raises:
        BuildFailure: A key is not in the cache, or the cache does not take the tactic.
    """
    for pin in pins:
        try:
            key = trt.TimingCacheKey.parse(pin.key)
        except ValueError as error:
            raise BuildFailure(BuildStatus.PIN_REFUSED, f"{pin.key} is no key of a timing cache") from error
        now = cache.query(key)
        if int(now.tacticHash) == INVALID_HASH:
            raise BuildFailure(BuildStatus.PIN_REFUSED, f"the cache has no key {pin.key}")
        # Its time becomes that of the tactic it replaces; nothing chooses by it any more.
        if not cache.update(key, trt.TimingCacheValue(int(pin.tactic, 16), float(now.timingMSec))):
            raise BuildFailure(BuildStatus.PIN_REFUSED, f"the cache does not take {pin.tactic} for key {pin.key}")


def check_followed(before: CacheMap, after: CacheMap, pins: list[Pin], *, strict: bool) -> None:
    """Refuse an engine whose tactics are not those of the cache that it was built with.

    Args:
        before: The cache as it was when the build began, pins included.
        after: The cache after the build.
        pins: What had to be kept above all.
        strict: Whether nothing might be timed: no key may be new then.

    Raises:
        BuildFailure: A tactic moved, or something was timed.
    """
    for pin in pins:
        entry = after.get(pin.key)
        if entry is None or entry.tactic != pin.tactic:
            now = "is gone" if entry is None else f"has {entry.tactic} now"
            raise BuildFailure(BuildStatus.NOT_APPLIED, f"key {pin.key} was pinned to {pin.tactic} and {now}")
    moved = [key for key, entry in before.items() if key in after and after[key].tactic != entry.tactic]
    if moved:
        raise BuildFailure(BuildStatus.NOT_APPLIED, f"{_some(moved)} got another tactic than the cache has")
    new = [key for key in after if key not in before]
    # 11.0 was seen to let misses pass although they were to be errors.
    if strict and new:
        raise BuildFailure(BuildStatus.CACHE_MISS, f"{_some(new)} was timed although the cache does not have it")


def _some(keys: list[str]) -> str:
    return f"key {keys[0]}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
