"""What ``surgeon compare --layers`` does on TensorRT."""

from __future__ import annotations

from surgeon.comparing import Request, check, shared_arguments
from surgeon.console import talk
from surgeon_debug.comparison import Comparison
from surgeon_debug.observe_ladder import climb
from surgeon_debug.pair import LayerOptions
from surgeon_debug.runners.contract import Engine
from surgeon_passes.errors import BadOptionError
from surgeon_passes.spec import parse_size


def look_inside(request: Request, reference: Engine, timeout: float | None, memory_cap: str | None) -> Comparison:
    """Compare on TensorRT, looking at its layers with as little disturbance as will do.

    Args:
        request: What was typed.
        reference: The reference.
        timeout: Seconds for one build or one run.
        memory_cap: Memory for each engine's process.

    Raises:
        SurgeonError: A model, a runner or an option does not do, or a file must not or cannot be written.
    """
    check(request)
    for option, asked in (
        ("--memory", request.memory is not None),
        ("--no-isolate", not request.isolate),
        ("--whole", request.whole is not None),
    ):
        if asked:
            raise BadOptionError(f"{option} is about comparing piece by piece", hint="on TensorRT add --pieces")
    assert request.target is not None
    with talk().status(f"comparing {request.model.name}"):
        return climb(
            request.model,
            target=request.target,
            reference=reference,
            layers=LayerOptions(iterations=request.iterations, inner=request.inner),
            timeout=timeout,
            memory_cap=parse_size(memory_cap) if memory_cap else None,
            **shared_arguments(request),
        )
