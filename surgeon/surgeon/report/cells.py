"""Words and numbers as tables and lines show them."""

from __future__ import annotations

import math

from rich.cells import cell_len, set_cell_size
from rich.markup import escape


def plain(text: str) -> str:
    """Text for the console: no markup, and control characters, which names may hold, spelt out."""
    return escape(_spelt_out(text))


def _spelt_out(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def number(value: float, *, signed: bool = False) -> str:
    """A number in at most eight characters."""
    if value == 0.0:
        return "0"
    if not math.isfinite(value):
        return f"{value:+}" if signed else f"{value}"
    return f"{value:+.1e}" if signed else f"{value:.2g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.1e}"


def short(name: str, width: int) -> str:
    """The end of a long name, which is where names differ."""
    return name if len(name) <= width else "..." + name[-(width - 3) :]


def middle(name: str, width: int) -> str:
    """A name for the console, as :func:`plain` has it, without the middle of a long one: both ends tell names apart.

    Args:
        name: The name.
        width: Columns it may take, 8 at least; wide characters take two.
    """
    text = _spelt_out(name)
    if cell_len(text) <= width:
        return escape(text)
    room = max(width, 8) - 3
    before = room // (2 if text.startswith("...") else 3)  # what begins so has lost its beginning already
    end = text[-(room - before) :]
    while cell_len(end) > room - before:
        end = end[1:]
    start = set_cell_size(text, before).rstrip()
    return escape(f"{start}...{end}")
