"""Trials on the workers of a real Dask scheduler, some of which are killed in the middle."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Any

import pytest

from surgeon_debug.find.dask_pool import DaskPool
from surgeon_debug.find.remember import Remembering
from surgeon_debug.find.worker_oracles import sampled_digest
from surgeon_debug.journal import Journal
from surgeon_passes.errors import BadOptionError, EngineError
from tests.debug.logged_oracle import WRONG, LoggedSpec, lines_of
from tests.debug.masked_engine import EngineSpec, is_alive

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="the package distributed is not installed"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    for name in ("distributed", "distributed.nanny", "distributed.scheduler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL
    ) as made:
        yield made


def pool_of(spec: Any, cluster: Any, journal: Journal | None = None, files: tuple[Path, ...] = ()) -> DaskPool:
    remember = Remembering(spec.address(), Journal(None) if journal is None else journal)
    return DaskPool(spec, cluster.scheduler_address, remember, files=files)


def wait_for_workers(cluster: Any) -> None:
    deadline = time.monotonic() + 30
    while sum(1 for _ in cluster.scheduler.workers) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_trial_gets_its_own_record_and_oracles_stay_while_the_search_lasts(tmp_path: Path, cluster: Any) -> None:
    spec = LoggedSpec(tmp_path / "log", seconds=0.02)
    wait_for_workers(cluster)
    with pool_of(spec, cluster) as pool:
        assert pool.lanes == 2
        futures = {n: pool.submit(frozenset(range(n))) for n in range(30, 50)}
        for n, future in futures.items():
            assert (future.result(30).signature == WRONG) == (n > 37)
        pids = {future.result().payload["pid"] for future in futures.values()}
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert len(lines_of(spec.log, "made")) == 2
        assert not lines_of(spec.log, "closed")
    assert len(lines_of(spec.log, "closed")) == 2
    with pytest.raises(RuntimeError):
        pool.submit(frozenset())


def test_what_is_known_is_not_sent(tmp_path: Path, cluster: Any) -> None:
    spec = LoggedSpec(tmp_path / "log", seconds=0.01)
    wait_for_workers(cluster)
    with Journal(tmp_path) as journal, pool_of(spec, cluster, journal) as pool:
        first = pool.submit(frozenset({37})).result(30)
    with Journal(tmp_path) as journal, pool_of(spec, cluster, journal) as pool:
        assert pool.submit(frozenset({37})).result(0) == first
    assert len(lines_of(spec.log, "done")) == 1


def test_an_error_reaches_who_waits_and_nobody_else(tmp_path: Path, cluster: Any) -> None:
    spec = LoggedSpec(tmp_path / "log", seconds=0.01, rude=5)
    wait_for_workers(cluster)
    with pool_of(spec, cluster) as pool:
        futures = [pool.submit(frozenset({n})) for n in (4, 5, 6)]
        with pytest.raises(EngineError, match="the disk under it burns"):
            futures[1].result(30)
        assert futures[0].result(30).signature is futures[2].result(30).signature is None


def test_a_worker_killed_in_the_middle_costs_its_trial_and_no_answer(tmp_path: Path, cluster: Any) -> None:
    """A real search by halves, with real engines on the workers; one worker is killed in the middle of a trial."""
    spec = EngineSpec(tmp_path, seconds=0.3)
    wait_for_workers(cluster)
    killed = []
    with Journal(tmp_path) as journal, pool_of(spec, cluster, journal) as pool:
        low, high = 0, 64  # clean up to low, reproduces with high
        while high - low > 1:
            cuts = sorted({low + (high - low) // 3, low + 2 * (high - low) // 3} - {low, high})
            futures = {cut: pool.submit(frozenset(range(cut))) for cut in cuts}
            if high - low < 40 and not killed:
                while len(lines_of(spec.log, "begin")) < len(lines_of(spec.log, "done")) + 2:
                    time.sleep(0.01)
                killed = [worker.pid for worker in map(_process_of, _nannies(cluster)[:1])]
                os.kill(killed[0], signal.SIGKILL)
            for cut, future in futures.items():
                if future.result(60).signature is None:
                    low = max(low, cut)
                else:
                    high = min(high, cut)
    assert killed and not is_alive(killed[0])
    assert (low, high) == (37, 38)
    done = [line.split()[2] if len(line.split()) > 2 else "" for line in lines_of(spec.log, "done")]
    assert len(done) == len(set(done)), "a finished trial was made again"
    assert len(lines_of(spec.log, "begin")) == len(done) + 1, "no trial was lost with its worker"
    time.sleep(0.3)
    assert not any(is_alive(int(line.split()[1])) for line in lines_of(spec.log, "begin")), "an engine was left behind"


def _nannies(cluster: Any) -> list[Any]:
    return list(cluster.workers.values())


def _process_of(nanny: Any) -> Any:
    return nanny.process.process


def test_a_trial_that_kills_workers_is_unresolved(tmp_path: Path, cluster: Any) -> None:
    spec = LoggedSpec(tmp_path / "log", deadly=5)
    wait_for_workers(cluster)
    with pool_of(spec, cluster) as pool:
        deadly = pool.submit(frozenset({5, 37}))
        others = {n: pool.submit(frozenset({n})) for n in (36, 37)}
        record = deadly.result(60)
        assert record.signature is None
        assert record.unresolved == "it ended the worker that made it, 4 times"
        assert [n for n, future in others.items() if future.result(60).signature] == [37]
    assert len(lines_of(spec.log, "begin")) >= 6


def test_closed_in_the_middle_nothing_is_noted_and_no_engine_left(tmp_path: Path, cluster: Any) -> None:
    spec = EngineSpec(tmp_path, seconds=60)
    wait_for_workers(cluster)
    with Journal(tmp_path) as journal:
        pool = pool_of(spec, cluster, journal)
        futures = [pool.submit(frozenset({n})) for n in range(4)]
        while len(lines_of(spec.log, "begin")) < 2:
            time.sleep(0.01)
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < 4
        assert not wait(futures, 5).not_done
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(0)
        assert journal.ended == 0
    time.sleep(0.3)
    assert not any(is_alive(int(line.split()[1])) for line in lines_of(spec.log, "begin"))


def test_workers_must_see_the_same_files(tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = LoggedSpec(tmp_path / "log")
    (tmp_path / "model.onnx").write_bytes(b"model" * 100_000)
    wait_for_workers(cluster)
    pool_of(spec, cluster, files=(tmp_path / "model.onnx",)).close()
    with monkeypatch.context() as patch:
        patch.setattr("surgeon_debug.find.dask_pool.sampled_digest", lambda path: "what only this machine sees")
        with pytest.raises(BadOptionError, match=r"sees another file .*model\.onnx"):
            pool_of(spec, cluster, files=(tmp_path / "model.onnx",))
        with pytest.raises(BadOptionError, match=r"does not see .*other\.onnx"):
            pool_of(spec, cluster, files=(tmp_path / "other.onnx",))


def test_workers_must_have_this_version(tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_workers(cluster)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.1")
    with pytest.raises(BadOptionError, match=r"has onnx-surgeon \S+ and this is 99\.1"):
        pool_of(LoggedSpec(tmp_path / "log"), cluster)


@needs_dask
def test_where_nobody_answers_it_says_so_soon(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        remember = Remembering("here", Journal(None))
        started = time.monotonic()
        with pytest.raises(BadOptionError, match=f"no Dask scheduler answers at {address} within 1 s"):
            DaskPool(LoggedSpec(tmp_path / "log"), address, remember, patience=1)
        assert time.monotonic() - started < 5


@needs_dask
def test_a_scheduler_without_workers_is_an_error(tmp_path: Path) -> None:
    import distributed

    spec, remember = LoggedSpec(tmp_path / "log"), Remembering("here", Journal(None))
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0", protocol="tcp") as empty,
        pytest.raises(BadOptionError, match="has no workers"),
    ):
        DaskPool(spec, empty.scheduler_address, remember, patience=1)


@pytest.mark.parametrize("address", ["", "localhost", "tcp://localhost", "tcp://local host:1", "8786"])
def test_what_is_no_address_is_an_error(tmp_path: Path, address: str) -> None:
    with pytest.raises(BadOptionError, match="is not the address of a scheduler"):
        DaskPool(LoggedSpec(tmp_path / "log"), address, Remembering("", Journal(None)))


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BadOptionError, match=r"pip install \"onnx-surgeon\[dask\]\""):
        DaskPool(LoggedSpec(tmp_path / "log"), "tcp://localhost:1", Remembering("", Journal(None)))


def test_a_sampled_digest_tells_files_apart(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    seen = {sampled_digest(path)}
    for content in (b"", b"a", b"b", b"a" * 3_000_000, b"a" * 2_999_999 + b"b", b"b" * 3_000_000):
        path.write_bytes(content)
        seen.add(sampled_digest(path))
    assert len(seen) == 7
    assert "" in seen
