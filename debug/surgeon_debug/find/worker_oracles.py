"""The oracles that a worker elsewhere holds, and what tells whether it sees the same files."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from surgeon_debug.find.oracle import Oracle, OracleSpec, TrialRecord

_SAMPLES, _SAMPLE = 64, 1 << 16


class WorkerOracles:
    """The oracles of one worker, each used by one thread at a time.

    Args:
        spec: Makes them.
    """

    def __init__(self, spec: OracleSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._idle: list[Oracle] = []
        self._busy: list[Oracle] = []
        self._closed = False

    def evaluate(self, elements: frozenset[int], attempt: int) -> TrialRecord:
        """Make a trial with an oracle that nobody uses.

        Raises:
            SurgeonError: What the oracle raises; another one takes its place.
        """
        oracle = self._take()
        try:
            record = oracle.evaluate(elements, attempt)
        except BaseException:
            self._put_back(oracle, keep=False)
            raise
        self._put_back(oracle, keep=True)
        return record

    def _take(self) -> Oracle:
        with self._lock:
            oracle = self._idle.pop() if self._idle else None
        if oracle is None:
            oracle = self._spec.make()
        with self._lock:
            self._busy.append(oracle)
        return oracle

    def _put_back(self, oracle: Oracle, *, keep: bool) -> None:
        with self._lock:
            self._busy.remove(oracle)
            keep = keep and not self._closed
            if keep:
                self._idle.append(oracle)
        if not keep:
            oracle.close()

    def close(self) -> None:
        """End trials under way where oracles can, and close all others."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for oracle in busy:
            stop = getattr(oracle, "abort", None)
            if stop is not None:
                stop()
        for oracle in idle:
            oracle.close()


def sampled_digest(path: Path) -> str:
    """A digest of a file's size and of samples of its content, quick for any size; empty if there is no such file.

    It tells other weights of the same sizes from these, as their bytes differ everywhere.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            content = hashlib.blake2b(str(size).encode(), digest_size=16)
            for i in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE) * i // (_SAMPLES - 1))
                content.update(file.read(_SAMPLE))
    except OSError:
        return ""
    return content.hexdigest()
