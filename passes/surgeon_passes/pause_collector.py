"""Hold the garbage collector back while a model is loaded or rewritten.

A graph of 20,000 nodes is a million objects that live until the end and refer to each other. Python looks through all
of them for garbage every time their number has grown by a tenth, which doubles the time of a pass and makes it grow
faster than the graph.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection inside the block; afterwards as it was before."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
