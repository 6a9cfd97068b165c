"""What people get wrong with ``build``, ``bench`` and ``inspect``: one sentence each, and nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.debug.tensorrt_places import INSTALLED, net, play, saved
from tests.simulated_tensorrt.plan import Fault, Where
from tests.surgeon.conftest import Said

Command = Callable[..., Said]

TWO = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x, float[N, 4] z) => (float[N, 4] y)
    { y = Add (x, z) }"""
SHORT = ("--seconds", "0.02", "--warmup", "0", "--runs", "2")


def refused(said: Said, words: str, code: int = 2) -> None:
    """One sentence on stderr, nothing on stdout, and no folder that nobody typed."""
    assert said.code == code, said.err
    assert not said.out and len(said.err.strip().splitlines()) == 1
    assert words in said.err and "Traceback" not in said.err and "/surgeon-" not in said.err


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "missing.onnx", "-o", "a.engine"), "missing.onnx: there is no such file"),
        (("bench", "missing.onnx", "--runner", "tensorrt"), "missing.onnx: there is no such file"),
        (("inspect", "missing.engine"), "missing.engine: does not exist"),
        (("inspect", "folder.engine"), "folder.engine: is a folder"),
        (("inspect", "missing.cache", "net.cache"), "missing.cache: does not exist"),
        (("build", "rubbish.onnx", "-o", "a.engine"), "rubbish.onnx: the file is not ONNX"),
        (("build", "empty.onnx", "-o", "a.engine"), "empty.onnx: the file is empty"),
        (("build", "net.onnx", "-o", "nowhere/a.engine"), "the folder does not exist; make it first"),
        (("build", "net.onnx", "-o", "folder.engine"), "cannot be written: it is a folder"),
        (("build", "net.onnx", "-o", "net.onnx"), "-o names a file that is read"),
        (("build", "net.onnx", "-o", "net.cache", "--timing-cache", "net.cache"), "-o names a file that is read"),
        (("build", "net.onnx", "-o", "a.engine", "--timing-cache", "net.onnx"), "--timing-cache names a file that is"),
        (("build", "net.onnx", "-o", "a.engine", "--workspace", "-5"), "'-5' is not a size"),
        (("build", "net.onnx", "-o", "a.engine", "--level", "9"), "9 is not in the range 0<=x<=5"),
        (("build", "net.onnx", "-o", "a.engine", "--level", "0", "--timing-cache", "b.cache"), "level 0 tensorrt ign"),
        (("build", "net.onnx", "-o", "a.engine", "--route", "nope.json"), "nope.json: cannot be read: no such file"),
        (("build", "two.onnx", "-o", "a.engine", "--dims", "N=1,N=2"), "dimension 'N' is given twice"),
        (("build", "two.onnx", "-o", "a.engine", "--dims", "N=4..2"), "'N=4..2' is no range"),
    ],
)
def test_mistakes_are_told_before_anything_is_built(
    surgeon: Command,
    new_tensorrt: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    net(tmp_path)
    saved(tmp_path, TWO, "two.onnx")
    (tmp_path / "rubbish.onnx").write_bytes(b"not a model")
    for name in ("empty.onnx", "net.cache"):
        (tmp_path / name).touch()
    (tmp_path / "folder.engine").mkdir()
    before = files(tmp_path)
    refused(surgeon(*arguments), words)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ('{"q": [1, 4]}', "p.json: 'q' is no input; they are x, z"),
        ('{"x": [1, 4], "z": {"min": [1, 4], "max": [2, 4]}}', "dimension N is 1 for x and 1..2..2 for z"),
        ('{"x": [1, 4]}', "the sizes of z are open (N)"),
        ('{"x": [1, 5], "z": [1, 5]}', "sizes (1, 5) to (1, 5) do not fit input 'x' of Nx4"),
        ('{"x": [1], "z": [1]}', "sizes (1,) to (1,) do not fit input 'x' of Nx4"),
        ('{"x": {"min": [2, 4], "max": [1, 4]}, "z": [1, 4]}', "holds no sizes of inputs"),
        ("{", "holds no sizes of inputs"),
    ],
)
def test_sizes_that_do_not_fit(surgeon: Command, new_tensorrt: str, tmp_path: Path, profile: str, words: str) -> None:
    model, place = saved(tmp_path, TWO), tmp_path / "p.json"
    place.write_text(profile)
    refused(surgeon("build", model, "-o", tmp_path / "a.engine", "--profile", place), words)
    assert files(tmp_path) == {"model.onnx", "p.json"}


