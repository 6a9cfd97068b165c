"""Where the public models are, if they are there at all."""

from __future__ import annotations

import collections
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

# A folder beside the checkout, or the one that the variable names.
FOLDER = Path(os.environ.get("SURGEON_MODELS", Path(__file__).parent.parent.parent / "shared" / "models"))


def index() -> list[dict[str, Any]]:
    """The rows of index.json; empty where the models are not there."""
    file = FOLDER / "index.json"
    return json.loads(file.read_text()) if file.exists() else []


COUNTS: pytest.StashKey[dict[str, collections.Counter[str]]] = pytest.StashKey()
"""Where tests over the public models count what happened, by module."""


def sample(rows: list[dict[str, Any]], count: int, seed: int = 0) -> set[str]:
    """Files of a seeded sample that has at least one model of every special feature."""
    rng = random.Random(seed)
    shuffled = rng.sample(rows, len(rows))
    seen: set[str] = set()
    chosen: list[str] = []
    for row in shuffled:
        if set(row["special"]) - seen:
            seen |= set(row["special"])
            chosen.append(row["file"])
    rest = [row["file"] for row in shuffled if row["file"] not in chosen]
    return set(chosen + rest[: max(0, count - len(chosen))])
