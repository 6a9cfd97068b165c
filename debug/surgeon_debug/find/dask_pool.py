"""Trials on the workers of a Dask scheduler: each worker makes oracles of its own and keeps them for the search.

A lane here waits for one trial there. Dask makes a trial anew elsewhere when its worker is lost; one that loses
worker after worker is unresolved. Whatever happens to workers, the record is noted here.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType
from typing import Any

from surgeon_debug.find.oracle import OracleSpec, TrialRecord
from surgeon_debug.find.pool import LocalPool
from surgeon_debug.find.remember import Remembering
from surgeon_debug.find.worker_oracles import WorkerOracles, sampled_digest
from surgeon_passes.errors import BadOptionError, EngineError

_PATIENCE = 10.0  # seconds for somebody to answer, and for a first worker to come
_LONELY = 60.0  # seconds without any worker
_TICK = 0.5
_LOOK = 5.0  # seconds between two looks at who is there
_ADDRESS = re.compile(r"^([a-z+]+://)?\S+:\d+$")


class DaskPool:
    """Makes trials on Dask workers; see :class:`surgeon_debug.find.trial_pool.TrialPool`.

    Every thread of a worker counts as a lane; an oracle is used by one thread at a time.

    Args:
        spec: Makes the oracles, on the workers; it is sent there.
        address: Of the scheduler: ``tcp://HOST:PORT``.
        remember: Where trials are looked up and noted, here.
        files: What workers must find under the same paths, such as the model and its weights.
        patience: Seconds for the scheduler to answer, and for a first worker to be there.

    Raises:
        BadOptionError: The package distributed is not installed, the address is none, nobody answers, there is no
            worker, or a worker has another version of this package, or does not see a file, or sees another.
    """

    def __init__(
        self,
        spec: OracleSpec,
        address: str,
        remember: Remembering,
        *,
        files: Sequence[Path] = (),
        patience: float = _PATIENCE,
    ) -> None:
        self._client = _connect(address, patience)
        self._name = f"surgeon-{secrets.token_hex(8)}"
        try:
            threads = _workers(self._client, address, patience)
            _check_workers(self._client, files)
            self._client.register_plugin(_plugin(spec), name=self._name)
        except BaseException:
            self._client.close()
            raise
        remote = _RemoteSpec(self._client, self._name, address)
        # No trial there ends this process, so none is to be made with special care.
        self._pool = LocalPool(remote, threads, remember, apart=False)
        self._closed = False

    @property
    def lanes(self) -> int:
        """How many threads the workers had when this was made."""
        return self._pool.lanes

    def submit(self, elements: frozenset[int], attempt: int = 0) -> Future[TrialRecord]:
        """Have a trial made, unless its record is known; see :meth:`TrialPool.submit`."""
        return self._pool.submit(elements, attempt)

    def close(self) -> None:
        """Drop trials that wait, end those under way, have the workers let go of their oracles."""
        if self._closed:
            return
        self._closed = True
        self._pool.close()
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self._client.unregister_worker_plugin(self._name)
        with contextlib.suppress(Exception):
            self._client.close(timeout=_PATIENCE)

    def __enter__(self) -> DaskPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connect(address: str, patience: float) -> Any:
    if not _ADDRESS.match(address):
        raise BadOptionError(f"'{address}' is not the address of a scheduler", hint="write tcp://HOST:8786")
    try:
        from distributed import Client
    except ImportError as error:
        raise BadOptionError(
            f"workers at {address} need the package distributed, which is not installed",
            hint='run pip install "onnx-surgeon[dask]"',
        ) from error
    try:
        return Client(address, timeout=patience, set_as_default=False, name="onnx-surgeon")
    except (OSError, ValueError) as error:
        raise BadOptionError(
            f"no Dask scheduler answers at {address} within {patience:g} s",
            hint="start one with 'dask scheduler', or see whether a firewall is between",
        ) from error


def _workers(client: Any, address: str, patience: float) -> int:
    """The number of threads of all workers, once there is one."""
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=patience)
    threads = sum(client.nthreads().values())
    if not threads:
        raise BadOptionError(
            f"the Dask scheduler at {address} has no workers", hint=f"start some with 'dask worker {address}'"
        )
    return int(threads)


def _check_workers(client: Any, files: Sequence[Path]) -> None:
    """Make sure that all workers have this version and see these files."""
    ours = importlib.metadata.version("onnx-surgeon")
    paths = [path.absolute() for path in files]
    right = [sampled_digest(path) for path in paths]
    for worker, found in client.run(_look(ours, [str(path) for path in paths]), on_error="return").items():
        if isinstance(found, BaseException):
            raise BadOptionError(f"the Dask worker {worker} cannot run onnx-surgeon: {found}") from found
        version, seen = found
        if version != ours:
            has = f"has onnx-surgeon {version}" if version else "has no onnx-surgeon"
            raise BadOptionError(
                f"the Dask worker {worker} {has} and this is {ours}", hint="install the same version in its environment"
            )
        for path, there, here in zip(paths, seen, right, strict=True):
            if there != here:
                what = f"sees another file than this machine in {path}" if there else f"does not see {path}"
                raise BadOptionError(
                    f"the Dask worker {worker} {what}", hint="put it in a folder that all of them share"
                )


def _look(ours: str, paths: list[str]) -> Callable[[], tuple[str, list[str]]]:
    # An inner function travels with its text: a worker that lacks this package can say so.
    def look() -> tuple[str, list[str]]:
        import importlib.metadata

        try:
            version = importlib.metadata.version("onnx-surgeon")
        except importlib.metadata.PackageNotFoundError:
            return "", []
        if version != ours:
            return version, []
        from pathlib import Path

        from surgeon_debug.find.worker_oracles import sampled_digest

        return version, [sampled_digest(Path(path)) for path in paths]

    return look


def _plugin(spec: OracleSpec) -> Any:
    from distributed import WorkerPlugin

    class Oracles(WorkerPlugin):  # type: ignore[misc]
        """Holds the oracles of a worker from when it joins to when it leaves."""

        def setup(self, worker: Any) -> None:  # noqa: ARG002
            self.oracles = WorkerOracles(spec)

        def teardown(self, worker: Any) -> None:  # noqa: ARG002
            self.oracles.close()

    return Oracles()


def evaluate_there(name: str, elements: list[int], attempt: int) -> dict[str, Any]:
    """Make a trial on the worker that runs this; the record as JSON.

    Args:
        name: The plugin that holds the oracles.
        elements: What the suspect computes.
        attempt: Counts repetitions of the same question.
    """
    from distributed import get_worker

    plugin: Any = get_worker().plugins[name]
    oracles: WorkerOracles = plugin.oracles
    return oracles.evaluate(frozenset(elements), attempt).to_json()


class _RemoteSpec:
    """Makes what stands for an oracle elsewhere."""

    def __init__(self, client: Any, name: str, scheduler: str) -> None:
        self.client, self.name, self.scheduler = client, name, scheduler

    def address(self) -> str:
        return ""

    def make(self) -> _Remote:
        return _Remote(self)


class _Remote:
    """Has a trial made on some worker and waits for it."""

    def __init__(self, spec: _RemoteSpec) -> None:
        self._spec = spec
        self._stopped = threading.Event()

    def evaluate(self, elements: frozenset[int], attempt: int) -> TrialRecord:
        from distributed import KilledWorker

        spec = self._spec
        key = f"surgeon-trial-{secrets.token_hex(8)}"
        future = spec.client.submit(evaluate_there, spec.name, sorted(elements), attempt, key=key, pure=False)
        try:
            self._await(future)
            return TrialRecord.from_json(future.result())
        except KilledWorker as error:
            times = error.allowed_failures + 1
            return TrialRecord(None, unresolved=f"it ended the worker that made it, {times} times")
        except CancelledError:
            if self._stopped.is_set():
                raise
            raise EngineError(
                f"the Dask scheduler at {spec.scheduler} is gone", hint="start it again and go on with --resume"
            ) from None
        finally:
            with contextlib.suppress(Exception):
                future.release()

    def _await(self, future: Any) -> None:
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        seen = looked = time.monotonic()
        while not done.wait(_TICK):
            if self._stopped.is_set():
                self._spec.client.cancel([future], force=True)
                raise CancelledError
            now = time.monotonic()
            if now - looked >= _LOOK and self._spec.client.status == "running":
                looked = now
                if self._spec.client.nthreads():
                    seen = now
                if now - seen > _LONELY:
                    raise EngineError(
                        f"the Dask scheduler at {self._spec.scheduler} has no workers any more",
                        hint="start some and go on with --resume",
                    )

    def abort(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        pass
