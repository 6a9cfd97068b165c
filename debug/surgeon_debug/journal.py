"""An append-only record of trials, written before the risky step and after it, so that a kill at any moment costs one.

``journal.jsonl`` in a folder of the user's holds one JSON object a line, ``{"sum":CHECKSUM,"of":CONTENT}``. The first
line says who wrote it; then come a line when something is begun, and one when it has ended or was let go. Every line
is on the disk before the next step. NaN and infinities stand as Python's ``json`` writes them.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from surgeon_passes.atomic_write import reason_of, sync_folder
from surgeon_passes.errors import BadOptionError, FileError

SCHEMA = 1
"""The form of the lines; a file with a higher number is left alone."""

NAME = "journal.jsonl"
"""The name of the file in its folder."""

_WHAT = "surgeon journal"
_PREFIX, _MIDDLE, _SUFFIX = b'{"sum":"', b'","of":', b"}"
_SUM = 16  # hexadecimal digits


class Journal:
    """What was begun and what came of it, by key; any thread may use it.

    Args:
        folder: Where the file is, or will be, the folder too; None to remember in memory only.

    Raises:
        BadOptionError: Another process is using the folder.
        FileError: The folder or file cannot be made, read or written, is not a journal, is damaged, or was written in a
            later form.
    """

    def __init__(self, folder: Path | None) -> None:
        self._lock = threading.Lock()
        self._ended: dict[str, str] = {}
        self._open: collections.Counter[str] = collections.Counter()
        self._file = None if folder is None else _LineFile(folder)
        if self._file is not None:
            try:
                self._take_over(self._file)
            except BaseException:
                self._file.close()
                raise

    def known(self, key: str) -> dict[str, Any] | None:
        """A copy of the record that ended a key; None if nothing has."""
        with self._lock:
            text = self._ended.get(key)
        return None if text is None else json.loads(text)

    def begun(self, key: str) -> int:
        """How often a key was begun and neither ended nor let go, in this process or one before; 0 once it ended."""
        with self._lock:
            return 0 if key in self._ended else self._open[key]

    def begin(self, key: str, words: str) -> None:
        """Note that something begins, before it does.

        Args:
            key: What names it.
            words: What it is, for people who read the file.

        Raises:
            FileError: It cannot be written.
        """
        with self._lock:
            self._append({"do": "begin", "key": key, "words": words})
            self._open[key] += 1

    def end(self, key: str, record: Mapping[str, Any]) -> None:
        """Note what came of it.

        Args:
            key: What names it.
            record: Anything that JSON can hold; numbers that are not finite come back as they are.

        Raises:
            TypeError: JSON cannot hold it.
            FileError: It cannot be written.
        """
        text = json.dumps(record)
        with self._lock:
            self._append({"do": "end", "key": key, "record": json.loads(text)})
            self._ended[key] = text
            del self._open[key]

    def let_go(self, key: str) -> None:
        """Note that what was begun was given up in good order, and did not end the process.

        Raises:
            FileError: It cannot be written.
        """
        with self._lock:
            if self._open[key]:
                self._append({"do": "let go", "key": key})
                self._open[key] -= 1

    def close(self) -> None:
        """Let another process have the folder; from now on nothing can be noted."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    @property
    def ended(self) -> int:
        """How many keys have ended."""
        return len(self._ended)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, content: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.append(content)

    def _take_over(self, file: _LineFile) -> None:
        """Read what is there; begin with a header if there is nothing."""
        lines = file.read()
        header = next(lines, None)
        if header is None:
            version = importlib.metadata.version("onnx-surgeon")
            file.append({"what": _WHAT, "schema": SCHEMA, "version": version})
            sync_folder(file.path.parent)
            return
        _check_header(header, file.path)
        for number, line in enumerate(lines, 2):
            try:
                self._note(line)
            except (KeyError, TypeError) as error:
                raise FileError(f"line {number} says nothing that a journal says", where=str(file.path)) from error

    def _note(self, line: Any) -> None:
        key, deed = str(line["key"]), line["do"]
        if deed == "end":
            self._ended[key] = json.dumps(line["record"])
            self._open.pop(key, None)
        else:
            self._open[key] = max(0, self._open[key] + {"begin": 1, "let go": -1}[deed])


