"""The timing cache: keys and tactics, in a blob that knows the version and the device it is for."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

from tests.simulated_tensorrt.pybind import make
from tests.simulated_tensorrt.values import NO_TACTIC, single

_MAGIC = b"simTRTcache1\n"


class ITimingCache:
    """Tactics by key; in editable mode each op has a key of its own."""

    _trt: Any
    _version: str
    _device: str
    _entries: dict[str, tuple[int, float]]
    """Per-op entries of editable mode: hash and milliseconds by key."""
    _plain: dict[str, tuple[int, float]]
    """Entries of ordinary mode, whose keys nobody can ask for."""

    def serialize(self) -> Any:
        return make(self._trt.IHostMemory, _data=to_blob(self))

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        fits = (input_cache._version, input_cache._device) == (self._version, self._device)
        if not fits and not ignore_mismatch:
            return False
        self._entries.update(input_cache._entries)
        self._plain.update(input_cache._plain)
        return True

    def reset(self) -> bool:
        self._entries.clear()
        self._plain.clear()
        return True

    def queryKeys(self) -> list[Any]:
        return [make(self._trt.TimingCacheKey, _text=key) for key in self._entries]

    def query(self, key: Any) -> Any:
        tactic, time = self._entries.get(str(key), (NO_TACTIC, math.nan))
        return self._trt.TimingCacheValue(tactic, time)

    def update(self, key: Any, value: Any) -> bool:
        name = str(key)
        if name not in self._entries:
            return False
        if math.isnan(value.timingMSec):
            del self._entries[name]
            return True
        if value.tacticHash == NO_TACTIC:
            return False
        self._entries[name] = (value.tacticHash, single(value.timingMSec))
        return True


def new_cache(trt: Any, blob: bytes, version: str, device: str) -> Any:
    """A cache from a blob; from rubbish None, from an empty blob an empty cache for this version and device."""
    data: dict[str, Any] = {"version": version, "device": device, "entries": {}, "plain": {}}
    if blob:
        try:
            if not blob.startswith(_MAGIC):
                raise ValueError("not a cache")
            data = json.loads(zlib.decompress(blob[len(_MAGIC) :]))
        except (ValueError, zlib.error):
            return None
    return make(
        trt.ITimingCache,
        _version=data["version"],
        _device=data["device"],
        _entries={k: (int(v[0]), float(v[1])) for k, v in data["entries"].items()},
        _plain={k: (int(v[0]), float(v[1])) for k, v in data["plain"].items()},
    )


def to_blob(cache: Any) -> bytes:
    """The bytes of a cache."""
    data = {
        "version": cache._version,
        "device": cache._device,
        "entries": {k: list(v) for k, v in cache._entries.items()},
        "plain": {k: list(v) for k, v in cache._plain.items()},
    }
    return _MAGIC + zlib.compress(json.dumps(data).encode())
