"""What ``surgeon compare --ladder`` does once the outputs are known to differ."""

from __future__ import annotations

from surgeon import options
from surgeon.comparing import Request
from surgeon.console import talk
from surgeon_debug.comparison import Comparison
from surgeon_debug.feed_files import load_feeds
from surgeon_debug.ladder import Ladder
from surgeon_debug.limits import Limits
from surgeon_debug.observe_ladder import climb
from surgeon_debug.verdict import Verdict
from surgeon_passes.errors import BadOptionError
from surgeon_passes.graph import load
from surgeon_passes.spec import parse_size


def look_inside(request: Request, done: Comparison, timeout: float | None, memory_cap: str | None) -> Ladder | None:
    """Climb down the ladder of observation; None if the outputs are right, so that there is nothing to look for.

    Args:
        request: What was typed.
        done: What comparing came to.
        timeout: Seconds for one build or one run.
        memory_cap: Memory for each engine's process.

    Raises:
        BadOptionError: The target is not TensorRT, or there are two models.
        EngineError: The engine cannot be built again.
    """
    if request.target is None or not request.target.startswith("tensorrt") or request.other is not None:
        raise BadOptionError("--ladder looks into one model on TensorRT", hint="add --target tensorrt, name one model")
    if all(result.verdict is Verdict.AGREE for result in done.outputs):
        return None
    feeds = None
    if request.feeds is not None:
        feeds = load_feeds(request.feeds, load(request.model, allow_external=request.allow_external))
    with talk().status(f"looking into {request.model.name}"):
        return climb(
            request.model,
            target=request.target,
            reference=request.reference,
            feeds=feeds,
            seed=request.seed,
            dims=options.parse_dims(request.dims),
            limits=Limits.parse(request.metric, request.per_tensor, rtol=request.rtol, atol=request.atol),
            timeout=timeout,
            memory_cap=parse_size(memory_cap) if memory_cap else None,
            allow_external=request.allow_external,
        )
