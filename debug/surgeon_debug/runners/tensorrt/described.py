"""Documents about engines and timing caches: those that lie beside them, else what TensorRT itself says."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.tensorrt import look, record
from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics, by_key
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


def kind_of(path: Path) -> Kind:
    """What a file is, by the document beside it or by its ending; the content of either says nothing."""
    schema = str(record.read_beside(path).get("schema", ""))
    if schema.startswith("surgeon.tensorrt.build/") or path.suffix.lower() in _ENGINES:
        return Kind.ENGINE
    if schema.startswith("surgeon.tensorrt.cache/") or path.suffix.lower() in _CACHES:
        return Kind.CACHE
    return Kind.OTHER


def describe(path: Path, kind: Kind, *, timeout: float = _PATIENCE) -> dict[str, Any]:
    """The document about an engine or a timing cache.

    Args:
        path: The file.
        kind: What it is.
        timeout: Seconds that TensorRT may take, if it must be asked.

    Raises:
        FileError: There is no such file.
        EngineError: No document lies beside it, and TensorRT is not there or cannot read it.
    """
    if not path.is_file():
        raise FileError("does not exist", where=str(path))
    beside = record.read_beside(path)
    if beside:
        return beside
    text = f"{look.__file__}:Look:kind={kind.value}"
    with make_engine(text, isolated=True, timeout=timeout) as engine:
        engine.prepare(path, [look.DOCUMENT])
        found: dict[str, Any] = json.loads(str(engine.run({})[look.DOCUMENT][0]))
    return found


def tactics_of(document: dict[str, Any]) -> dict[str, KeyTactics]:
    """The keys of a timing cache with what is known of them."""
    return by_key(record.read_tables(document), document.get("tactics", {}))
