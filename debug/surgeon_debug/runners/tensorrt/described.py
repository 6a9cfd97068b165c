"""Documents about engines and timing caches: those that lie beside them, else what TensorRT itself says."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from surgeon_debug.runners.tensorrt import record
from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics, TacticDiff, by_key, diff_tactics
from surgeon_passes.errors import FileError

_ENGINES = (".engine", ".plan", ".trt")
_CACHES = (".cache", ".timing", ".timingcache")
_PATIENCE = 300.0


class Kind(enum.Enum):
    """What a file is."""

    ENGINE = "engine"
    """A TensorRT engine."""
    CACHE = "cache"
    """A timing cache."""
    OTHER = "other"
    """Neither: a model, one may hope."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A file, and what is known of it without TensorRT."""

    path: Path
    """The file."""
    kind: Kind
    """What it is."""
    beside: dict[str, Any]
    """The document beside it; empty if there is none, or it is about another content."""


def look_at(path: Path) -> Found:
    """What a file is, by the document beside it or by its ending; the content of either says nothing."""
    beside = record.read_beside(path)
    schema = str(beside.get("schema", ""))
    if schema.startswith("surgeon.tensorrt.build/") or path.suffix.lower() in _ENGINES:
        return Found(path, Kind.ENGINE, beside)
    if schema.startswith("surgeon.tensorrt.cache/") or path.suffix.lower() in _CACHES:
        return Found(path, Kind.CACHE, beside)
    return Found(path, Kind.OTHER, beside)


def describe(found: Found, *, timeout: float = _PATIENCE) -> dict[str, Any]:
    """The document about an engine or a timing cache.

    Args:
        found: The file.
        timeout: Seconds that TensorRT may take, if it must be asked.

    Raises:
        FileError: There is no such file.
        EngineError: No document lies beside it, and TensorRT is not there or cannot read it.
    """
    if not found.path.is_file():
        raise FileError("is a folder" if found.path.is_dir() else "does not exist", where=str(found.path))
    if found.beside:
        return found.beside
    from surgeon_debug.in_short import in_short
    from surgeon_debug.runners.catalogue import make_engine  # engines are not loaded where a document lies beside
    from surgeon_debug.runners.tensorrt import look

    text = f"{look.__file__}:Look:kind={found.kind.value}"
    with in_short(text, "tensorrt", where=str(found.path)), make_engine(text, isolated=True, timeout=timeout) as engine:
        engine.prepare(found.path, [look.DOCUMENT])
        document: dict[str, Any] = json.loads(str(engine.run({})[look.DOCUMENT][0]))
    return document


def tactics_of(document: dict[str, Any], *, without: Container[str] = ()) -> dict[str, KeyTactics]:
    """The keys of a timing cache with what is known of them.

    Args:
        document: The document.
        without: Keys that are not asked for, as the document spells them.
    """
    wanted = {key: tactic for key, tactic in document.get("tactics", {}).items() if key not in without}
    return by_key(record.read_tables(document, wanted), wanted)


def difference_of(first: dict[str, Any], second: dict[str, Any]) -> TacticDiff:
    """What differs between two timing caches, from their documents.

    Of keys that are spelt the same and have the same tactic in both, nothing else is read.
    """
    before, after = first.get("tactics", {}), second.get("tactics", {})
    same = {key for key, tactic in before.items() if after.get(key) == tactic}
    rest = diff_tactics(tactics_of(first, without=same), tactics_of(second, without=same))
    return dataclasses.replace(rest, same=rest.same + len(same))
