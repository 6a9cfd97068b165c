"""What is kept of a build: one JSON document, the log and the inspector's words, in a folder or beside the engine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon_debug.runners.tensorrt.failures import BuildStatus
from surgeon_debug.runners.tensorrt.inspector import parse_engine
from surgeon_debug.runners.tensorrt.module import CAPABILITIES, capabilities, version_of
from surgeon_debug.runners.tensorrt.tactic_log import TacticLog, TacticTable, read_tactic_log
from surgeon_debug.runners.tensorrt.timing_cache import CacheEntry
from surgeon_passes.atomic_write import staged
from surgeon_passes.errors import EngineError, FileError

if TYPE_CHECKING:  # a document is read without what makes engines
    from surgeon_debug.runners.tensorrt.build import BuildFacts
    from surgeon_debug.runners.tensorrt.build_request import BuildOptions
    from surgeon_debug.runners.tensorrt.device_memory import DeviceInfo

SCHEMA = "surgeon.tensorrt.build/1"
"""The ``schema`` of the document; the number changes when a field changes its meaning."""

BUILD, LOG, INSPECTOR = "build.json", "build.log", "inspector.json"
"""Files in a folder of a record."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a build ended."""

    status: BuildStatus
    """In one word."""
    words: str = ""
    """The message of a failure; empty if there is an engine."""


def describe_build(
    trt: Any, device: DeviceInfo, model: Path, options: BuildOptions, facts: BuildFacts, outcome: Outcome
) -> dict[str, Any]:
    """What is known of a build but what its log and its engine tell, as JSON."""
    return {
        "schema": SCHEMA,
        "status": outcome.status.value,
        "words": outcome.words,
        "model": model.name,
        "versions": {"tensorrt": version_of(trt), "parser": _parser_version(trt)},
        "device": dataclasses.asdict(device),
        "capabilities": sorted(capabilities(trt)),
        "lacking": sorted({one.path for one in CAPABILITIES} - capabilities(trt)),
        "options": {**options.to_json(), "workspace": facts.workspace},
        "ranges": {name: dataclasses.asdict(span) for name, span in facts.ranges.items()},
        "shown": list(facts.shown),
        "seconds": dict(facts.seconds),
        "parser_flags": facts.parser_flags,
        "errors": list(facts.errors),
        "route": facts.route,
        "routes": _json_or_text(facts.routes),
        "pins": {pin.key: pin.tactic for pin in facts.pins},
        "cache_before": {key: entry.tactic for key, entry in facts.before.items()},
        "tactics": {key: entry.tactic for key, entry in facts.after.items()},
        "milliseconds": {key: entry.milliseconds for key, entry in facts.after.items()},
    }


def _parser_version(trt: Any) -> str:
    function = getattr(trt, "get_nv_onnx_parser_version", None)
    return str(function()) if callable(function) else ""


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def with_log(document: dict[str, Any], log: TacticLog) -> dict[str, Any]:
    """The document of a build with what its log tells: ``tables``, ``fusions`` and ``log_lines``."""
    return {
        **document,
        "tables": [table.to_json() for table in log.tables],
        "fusions": list(log.fusions),
        "log_lines": log.lines,
    }


def with_layers(document: dict[str, Any], inspector: str) -> dict[str, Any]:
    """The document of a build with its engine's ``layers``; what cannot be read is said under ``layers_lost``."""
    try:
        return {**document, "layers": parse_engine(inspector).to_json()}
    except EngineError as error:
        return {**document, "layers": [], "layers_lost": str(error)}


def write_record(folder: Path, document: Mapping[str, Any], inspector: str) -> None:
    """Write a record; the log is there already.

    Raises:
        FileError: The folder cannot be written.
    """
    with staged() as files:
        with files.open(folder / INSPECTOR) as file:
            file.write(inspector.encode("utf-8", "replace"))
        with files.open(folder / BUILD) as file:
            file.write(_dumped(document))


def _dumped(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def make_folder(folder: Path) -> Path:
    """Make the folder of a record.

    Raises:
        FileError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot be made: {(error.strerror or str(error)).lower()}", where=str(folder)) from error
    return folder


def beside(path: Path) -> Path:
    """The document that lies beside an engine or a timing cache."""
    return path.with_name(f"{path.name}.json")


def write_engine(path: Path, plan: Any, document: Mapping[str, Any], address: str) -> None:
    """Write an engine and the document that tells what it was built from.

    Raises:
        FileError: They cannot be written.
    """
    slim = {key: value for key, value in document.items() if key not in ("tables", "fusions")}
    with staged() as files:
        with files.open(beside(path)) as file:
            file.write(_dumped({**slim, "address": address, "digest": _digest(plan)}))
        with files.open(path) as file:  # the last one makes the set valid
            file.write(plan)


def address_of(path: Path) -> str:
    """What an engine's file was built from; empty if nothing tells."""
    return str(read_beside(path).get("address", ""))


def read_beside(path: Path) -> dict[str, Any]:
    """The document beside an engine or a timing cache; empty if there is none, or it is about another content."""
    try:
        held = json.loads(beside(path).read_text(encoding="utf-8"))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) and held.get("digest") == digest else {}


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


def write_cache(path: Path, blob: bytes, document: Mapping[str, Any]) -> None:
    """Write a timing cache, and beside it what its keys stand for as far as the build's log tells.

    What an older document tells of keys that this build did not time is kept.

    Raises:
        FileError: They cannot be written.
    """
    tables = {table["key"]: table for table in read_beside(path).get("tables", ()) if isinstance(table, dict)}
    tables.update((table["key"], table) for table in document.get("tables", ()) if table["key"] and table["rows"])
    tactics = document["tactics"]
    kept = {
        "schema": "surgeon.tensorrt.cache/1",
        "digest": _digest(blob),
        "versions": document["versions"],
        "device": document["device"],
        "tactics": tactics,
        "milliseconds": document["milliseconds"],
        "tables": [table for key, table in tables.items() if key in tactics],
    }
    with staged() as files:
        with files.open(beside(path)) as file:
            file.write(_dumped(kept))
        with files.open(path) as file:
            file.write(blob)


def read_tables(document: Mapping[str, Any], wanted: Container[str] | None = None) -> list[TacticTable]:
    """The tables of tactics that a document holds; those that cannot be read are left out.

    Args:
        document: The document.
        wanted: Keys whose tables are asked for; None for all tables.
    """
    found = []
    for held in document.get("tables", ()):
        try:
            if wanted is not None and held["key"] not in wanted:
                continue
            found.append(TacticTable.from_json(held))
        except (KeyError, TypeError, ValueError):
            continue
    return found


def read_map(document: Mapping[str, Any]) -> dict[str, CacheEntry]:
    """The entries of a timing cache that a document holds, by key."""
    times = document.get("milliseconds", {})
    return {key: CacheEntry(tactic, float(times.get(key, 0.0))) for key, tactic in document.get("tactics", {}).items()}


def read_log(path: Path) -> TacticLog:
    """What a log tells; one that cannot be read tells nothing."""
    try:
        return read_tactic_log(path)
    except FileError:
        return TacticLog((), (), 0)
