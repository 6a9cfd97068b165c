"""Oracles that leave a line in a file for every trial they finish, and can end their process; made in any process."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path

from surgeon_debug.find.oracle import FailureKind, Signature, TrialRecord
from surgeon_passes.errors import EngineError

WRONG = Signature(FailureKind.WRONG_NUMBERS)


def add_line(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


@dataclasses.dataclass(frozen=True)
class LoggedSpec:
    """Reproduces if and only if the culprit is among the elements."""

    log: Path
    culprit: int = 37
    seconds: float = 0.05
    deadly: int = -1
    """A trial that has this element kills its process."""
    rude: int = -1
    """A trial of this element alone raises an error."""
    deaf: bool = False
    """Whether trials cannot be stopped."""

    def address(self) -> str:
        return f"logged {self.culprit} {self.deadly} {self.rude}"

    def make(self) -> LoggedOracle:
        add_line(self.log, f"made {os.getpid()}")
        return DeafOracle(self) if self.deaf else LoggedOracle(self)


class DeafOracle:
    def __init__(self, spec: LoggedSpec) -> None:
        self.spec = spec
        self.stopped = threading.Event()
        self.thread = 0

    def evaluate(self, elements: frozenset[int], attempt: int) -> TrialRecord:
        spec = self.spec
        assert self.thread == 0, "two threads use one oracle"
        self.thread = threading.get_ident()
        try:
            started = time.monotonic()
            add_line(spec.log, f"begin {os.getpid()} {sorted(elements)} {attempt}")
            if spec.deadly in elements:
                os.kill(os.getpid(), signal.SIGKILL)
            if elements == {spec.rude}:
                raise EngineError("the disk under it burns")
            self.wait(spec.seconds)
            add_line(spec.log, f"done {sorted(elements)} {attempt}")
            found = WRONG if spec.culprit in elements else None
            return TrialRecord(found, seconds=time.monotonic() - started, builds=1, payload={"pid": os.getpid()})
        finally:
            self.thread = 0

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        add_line(self.spec.log, f"closed {os.getpid()}")


class LoggedOracle(DeafOracle):
    def wait(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise EngineError("it crashed, because somebody stopped it")

    def abort(self) -> None:
        self.stopped.set()


def lines_of(log: Path, kind: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.split()[0] == kind] if log.exists() else []
