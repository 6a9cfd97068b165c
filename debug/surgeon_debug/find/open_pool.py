"""Open the pool that a search asked for: lanes on this machine, or the workers of a Dask scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.find.content_address import files_of
from surgeon_debug.find.model_spec import ModelSpec
from surgeon_debug.find.pool import LocalPool
from surgeon_debug.find.remember import Remembering
from surgeon_debug.find.trial_pool import TrialPool


def open_pool(
    spec: ModelSpec[Any], remember: Remembering, *, lanes: int, workers: str | None, files: Sequence[Path] = ()
) -> TrialPool:
    """A pool; whoever opens it closes it.

    Args:
        spec: Makes the oracles.
        remember: Where trials are looked up and noted.
        lanes: Trials at a time, on this machine.
        workers: The address of a scheduler, whose workers make the trials instead; None for this machine.
        files: What workers must see besides the model.

    Raises:
        BadOptionError: The address is none, nobody answers, or workers do not see the model; or there are no lanes.
        FileError: The model cannot be read.
    """
    if not workers:
        return LocalPool(spec, lanes, remember)
    from surgeon_debug.find.dask_pool import DaskPool

    seen = (*files_of(spec.model, allow_external=spec.allow_external), *files)
    return DaskPool(spec, workers, remember, files=seen)
