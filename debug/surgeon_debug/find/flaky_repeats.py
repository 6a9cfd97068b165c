"""How often something is run before a failure that comes and goes is taken to be gone."""

from __future__ import annotations

import math

_MISS = 0.01  # a failure that is there may stay unseen this often
_MOST = 64  # a rarer one would take longer than anybody waits
_SHRINK = 0.6  # the rate of what was seen at least once may be half of what it seems


def flaky_repeats(failed: int, runs: int, *, least: int) -> int:
    """Runs after which a failure that did not show is not there, but for one case in a hundred.

    With a rate of p that is log(0.01) / log(1 - p); p is what was seen, with one more failure and one more success
    assumed (Laplace's rule), and less of it.

    Args:
        failed: Runs in which it failed, at least 1 and fewer than ``runs``.
        runs: Runs that were made.
        least: Fewer will not do.
    """
    rate = min(0.95, _SHRINK * (failed + 1) / (runs + 2))
    return max(least, min(_MOST, math.ceil(math.log(_MISS) / math.log(1.0 - rate))))
