"""Run a command and measure all its processes together: wall time, peak memory with shared pages counted once, a cap.

Linux tells for every process its proportional share (PSS): a page that three processes map counts a third in each, so
the sum over the tree counts it once. Two sums are kept. *All* has every resident page, those of mapped model files
included. *Own* leaves out pages backed by files, which the kernel may drop whenever it likes: it is what the processes
cannot do without, in private and in shared memory.

The cap is on *own*. It holds twice: each process gets the limit as RLIMIT_DATA, which the kernel enforces, and the
whole tree is killed when the sum passes it. Standard library only; see :mod:`measure` for why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_FIELD = re.compile(rb"^(Pss|Pss_Anon|Pss_Shmem):\s+(\d+) kB", re.MULTILINE)
_STATUS = re.compile(rb"^(RssAnon|RssFile|RssShmem):\s+(\d+) kB", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Tree:
    """One run of one command with everything it started."""

    seconds: float
    """Wall time from start to exit."""
    all_megabytes: float
    """Peak of all resident pages, 10**6 bytes, pages of mapped files included."""
    own_megabytes: float
    """Peak of private and shared memory without pages of files."""
    processes: int
    """The most that were alive together."""
    samples: int
    """How often memory was read."""
    status: str
    """``ok``, ``exit 1``, ``signal 9``, ``timeout``, ``over the cap``."""
    output: str
    """The last 4,000 characters of what it printed, both streams."""

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.status == "ok"


@dataclasses.dataclass
class _Watch:
    """The processes below one process, and their peaks."""

    root: int
    known: dict[int, str] = dataclasses.field(default_factory=dict)
    peak_all: int = 0
    peak_own: int = 0
    most: int = 0
    samples: int = 0

    def alive(self) -> list[int]:
        """Processes of the tree, also those whose parent has gone."""
        for pid, started in list(self.known.items()):
            if _started(pid) != started:
                del self.known[pid]
        todo = [self.root, *self.known]
        seen = set(todo)
        while todo:
            pid = todo.pop()
            for child in _children(pid):
                if child not in seen:
                    seen.add(child)
                    todo.append(child)
                    self.known[child] = _started(child)
        self.most = max(self.most, len(seen))
        return sorted(seen)

    def sample(self) -> int:
        """Read the memory of all; returns the bytes they own."""
        pids = self.alive()
        self.samples += 1
        rough_all, rough_own = _rough(pids)
        # What is shared counts several times here, so a sum below the peaks cannot raise them: no closer look needed.
        if rough_all <= self.peak_all and rough_own <= self.peak_own:
            return rough_own
        exact_all = exact_own = 0
        for pid in pids:
            pss, own = _exact(pid)
            exact_all += pss
            exact_own += own
        self.peak_all = max(self.peak_all, exact_all)
        self.peak_own = max(self.peak_own, exact_own)
        return exact_own

    def kill(self) -> None:
        """End every process of the tree."""
        for pid in self.alive():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def measure_tree(
    command: Sequence[str],
    *,
    timeout: float = 1800.0,
    cap: int | None = None,
    interval: float = 0.02,
    env: Mapping[str, str] | None = None,
    save: Path | None = None,
) -> Tree:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        timeout: Kill it after this many seconds.
        cap: Bytes that all its processes together may own; None for no limit.
        interval: Seconds between two looks.
        env: Variables that are set besides those of this process.
        save: The file that its standard output goes to; None to keep the end of it in ``output``.
    """

    def limit() -> None:
        if cap is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))

    with tempfile.TemporaryFile() as log, save.open("wb") if save else contextlib.nullcontext(log) as out:
        started = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            env={**os.environ, **(env or {})},
            preexec_fn=limit,
        )
        watch, status = _Watch(child.pid), ""
        while child.poll() is None:
            own = watch.sample()
            if cap is not None and own > cap:
                status = "over the cap"
            elif time.perf_counter() - started > timeout:
                status = "timeout"
            if status:
                watch.kill()
                child.wait()
                break
            time.sleep(interval)
        seconds = time.perf_counter() - started
        log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
        text = log.read().decode(errors="replace")
    code = child.returncode
    status = status or ("ok" if code == 0 else f"signal {-code}" if code < 0 else f"exit {code}")
    return Tree(seconds, watch.peak_all / 1e6, watch.peak_own / 1e6, watch.most, watch.samples, status, text)


def best_of_trees(runs: Sequence[Tree], accepted: Sequence[str] = ("ok",)) -> Tree:
    """The fastest of several runs, with the largest memory of any; the first failure if one fails.

    Args:
        runs: Runs of one command.
        accepted: The statuses that are no failure.
    """
    failed = next((run for run in runs if run.status not in accepted), None)
    if failed is not None:
        return failed
    fastest = min(runs, key=lambda run: run.seconds)
    most_all, most_own = max(r.all_megabytes for r in runs), max(r.own_megabytes for r in runs)
    return dataclasses.replace(fastest, all_megabytes=most_all, own_megabytes=most_own)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # the process has gone
        return b""


def _children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
    return [int(word) for thread in threads for word in _read(f"{thread}/children").split()]


def _started(pid: int) -> str:
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    # A zombie holds no memory and counts as gone.
    return "" if len(fields) < 20 or fields[0] == b"Z" else fields[19].decode()


def _rough(pids: Sequence[int]) -> tuple[int, int]:
    """Resident and own bytes from the kernel's counters, cheap."""
    total = own = 0
    for pid in pids:
        for name, value in _STATUS.findall(_read(f"/proc/{pid}/status")):
            total += int(value) * 1024
            own += 0 if name == b"RssFile" else int(value) * 1024
    return total, own


def _exact(pid: int) -> tuple[int, int]:
    """Proportional bytes, all and own; the kernel walks the page tables for them."""
    found = {name: int(value) * 1024 for name, value in _FIELD.findall(_read(f"/proc/{pid}/smaps_rollup"))}
    return found.get(b"Pss", 0), found.get(b"Pss_Anon", 0) + found.get(b"Pss_Shmem", 0)
