"""Questions about timing caches that only a device can answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon_debug.runners.tensorrt.build import make_builder
from surgeon_debug.runners.tensorrt.module import load_tensorrt, member
from surgeon_debug.runners.tensorrt.self_check.answer import Found, Reply
from surgeon_debug.runners.tensorrt.self_check.bare_build import Bare, bare_build, ear, layers_of
from surgeon_debug.runners.tensorrt.self_check.small_models import ATTENTION, CONV, MLP
from surgeon_debug.runners.tensorrt.tactic_log import Dialect, TacticTable, parse_tactic_log
from surgeon_passes.errors import EngineError

_CONVOLUTIONS = ("conv1", "conv2")
_EDITABLE, _STRICT, _NO_KERNELS = "EDITABLE_TIMING_CACHE", "ERROR_ON_TIMING_CACHE_MISS", "DISABLE_COMPILATION_CACHE"
_HEAD = 256  # bytes of a cache that may tell its device
_MISSES = 24  # keys that are taken out, one a build


def tables_of(built: Bare) -> tuple[TacticTable, ...]:
    """What a build's log tells of tactics."""
    return parse_tactic_log(built.text).tables


def convolutions_have_keys(models: Mapping[str, Path]) -> Found:
    """Question 1."""
    trt = load_tensorrt()
    built = bare_build(trt, models[CONV], flags=(_EDITABLE, _NO_KERNELS))
    info, _ = layers_of(trt, built)
    layers = [one for one in info.layers if set(one.nodes) & set(_CONVOLUTIONS)]
    classic = [one for one in layers if "cask" in one.kind.lower()]
    tables = [table for table in tables_of(built) if _is_convolution(table)]
    entries = built.entries
    keyed = [table for table in tables if table.key in entries]
    details: dict[str, Any] = {
        "layers": [[one.name, one.kind, one.kernel, one.tactic] for one in layers],
        "tables": [table.to_json() for table in tables],
        "keys": {key: entry.tactic for key, entry in entries.items()},
    }
    dialects = {table.dialect for table in tables}
    seen = f"{len(classic)} of {len(layers)} layers with convolutions are classic, {len(keyed)} of {len(tables)} tables"
    seen += " of convolutions have a key in the cache"
    if not classic and Dialect.CLASSIC not in dialects:
        return Reply.UNKNOWN, f"{seen}; no convolution took the classic way", details
    if not keyed:
        return Reply.NO, seen, details
    edited = _edited(trt, models[CONV], built, keyed)
    details["edited"] = edited
    if not edited:
        return Reply.UNKNOWN, f"{seen}; none had a second tactic to be edited to", details
    kept = [one for one in edited if one["after"] == one["to"]]
    words = f"{seen}; {len(kept)} of {len(edited)} that were edited to another tactic kept it"
    return (Reply.YES if kept else Reply.NO), words, details


def _is_convolution(table: TacticTable) -> bool:
    return bool(set(table.nodes) & set(_CONVOLUTIONS)) or any(name in table.op for name in _CONVOLUTIONS)


def _edited(trt: Any, path: Path, built: Bare, tables: list[TacticTable]) -> list[dict[str, str]]:
    """Each table's key, written another tactic into the cache and built again."""
    blob = bytes(built.cache.serialize())
    found = []
    for table in tables:
        now = built.entries[table.key]
        others = [row.hash for row in table.rows if row.hash != now.tactic]
        if not others:
            continue

        def write(cache: Any, key: str = table.key, tactic: str = others[0], time: float = now.milliseconds) -> None:
            cache.update(trt.TimingCacheKey.parse(key), trt.TimingCacheValue(int(tactic, 16), time))

        again = bare_build(trt, path, flags=(_EDITABLE, _NO_KERNELS), cache=blob, edit=write)
        after = again.entries.get(table.key)
        state = "no engine" if again.plan is None else "gone" if after is None else after.tactic
        found.append({"op": table.op, "key": table.key, "from": now.tactic, "to": others[0], "after": state})
    return found


def other_devices_are_refused(models: Mapping[str, Path], foreign: Path | None) -> Found:
    """Question 5.

    Args:
        models: Files by name.
        foreign: A timing cache of another device; without one, bytes at the head of a cache are changed until
            TensorRT takes it for another device's.
    """
    trt = load_tensorrt()
    if foreign is not None:
        state, lines = _offered(trt, foreign.read_bytes())
        details: dict[str, Any] = {"state": state, "lines": lines}
        if state == "unreadable":
            return Reply.UNKNOWN, f"{foreign.name} cannot be read as a timing cache", details
        words = f"for {foreign.name} it says {state}" + (f": {lines[0]}" if lines else "")
        return _refusal(state), words, details
    blob = bytes(bare_build(trt, models[MLP], flags=(_EDITABLE, _NO_KERNELS)).cache.serialize())
    states: dict[str, list[int]] = {}
    first: dict[str, list[str]] = {}
    for place in range(min(_HEAD, len(blob))):
        changed = bytearray(blob)
        changed[place] ^= 1
        state, lines = _offered(trt, bytes(changed))
        states.setdefault(state, []).append(place)
        first.setdefault(state, lines[:2])
    details = {"places": states, "lines": first, "head": blob[:_HEAD].hex()}
    counted = ", ".join(f"{state} {len(places)} times" for state, places in sorted(states.items()))
    words = f"with one byte changed at the head of a cache it says: {counted}"
    for state in ("False", "True with a warning"):
        if state in states:
            return _refusal(state), words, details
    return Reply.UNKNOWN, f"{words}; --other-cache FILE offers it a real one", details


