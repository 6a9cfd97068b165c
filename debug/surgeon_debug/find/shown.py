"""Look at everything: does the failure stay when every tensor inside is an output, so that nothing can be fused?"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from surgeon_debug.find.census import CountingEngine
from surgeon_debug.find.groundwork import Groundwork
from surgeon_debug.find.oracle import Signature
from surgeon_debug.find.signature import of_outputs
from surgeon_debug.limits import Limits
from surgeon_debug.memory_left import memory_left
from surgeon_debug.pair import LayerOptions, Pair
from surgeon_debug.runners.contract import Engine
from surgeon_debug.user_functions import Postprocess
from surgeon_passes.graph import load
from surgeon_passes.observe_bodies import Observed

_SHARE_OF_MEMORY = 4


@dataclasses.dataclass(frozen=True)
class Shown:
    """What became of the outputs."""

    signature: Signature | None
    """Their failure; None if they are right."""
    words: str
    builds: int
    runs: int
    reference_runs: int


def show_everything(
    ground: Groundwork,
    engines: tuple[Engine, Engine],
    *,
    limits: Limits,
    postprocess: Postprocess | None = None,
    allow_external: bool = False,
) -> Shown:
    """Run the suspect on its own values with every tensor of the main graph shown.

    Args:
        ground: The model and its inputs.
        engines: The reference and the suspect.
        limits: The caller's own limits for outputs.
        postprocess: What is compared instead of the outputs.
        allow_external: Accept weights outside the model's folder.

    Raises:
        EngineError: An engine cannot do it.
    """
    counted = CountingEngine(engines[0]), CountingEngine(engines[1])
    model = load(ground.path, allow_external=allow_external)
    shown = Observed(model, (), (), frozenset())
    fed = [dict(sample) for sample in ground.feeds]
    pair = Pair(
        (ground.path, ground.path),
        (shown, shown),
        counted,
        (fed, fed),
        limits=limits,
        postprocess=postprocess,
        made_up=False,
    )
    options = LayerOptions(memory=memory_left() // _SHARE_OF_MEMORY, isolate=False, whole=False)
    with tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True) as folder:
        found = pair.compare_layers(Path(folder), options, 0, None)
    signature, words, _ = of_outputs(found.outputs)
    return Shown(signature, words, counted[1].builds, counted[1].runs, counted[0].runs)