def test_files_that_are_not_what_they_seem(surgeon: Command, any_tensorrt: str, tmp_path: Path) -> None:
    model, engine, cache = net(tmp_path), tmp_path / "a.engine", tmp_path / "a.cache"
    assert surgeon("build", model, "-o", engine, "--timing-cache", cache).code == 0
    whole = engine.read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("rubbish", b"rubbish" * 99)):
        (tmp_path / f"{name}.engine").write_bytes(content)
        refused(surgeon("inspect", tmp_path / f"{name}.engine"), f"{name}.engine: tensorrt cannot load the engine")
    rubbish = tmp_path / "rubbish.cache"
    rubbish.write_bytes(b"rubbish" * 99)
    refused(surgeon("inspect", rubbish), "rubbish.cache: tensorrt cannot read it as a timing cache")
    for more in ((), ("--pin",)):
        said = surgeon("build", model, "-o", tmp_path / "b.engine", "--timing-cache", rubbish, *more)
        refused(said, "cache refused: rubbish.cache is no timing cache that this TensorRT can read; name another file")
    assert rubbish.read_bytes() == b"rubbish" * 99 and not (tmp_path / "b.engine").exists()
    # A damaged engine is no reason not to run: it is built anew.
    kept = tmp_path / "cut.engine"
    assert surgeon("bench", model, "--runner", f"tensorrt:engine={kept}", *SHORT).code == 0
    assert surgeon("inspect", kept).code == 0


def test_an_engine_of_another_version(surgeon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tmp_path / "a.engine"
    with monkeypatch.context() as old:
        old.syspath_prepend(str(INSTALLED / "10.16"))
        assert surgeon("build", net(tmp_path), "-o", engine).code == 0
    (tmp_path / "a.engine.json").unlink()
    monkeypatch.syspath_prepend(str(INSTALLED / "11.4"))
    refused(surgeon("inspect", engine), "expecting library version 11.4.0.106 got 10.16.1.11")


def test_a_folder_of_somebody_else_is_told_before_the_build(
    surgeon: Command, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("build_hang"))  # nothing is built
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and allowed(path, mode))
    refused(surgeon("build", net(tmp_path), "-o", tmp_path / "a.engine"), "a.engine: cannot be written: permission den")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder that nobody can write to")
def test_a_folder_that_cannot_be_written(surgeon: Command, new_tensorrt: str, tmp_path: Path) -> None:
    refused(surgeon("build", net(tmp_path), "-o", "/proc/a.engine"), "cannot be written")
    (tmp_path / "taken").touch()
    engine = tmp_path / "a.engine"
    refused(surgeon("build", net(tmp_path), "-o", engine, "--record", tmp_path / "taken"), "taken: cannot be made")
    assert not engine.exists()


def test_crashes_and_hangs_are_undecided(
    surgeon: Command, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ("build", net(tmp_path), "-o", tmp_path / "a.engine")
    play(monkeypatch, tmp_path, Fault("build_hang"))
    refused(surgeon(*build, "--timeout", "1.5"), "tensorrt hung while preparing net.onnx: nothing came within 1.5 s", 3)
    assert "longer with --timeout" in surgeon(*build, "--timeout", "1").err
    bench = ("bench", build[1], "--runner", "tensorrt:tf32=false", *SHORT)
    said = surgeon(*bench, "--timeout", "1")
    assert said.code == 3 and said.err.splitlines()[-1].startswith("surgeon: tensorrt:tf32=false hung while preparing")
    play(monkeypatch, tmp_path, Fault("build_crash"))
    refused(surgeon(*build), "tensorrt crashed while preparing net.onnx, ended by SIGABRT", 3)
    refused(surgeon(*build, "--memory-cap", "10MB"), "give it more with --memory-cap SIZE", 3)
    assert files(tmp_path) == {"net.onnx", "plan.json"}


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 2, "interrupted; nothing was left half-written"), (None, 3, "ended by SIGKILL")],
)
def test_an_interrupt_and_a_killed_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals | None, code: int, words: str
) -> None:
    play(monkeypatch, tmp_path, Fault("build_hang"))
    (tmp_path / "scratch").mkdir()
    model = net(tmp_path)
    command = [sys.executable, "-c", "from surgeon.cli import main; main()"]
    arguments = ["build", str(model), "-o", "a.engine", "--timing-cache", "a.cache", "--record", "record"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(INSTALLED / "11.4")])}
    environment["TMPDIR"] = str(tmp_path / "scratch")
    child = subprocess.Popen(
        [*command, *arguments], cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True, start_new_session=True
    )
    _wait_for(lambda: (tmp_path / "record" / "build.log").exists())
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    assert len(workers) == 1
    if number is None:
        os.kill(int(workers[0]), signal.SIGKILL)
    else:
        child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode == code and words in err and len(err.strip().splitlines()) == 1, err
    assert not Path(f"/proc/{workers[0]}").exists()
    assert files(tmp_path) == {"net.onnx", "plan.json", "scratch", "record", "record/build.log"}


