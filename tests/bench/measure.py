"""Run a command in a process of its own and measure it: wall time, peak memory, outcome.

This module imports nothing but the standard library, on purpose: Linux counts the memory of the parent at the moment
of the fork as memory of the child, so the parent must be small.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Measured:
    """One run of one command."""

    seconds: float
    """Wall time from start to exit."""
    megabytes: float
    """Peak resident memory of the process or of its largest child, in 10**6 bytes; mapped pages of files count."""
    status: str
    """``ok``, ``exit 1``, ``signal 9``, ``timeout``, ``no such command``."""
    output: str
    """The last 2,000 characters of what it printed."""

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.status == "ok"


def measure(command: Sequence[str], *, timeout: float = 900.0, env: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        timeout: Kill it after this many seconds.
        env: Variables that are set besides those of this process.
    """
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        try:
            child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        except FileNotFoundError:
            return Measured(0.0, 0.0, "no such command", "")
        late = threading.Event()

        def kill() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(timeout, kill)
        timer.start()
        _, code, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(code)
        log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
        text = log.read().decode(errors="replace")
    status = "ok" if child.returncode == 0 else f"exit {child.returncode}"
    if child.returncode < 0:
        status = f"signal {-child.returncode}"
    return Measured(seconds, usage.ru_maxrss * 1024 / 1e6, "timeout" if late.is_set() else status, text)


def best_of(command: Sequence[str], repeat: int, **more: float) -> Measured:
    """The fastest of several runs, with the largest memory of any; the first failure if one fails."""
    runs = []
    for _ in range(repeat):
        runs.append(measure(command, timeout=more.get("timeout", 900.0)))
        if not runs[-1].ok:
            return runs[-1]
    fastest = min(runs, key=lambda run: run.seconds)
    return dataclasses.replace(fastest, megabytes=max(run.megabytes for run in runs))


def beside(python: str, tool: str) -> str:
    """The command of a package installed for an interpreter: the file next to it."""
    return str(Path(python).parent / tool)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns, the first left and the rest right, with the first row as a heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
