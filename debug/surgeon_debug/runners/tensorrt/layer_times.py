"""How long each layer of an engine takes, as its own profiler says."""

from __future__ import annotations

from typing import Any

from surgeon_debug.runners.tensorrt.execute import Execution
from surgeon_debug.values import Feeds
from surgeon_passes.errors import EngineError


def layer_times(trt: Any, execution: Execution, feeds: Feeds, runs: int) -> dict[str, float]:
    """Run an engine with its profiler on.

    Args:
        trt: The module.
        execution: The engine, ready to run; its profiler stays on, so it is of no use for measuring afterwards.
        feeds: Its inputs.
        runs: How often.

    Returns:
        Mean seconds by layer, in the engine's order.

    Raises:
        EngineError: The engine does not take a profiler, or fails.
    """
    seconds: dict[str, float] = {}

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            seconds[layer_name] = seconds.get(layer_name, 0.0) + ms / 1000

    profiler = Profiler()  # held here for as long as the context may call it
    context = execution.context
    context.profiler = profiler
    context.enqueue_emits_profile = False
    execution.load(feeds)
    for _ in range(runs):
        execution.launch()
        execution.finish()
        if not context.report_to_profiler():
            raise EngineError("tensorrt does not report the times of this engine's layers")
    return {name: total / runs for name, total in seconds.items()}