def _refusal(state: str) -> Reply:
    return Reply.YES if state == "False" else Reply.NO


def _offered(trt: Any, blob: bytes) -> tuple[str, list[str]]:
    """What becomes of a cache that is offered, and what the log says."""
    logger, heard = ear(trt)
    since = len(heard)
    config = make_builder(trt, logger).create_builder_config()
    config.set_flag(trt.BuilderFlag.EDITABLE_TIMING_CACHE)
    cache = config.create_timing_cache(blob)
    if cache is None:
        return "unreadable", [line.words for line in heard[since:]]
    taken = bool(config.set_timing_cache(cache, False))
    lines = [line.words for line in heard[since:] if line.severity <= 2]
    return ("False" if not taken else "True with a warning" if lines else "True"), lines


def misses_are_stopped(models: Mapping[str, Path]) -> Found:
    """Question 6: one key after the other is taken out of a full cache."""
    trt = load_tensorrt()
    tried = 0
    passed: list[dict[str, Any]] = []
    refusals: dict[str, str] = {}
    for name in (MLP, CONV, ATTENTION):
        full = bare_build(trt, models[name], flags=(_EDITABLE, _NO_KERNELS))
        blob, ops = bytes(full.cache.serialize()), {table.key: table.op for table in tables_of(full)}
        whole = bare_build(trt, models[name], flags=(_EDITABLE, _NO_KERNELS, _STRICT), cache=blob)
        if whole.plan is None:
            return Reply.UNKNOWN, f"{name} cannot be built strictly from its own full cache", {"log": whole.complaints}
        for key in list(full.entries)[: _MISSES // 3]:

            def remove(cache: Any, key: str = key) -> None:
                # A time that is no number deletes an entry.
                cache.update(trt.TimingCacheKey.parse(key), trt.TimingCacheValue(1, math.nan))

            built = bare_build(trt, models[name], flags=(_EDITABLE, _NO_KERNELS, _STRICT), cache=blob, edit=remove)
            tried += 1
            if built.plan is not None:
                passed.append({"model": name, "key": key, "op": ops.get(key, ""), "timed": key in built.entries})
            else:
                refusals.setdefault(" ".join(built.complaints[-1:])[:200], key)
    details = {"tried": tried, "passed": passed, "refusals": refusals}
    if not tried:
        return Reply.UNKNOWN, "no model has a key", details
    if not passed:
        return Reply.YES, f"all of {tried} builds that missed one key were stopped", details
    ops_words = ", ".join(sorted({str(one["op"] or one["key"]) for one in passed})[:3])
    return Reply.NO, f"{len(passed)} of {tried} builds that missed one key went through: {ops_words}", details


def rebuilds_are_fast(models: Mapping[str, Path]) -> Found:
    """Question 8: seconds of a build, and of rebuilds from its cache."""
    trt = load_tensorrt()
    details: dict[str, Any] = {"has_compilation_cache": member(trt, "BuilderFlag", _NO_KERNELS) is not None}
    totals = {"first": 0.0, "again": 0.0, "kernels": 0.0}
    bare_build(trt, models[MLP])  # what is loaded once and for all is not counted
    for name in (CONV, MLP, ATTENTION):
        first = bare_build(trt, models[name], flags=(_EDITABLE, _NO_KERNELS))
        if first.plan is None:
            raise EngineError(f"{name} cannot be built: {' / '.join(first.complaints[-1:])}")
        blob = bytes(first.cache.serialize())
        again = bare_build(trt, models[name], flags=(_EDITABLE, _NO_KERNELS), cache=blob)
        bare_build(trt, models[name], flags=(_EDITABLE,), cache=blob)  # fills the compilation cache
        kernels = bare_build(trt, models[name], flags=(_EDITABLE,), cache=blob)
        seconds = {"first": first.seconds, "again": again.seconds, "kernels": kernels.seconds}
        details[name] = seconds
        totals = {kind: totals[kind] + seconds[kind] for kind in totals}
    words = (
        f"three models took {totals['first']:.2f} s to build, {totals['again']:.2f} s again from the timing cache, "
        f"{totals['kernels']:.2f} s with the compilation cache on"
    )
    return (Reply.YES if totals["again"] < totals["first"] else Reply.NO), words, details
