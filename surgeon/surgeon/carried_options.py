"""The options that the next command needs as well, so that it asks the same question of the same engine."""

from __future__ import annotations

import shlex
from typing import Any

_COMMON: dict[str, Any] = {
    "feeds": None,
    "samples": 1,
    "seed": 0,
    "dims": "",
    "original": None,
    "reference": None,
    "rtol": None,
    "atol": None,
    "metric": (),
    "per_tensor": None,
    "postprocess": None,
    "timeout": None,
    "memory_cap": None,
    "allow_external": False,
}
"""What several commands understand alike, and what it is unless it is given."""


def carried_options(request: object, **differs: Any) -> str:
    """The options of a request that other commands take too, with a space before each; empty if none was given.

    Args:
        request: What was typed: an object with fields that are called like the options.
        differs: What an option of this command is unless it is given, where that is something else.
    """
    words: list[str] = []
    for name, usual in {**_COMMON, **differs}.items():
        value = getattr(request, name, usual)
        option = f"--{name.replace('_', '-')}"
        if value == usual:
            continue
        if value is True:
            words.append(option)
            continue
        for one in value if isinstance(value, tuple) else [value]:
            words += [option, str(one)]
    return "".join(f" {shlex.quote(word)}" for word in words)
