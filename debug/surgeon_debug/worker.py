"""What runs in the process of an engine: one runner, served over a socket.

Run by path, by any Python from 3.10 on, in an environment that need hold nothing but numpy and the engine. The two
packages of ours that it needs are loaded from the folders it is told, without putting those on the import path: they
may lie in the site-packages of quite another Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

_STACK = 8 << 20  # what a thread's stack counts for, used or not


def main() -> None:
    """Serve until told to stop; the one argument is the charge as JSON, see ``WorkerProcess``."""
    del sys.path[0]  # the folder of this file, whose modules are no top-level modules
    charge = json.loads(sys.argv[1])
    _hang_on(charge["lifeline"])
    os.set_inheritable(charge["socket"], False)
    if charge["path"] is not None:
        sys.path[:] = charge["path"]
    for name, folder in charge["rooms"].items():
        _adopt(name, Path(folder))
    from surgeon_debug.channel import Channel

    channel = Channel(socket.socket(fileno=charge["socket"]))
    with contextlib.suppress(EOFError, OSError):  # the parent is gone or does not listen
        _Service(channel).serve()
    sys.stdout.flush()
    # Engines that have worked well crash when the interpreter takes itself apart.
    os._exit(0)


def _hang_on(lifeline: int) -> None:
    """Have the kernel kill this process group when the other end of a pipe goes.

    It does so whatever this process is doing; a thread would have to get hold of the interpreter first.
    """
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, getattr(fcntl, "F_SETSIG", 10), signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # gone before the kernel was asked
        os._exit(1)


def _limit_memory(cap: int) -> None:
    """Make allocations fail that would go far beyond the cap; the parent watches the cap itself.

    The kernel limits memory asked for, not memory used: stacks and work space of threads, most of which is never
    touched, count in full, and there are many on a machine with many cores. So what has been asked for and not used by
    now is allowed for, and the same again for the engine's threads; it is a net below the parent's watch, for one large
    allocation that would be over before the parent looks. Mapped weight files and shared memory do not count.
    """
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    found = {line[0]: int(line[1]) << 10 for line in lines if line and line[0] in ("VmData:", "RssAnon:")}
    idle = found.get("VmData:", 0) - found.get("RssAnon:", 0)
    limit = cap + max(0, idle) + (128 << 20) + 2 * _STACK * (os.cpu_count() or 1)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _adopt(name: str, folder: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} holds no package")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


class _Service:
    """Answers one message after the other."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._engine: Any = None
        self._inbox: Any = None
        self._outbox: Any = None

    def serve(self) -> None:
        """Answer until told to close."""
        while True:
            message, files = self._channel.receive()
            try:
                reply, sent = self._answer(message, files)
            except Exception as error:  # noqa: BLE001  (whatever it is, the parent is to hear of it)
                if self._outbox is not None:
                    self._outbox.abandon()
                reply, sent = {"error": _words(error)}, []
            del message
            if self._inbox is not None:
                reply["freed"] = self._inbox.freed()
            self._channel.send(reply, sent)
            del reply
            if self._engine is None:
                return

    def _answer(self, message: dict[str, Any], files: list[int]) -> tuple[dict[str, Any], list[int]]:
        if message["do"] == "run":
            return self._run(message, files)
        if message["do"] == "make":
            self._make(message["runner"], Path(message["scratch"]), message["memory_cap"])
        elif message["do"] == "prepare":
            self._engine.prepare(Path(message["model"]), message["outputs"])
        else:
            self._engine.close()
            self._engine = None
            return {}, []
        return {"precision": self._engine.precision}, []

    def _make(self, runner: dict[str, Any], scratch: Path, memory_cap: int) -> None:
        try:
            import numpy  # noqa: F401
        except ImportError as error:
            raise ImportError(f"{sys.executable} lacks numpy, which every runner needs: {error}") from None
        from surgeon_debug.runners.catalogue import make_runner
        from surgeon_debug.runners.contract import Engine
        from surgeon_debug.runners.runner_text import RunnerText
        from surgeon_debug.shared_memory import Inbox, Outbox

        self._engine = Engine(runner["text"], make_runner(RunnerText(**runner)))
        if not getattr(self._engine.runner, "observes", False):
            # There will be temporary files, and the parent removes what a killed process leaves.
            scratch.mkdir()
            tempfile.tempdir = os.environ["TMPDIR"] = str(scratch)
        self._inbox, self._outbox = Inbox(writable=False), Outbox()
        if memory_cap:
            _limit_memory(memory_cap)

    def _run(self, message: dict[str, Any], files: list[int]) -> tuple[dict[str, Any], list[int]]:
        from surgeon_debug.parcel import pack, unpack

        self._outbox.reclaim(message["freed"])
        self._inbox.begin(message["memory"], files)
        values = self._engine.fetch(unpack(message["feeds"], self._inbox))
        try:
            described = pack(values, self._outbox, pass_on=False)
        except ValueError as error:
            self._engine.returned_rubbish(error)
        memory, sent = self._outbox.finish()
        return {"values": described, "memory": memory}, sent


def _words(error: Exception) -> dict[str, Any]:
    """An error as the parent can raise it again."""
    from surgeon_debug.endings import EngineFailure
    from surgeon_passes.errors import SurgeonError

    memory = isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError)
    if isinstance(error, SurgeonError):
        failure = isinstance(error, EngineFailure)  # and its kinds, which the parent need not know
        kind = EngineFailure.__name__ if failure else type(error).__name__
        said: dict[str, Any] = {"kind": kind, "what": error.what, "where": error.where, "hint": error.hint}
        said["ending"] = error.ending.value if isinstance(error, EngineFailure) else ""
        said["nodes"] = list(error.nodes) if isinstance(error, EngineFailure) else []
    else:
        said = {"kind": "", "what": " ".join(str(error).split()) or type(error).__name__, "where": "", "hint": ""}
    return {**said, "memory": memory}


if __name__ == "__main__":
    main()
