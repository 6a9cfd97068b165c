"""What TensorRT says: every line of its log, and the errors it records with a code.

The builder keeps the first logger that it meets in a process and ignores all others, so there is one for the process;
where its lines go is changed from build to build. Callbacks must not raise and come from any thread.
"""

from __future__ import annotations

import collections
import functools
import threading
from pathlib import Path
from typing import Any, TextIO

from surgeon_passes.errors import FileError

_KEPT = 40  # lines that are kept in memory, of those that complain
_WARNING = 2  # ILogger.Severity: a smaller number is worse


class LogSink:
    """Where lines go: complaints into memory, all of them into a file if there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._complaints: collections.deque[tuple[int, str]] = collections.deque(maxlen=_KEPT)

    def write(self, severity: int, line: str) -> None:
        """Take a line; never raises."""
        with self._lock:
            if severity <= _WARNING:
                self._complaints.append((severity, line))
            if self._file is not None:
                try:
                    self._file.write(f"[{'FEWIV'[severity] if 0 <= severity < 5 else '?'}] {line}\n")
                except (OSError, ValueError):
                    self._file = None

    def begin(self, path: Path | None) -> None:
        """Forget what was said, and write to another file from now on.

        Raises:
            FileError: The file cannot be written.
        """
        self.end()
        with self._lock:
            self._complaints.clear()
            if path is None:
                return
            try:
                # By lines, so that a process that ends here has told what it was doing.
                self._file = path.open("w", buffering=1, encoding="utf-8", errors="replace")
            except OSError as error:
                raise FileError(f"cannot be written: {error.strerror}", where=str(path)) from error

    def end(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def complaints(self, worst: int = _WARNING) -> list[str]:
        """The last lines of a severity, or worse; 2 are warnings, 1 errors."""
        with self._lock:
            return [line for severity, line in self._complaints if severity <= worst]


@functools.cache
def process_logger(trt: Any) -> tuple[Any, LogSink]:
    """The logger of this process, and where its lines go.

    It is kept for good: TensorRT goes on calling the first one that it was given, whatever becomes of its owner.
    """
    sink = LogSink()

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            sink.write(int(severity), msg)

    return Log(), sink


def make_recorder(trt: Any) -> Any:
    """An error recorder: what builder, runtime, engine and context report, with codes.

    Its ``words()`` are the errors on one line each, its ``clear()`` forgets them.
    """

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self._errors: list[tuple[Any, str]] = []
            self._lock = threading.Lock()

        def num_errors(self) -> int:
            return len(self._errors)

        def get_error_code(self, arg0: int) -> Any:
            return self._errors[arg0][0]

        def get_error_desc(self, arg0: int) -> str:
            return self._errors[arg0][1]

        def has_overflowed(self) -> bool:
            return False

        def clear(self) -> None:
            with self._lock:
                self._errors.clear()

        def report_error(self, arg0: Any, arg1: str) -> bool:
            with self._lock:
                if len(self._errors) < _KEPT:
                    self._errors.append((arg0, arg1))
            return True

        def words(self) -> list[str]:
            with self._lock:
                return [f"{getattr(code, 'name', code)}: {text}" for code, text in self._errors]

    return Recorder()


def said(sink: LogSink, recorder: Any, otherwise: str) -> str:
    """The engine's own words for a failure that it did not explain by what it returned, on one line."""
    lines: list[str] = recorder.words() or sink.complaints(worst=1)
    text = " / ".join(dict.fromkeys(" ".join(line.split()) for line in lines[:3]))
    return text.rstrip(" .") or otherwise


def attach(recorder: Any, *owners: Any) -> None:
    """Give a recorder to whatever takes one."""
    for owner in owners:
        if owner is not None and hasattr(owner, "error_recorder"):
            owner.error_recorder = recorder
