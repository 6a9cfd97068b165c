"""Whether an engine has the kernels that were pinned: the second look, at the engine instead of the cache."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon_debug.runners.tensorrt.failures import BuildFailure, BuildStatus
from surgeon_debug.runners.tensorrt.inspector import EngineInfo, EngineLayer, parse_engine
from surgeon_debug.runners.tensorrt.timing_cache import Pin
from surgeon_passes.errors import EngineError


def check_kernels(inspector: str, pins: Sequence[Pin]) -> None:
    """Refuse an engine whose layers do not have the kernels that were pinned.

    Pins that name no kernel or no nodes cannot be checked so, nor can layers that tell no tactic.

    Args:
        inspector: The inspector's JSON.
        pins: What was asked for.

    Raises:
        BuildFailure: A layer has another kernel.
    """
    named = [pin for pin in pins if pin.kernel and pin.nodes]
    if not named:
        return
    try:
        info = parse_engine(inspector)
    except EngineError:
        return  # what an engine does not tell proves nothing
    for pin in named:
        layers = _layers_of(info, pin)
        if layers and not any(_has(layer, pin) for layer in layers):
            words = f"key {pin.key} was pinned to {pin.kernel}, and layer {layers[0].name} has {layers[0].kernel}"
            raise BuildFailure(BuildStatus.NOT_APPLIED, words)


def _layers_of(info: EngineInfo, pin: Pin) -> list[EngineLayer]:
    """Layers that tell a tactic and compute the pin's nodes: all of them, or at least one."""
    wanted = set(pin.nodes)
    telling = [layer for layer in info.layers if layer.kernel]
    whole = [layer for layer in telling if wanted <= set(layer.nodes)]
    return whole or [layer for layer in telling if not wanted.isdisjoint(layer.nodes)]


def _has(layer: EngineLayer, pin: Pin) -> bool:
    if layer.tactic and layer.tactic == pin.tactic:
        return True
    return layer.kernel == pin.kernel
