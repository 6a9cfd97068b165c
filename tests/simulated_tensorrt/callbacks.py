"""What users subclass: loggers, error recorders, listeners, allocators, profilers, monitors; and the rules for them."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from typing import Any

from tests.simulated_tensorrt.plan import Plan


class ILogger:
    """Base of loggers."""

    def __init__(self) -> None:
        pass

    def log(self, severity: Any, msg: str) -> None:
        sys.stderr.write('[ERROR] Exception caught in log(): Tried to call pure virtual function "ILogger::log"\n')


class Logger:
    """Prints what is at least as severe as its threshold."""

    _minimum: Any
    _trt: Any

    def __init__(self, min_severity: Any = None) -> None:
        self._minimum = min_severity or self._trt.ILogger.Severity.WARNING

    def log(self, severity: Any, msg: str) -> None:
        if int(severity) <= int(self._minimum):
            stamp = time.strftime("%m/%d/%Y-%H:%M:%S")
            letter = {0: "F", 1: "E", 2: "W", 3: "I", 4: "V"}[int(severity)]
            stream = sys.stderr if int(severity) <= 1 else sys.stdout
            stream.write(f"[{stamp}] [TRT] [{letter}] {msg}\n")
            stream.flush()

    @property
    def min_severity(self) -> Any:
        return self._minimum

    @min_severity.setter
    def min_severity(self, value: Any) -> None:
        self._minimum = value


class Callback:
    """Base of callbacks that a user must subclass."""

    def __init__(self) -> None:
        pass


class IErrorRecorder(Callback):
    """Base of error recorders; as the real one, calls of what is not overridden end in a message."""

    def num_errors(self) -> int:
        _pure("IErrorRecorder::get_num_errors", "get_num_errors")
        return -1

    def report_error(self, arg0: Any, arg1: str) -> bool:
        _pure("IErrorRecorder::report_error", "report_error")
        return False

    def clear(self) -> None:
        _pure("IErrorRecorder::clear", "clear")

    def has_overflowed(self) -> bool:
        _pure("IErrorRecorder::has_overflowed", "has_overflowed")
        return False

    def get_error_code(self, arg0: int) -> Any:
        _pure("IErrorRecorder::get_error_code", "get_error_code")

    def get_error_desc(self, arg0: int) -> str:
        _pure("IErrorRecorder::get_error_desc", "get_error_desc")
        return ""

    @property
    def MAX_DESC_LENGTH(self) -> int:
        return 127


class IProgressMonitor(Callback):
    """Base of progress monitors."""

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        pass

    def step_complete(self, phase_name: str, step: int) -> bool:
        return True

    def phase_finish(self, phase_name: str) -> None:
        pass


class IProfiler(Callback):
    """Base of profilers."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        _pure("IProfiler::report_layer_time", "report_layer_time")


class Profiler(Callback):
    """Prints the time of each layer."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        sys.stdout.write(f"{layer_name}: {ms}ms\n")


class IDebugListener(Callback):
    """Base of debug listeners."""

    def process_debug_tensor(self, addr: Any, location: Any, type: Any, shape: Any, name: str, stream: int) -> None:
        _pure("IDebugListener::process_debug_tensor", "process_debug_tensor")


def _pure(what: str, where: str) -> None:
    sys.stderr.write(f'[ERROR] Exception caught in {where}(): Tried to call pure virtual function "{what}"\n')


class Journal:
    """Where the library writes: the process's one logger, and the recorders of objects.

    Args:
        trt: The module.
        plan: Settles the traits of logging.
    """

    def __init__(self, trt: Any, plan: Plan) -> None:
        self._trt = trt
        self._plan = plan
        self._logger: Any = None
        self._cut_at: int | None = None
        self._lines = 0

    def register(self, logger: Any) -> None:
        """Take a logger; the first of the process stays."""
        if self._logger is None:
            self._logger = logger
        elif self._logger is not logger:
            self.warning(
                "The logger passed into createInferBuilder differs from one already registered for an existing "
                "builder, runtime, or refitter. So the current new logger is ignored, and TensorRT will use the "
                "existing one which is returned by nvinfer1::getLogger() instead."
            )

    @property
    def logger(self) -> Any:
        """The logger in use."""
        return self._logger

    def cut_after(self, lines: int | None) -> None:
        """Lose every verbose line after so many."""
        self._cut_at, self._lines = lines, 0

    def error(self, words: str, *, code: int = 2, recorders: tuple[Any, ...] = (), where: str = "") -> None:
        """An error, to the logger and to the recorders of the objects involved."""
        names = {v: k for k, v in (("INVALID_ARGUMENT", 3), ("INTERNAL_ERROR", 2), ("INVALID_STATE", 9))}
        label = {2: "Internal Error", 3: "API Usage Error", 4: "API Usage Error", 9: "Invalid State"}.get(code, "Error")
        text = f"{where}: Error Code {code}: {label} ({words})" if where else words
        self._write(1, text)
        kinds = self._trt.ErrorCodeTRT
        kind = getattr(kinds, names.get(code, ""), None) or kinds(code if 0 <= code <= 10 else 2)
        for recorder in dict.fromkeys(recorders):
            if recorder is None:
                continue
            try:
                recorder.report_error(kind, text)
            except Exception as problem:  # noqa: BLE001  (as the binding: printed and swallowed)
                sys.stderr.write(f"[ERROR] Exception caught in report_error(): {problem}\n")

    def warning(self, words: str) -> None:
        """A warning."""
        self._write(2, words)

    def info(self, words: str) -> None:
        """A line of information."""
        self._write(3, words)

    def verbose(self, words: str) -> None:
        """A verbose line."""
        self._lines += 1
        if self._cut_at is None or self._lines <= self._cut_at:
            self._write(4, words)

    def _write(self, severity: int, words: str) -> None:
        if self._logger is None:
            return
        kind = self._trt.ILogger.Severity(severity)
        if not self._plan.log_threads:
            self._call(kind, words)
            return
        thread = threading.Thread(target=self._call, args=(kind, words))
        thread.start()
        thread.join()

    def _call(self, kind: Any, words: str) -> None:
        try:
            self._logger.log(kind, words)
        except Exception as problem:  # noqa: BLE001  (as the binding: printed and swallowed)
            sys.stderr.write(f"[ERROR] Exception caught in log(): {problem}\n")


class Held:
    """A callback that the library refers to and does not own: gone when the user drops it.

    The real library then calls into freed memory; here it raises.
    """

    def __init__(self, what: Any) -> None:
        self._name = type(what).__name__
        self._reference = weakref.ref(what)

    def get(self) -> Any:
        """The object.

        Raises:
            RuntimeError: It is gone.
        """
        found = self._reference()
        if found is None:
            raise RuntimeError(f"use after free: the {self._name} was dropped while the library still uses it")
        return found
