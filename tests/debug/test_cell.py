"""Real processes that end in every way; see odd_runners.py."""

from __future__ import annotations

import ast
import contextlib
import gc
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest

import surgeon_debug
import surgeon_passes
from surgeon_debug import worker_process
from surgeon_debug.element_types import ELEMENT_TYPES, STRING, numpy_dtype
from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.runners.self_test import _status
from surgeon_debug.shared_memory import lease_of
from surgeon_debug.values import normalise, same
from surgeon_passes.errors import BadOptionError, EngineError

ODD = f"{Path(__file__).with_name('odd_runners.py')}"
X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process, no file in /dev/shm, no temporary folder and no open file outlives a test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("scratch")))
    gc.collect()
    before = left()
    yield
    gc.collect()
    assert waited(lambda: left() == before), (before, left())


def left() -> tuple[Any, ...]:
    return names_in("/dev/shm"), names_in(tempfile.gettempdir()), children(), len(names_in("/proc/self/fd"))


def names_in(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def children() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                found.append(path.parent.name)
    return found


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def waited(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def model(tmp_path: Path) -> Path:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 3] y) { h = Add (x, x) y = Abs (h) }'
    )
    onnx.save(onnx.parser.parse_model(text), str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def odd(how: str, where: str = "run", **options: Any) -> Engine:
    more = "".join(f",{key}={value}" for key, value in options.items())
    return make_engine(f"{ODD}:Odd:how={how},where={where}{more}", isolated=True)


ENDS = {
    "segfault": (Ending.CRASHED, r"crashed while {doing}, ended by SIGSEGV, in \w+\.py, line \d+$"),
    "abort": (Ending.CRASHED, "crashed while {doing}, ended by SIGABRT"),
    "kill": (Ending.CRASHED, "crashed while {doing}, ended by SIGKILL"),
    "words": (
        Ending.CRASHED,
        r"ended by SIGABRT, in odd_runners\.py, line \d+; its last words: one / the fuse is gone$",
    ),
    "exit": (Ending.EXITED, "left while {doing}, with exit code 3"),
    "leave": (Ending.EXITED, "left while {doing}, with exit code 4"),
    "bad_alloc": (Ending.OUT_OF_MEMORY, "ran out of memory while {doing}.*; its last words: .*std::bad_alloc"),
    "rubbish": (Ending.CRASHED, "answered with rubbish while {doing}"),
    "garbled": (Ending.CRASHED, "answered with rubbish while {doing}"),
}


@pytest.mark.parametrize(
    ("how", "where"),
    [*((how, "run") for how in ENDS), ("segfault", "start"), ("exit", "start"), ("segfault", "prepare")],
)
def test_an_end_has_a_name_and_the_next_model_a_new_process(model: Path, tmp_path: Path, how: str, where: str) -> None:
    ending, words = ENDS[how]
    doing = {"start": "starting", "prepare": "preparing model.onnx", "run": "running model.onnx"}[where]
    with odd(how, where, spared=tmp_path / "spared") as engine:
        with pytest.raises(EngineFailure, match=words.format(doing=doing)) as caught:
            engine.prepare(model, ["y"])
            engine.run(X)
        assert caught.value.ending is ending and "\n" not in str(caught.value)
        assert children() == []
        if where == "run":
            with pytest.raises(EngineFailure, match="has to be prepared again"):
                engine.run(X)
        (tmp_path / "spared").touch()
        engine.prepare(model, ["y"])
        np.testing.assert_array_equal(engine.run(X)["y"], 2 * X["x"])


@pytest.mark.parametrize(
    ("how", "where"), [("hang", "prepare"), ("hang", "run"), ("hold", "run"), ("child", "run"), ("hangup", "run")]
)
def test_a_hang_ends_in_time_with_all_it_started(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, where: str
) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    started = time.monotonic()
    with odd(how, where, timeout=1) as engine:
        with pytest.raises(EngineFailure) as caught:
            engine.prepare(model, ["y"])
            engine.run(X)
        if how == "hangup":
            assert caught.value.ending is Ending.CRASHED and "stopped answering" in str(caught.value)
        else:
            assert caught.value.ending is Ending.HUNG
            assert "nothing came within 1 s; give it longer with timeout=SECONDS" in str(caught.value)
    assert time.monotonic() - started < 9
    if how == "child":
        started_by = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert waited(lambda: not any(alive(pid) for pid in started_by))  # a killed process takes a moment to end


@pytest.mark.parametrize("how", ["eat", "gulp"])
def test_a_memory_cap_holds(model: Path, how: str) -> None:
    with odd(how, memory_cap="300MB") as engine:
        engine.prepare(model, ["y"])
        pid = engine.runner.pid  # type: ignore[attr-defined]
        with pytest.raises(EngineFailure, match=r"ran out of memory|[Uu]nable to allocate") as caught:
            engine.run(X)
        assert caught.value.ending is Ending.OUT_OF_MEMORY
        if how == "eat":
            assert "more than its cap of 300 MB; give it more with memory_cap=SIZE" in str(caught.value)
            assert not alive(pid)


def test_a_cap_leaves_room_for_what_is_within_it(model: Path) -> None:
    with make_engine("onnxruntime", memory_cap=320 << 20) as engine:
        engine.prepare(model, ["y"])
        big = np.ones((10 << 20, 3), np.float32)  # 120 MB of inputs, and as much of outputs in flight, are not its own
        found = engine.run({"x": big})
        assert found["y"][-1].tolist() == [2, 2, 2]


def test_killed_because_the_machine_ran_out_of_memory(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = itertools.count()
    monkeypatch.setattr(worker_process, "kernel_kills", lambda: next(count))
    with odd("kill") as engine:
        engine.prepare(model, ["y"])
        with pytest.raises(EngineFailure, match=r"was killed while running model.onnx: the machine ran out") as caught:
            engine.run(X)
        assert caught.value.ending is Ending.OUT_OF_MEMORY


def test_a_self_test_survives_what_it_tests() -> None:
    with odd("segfault", "prepare") as engine:
        found = _status("onnxruntime", engine)
    assert not found.works and "crashed while preparing self_test.onnx, ended by SIGSEGV" in found.reason


@pytest.mark.parametrize("where", ["start", "prepare", "run"])
def test_ten_megabytes_on_both_pipes_do_not_stop_it(model: Path, where: str) -> None:
    with odd("flood", where) as engine:
        engine.prepare(model, ["y"])
        np.testing.assert_array_equal(engine.run(X)["y"], 2 * X["x"])


def test_killed_from_outside_in_the_middle_of_a_run(model: Path) -> None:
    with odd("hang") as engine:
        engine.prepare(model, ["y"])
        pid = engine.runner.pid  # type: ignore[attr-defined]
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(EngineFailure, match="ended by SIGKILL") as caught:
            engine.run(X)
        assert caught.value.ending is Ending.CRASHED


def test_killed_between_two_runs(model: Path) -> None:
    with odd("nothing") as engine:
        engine.prepare(model, ["y"])
        first = engine.run(X)["y"]
        os.kill(engine.runner.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        with pytest.raises(EngineFailure, match="ended by SIGKILL"):
            engine.run(X)
        np.testing.assert_array_equal(first, 2 * X["x"])  # what it computed outlives it
        engine.prepare(model, ["y"])
        assert same(engine.run(X)["y"], first)


def test_an_interrupt_leaves_nothing_behind(model: Path) -> None:
    with odd("hang") as engine:
        engine.prepare(model, ["y"])
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            engine.run(X)
        assert children() == []


def test_an_engine_that_is_forgotten_is_ended(model: Path) -> None:
    engine = odd("nothing")
    engine.prepare(model, ["y"])
    pid = engine.runner.pid  # type: ignore[attr-defined]
    del engine
    gc.collect()
    assert not alive(pid)


@pytest.mark.parametrize("how", ["note", "child"])
def test_no_orphan_outlives_a_parent_that_is_killed(model: Path, tmp_path: Path, how: str) -> None:
    script = f"""
        from surgeon_debug.runners.catalogue import make_engine
        from pathlib import Path
        import numpy as np
        engine = make_engine("{ODD}:Odd:how={how}", isolated=True)
        engine.prepare(Path("{model}"), ["y"])
        engine.run({{"x": np.ones((1, 3), np.float32)}})
    """
    pids = tmp_path / "pids"
    environment = {**os.environ, "PIDS": str(pids), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    assert waited(lambda: pids.exists() and pids.read_text() != "", 20)
    started = [int(pid) for pid in pids.read_text().split()]
    assert all(alive(pid) for pid in started)
    parent.kill()
    parent.wait()
    assert waited(lambda: not any(alive(pid) for pid in started))


def test_what_a_runner_raises_sounds_as_in_process(model: Path) -> None:
    said = []
    for isolated in (False, True):
        with make_engine(f"{ODD}:Odd:how=raise", isolated=isolated) as engine:
            engine.prepare(model, ["y"])
            with pytest.raises(EngineFailure, match=r"failed while running model.onnx: ZeroDivisionError") as caught:
                engine.run(X)
            assert caught.value.ending is Ending.REFUSED
            said.append(str(caught.value))
            if isolated:
                pid = engine.runner.pid  # type: ignore[attr-defined]
                assert alive(pid)  # a refusal ends nothing
    assert said[0] == said[1]


BAD = (
    "onnxrt",
    "onnxruntime:optimise=none",
    "onnxruntime:threads=two",
    "onnxruntime:providers=gpu",
    "onnxruntime:option.nothing=1",
    f"{ODD}:Od",
    f"{ODD}:Odd:hoe=kill",
    f"{ODD}:Rubbish",
    f"{ODD}x.py:Odd",
    "command:run=echo",
)


def test_bad_options_sound_as_in_process(model: Path) -> None:
    engines = [make_engine(text, isolated=True) for text in BAD]  # they start side by side
    for text, engine in zip(BAD, engines, strict=True):
        with pytest.raises(BadOptionError) as direct:
            make_engine(text)
        with pytest.raises(BadOptionError) as caught:
            engine.ready()
        assert str(caught.value) == str(direct.value)
    with pytest.raises(BadOptionError, match="there is no runner 'onnxrt'"):
        engines[0].prepare(model, ["y"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("onnxruntime:python=/nowhere/python", "python=/nowhere/python is no interpreter"),
        ("onnxruntime:python=/etc/passwd", "is no interpreter"),
        ("onnxruntime:timeout=soon", "timeout=soon is not a number of seconds"),
        ("onnxruntime:timeout=0", "within 0.0 seconds nothing can be done"),
        ("onnxruntime:memory_cap=much", "'much' is not a size"),
        ("onnxruntime:memory_cap=0", "nothing runs in 0 bytes"),
    ],
)
def test_limits_that_make_no_sense(text: str, words: str) -> None:
    with pytest.raises(BadOptionError, match=words):
        make_engine(text)


def test_an_interpreter_that_is_none(tmp_path: Path, model: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho who am I >&2; exit 5\n")
    fake.chmod(0o755)
    with make_engine(f"onnxruntime:python={fake}") as engine, pytest.raises(EngineFailure) as caught:
        engine.prepare(model, ["y"])
    assert caught.value.ending is Ending.EXITED
    assert "left while starting, with exit code 5; its last words: who am I" in str(caught.value)
    fake.write_text("\x7fELF nonsense")
    with pytest.raises(BadOptionError, match="cannot be started: Exec format error"):
        make_engine(f"onnxruntime:python={fake}")


def echoed(values: dict[str, Any], isolated: bool = True) -> dict[str, Any]:
    with make_engine(f"{ODD}:Echo", isolated=isolated) as engine:
        engine.prepare(Path("any.onnx"), list(values))
        assert engine.precision == "bfloat16"
        return engine.run(values)


def numbers(element_type: int, count: int) -> np.ndarray:
    codes = np.random.default_rng(element_type).integers(0, 2, count)
    return codes.astype(np.float32).astype(numpy_dtype(element_type))


def test_every_element_type_travels() -> None:
    sent = {kind.onnx_name: numbers(n, 5) for n, kind in ELEMENT_TYPES.items() if n != STRING}
    sent |= {f"{name}, a matrix": np.stack([value, value]) for name, value in sent.items()}
    sent |= {
        "scalar": np.asarray(np.float16(1.5)),
        "bfloat16 scalar": np.asarray(ml_dtypes.bfloat16(1.5)),
        "empty": np.zeros((0, 3), np.int8),
        "empty int4": np.zeros((3, 0), ml_dtypes.int4),
        "strided": np.arange(24.0).reshape(4, 6)[::-2, 1::2],
        "strided bfloat16": np.arange(24.0).reshape(4, 6).astype(ml_dtypes.bfloat16).T,
        "one byte off": np.frombuffer(bytes(range(17)), np.uint8)[1:].view(np.float32),
        "a number": 3.5,
        "not a number": np.array([np.nan, -0.0, np.inf]),
    }
    found = echoed(sent)
    assert list(found) == list(sent)
    for name, value in sent.items():
        expected = np.asarray(value)
        assert found[name].dtype == expected.dtype and found[name].shape == expected.shape, name
        assert found[name].tobytes() == expected.tobytes(), name
    swapped = echoed({"x": np.arange(3, dtype=">i4")})["x"]
    assert swapped.tolist() == [0, 1, 2] and swapped.dtype == np.int32


def test_text_sequences_maps_and_nothing_travel() -> None:
    one, bf = np.ones(2, np.float32), np.ones(2, ml_dtypes.bfloat16)
    sent = {
        "text": np.array([["a", "é"], ["", "\n\0b"]]),
        "bytes": np.array([b"caf\xc3\xa9", b"\xff"], object),
        "no text": np.array([], object).reshape(0, 2),
        "none": None,
        "sequence": [one, np.zeros((0,), np.int64), bf],
        "no sequence": [],
        "nested": [[one], [None, np.array(["x"])]],
        "map": {"a": 1.5, "b": np.float32(2)},
        "numbered": {1: one, np.int64(2): one},
        "in a list": [{"k": bf}],
        "": one,
        "/a/b:0 'é'": one,
    }
    found, direct = echoed(sent), echoed(sent, isolated=False)
    assert list(found) == list(direct) == list(sent)
    for name in sent:
        assert same(found[name], direct[name]), name
        assert same(found[name], normalise(sent[name])), name
    assert found["bytes"].tolist() == ["café", "\udcff"] and list(found["numbered"]) == [1, 2]
    assert found["sequence"][2].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("isolated", [False, True])
def test_rubbish_from_a_runner_is_refused(model: Path, isolated: bool) -> None:
    for what, words in {
        "list": "returned list from run; return a dict",
        "object": "returned something that is no value for model.onnx: 'y': lies on another device",
    }.items():
        with make_engine(f"{ODD}:Rubbish:what={what}", isolated=isolated) as engine:
            engine.prepare(model, ["y"])
            with pytest.raises(EngineFailure, match=words):
                engine.run(X)
    with make_engine(f"{ODD}:Rubbish:what=stranger", isolated=isolated) as engine:
        engine.prepare(model, ["y"])
        assert engine.run(X)["y"].tolist() == [0, 0]


def test_a_record_is_no_tensor(model: Path) -> None:
    with make_engine(f"{ODD}:Rubbish:what=record", isolated=True) as engine:
        engine.prepare(model, ["y"])
        for _ in range(3):
            with pytest.raises(EngineFailure, match=r"is no value for model.onnx: 'y': ONNX has no element type"):
                engine.run(X)


def test_thousands_of_tensors_in_one_reply(model: Path) -> None:
    names = [f"t{i}" for i in range(3000)] + [f"big{i}" for i in range(4)]
    with make_engine(f"{ODD}:Many", isolated=True) as engine:
        engine.prepare(model, names)
        found = engine.run({})
        for i in (0, 1, 1499, 2999):
            assert found[f"t{i}"].tolist() == [i] * 100
        assert [found[f"big{i}"][-1] for i in range(4)] == [0, 1, 2, 3]
        files = len(names_in("/proc/self/fd"))
        del found
        for _ in range(8):
            engine.run({})
        assert len(names_in("/proc/self/fd")) <= files
        assert len(names_in(f"/proc/{engine.runner.pid}/fd")) < 50  # type: ignore[attr-defined]


def shared_bytes(pid: int) -> int:
    """Size of all memory segments that a process has mapped."""
    lines = [
        line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "memfd:onnx-surgeon" in line
    ]
    return sum(int(end, 16) - int(start, 16) for start, end in (line[0].split("-") for line in lines))


def test_memory_comes_back_when_arrays_are_dropped(model: Path) -> None:
    with make_engine("onnxruntime", isolated=True) as engine:
        engine.prepare(model, ["y", "h"])
        large = {"x": np.ones((8 << 20, 3), np.float32)}
        pid = engine.runner.pid  # type: ignore[attr-defined]
        kept = engine.run(large)["y"]
        for _ in range(5):
            engine.run(large)
        assert shared_bytes(pid) < 7 * 96 << 20  # one input, two outputs, and the two that were still held
        assert kept[-1].tolist() == [2, 2, 2]
        del kept
        engine.run(X)
        engine.run(X)
        assert shared_bytes(pid) <= 3 * 16 << 20
        assert shared_bytes(os.getpid()) <= 3 * 16 << 20


def test_values_outlive_their_engine(model: Path) -> None:
    with make_engine("onnxruntime", isolated=True) as engine:
        engine.prepare(model, ["y"])
        found = engine.run(X)
        later = engine.run({"x": X["x"] + 1})
        found["y"] += 1  # they are the caller's
    np.testing.assert_array_equal(found["y"], 2 * X["x"] + 1)
    np.testing.assert_array_equal(later["y"], 2 * X["x"] + 2)


def test_what_one_engine_made_is_lent_to_another_without_a_copy(model: Path) -> None:
    with make_engine("onnxruntime", isolated=True) as one, make_engine(f"{ODD}:Probe", isolated=True) as two:
        one.prepare(model, ["y", "h"])
        two.prepare(model, ["inodes", "writable", "path"])
        found = one.run(X)
        lease = lease_of(found["y"])
        assert lease is not None
        inode = os.fstat(lease.mapping.file).st_ino
        own = np.ones(3)
        for _ in range(3):
            seen = two.run({"y": found["y"], "part": found["h"][:1], "turned": found["h"].T, "own": own})
            assert seen["inodes"].tolist()[:2] == [inode, inode] and inode not in seen["inodes"].tolist()[2:]
            assert not seen["writable"].any()
        folders = [str(Path(package.__file__).parent) for package in (surgeon_debug, surgeon_passes)]
        assert not set(folders) & set(seen["path"].tolist())


def test_a_runner_may_keep_what_it_was_given(model: Path) -> None:
    with make_engine("onnxruntime", isolated=True) as one, make_engine(f"{ODD}:Echo:keep=yes", isolated=True) as two:
        one.prepare(model, ["y"])
        two.prepare(model, ["first"])
        for i in range(4):
            made = one.run({"x": X["x"] + i})["y"]
            np.testing.assert_array_equal(two.run({"y": made})["first"], 2 * X["x"])
            del made


def test_two_engines_in_two_threads(model: Path) -> None:
    def work(text: str, wrong: list[str]) -> None:
        with make_engine(text, isolated=True) as engine:
            engine.prepare(model, ["y", "h"])
            for i in range(30):
                fed = np.full((50, 3), i, np.float32)
                if not np.array_equal(engine.run({"x": fed})["y"], 2 * fed):
                    wrong.append(f"{text} {i}")

    wrong: list[str] = []
    threads = [threading.Thread(target=work, args=(t, wrong)) for t in ("onnxruntime", "reference", "onnxruntime")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_engine_made_in_a_thread_that_is_gone_lives_on(model: Path) -> None:
    made: list[Engine] = []
    thread = threading.Thread(target=lambda: made.append(odd("nothing")))
    thread.start()
    thread.join()
    time.sleep(0.2)
    with made[0] as engine:
        engine.prepare(model, ["y"])
        engine.run(X)


def test_a_runner_that_does_not_observe_is_given_a_copy_with_more_outputs(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> '
        "{ h = Add (x, w) y = Abs (h) }"
    )
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([5, 6], np.float32), "w"))
    (tmp_path / "deep").mkdir()
    onnx.save(
        proto, str(tmp_path / "m.onnx"), save_as_external_data=True, location="deep/w.bin", size_threshold=0,
        convert_attribute=False,
    )  # fmt: skip
    before = (tmp_path / "m.onnx").read_bytes()
    wrong = f"{Path(__file__).with_name('wrong_runner.py')}:Wrong"
    for isolated in (False, True):
        with make_engine(wrong, isolated=isolated) as engine:
            engine.prepare(tmp_path / "m.onnx", ["h", "y", "nowhere"][:2])
            np.testing.assert_array_equal(engine.run({"x": np.zeros(2, np.float32)})["h"], [5, 6])
        with make_engine(f"{ODD}:Probe", isolated=isolated) as engine:
            engine.prepare(tmp_path / "m.onnx", ["h", "model", "files", "links"])
            seen = engine.run({})
            assert seen["files"].tolist() == ["deep", "deep/w.bin", "m.onnx"] and seen["links"].tolist()[1:] == [1, 1]
            copy = Path(seen["model"][0])
            assert [o.name for o in onnx.load(str(copy)).graph.output] == ["y", "h"]
            if isolated:
                os.kill(engine.runner.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        assert not copy.exists()
    assert (tmp_path / "m.onnx").read_bytes() == before


def test_weights_behind_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "piece").mkdir()
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> '
        "{ h = Add (x, w) y = Abs (h) }"
    )
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([5, 6], np.float32), "w"))
    path = tmp_path / "source" / "m.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="w.bin", size_threshold=0, convert_attribute=False)
    piece = tmp_path / "piece" / "m.onnx"
    piece.write_bytes(path.read_bytes())
    (tmp_path / "piece" / "w.bin").symlink_to(tmp_path / "source" / "w.bin")
    for isolated in (False, True):
        for wanted in (["y"], ["y", "h"]):
            with make_engine("onnxruntime", isolated=isolated) as engine:
                engine.prepare(piece, wanted)
                np.testing.assert_array_equal(engine.run({"x": np.zeros(2, np.float32)})["y"], [5, 6])


FORBIDDEN = ("onnx", "onnx_ir", "ml_dtypes", "sympy", "click", "rich", "surgeon")
GUARD = f"""
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FORBIDDEN!r}:
            raise ModuleNotFoundError("forbidden here: " + name, name=name)
sys.meta_path.insert(0, Guard())
"""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds numpy and onnxruntime, and refuses to import what is ours or ONNX's."""
    home = tmp_path_factory.mktemp("bare") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    site = next((home / "lib").glob("python*")) / "site-packages"
    for package in (np, onnxruntime):
        folder = Path(package.__file__).parent
        for entry in (folder, folder.with_name(f"{folder.name}.libs")):
            if entry.exists():
                (site / entry.name).symlink_to(entry)
    for name in ("flatbuffers", "google", "coloredlogs", "humanfriendly", "packaging"):
        if (folder.parent / name).exists():
            (site / name).symlink_to(folder.parent / name)
    (site / "sitecustomize.py").write_text(GUARD)
    return home / "bin" / "python"


def test_another_environment_needs_numpy_and_its_engine_only(bare_python: Path, tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N, 4] x, bfloat16[2] b) => (float[N, 4] y, bfloat16[2] c, int4[2] d) <float[4, 4] w> {
            h = MatMul (x, w)
            y = Softmax <axis = -1> (h)
            c = Identity (b)
            f = Cast <to = 1> (b)
            d = Cast <to = 22> (f)
        }"""
    proto = onnx.parser.parse_model(text)
    w = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    proto.ir_version = 99  # has to be lowered, without onnx
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    feeds = {"x": np.random.default_rng(1).standard_normal((5, 4)), "b": np.array([1, 3]).astype(ml_dtypes.bfloat16)}
    feeds["x"] = feeds["x"].astype(np.float32)
    wanted = ["y", "h", "c", "d"]
    text = "onnxruntime:optimize=none,threads=1"
    with make_engine(f"{text},python={bare_python}") as there, make_engine(text) as here:
        for engine in (there, here):
            engine.prepare(path, wanted)
        expected, found = here.run(feeds), there.run(feeds)
    assert list(found) == wanted and found["d"].dtype == ml_dtypes.int4
    for name in wanted:
        assert same(found[name], expected[name]), name
    with make_engine(f"{ODD}:Probe:python={bare_python}") as engine:
        engine.prepare(path, ["path"])
        assert not [p for p in engine.run({})["path"].tolist() if "surgeon" in p]


@pytest.mark.parametrize(
    ("runner", "words"),
    [
        ("openvino", "runner openvino needs the package openvino, which is not installed"),
        ("reference", "forbidden here: onnx|runner reference needs the package onnx"),
    ],
)
def test_what_another_environment_lacks_is_said(bare_python: Path, model: Path, runner: str, words: str) -> None:
    with make_engine(f"{runner}:python={bare_python}") as engine, pytest.raises(EngineError, match=words):
        engine.prepare(model, ["y"])


def test_an_environment_without_numpy(tmp_path: Path, model: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    with make_engine(f"onnxruntime:python={tmp_path / 'env'}") as engine, pytest.raises(EngineError) as caught:
        engine.prepare(model, ["y"])
    assert "lacks numpy, which every runner needs" in str(caught.value)


def test_what_runs_in_other_environments_is_python_3_10_and_imports_little(bare_python: Path) -> None:
    listed = "import sys; sys.argv = [sys.argv[0]]; import numpy; before = set(sys.modules); "
    rooms = [str(Path(package.__file__).parent) for package in (surgeon_debug, surgeon_passes)]
    script = listed + textwrap.dedent(f"""
        import importlib.util
        sys.path.insert(0, {str(Path(rooms[0]).parent)!r}); sys.path.insert(0, {str(Path(rooms[1]).parent)!r})
        import surgeon_debug.worker, surgeon_debug.channel, surgeon_debug.parcel, surgeon_debug.runners.catalogue
        for name in ("onnxruntime", "openvino", "command"):
            __import__("surgeon_debug.runners." + name)
        print("\\n".join(m.__file__ for n, m in sys.modules.items() if n.startswith("surgeon_")))
    """)
    done = subprocess.run([str(bare_python), "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.split()]
    assert len(files) > 12
    for file in files:
        ast.parse(file.read_text(), feature_version=(3, 10))
        assert not re.search(r"\b(StrEnum|tomllib|typing\.Self|ExceptionGroup|datetime\.UTC)\b", file.read_text()), file


def test_fifty_runs_open_no_files(model: Path) -> None:
    with odd("nothing") as engine:
        engine.prepare(model, ["y"])
        counts = []
        for _ in range(50):
            engine.run({"x": np.ones((9, 3), np.float32)})
            files = [names_in(f"/proc/{pid}/fd") for pid in ("self", engine.runner.pid)]  # type: ignore[attr-defined]
            counts.append(tuple(len(names) for names in files))
        assert len(set(counts[1:])) == 1
