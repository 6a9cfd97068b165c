"""One trial in a process of its own, for a trial that may end whatever process it is made in.

Engines run in processes of their own anyway; this is for what is left: a crash or a lack of memory in the process of
the search itself. That process goes when this one does, and when memory runs out the kernel is to take it first.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from surgeon_debug.find.oracle import OracleSpec, TrialRecord
from surgeon_passes.errors import EngineError

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from surgeon_debug.find.apart import serve; serve(int(sys.argv[2]))"
)
_TICK = 0.1


def evaluate_apart(
    spec: OracleSpec, elements: frozenset[int], attempt: int, *, stop: Callable[[], bool] = lambda: False
) -> TrialRecord:
    """Make a trial in a new process.

    Args:
        spec: Makes the oracle there.
        elements: What the suspect computes.
        attempt: Counts repetitions of the same question.
        stop: Says when to give up; asked often.

    Returns:
        The record; unresolved if the process ended before there was one, or if the spec cannot be sent.

    Raises:
        SurgeonError: What the oracle raised.
    """
    try:
        charge = pickle.dumps((spec, elements, attempt))
    except Exception as error:  # noqa: BLE001  (pickle raises anything)
        return TrialRecord(None, unresolved=f"it ended the search itself and cannot be made elsewhere: {error}")
    answer, theirs = os.pipe()
    with os.fdopen(answer, "rb") as reader:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path), str(theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs,),
            start_new_session=True,
        )
        os.close(theirs)
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(len(charge).to_bytes(8, "big") + charge)
                process.stdin.flush()
            said = _hear(reader, stop)
        finally:
            code = _put_down(process)
    return _told(said, code)


def _hear(reader: BinaryIO, stop: Callable[[], bool]) -> bytes:
    """All that comes until the other end closes, or until it is time to stop."""
    pieces = []
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while not stop():
            if selector.select(_TICK):
                piece = os.read(reader.fileno(), 1 << 16)
                if not piece:
                    break
                pieces.append(piece)
    return b"".join(pieces)


def _put_down(process: subprocess.Popen[bytes]) -> int:
    """End it and all it started; minus the number of the signal that ended it, or its exit code."""
    assert process.stdin is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)  # it has closed its pipe, so it is about to go
    code = process.poll()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    return code or 0


def _told(said: bytes, code: int) -> TrialRecord:
    try:
        kind, content = pickle.loads(said)
    except (EOFError, pickle.UnpicklingError, ValueError):
        how = f"with {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return TrialRecord(None, unresolved=f"it ended the search itself, and then a process of its own {how}")
    if kind == "error":
        raise content
    return TrialRecord.from_json(content)


def serve(answer: int) -> None:
    """Make the trial that comes over standard input and send back what became of it; what the new process runs.

    Args:
        answer: The file to answer to.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    size = int.from_bytes(sys.stdin.buffer.read(8), "big")
    charge = sys.stdin.buffer.read(size)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with os.fdopen(answer, "wb") as out:
        out.write(_answer(charge))
        out.flush()
        os._exit(0)  # engines that have worked well crash when the interpreter takes itself apart


def _leave_with_parent() -> None:
    os.read(0, 1)  # returns when the other end is closed, by whatever means
    os._exit(1)


def _answer(charge: bytes) -> bytes:
    try:
        spec, elements, attempt = pickle.loads(charge)
        oracle = spec.make()
        try:
            found: tuple[str, Any] = ("record", oracle.evaluate(elements, attempt).to_json())
        finally:
            oracle.close()
    except Exception as error:  # noqa: BLE001  (the parent is to hear of it)
        found = ("error", error)
    try:
        return pickle.dumps(found)
    except Exception:  # noqa: BLE001  (pickle raises anything)
        return pickle.dumps(("error", EngineError(f"a trial failed: {found[1]}")))
