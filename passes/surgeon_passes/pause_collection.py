"""Keep Python's cycle collector from running while many objects are made that all stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """No cycle collection inside the block; for work that makes no garbage.

    Every few hundred new objects the collector looks at a part of what exists, and once in a while at all of it. Where
    a graph of 20,000 nodes is copied it finds nothing and takes as long as the copying.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
