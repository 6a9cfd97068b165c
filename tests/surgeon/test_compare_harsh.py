"""``surgeon compare`` where things go wrong around it: signals, full disks, loud runners, odd models."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from surgeon_passes.errors import FileError
from tests.surgeon.typing_commands import Type

ODD = f"{Path(__file__).parents[1] / 'debug' / 'odd_runners.py'}:Odd"
ORT = "onnxruntime:optimize=none,threads=1"
TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 3] y) { h = Add (x, x) y = Abs (h) }'


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the command puts its temporary files."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture
def environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(scratch)}


@pytest.fixture(autouse=True)
def nothing_is_left(scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No worker and no temporary file outlives a test."""
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield
    assert waited(lambda: not workers(scratch)), workers(scratch)
    assert waited(lambda: not any(scratch.iterdir())), list(scratch.iterdir())
    assert not list(tmp_path.rglob("*.tmp"))


def workers(scratch: Path) -> list[int]:
    """Processes of this test, which all have its scratch folder in their environment, or are children of this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            zombie = path.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if not zombie and f"TMPDIR={scratch}".encode() in path.joinpath("environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found


def waited(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(TEXT), str(tmp_path / "m.onnx"))
    return tmp_path / "m.onnx"


def start(environment: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "surgeon", "compare", *(str(a) for a in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.fixture
def asleep(
    model: Path, environment: dict[str, str], tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A comparison that wrote half of its files and now waits for a runner that sleeps; and the sleepers' numbers."""
    pids = tmp_path / "pids"
    (tmp_path / "old.golden").write_bytes(b"")
    options = ["--layers", "--save-reference", tmp_path / "old.golden", "--save", tmp_path / "r.json"]
    process = start({**environment, "PIDS": str(pids)}, model, "--target", f"{ODD}:how=child", *options)
    assert waited(lambda: pids.exists() and len(pids.read_text().split()) == 2, 60), process.communicate()
    yield process, [int(pid) for pid in pids.read_text().split()]
    process.kill()
    process.communicate()


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_an_interrupt_in_the_middle(asleep: tuple[subprocess.Popen[str], list[int]], tmp_path: Path) -> None:
    process, sleepers = asleep
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert err.strip() == "surgeon: interrupted; nothing was left half-written"
    assert not any(alive(pid) for pid in sleepers)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "old.golden", "pids"]
    assert (tmp_path / "old.golden").read_bytes() == b""


def test_a_request_to_end_in_the_middle(asleep: tuple[subprocess.Popen[str], list[int]], tmp_path: Path) -> None:
    process, sleepers = asleep
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert waited(lambda: not any(alive(pid) for pid in sleepers))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "old.golden", "pids"]


def test_killed_outright_leaves_no_orphan(
    asleep: tuple[subprocess.Popen[str], list[int]], tmp_path: Path, scratch: Path
) -> None:
    process, sleepers = asleep
    process.kill()
    process.communicate(timeout=30)
    assert waited(lambda: not any(alive(pid) for pid in sleepers))
    assert (tmp_path / "old.golden").read_bytes() == b"" and not (tmp_path / "r.json").exists()
    # Nobody was left to remove these.
    for path in (*tmp_path.glob(".old.golden*"), *scratch.rglob("*")):
        if path.is_file():
            path.unlink()
    for folder in sorted((p for p in scratch.rglob("*")), reverse=True):
        folder.rmdir()


