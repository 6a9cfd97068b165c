"""The process of a worker as its parent sees it: started, watched, and put down with all it started itself."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import surgeon_passes
from surgeon_passes.errors import BadOptionError

_KEPT = 64 << 10  # bytes of what a worker writes
_GRACE = 5.0  # seconds to wait for what is about to happen anyway


class Tail:
    """The end of what a process writes to both of its pipes, which are read as fast as they fill, and never shown.

    Args:
        pipes: Files to read, which belong to this object from now on.
    """

    def __init__(self, *pipes: int) -> None:
        self._pieces: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, args=(pipes,), name="surgeon-drain", daemon=True)
        self._thread.start()

    def _drain(self, pipes: tuple[int, ...]) -> None:
        with selectors.DefaultSelector() as selector:
            for pipe in pipes:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    piece = os.read(key.fd, _KEPT)
                    if piece:
                        self._keep(piece)
                    else:
                        selector.unregister(key.fd)
                        os.close(key.fd)

    def _keep(self, piece: bytes) -> None:
        with self._lock:
            self._pieces.append(piece)
            self._size += len(piece)
            while self._size - len(self._pieces[0]) >= _KEPT:
                self._size -= len(self._pieces.popleft())

    def text(self) -> str:
        """What has been kept; waits a little for what a process that has ended left in its pipes."""
        self._thread.join(timeout=1.0)
        with self._lock:
            return b"".join(self._pieces).decode("utf-8", "replace")


class WorkerProcess:
    """A worker, started when this is made.

    It leads a process group and a session of its own, so that an interrupt typed at the terminal reaches the parent
    only, and the group can be ended as one. It holds one end of a pipe that the kernel hangs up when the parent is
    gone, however it went; see :mod:`surgeon_debug.worker`. (``PR_SET_PDEATHSIG`` would end the worker with the
    *thread* that started it.)

    Args:
        python: The interpreter; None for the one that runs this.
        folder: Its working folder.

    Raises:
        BadOptionError: The interpreter cannot be started.
    """

    def __init__(self, python: Path | None, folder: Path) -> None:
        self.socket, theirs = socket.socketpair()
        lifeline, held = os.pipe()
        here = Path(__file__).parent
        rooms = {"surgeon_debug": str(here), "surgeon_passes": str(Path(surgeon_passes.__file__).parent)}
        charge = {
            "socket": theirs.fileno(),
            "lifeline": lifeline,
            "rooms": rooms,
            # In this very environment it shall find what the parent finds.
            "path": sys.path if python is None else None,
        }
        command = [
            str(python or sys.executable),
            "-u",
            "-X",
            "faulthandler",
            str(here / "worker.py"),
            json.dumps(charge),
        ]
        self._killed_before = kernel_kills()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=folder,
                env=_environment(foreign=python is not None),
                pass_fds=(theirs.fileno(), lifeline),
                start_new_session=True,
            )
        except OSError as error:
            self.socket.close()
            os.close(held)
            raise BadOptionError(f"{command[0]} cannot be started: {error.strerror or error}") from error
        finally:
            theirs.close()
            os.close(lifeline)
        assert self._process.stdout is not None and self._process.stderr is not None
        self.tail = Tail(os.dup(self._process.stdout.fileno()), os.dup(self._process.stderr.fileno()))
        self._process.stdout.close()
        self._process.stderr.close()
        self._end = weakref.finalize(self, _put_down, self._process, held)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def gone(self) -> bool:
        """Whether it has ended; it is left unburied, so that its number stays its own."""
        if self._process.returncode is not None:
            return True
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return True

    def resident(self) -> int:
        """Bytes of memory that are its own: neither mapped files, such as weights, nor tensors it shares; 0 if gone."""
        try:
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) << 10
        except (OSError, ValueError):
            pass
        return 0

    def await_end(self) -> bool:
        """Wait a little for it to end by itself; whether it did."""
        deadline = time.monotonic() + _GRACE
        while not self.gone():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def kill(self) -> None:
        """End it and its group, from any thread; it is left unburied."""
        if not self.gone():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def bury(self) -> int:
        """End it and its group if they are still there; returns the exit code, or minus the number of a signal."""
        self._end()
        self.socket.close()
        return self._process.returncode

    def killed_by_kernel(self) -> bool:
        """Whether the kernel has killed processes for want of memory since this one was started."""
        return kernel_kills() > self._killed_before


def _environment(*, foreign: bool) -> dict[str, str]:
    environment = dict(os.environ)
    # Touching memory for the first time is several times faster in huge pages, and engines do little else at first.
    environment.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    if foreign:  # what was meant for this interpreter
        for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV"):
            environment.pop(name, None)
    return environment


def _put_down(process: subprocess.Popen[bytes], held: int) -> None:
    # The leader is not buried before its group is gone, so that the number cannot be another's by now.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    os.close(held)


def kernel_kills() -> int:
    """How many processes the kernel has killed for want of memory since it was started; 0 where it does not say."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