def _wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def run(surgeon: Command, model: Path, *more: object) -> dict[str, Any]:
    """Build, measure and run; returns the outputs."""
    folder = model.parent
    assert surgeon("build", model, "-o", folder / "odd.engine", *more).code == 0
    assert surgeon("bench", model, "--runner", "tensorrt", *more, *SHORT).code == 0
    said = surgeon("run", model, "--runner", "tensorrt", *more, "--save", folder / "out.npz")
    assert said.code == 0, said.err
    with np.load(folder / "out.npz") as held:
        return {name: held[name] for name in held.files}


@pytest.mark.parametrize(
    ("text", "more", "shapes"),
    [
        ("g (float x) => (float y) { y = Neg (x) }", (), {"y": ()}),
        ("g () => (float[2] y) <float[2] c = {1.0, 2.0}> { y = Neg (c) }", (), {"y": (2,)}),
        ("g (float[2] x) => (float[2] y, float[2] x) { y = Neg (x) }", (), {"y": (2,), "x": (2,)}),
        ("g (float[N, 4] x) => (float[N, 4] y) { y = Neg (x) }", ("--dims", "N=0"), {"y": (0, 4)}),
        ("g (float[N, 2] x, float[N, 2] z) => (float[N, 2] y) { y = Add (x, z) }", ("--dims", "N=3"), {"y": (3, 2)}),
    ],
    ids=["scalar", "no-inputs", "an-input-is-an-output", "empty", "one-dimension-of-two-inputs"],
)
def test_odd_models_run(
    surgeon: Command, any_tensorrt: str, tmp_path: Path, text: str, more: tuple[str, ...], shapes: dict[str, Any]
) -> None:
    found = run(surgeon, saved(tmp_path, f'<ir_version: 8, opset_import: ["" : 17]> {text}'), *more)
    assert {name: value.shape for name, value in found.items()} == shapes
    if "x" in found:
        assert (found["y"] == -found["x"]).all()


def test_no_workspace_is_a_size(surgeon: Command, any_tensorrt: str, tmp_path: Path) -> None:
    said = surgeon("build", net(tmp_path), "-o", tmp_path / "a.engine", "--workspace", "0", "--json")
    assert said.code == 0 and said.document["build"]["options"]["workspace"] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g (float[2] x) => (float[2] x) { }", "tensorrt has nothing to compute in model.onnx: every output of it is"),
        ("g (string[2] x) => (string[2] y) { y = Identity (x) }", "'x' is refused with UNSUPPORTED_NODE_DATATYPE"),
    ],
)
def test_what_tensorrt_has_no_words_for(
    surgeon: Command, new_tensorrt: str, tmp_path: Path, text: str, words: str
) -> None:
    model = saved(tmp_path, f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    for command in (("build", model, "-o", tmp_path / "a.engine"), ("run", model, "--runner", "tensorrt")):
        refused(surgeon(*command), words)
    assert not (tmp_path / "a.engine").exists()


@pytest.mark.parametrize("named", [True, False])
def test_weights_beside_the_model(surgeon: Command, any_tensorrt: str, tmp_path: Path, named: bool) -> None:
    proto = onnx.load(net(tmp_path))
    if not named:  # the parser is given another content then, and finds the weights by the path
        for node in proto.graph.node:
            node.name = ""
    (tmp_path / "large").mkdir()
    model = tmp_path / "large" / "net.onnx"
    onnx.save(proto, str(model), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert run(surgeon, model)["y"].shape == (2, 8)
    said = surgeon("compare", model, "--target", "tensorrt")
    assert said.code == 0 and said.out.startswith("agree"), said.out + said.err
    (tmp_path / "large" / "w.bin").unlink()
    refused(surgeon("build", model, "-o", tmp_path / "b.engine"), "w.bin")


def test_a_sick_layer_is_named_by_the_builder(
    surgeon: Command, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("build_none", Where(node="/c")))
    refused(surgeon("build", net(tmp_path), "-o", tmp_path / "a.engine"), "/c")
