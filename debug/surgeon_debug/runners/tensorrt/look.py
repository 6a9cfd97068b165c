"""Look into an engine or a timing cache with TensorRT itself, as a runner: so that a damaged one only ends its process.

What is found comes back as one text, a JSON document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.runners.tensorrt import record, timing_cache
from surgeon_debug.runners.tensorrt.buffers import open_memory
from surgeon_debug.runners.tensorrt.build import make_builder
from surgeon_debug.runners.tensorrt.build_log import process_logger
from surgeon_debug.runners.tensorrt.engine_file import load_engine
from surgeon_debug.runners.tensorrt.engine_ports import engine_ports
from surgeon_debug.runners.tensorrt.inspector import inspect_engine
from surgeon_debug.runners.tensorrt.module import load_tensorrt, version_of
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import BadOptionError, EngineError, FileError

DOCUMENT = "document"
"""The name under which the document is returned."""


class Look:
    """Describe a file of TensorRT's.

    Args:
        kind: ``engine`` or ``cache``.

    Raises:
        BadOptionError: It is neither.
        EngineError: TensorRT cannot be loaded, or there is no GPU.
    """

    observes = True

    def __init__(self, kind: str) -> None:
        if kind not in ("engine", "cache"):
            raise BadOptionError(f"nobody can look into a {kind}", hint="engine or cache")
        self._kind = kind
        self._trt = load_tensorrt()
        self._device = open_memory().device_info()
        self._document: dict[str, Any] = {}

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Read the file; ``outputs`` is of no interest."""
        del outputs
        try:
            content = model_path.read_bytes()
        except OSError as error:
            raise FileError(
                f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(model_path)
            ) from error
        self._document = self._engine(content) if self._kind == "engine" else self._cache(content)

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Return the document; ``feeds`` are of no interest."""
        del feeds
        return {DOCUMENT: np.array([json.dumps(self._document)], dtype=object)}

    def _engine(self, plan: bytes) -> dict[str, Any]:
        logger_sink = process_logger(self._trt)[1]
        engine, runtime, seconds = load_engine(self._trt, plan, logger_sink)
        document = {
            "schema": record.SCHEMA,
            "versions": {"tensorrt": version_of(self._trt)},
            "seconds": {"load": seconds},
            "ports": engine_ports(self._trt, engine),
            "profiles": int(engine.num_optimization_profiles),
        }
        document = record.with_layers(document, inspect_engine(self._trt, engine))
        del engine, runtime  # in this order
        return document

    def _cache(self, blob: bytes) -> dict[str, Any]:
        trt = self._trt
        logger, _ = process_logger(trt)
        builder = make_builder(trt, logger)
        config = builder.create_builder_config()
        config.set_flag(trt.BuilderFlag.EDITABLE_TIMING_CACHE)
        cache = config.create_timing_cache(blob)
        if cache is None:
            raise EngineError("tensorrt cannot read it as a timing cache: it is none, or of another version")
        entries = timing_cache.read_map(cache)
        return {
            "schema": "surgeon.tensorrt.cache/1",
            "versions": {"tensorrt": version_of(trt)},
            "tactics": {key: entry.tactic for key, entry in entries.items()},
            "milliseconds": {key: entry.milliseconds for key, entry in entries.items()},
            "tables": [],
        }
