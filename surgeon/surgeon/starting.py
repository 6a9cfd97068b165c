"""Start engines before anything else is imported: their processes come up while this one reads its own modules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_passes.spec import parse_size


@contextlib.contextmanager
def started(texts: Sequence[str], timeout: float | None, memory_cap: str | None) -> Iterator[list[Engine]]:
    """Engines in processes of their own, closed at the end of the block.

    Args:
        texts: The runners.
        timeout: Seconds that each may take to prepare or run a model once.
        memory_cap: Memory that each process may take, such as ``4GB``.

    Raises:
        BadOptionError: A text, the time or the size makes no sense.
    """
    cap = parse_size(memory_cap) if memory_cap else None
    with contextlib.ExitStack() as stack:
        engines = []
        for text in texts:
            engines.append(make_engine(text, isolated=True, timeout=timeout, memory_cap=cap))
            stack.callback(engines[-1].close)
        yield engines