def _check_header(header: Any, path: Path) -> None:
    if not isinstance(header, dict) or header.get("what") != _WHAT or not isinstance(header.get("schema"), int):
        raise FileError("is not the journal of a search", where=str(path), hint="give another folder")
    if header["schema"] > SCHEMA:
        raise FileError(
            f"was written by a newer onnx-surgeon ({header.get('version', 'unknown')})",
            where=str(path),
            hint="go on with that version, or give another folder",
        )


class _LineFile:
    """A file of checked lines that one process at a time may use.

    Args:
        folder: Its folder, made if missing.

    Raises:
        BadOptionError: Another process has it.
        FileError: It cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._size = 0
        with _as_file_error(self.path, "cannot be opened"):
            folder.mkdir(parents=True, exist_ok=True)
            # Opening what is no regular file could wait for ever.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
            self._descriptor = os.open(self.path, flags, 0o644)
        try:
            self._claim()
        except BaseException:
            self.close()
            raise

    def _claim(self) -> None:
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise FileError("is not a regular file", where=str(self.path), hint="give another folder")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadOptionError(
                "another search is using this folder", where=str(self.path.parent), hint="wait for it, or give another"
            ) from None
        except OSError as error:
            raise FileError(f"cannot be locked: {reason_of(error)}", where=str(self.path)) from error

    def read(self) -> Iterator[Any]:
        """The contents of all lines; a last one that was not finished is cut off.

        Raises:
            FileError: It cannot be read, a line is damaged, or it was never a file of such lines.
        """
        with _as_file_error(self.path, "cannot be read"), os.fdopen(os.dup(self._descriptor), "rb") as file:
            data = file.read()
        if data and not data.startswith(_PREFIX[: len(data)]):
            raise FileError("is not the journal of a search", where=str(self.path), hint="give another folder")
        *lines, rest = data.split(b"\n")
        contents = [_content(line) for line in lines]
        # A finished line at the end that is damaged was written in part before the machine went down.
        if contents and contents[-1] is None and len(contents) > 1 and not rest:
            contents.pop()
            lines.pop()
        for number, content in enumerate(contents, 1):
            if content is None:
                raise FileError(
                    f"line {number} is damaged",
                    where=str(self.path),
                    hint="give another folder, or remove that line to go on without it",
                )
        self._size = sum(len(line) + 1 for line in lines)
        if self._size < len(data):
            with _as_file_error(self.path, "cannot be written"):
                os.ftruncate(self._descriptor, self._size)
        yield from contents

    def append(self, content: Mapping[str, Any]) -> None:
        """Write a line and wait until it is on the disk.

        Raises:
            FileError: It cannot be written; the file is as before.
        """
        text = json.dumps(content, separators=(",", ":")).encode()
        line = b"".join((_PREFIX, _sum(text), _MIDDLE, text, _SUFFIX, b"\n"))
        if self._descriptor < 0:
            raise FileError("cannot be written: it was closed", where=str(self.path))
        with _as_file_error(self.path, "cannot be written"):
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
                raise
        self._size += len(line)

    def close(self) -> None:
        """Close the file, which lets go of its lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def _as_file_error(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(f"{what}: {reason_of(error)}", where=str(path)) from error


def _sum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_SUM // 2).hexdigest().encode()


def _content(line: bytes) -> Any:
    """What a line says; None if it is damaged (no line says null)."""
    begin = len(_PREFIX) + _SUM
    if not (line.startswith(_PREFIX) and line[begin : begin + len(_MIDDLE)] == _MIDDLE and line.endswith(_SUFFIX)):
        return None
    text = line[begin + len(_MIDDLE) : -len(_SUFFIX)]
    return json.loads(text) if _sum(text) == line[len(_PREFIX) : begin] else None
