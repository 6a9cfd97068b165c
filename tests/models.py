"""Where the public models are, if they are there at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# A folder beside the checkout, or the one that the variable names.
FOLDER = Path(os.environ.get("SURGEON_MODELS", Path(__file__).parent.parent.parent / "shared" / "models"))


def index() -> list[dict[str, Any]]:
    """The rows of index.json; empty where the models are not there."""
    file = FOLDER / "index.json"
    return json.loads(file.read_text()) if file.exists() else []
