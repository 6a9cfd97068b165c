"""From the bytes of a plan to an engine."""

from __future__ import annotations

import time
from typing import Any

from surgeon_debug.runners.tensorrt.build_log import LogSink, attach, make_recorder, process_logger, said
from surgeon_passes.errors import EngineError


def load_engine(trt: Any, plan: Any, sink: LogSink) -> tuple[Any, Any, float]:
    """Deserialise an engine.

    Args:
        trt: The module.
        plan: The plan; anything with the buffer interface.
        sink: What the logger said.

    Returns:
        The engine, the runtime, which must outlive it, and the seconds that it took.

    Raises:
        EngineError: TensorRT does not take it: it is damaged, or of another version or device.
    """
    logger, _ = process_logger(trt)
    trt.init_libnvinfer_plugins(logger, "")
    runtime = trt.Runtime(logger)
    recorder = make_recorder(trt)
    attach(recorder, runtime)
    runtime.engine_host_code_allowed = True  # what engines for several versions bring along
    started = time.perf_counter()
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"tensorrt cannot load the engine: {said(sink, recorder, 'it gave no reason')}")
    return engine, runtime, time.perf_counter() - started