def test_a_full_disk(model: Path, environment: dict[str, str], tmp_path: Path) -> None:
    feeds, golden = tmp_path / "x.npz", tmp_path / "kept.golden"
    np.savez(feeds, x=np.zeros((200_000, 3), np.float32))
    golden.write_bytes(b"")
    command = [sys.executable, "-m", "surgeon", "compare", str(model), "--target", ORT, "--feeds", str(feeds)]
    done = subprocess.run(
        [*command, "--layers", "--save-reference", str(golden)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert done.returncode == 2, done
    assert done.stderr.startswith("surgeon: ") and done.stderr.count("\n") == 1
    assert "kept.golden" in done.stderr and "cannot be written" in done.stderr
    assert golden.read_bytes() == b""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.golden", "m.onnx", "x.npz"]


def test_a_result_that_cannot_be_kept_is_printed_all_the_same(
    surgeon: Type, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise FileError("cannot be written: no space left on device", where="r.json")

    monkeypatch.setattr("surgeon.comparing.save_result", full)
    said = surgeon("compare", model, "--target", ORT, "--save", tmp_path / "r.json")
    assert said.code == 2 and said.out.startswith("agree")
    assert said.err == "surgeon: r.json: cannot be written: no space left on device\n"


def test_a_runner_that_prints_ten_megabytes(model: Path, environment: dict[str, str]) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 3] y) { y = Add (x, x) }'
    onnx.save(onnx.parser.parse_model(text), str(model))
    process = start(environment, model, "--target", f"{ODD}:how=flood", "--json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["verdict"] == "agree"


def proto_of(nodes: list[onnx.NodeProto], outputs: list[str], inputs: tuple[str, ...] = ("x",)) -> onnx.ModelProto:
    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3])

    graph = helper.make_graph(nodes, "g", [info(name) for name in inputs], [info(name) for name in outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


BAD = {
    "no outputs": (proto_of([helper.make_node("Abs", ["x"], ["y"])], []), "no output"),
    "a cycle": (
        proto_of([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Abs", ["a"], ["b"])], ["b"]),
        "cycle",
    ),
    "an input from nowhere": (proto_of([helper.make_node("Add", ["x", "w"], ["y"])], ["y"]), "w"),
    "an operator that does not exist": (proto_of([helper.make_node("Frobnicate", ["x"], ["y"])], ["y"]), "Frobnicate"),
    "computed twice": (
        proto_of([helper.make_node("Abs", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])], ["y"]),
        "y",
    ),
}


@pytest.mark.parametrize("layers", [[], ["--layers"]])
@pytest.mark.parametrize("what", BAD)
def test_models_nobody_should_write(surgeon: Type, tmp_path: Path, what: str, layers: list[str]) -> None:
    proto, words = BAD[what]
    path = tmp_path / "bad.onnx"
    path.write_bytes(proto.SerializeToString())
    said = surgeon("compare", path, "--target", ORT, *layers)
    assert said.code == 2, said.out + said.err
    assert said.out == "" and said.err.startswith("surgeon: ") and said.err.count("\n") == 1
    assert words in said.err and "bug in surgeon" not in said.err


@pytest.mark.parametrize("layers", [[], ["--layers"]])
def test_an_output_listed_twice_is_compared_once(surgeon: Type, tmp_path: Path, layers: list[str]) -> None:
    path = tmp_path / "twice.onnx"
    path.write_bytes(proto_of([helper.make_node("Abs", ["x"], ["y"])], ["y", "y"]).SerializeToString())
    said = surgeon("compare", path, "--target", ORT, "--json", *layers)
    assert said.code == 0, said.err
    assert [result["tensor"] for result in said.document["outputs"]] == ["y"]


def test_weights_that_are_not_there(surgeon: Type, tmp_path: Path) -> None:
    proto = proto_of([helper.make_node("Add", ["x", "w"], ["y"])], ["y"])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((2, 3), np.float32), "w"))
    onnx.save(proto, str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert surgeon("compare", tmp_path / "m.onnx", "--target", ORT, "--layers").code == 0
    whole = (tmp_path / "w.bin").read_bytes()
    for content in (whole[:8], None):
        (tmp_path / "w.bin").unlink()
        if content is not None:
            (tmp_path / "w.bin").write_bytes(content)
        for layers in ([], ["--layers"]):
            said = surgeon("compare", tmp_path / "m.onnx", "--target", ORT, *layers)
            assert said.code == 2, said.out
            assert "w.bin" in said.err and said.err.count("\n") == 1 and "bug in" not in said.err


HOSTILE = ["../x", "a b", 'it\'s "quoted"', "two\nlines", "[bold]red[/]", "[/]", "ünï", "a/../../b", "%s{}", "\x1b[31m"]


def test_hostile_names(surgeon: Type, tmp_path: Path) -> None:
    nodes, last = [], "x"
    for name in HOSTILE:
        nodes.append(helper.make_node("Abs", [last], [name], name=f"node {name}"))
        last = name
    nodes.append(helper.make_node("Exp", [last], ["[y]"], name="[y]"))
    path = tmp_path / "[m] x.onnx"
    path.write_bytes(proto_of(nodes, ["[y]", HOSTILE[3]]).SerializeToString())
    before = sorted(tmp_path.parent.iterdir())
    golden, annotated = tmp_path / "r.golden", tmp_path / "a.onnx"
    said = surgeon(
        "compare", path, "--target", ORT, "--layers", "--json", "--save-reference", golden, "--annotate", annotated
    )
    assert said.code == 0, said.err
    assert [layer["tensor"] for layer in said.document["layers"]] == [*HOSTILE, "[y]"]
    assert surgeon("compare", path, "--target", ORT, "--layers", "--against", golden).code == 0
    assert len(onnx.load(str(annotated)).graph.node[3].metadata_props) > 1
    assert sorted(tmp_path.parent.iterdir()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["[m] x.onnx", "a.onnx", "r.golden"]


def test_hostile_names_are_printed_as_text_on_one_line(surgeon: Type, tmp_path: Path) -> None:
    for name in ("two\nlines", "[bold]red[/]", "\x1b[31m"):
        proto = proto_of(
            [helper.make_node("Abs", ["x"], [name], name=f"n {name}"), helper.make_node("Exp", [name], ["y"])], ["y"]
        )
        path = tmp_path / "m.onnx"
        path.write_bytes(proto.SerializeToString())
        (tmp_path / "mine.py").write_text(
            f"from tests.debug.wrong_runner import Wrong\nclass Mine(Wrong):\n"
            f"    def __init__(self):\n        super().__init__(tensor={name!r})\n"
        )
        said = surgeon("compare", path, "--target", f"{tmp_path}/mine.py:Mine", "--layers")
        assert said.code == 1, said.err
        assert "the error starts at" in said.out
        assert "\x1b" not in said.out, name
        head, rows = said.out.split("introduced", 1)[0], said.out.rpartition("total")[2].splitlines()[1:3]
        assert "\n# tensor" in head and rows[0].startswith("1 ") and rows[1].startswith("2 "), said.out
        assert " wrong " in rows[0] and " inherits " in rows[1], said.out
