"""A runner in a process of its own, so that whatever becomes of the engine has a name and ends nothing else.

The tensors travel in shared memory that has no name (:mod:`surgeon_debug.shared_memory`); what is said about them goes
over a socket. A process that crashed, left, hung or took too much memory is replaced when the runner is prepared again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import shutil
import signal
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from surgeon_debug.channel import Channel
from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.parcel import pack, unpack
from surgeon_debug.runners.runner_text import Confines, RunnerText
from surgeon_debug.shared_memory import Inbox, Outbox
from surgeon_debug.values import Feeds, Value
from surgeon_debug.worker_process import WorkerProcess
from surgeon_passes import errors
from surgeon_passes.errors import SurgeonError

_START = 300.0  # seconds an engine may take to be imported
_TICK = 0.25
_SHORT_TICK = 0.02  # while there is a memory cap to watch
_GOODBYE = 5.0
_NO_MEMORY = re.compile(
    r"bad_alloc|MemoryError|out of memory|(?:failed|unable|cannot) to? ?allocate"
    r"|memory of \d+ is smaller than requested",
    re.IGNORECASE,
)
_MAX_WORDS = 240
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')


@dataclasses.dataclass(frozen=True)
class _Task:
    """What the worker is doing, for messages and limits."""

    words: str
    limit: float | None


class Cell:
    """A runner like any other, whose work is done by a worker; the worker starts at once, in the background.

    One thread at a time may use it; cells of different runners do not disturb each other.

    Args:
        runner: Which runner.
        confines: Its environment and its limits.

    Raises:
        BadOptionError: The interpreter cannot be started. All else that is wrong is said at the first use.
    """

    observes = True  # the engine's own guard, in the worker, shows what its runner cannot

    def __init__(self, runner: RunnerText, confines: Confines) -> None:
        self._runner = runner
        self._confines = confines
        self._folder = Path.cwd()
        self._scratch = Path(tempfile.gettempdir()) / f"surgeon-{secrets.token_hex(8)}"
        self._sweep = weakref.finalize(self, shutil.rmtree, self._scratch, True)
        self._started = False
        self._aborted = False
        self._precision: str | None = None
        self._model = ""
        self._worker: WorkerProcess | None = None
        self._outbox, self._inbox = Outbox(), Inbox(writable=True)
        self._start()

    @property
    def precision(self) -> str | None:
        """What the runner says of itself, or said last if its process is gone; waits until it is there."""
        if self._worker is not None:
            self.ready()
        return self._precision

    @property
    def pid(self) -> int:
        """The number of the worker's process; 0 if there is none."""
        return self._worker.pid if self._worker is not None else 0

    def ready(self) -> None:
        """Wait until the runner is there.

        Raises:
            BadOptionError: There is no such runner or option.
            EngineError: It cannot start.
        """
        if self._worker is None:
            self._start()
        if self._started:
            return
        limit = max(_START, self._confines.timeout or 0.0)
        reply, _ = self._hear(_Task("starting", limit))
        self._started = True
        self._precision = reply.get("precision")

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Compile a model; see :meth:`surgeon_debug.runners.contract.Runner.prepare`."""
        self.ready()
        self._model = model_path.name
        message = {"do": "prepare", "model": str(model_path.absolute()), "outputs": list(outputs)}
        reply, _ = self._ask(message, [], _Task(f"preparing {self._model}", self._confines.timeout))
        self._precision = reply.get("precision")

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run the prepared model; see :meth:`surgeon_debug.runners.contract.Runner.run`."""
        if self._worker is None:
            raise EngineFailure(f"{self._runner.text} has no process any more", hint="it has to be prepared again")
        self.ready()
        try:
            described = pack(dict(feeds), self._outbox, pass_on=True)
        except BaseException:
            self._outbox.abandon()
            raise
        memory, files = self._outbox.finish()
        message = {"do": "run", "feeds": described, "memory": memory, "freed": self._inbox.freed()}
        task = _Task(f"running {self._model}", self._confines.timeout)
        reply, files = self._ask(message, files, task)
        try:
            self._inbox.begin(reply["memory"], files)
            return unpack(reply["values"], self._inbox)
        except (KeyError, TypeError, ValueError) as error:
            self._rubbish(task, error)

    def close(self) -> None:
        """Let the runner release what it holds and end its process, gently if it listens."""
        if self._worker is None:
            return
        worker = self._worker
        with contextlib.suppress(SurgeonError):  # the results are in
            if self._started:
                self._ask({"do": "close"}, [], _Task("closing", _GOODBYE))
                worker.await_end()
        self._bury()

    def abort(self) -> None:
        """End the process at once and start no other; from any thread, whatever this one is waiting for then fails."""
        self._aborted = True
        worker = self._worker
        if worker is not None:
            worker.kill()

    def _start(self) -> None:
        confines = self._confines
        self._worker = worker = WorkerProcess(confines.python, self._folder)
        if self._aborted:  # by now, perhaps: another thread that looked for the worker found none
            self._bury()
            self._fail(Ending.EXITED, "was told to end")
        self._channel = Channel(worker.socket, tick=_SHORT_TICK if confines.memory_cap else _TICK)
        self._started = False
        runner = {**dataclasses.asdict(self._runner), "options": dict(self._runner.options)}
        with contextlib.suppress(OSError):  # it is gone already; what it had to say is heard at the first use
            cap = confines.memory_cap or 0
            self._channel.send({"do": "make", "runner": runner, "scratch": str(self._scratch), "memory_cap": cap})

    def _bury(self) -> int:
        """End the worker and all it started; nothing of it is left afterwards."""
        worker, self._worker = self._worker, None
        self._started = False
        self._outbox, self._inbox = Outbox(), Inbox(writable=True)
        shutil.rmtree(self._scratch, ignore_errors=True)
        return worker.bury() if worker is not None else 0

    def _ask(self, message: dict[str, Any], files: Sequence[int], task: _Task) -> tuple[dict[str, Any], list[int]]:
        self._watch_begins(task)
        try:
            self._channel.send(message, files, wait=self._watch)
        except (EOFError, OSError):
            self._died(task)
        except BaseException:
            self._bury()
            raise
        return self._hear(task)

    def _hear(self, task: _Task) -> tuple[dict[str, Any], list[int]]:
        self._watch_begins(task)
        try:
            reply, files = self._channel.receive(wait=self._watch)
        except (EOFError, ConnectionError):
            self._died(task)
        except ValueError as error:
            self._rubbish(task, error)
        except BaseException:  # an interrupt, or the watch: what comes next would be taken for the next answer
            self._bury()
            raise
        self._outbox.reclaim(reply.get("freed", ()))
        if "error" in reply:
            self._refused(reply["error"], task)
        return reply, files

    def _watch_begins(self, task: _Task) -> None:
        self._task = task
        self._deadline = None if task.limit is None else time.monotonic() + task.limit

    def _watch(self) -> None:
        """Decide whether to go on waiting for the worker."""
        worker, cap = self._worker, self._confines.memory_cap
        if worker is None or worker.gone():
            raise EOFError
        if cap is not None and worker.resident() > cap:
            self._bury()
            what = f"ran out of memory while {self._task.words}: it took more than its cap of {_size(cap)}"
            self._fail(Ending.OUT_OF_MEMORY, what, "give it more with memory_cap=SIZE")
        if self._deadline is not None and time.monotonic() > self._deadline:
            tail = worker.tail
            self._bury()
            what = f"hung while {self._task.words}: nothing came within {self._task.limit:g} s"
            self._fail(Ending.HUNG, what + _last_words(tail.text()), "give it longer with timeout=SECONDS")

    def _fail(self, ending: Ending, what: str, hint: str = "") -> NoReturn:
        raise EngineFailure(f"{self._runner.text} {what}", ending=ending, hint=hint)

    def _refused(self, error: Mapping[str, Any], task: _Task) -> NoReturn:
        """Raise what the worker raised."""
        if not self._started:
            self._bury()
        what, where, hint = error["what"], error["where"], error["hint"]
        if error["memory"] or _NO_MEMORY.search(what):
            raise EngineFailure(what, ending=Ending.OUT_OF_MEMORY, where=where, hint=hint)
        kind = getattr(errors, error["kind"], None)
        if error["kind"] == "EngineFailure":
            ending = Ending(error["ending"])
            if ending is Ending.CRASHED:
                self._bury()  # it says of itself that it cannot go on, as after an error that sticks to its device
            raise EngineFailure(what, ending=ending, where=where, hint=hint, nodes=error["nodes"])
        if isinstance(kind, type) and issubclass(kind, SurgeonError):
            raise kind(what, where=where, hint=hint)
        raise EngineFailure(f"{self._runner.text} failed while {task.words}: {what}")

    def _died(self, task: _Task) -> NoReturn:
        """Tell how the worker ended."""
        worker = self._worker
        assert worker is not None
        started = self._started
        alone = worker.await_end()
        tail = worker.tail
        code = self._bury()
        said = tail.text()
        words = _last_words(said)
        if alone and code == -signal.SIGKILL and worker.killed_by_kernel():
            self._fail(Ending.OUT_OF_MEMORY, f"was killed while {task.words}: the machine ran out of memory")
        if _NO_MEMORY.search(words):
            self._fail(Ending.OUT_OF_MEMORY, f"ran out of memory while {task.words}{words}")
        if not alone:
            self._fail(Ending.CRASHED, f"stopped answering while {task.words}{words}")
        if code < 0:
            self._fail(Ending.CRASHED, f"crashed while {task.words}, ended by {_signal(-code)}{words}")
        python = self._confines.python
        hint = f"see whether {python} is a Python, 3.10 or newer" if python is not None and not started else ""
        self._fail(Ending.EXITED, f"left while {task.words}, with exit code {code}{words}", hint)

    def _rubbish(self, task: _Task, error: Exception) -> NoReturn:
        self._bury()
        self._fail(Ending.CRASHED, f"answered with rubbish while {task.words}: {error}")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"


def _last_words(text: str) -> str:
    """The last lines that a process wrote, as the end of a sentence; empty if it wrote none."""
    # What Python writes of itself when it crashes ends with its call stack; of that the place will do.
    text, _, stack = text.partition("Fatal Python error:")
    place = _PLACE.search(stack)
    at = f", in {Path(place[1]).name}, line {place[2]}" if place else ""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    words = ""
    for line in reversed(lines[-3:]):
        longer = f"{line} / {words}" if words else line
        if words and len(longer) > _MAX_WORDS:
            break
        words = longer
    return f"{at}; its last words: {words[-_MAX_WORDS:]}" if words else at
