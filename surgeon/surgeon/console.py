"""Where text goes: results to stdout, talk to stderr, colours only for people."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

_PIPED_WIDTH = 120  # a pipe has no width; rich would assume 80 and cut names
_LARGE = 1 << 20  # characters


def results() -> Console:
    """The console that results are printed on."""
    width = None if sys.stdout.isatty() else _PIPED_WIDTH
    return Console(width=width, highlight=False, soft_wrap=False, emoji=False)


def talk() -> Console:
    """The console for progress and remarks; stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout. NaN and infinities become strings, for JSON has none.

    A large one comes on one line: nobody reads it, and indenting takes ten times as long.
    """
    tidy = _plain(document)
    text = json.dumps(tidy)
    sys.stdout.write((text if len(text) > _LARGE else json.dumps(tidy, indent=2)) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return "nan" if value != value else ("inf" if value > 0 else "-inf")
    return value


def human_bytes(count: float) -> str:
    """A size with three digits and a decimal unit: ``1.23 GB``."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.3g} {unit}"
    return f"{count:.0f} GB"
