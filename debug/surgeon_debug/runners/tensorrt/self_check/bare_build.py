"""A build by the shortest way through TensorRT, so that what is asked about it is not answered by what is around it."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.runners.tensorrt.build import make_builder
from surgeon_debug.runners.tensorrt.inspector import EngineInfo, inspect_engine, parse_engine
from surgeon_debug.runners.tensorrt.module import member
from surgeon_debug.runners.tensorrt.parse import issues_of
from surgeon_debug.runners.tensorrt.timing_cache import CacheEntry, read_map
from surgeon_passes.errors import EngineError

WORKSPACE = 1 << 30
"""Bytes of scratch memory for tactics."""

_WARNING = 2  # ILogger.Severity: a smaller number is worse


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the log."""

    severity: int
    """0 to 4, the smaller the worse."""
    thread: int
    """Who called."""
    words: str


@dataclasses.dataclass(frozen=True)
class Bare:
    """What a build left."""

    plan: Any
    """The engine's bytes; None if there is none."""
    cache: Any
    """The timing cache, to be kept as long as the configuration may use it."""
    taken: bool
    """What ``set_timing_cache`` returned."""
    lines: tuple[Line, ...]
    """The log."""
    seconds: float
    """What the build took."""

    @property
    def entries(self) -> dict[str, CacheEntry]:
        """The cache by key."""
        return read_map(self.cache)

    @property
    def text(self) -> list[str]:
        """The lines of the log."""
        return [line.words for line in self.lines]

    @property
    def complaints(self) -> list[str]:
        """Warnings and errors."""
        return [line.words for line in self.lines if line.severity <= _WARNING]


@functools.cache
def ear(trt: Any) -> tuple[Any, list[Line]]:
    """The logger of this process, which must be the first that it has, and all lines so far."""
    heard: list[Line] = []

    class Ear(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            heard.append(Line(int(severity), threading.get_ident(), msg))

    return Ear(), heard


def bare_build(
    trt: Any,
    path: Path,
    *,
    flags: Sequence[str] = ("EDITABLE_TIMING_CACHE",),
    cache: bytes = b"",
    edit: Callable[[Any], None] | None = None,
    network: Callable[[Any], None] | None = None,
    route: str = "",
    threads: int = 0,
) -> Bare:
    """Parse and build.

    Args:
        trt: The module.
        path: A model without open sizes.
        flags: Builder flags; those that this version does not have are left out.
        cache: A timing cache to begin with.
        edit: Changes it before the build.
        network: Changes the network before the build.
        route: The build route.
        threads: The builder's threads; 0 for its own number.

    Raises:
        EngineError: There is no GPU, or the parser refuses the model.
    """
    logger, heard = ear(trt)
    since = len(heard)
    builder = make_builder(trt, logger)
    if threads:
        builder.max_threads = threads
    made = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    parser = trt.OnnxParser(made, logger)
    if not parser.parse(path.read_bytes(), str(path)):
        words = "; ".join(issue.sentence for issue in issues_of(parser)[:1])
        raise EngineError(f"tensorrt cannot parse {path.name}: {words or 'it gave no reason'}")
    if network is not None:
        network(made)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for name in flags:
        flag = member(trt, "BuilderFlag", name)
        if flag is not None:
            config.set_flag(flag)
    if route:
        config.build_route = route
    timing = config.create_timing_cache(cache)
    if timing is None:
        raise EngineError("tensorrt cannot read the timing cache")
    if edit is not None:
        edit(timing)
    taken = bool(config.set_timing_cache(timing, False))
    started = time.perf_counter()
    plan = builder.build_serialized_network(made, config)
    return Bare(plan, timing, taken, tuple(heard[since:]), time.perf_counter() - started)


def loaded(trt: Any, built: Bare) -> tuple[Any, Any]:
    """The engine, and the runtime that must outlive it.

    Raises:
        EngineError: There is none, or it cannot be loaded.
    """
    if built.plan is None:
        reason = " / ".join(built.complaints[-2:]) or "it gave no reason"
        raise EngineError(f"the build made nothing: {reason}")
    logger, _ = ear(trt)
    trt.init_libnvinfer_plugins(logger, "")
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(built.plan)
    if engine is None:
        raise EngineError("tensorrt cannot load the engine that it has just built")
    return engine, runtime


def layers_of(trt: Any, built: Bare) -> tuple[EngineInfo, str]:
    """The layers of a build's engine, and the inspector's own words.

    Raises:
        EngineError: There is no engine, or it says nothing that can be read.
    """
    engine, runtime = loaded(trt, built)
    text = inspect_engine(trt, engine)
    del engine, runtime  # in this order
    return parse_engine(text), text
