"""Files a command is going to write, checked before it starts to work: a mistyped name must not cost an input."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from surgeon_passes.errors import BadOptionError, FileError


def check_targets(targets: Mapping[str, tuple[Path | None, bytes]], inputs: Sequence[Path | None]) -> None:
    """Refuse to write where something would be lost, or where nothing can be written.

    Args:
        targets: By option, the file and the bytes that files of its kind start with; a file that is there already
            is replaced only if it starts so too. No bytes: whatever is there is looked after elsewhere.
        inputs: Files and folders that are read.

    Raises:
        BadOptionError: A file is one of the inputs, or two options name the same.
        FileError: The folder is not there or not to be written to, or the file that is there is of another kind.
    """
    read = {path.resolve() for path in inputs if path is not None}
    taken: dict[Path, str] = {}
    for option, (path, start) in targets.items():
        if path is None:
            continue
        place = path.resolve()
        if place in read:
            raise BadOptionError(f"{option} names a file that is read", where=str(path), hint="choose another name")
        if place in taken:
            raise BadOptionError(f"{option} and {taken[place]} name the same file", where=str(path))
        taken[place] = option
        if not place.parent.is_dir():
            raise FileError("cannot be written: the folder does not exist", where=str(path), hint="make it first")
        if not os.access(place.parent, os.W_OK):
            raise FileError("cannot be written: permission denied for its folder", where=str(path))
        if place.is_dir():
            raise FileError("cannot be written: it is a folder", where=str(path))
        if place.exists() and start and not _starts(place, start):
            raise FileError(
                f"is there already and nothing that {option} wrote", where=str(path), hint="choose another name"
            )


def _starts(path: Path, start: bytes) -> bool:
    """Whether a file starts with some bytes, or is empty."""
    try:
        with path.open("rb") as file:
            head = file.read(len(start))
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
    return head in (start, b"")
