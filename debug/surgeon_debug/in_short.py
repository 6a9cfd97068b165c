"""Failures of an engine in words for people who did not type its options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from surgeon_debug.endings import EngineFailure

_OPTIONS = {"timeout=SECONDS": "--timeout SECONDS", "memory_cap=SIZE": "--memory-cap SIZE"}


@contextlib.contextmanager
def in_short(text: str, name: str, *, where: str = "") -> Iterator[None]:
    """Failures inside call the engine by a name, not by options that nobody typed.

    Args:
        text: The runner's text.
        name: What to call it.
        where: The file that a failure is about, if its message names none.

    Raises:
        EngineFailure: The same failure, in short.
    """
    try:
        yield
    except EngineFailure as error:
        hint = error.hint
        for option, flag in _OPTIONS.items():
            hint = hint.replace(option, flag)
        what, place = error.what.replace(text, name), error.where or where
        raise EngineFailure(what, ending=error.ending, where=place, hint=hint, nodes=error.nodes) from error
