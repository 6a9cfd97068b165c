"""Arguments for other people's code, from text."""

from __future__ import annotations

import ast
from typing import Any


def literal(text: str) -> Any:
    """A Python literal; ``true``, ``false`` and ``none`` in any case; anything else is text."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
