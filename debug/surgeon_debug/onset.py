"""In which iteration of a loop an error begins.

A node with a body is isolated as a whole, so from the first wrong iteration on everything in it is wrong, and what
stands first in the body is wrong one iteration later than what is to blame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from surgeon_debug.layer_verdict import WRONG
from surgeon_debug.values import Value, kind_of

_QUIET = 1e-2
"""What counts as explained in an iteration with hardly any energy, as a share of the mean over all."""


def onset(reference: Value, isolated: Value, axes: int, floor: float | None) -> tuple[int, ...] | None:
    """The first iteration, of the outermost loop first, whose error is beyond the precision; None if there is none.

    Args:
        reference: Values of all iterations, those of the reference.
        isolated: Values of the target on the reference's inputs.
        axes: How many of the first dimensions count iterations.
        floor: The relative error that is explained; None if none is.
    """
    if not isinstance(reference, np.ndarray) or not isinstance(isolated, np.ndarray):
        return None
    if reference.shape != isolated.shape or reference.ndim < axes or not reference.size:
        return None
    beyond = np.argwhere(_beyond(reference, isolated, axes, floor or 0.0))
    return tuple(int(index) for index in beyond[0]) if len(beyond) else None


def _beyond(reference: np.ndarray[Any, Any], isolated: np.ndarray[Any, Any], axes: int, floor: float) -> Any:
    rest = tuple(range(axes, reference.ndim))
    if kind_of(reference) != "float" or kind_of(isolated) != "float":
        return np.any(reference != isolated, axis=rest)
    with np.errstate(all="ignore"):
        r, i = reference.astype(np.float64), isolated.astype(np.float64)
        special = ~((np.isfinite(r) & np.isfinite(i)) | (r == i) | (np.isnan(r) & np.isnan(i)))
        error = np.where(special | (r == i), 0.0, i - r)
        error[~np.isfinite(error)] = 0.0
        energy = np.where(np.isfinite(r), r * r, 0.0).sum(axis=rest)
        explained = (WRONG * floor) ** 2 * np.maximum(energy, _QUIET * energy.mean())
        return special.any(axis=rest) | ((error * error).sum(axis=rest) > explained)
