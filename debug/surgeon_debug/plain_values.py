"""Values made of what JSON has."""

from __future__ import annotations

from typing import Any


def plain(value: Any) -> Any:
    """A value made of what JSON has."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not abs(value) <= 1.7976931348623157e308:
        return "nan" if value != value else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
