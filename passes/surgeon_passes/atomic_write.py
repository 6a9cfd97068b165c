"""Write files whole or not at all: to a temporary beside the target, flushed to the disk, then renamed over it.

Whatever happens in between (an error, a full disk, an interrupt, a kill), the old file is there as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from surgeon_passes.errors import FileError


def reason_of(error: OSError) -> str:
    """The system's words for an error, without numbers and paths."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if error.errno == errno.EFBIG:
        return "the file would be larger than allowed here"
    return (error.strerror or str(error)).lower()


def check_target(path: Path) -> Path:
    """The real path to write to, links resolved.

    Raises:
        FileError: The folder does not exist, or the target is a folder or a device.
    """
    try:
        real = path.resolve()
        if not real.parent.is_dir():
            raise FileError(
                "cannot be written: its folder does not exist", where=str(path), hint=f"create {real.parent}"
            )
        if real.exists() and not stat.S_ISREG(real.stat().st_mode):
            kind = "a folder" if real.is_dir() else "not a regular file"
            raise FileError(f"cannot be written: it is {kind}", where=str(path), hint="name a file")
    except (OSError, RuntimeError, ValueError) as error:
        words = reason_of(error) if isinstance(error, OSError) else str(error)
        raise FileError(f"cannot be written: {words}", where=str(path)) from error
    return real


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Staged:
    """A set of files being written; none of them is visible under its name before :meth:`commit`."""

    def __init__(self) -> None:
        self._files: list[tuple[Path, Path]] = []

    @contextlib.contextmanager
    def open(self, target: Path) -> Iterator[BinaryIO]:
        """A file object whose content will be ``target`` once committed. Errors of the system become FileError."""
        real = check_target(target)
        temporary = real.with_name(f".{real.name[:200]}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                self._files.append((temporary, real))
                if real.exists():
                    temporary.chmod(stat.S_IMODE(real.stat().st_mode))
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(
                f"cannot be written: {reason_of(error)}", where=str(target), hint="nothing was changed"
            ) from error

    def commit(self) -> None:
        """Rename every file into place, in the order they were opened; the last one makes the set valid."""
        try:
            while self._files:
                temporary, real = self._files[0]
                temporary.replace(real)
                self._files.pop(0)
                sync_folder(real.parent)
        except OSError as error:
            raise FileError(f"cannot be written: {reason_of(error)}", where=str(real)) from error

    def discard(self) -> None:
        """Remove what was not committed. Safe to call at any time, also after a commit."""
        for temporary, _ in self._files:
            with contextlib.suppress(OSError):
                temporary.unlink()
        self._files.clear()


@contextlib.contextmanager
def staged() -> Iterator[Staged]:
    """A set of files that appears all together when the block ends, or not at all when it fails."""
    files = Staged()
    try:
        yield files
        files.commit()
    finally:
        files.discard()
