"""The folders that the names in a column have in common: they tell nobody apart, and go first where room is short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_SHARE = 0.75  # of the names that have folders


def shared_path(names: Iterable[str]) -> str:
    """The longest path, ``/`` at its end, that most of the names begin with; empty if there is none.

    Args:
        names: Names such as ``/model/layer.7/conv/Conv``; those without a ``/`` do not count.
    """
    pathed = [name for name in names if "/" in name.strip("/")]
    if len(pathed) < 2:
        return ""
    folders = [name[: name.rindex("/") + 1] for name in pathed]
    path = ""
    while True:
        begun = [folder for folder in folders if folder.startswith(path) and folder != path]
        steps = Counter(folder[: folder.index("/", len(path)) + 1] for folder in begun)
        longer, count = steps.most_common(1)[0] if steps else ("", 0)
        if count < _SHARE * len(pathed):
            return path if path != "/" else ""
        path = longer


def without_path(name: str, path: str) -> str:
    """A name without what all have in common, which three dots stand for.

    Args:
        name: The name.
        path: What :func:`shared_path` says of the column.
    """
    return f"...{name[len(path) :]}" if len(path) > len("...") and name.startswith(path) else name
