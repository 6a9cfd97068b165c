"""Models that cannot be used: one sentence, exit code 2, nothing written, the old file intact."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.surgeon.typing_commands import Type

HEAD = '<ir_version: 8, opset_import: ["" : 17, "my.domain" : 1]>\n'


def write(path: Path, text: str, **changes: str) -> Path:
    proto = onnx.parser.parse_model(HEAD + text)
    for node in proto.graph.node:
        node.name = node.output[0]
        for old, new in changes.items():
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new
            for i, name in enumerate(node.output):
                if name == old:
                    node.output[i] = new
    onnx.save(proto, str(path))
    return path


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, Path]:
    """Bad models by what is wrong with them."""
    chain = "g (float[2] x) => (float[2] y) { a = Relu (x)  b = Add (a, c)  y = Neg (b) }"
    found = {
        "cyclic": write(tmp_path / "cyclic.onnx", chain, c="y"),
        "dangling": write(tmp_path / "dangling.onnx", chain, c="nowhere"),
        "twice": write(tmp_path / "twice.onnx", chain, c="x", b="a"),
        "no output": write(tmp_path / "no_output.onnx", chain, c="x", y="z"),
    }
    good = write(tmp_path / "good.onnx", chain, c="x")
    data = good.read_bytes()
    for name, content in {"truncated": data[: len(data) // 2], "text": b"not a model\n", "empty": b""}.items():
        found[name] = tmp_path / f"{name}.onnx"
        found[name].write_bytes(content)
    weights = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    for name in ("missing data", "short data", "escaping data"):
        proto = onnx.load(str(good))
        proto.graph.initializer.append(weights)
        found[name] = tmp_path / f"{name}.onnx"
        onnx.save(proto, str(found[name]), save_as_external_data=True, location=f"{name}.bin")
    (tmp_path / "missing data.bin").unlink()
    (tmp_path / "short data.bin").write_bytes(b"1234")
    proto = onnx.load(str(found["escaping data"]), load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = "../../etc/passwd"
    found["escaping data"].write_bytes(proto.SerializeToString())
    return found


WORDS = {
    "cyclic": "cycle",
    "dangling": "nowhere",
    "twice": "'a' is defined twice",
    "no output": "'y'",
    "truncated": "truncated",
    "text": "not",
    "empty": "empty",
    "missing data": "missing",
    "short data": "too short for weight 'w'",
    "escaping data": "outside the model's folder",
}


@pytest.mark.parametrize("what", WORDS)
@pytest.mark.parametrize(
    "command",
    [
        ["rewrite", "MODEL", "-r", "simplify", "-o", "OUT"],
        ["rewrite", "MODEL", "-p", "sort", "-o", "OUT", "--verify"],
        ["extract", "MODEL", "--outputs", "y", "-o", "OUT"],
        ["run", "MODEL"],
        ["compare", "MODEL", "--target", "reference", "--layers"],
    ],
    ids=lambda command: command[0],
)
def test_one_sentence_and_code_2(
    surgeon: Type, bad: dict[str, Path], what: str, command: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    before = sorted(p.name for p in tmp_path.iterdir())
    said = surgeon(*({"MODEL": str(bad[what]), "OUT": str(out)}.get(word, word) for word in command))
    assert said.code == 2, said.out
    assert said.err.startswith("surgeon: ")
    assert said.err.count("\n") == 1
    assert "bug in surgeon" not in said.err
    if command[0] == "rewrite":
        assert WORDS[what] in said.err
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_an_unknown_domain_is_left_alone_and_said_to_be_unverifiable(surgeon: Type, tmp_path: Path) -> None:
    path = write(
        tmp_path / "custom.onnx",
        "g (float[2] x) => (float[2] y) { a = Identity (x)  b = my.domain.Secret (a)  y = Identity (b) }",
    )
    said = surgeon("rewrite", path, "-r", "simplify", "-o", tmp_path / "out.onnx")
    assert said.code == 0
    assert [node.op_type for node in onnx.load(str(tmp_path / "out.onnx")).graph.node] == ["Secret"]
    said = surgeon("rewrite", path, "-r", "simplify", "-o", tmp_path / "out2.onnx", "--verify")
    assert said.code == 3
    assert "NOT VERIFIED" in said.out
    assert surgeon("run", path).code == 2


def test_unsorted_graphs_are_sorted_first(surgeon: Type, tmp_path: Path) -> None:
    text = "g (float[2] x) => (float[2] y) { y = Neg (b)  b = Add (a, x)  a = Relu (x) }"
    out = tmp_path / "out.onnx"
    said = surgeon("rewrite", write(tmp_path / "unsorted.onnx", text), "-p", "remove-dead", "-o", out, "--changes")
    assert said.code == 0, said.err
    assert "sort" in said.out
    onnx.checker.check_model(str(out))


def test_an_interrupt_in_the_middle_of_a_command(tmp_path: Path) -> None:
    """The real process, the real signal, while it writes 400 MB."""
    array = onnx.numpy_helper.from_array(np.ones((100, 1024, 1024), np.float32), "w")
    proto = onnx.parser.parse_model(HEAD + "g (float[2] x) => (float[2] y) { y = Relu (x) }")
    proto.graph.initializer.append(array)
    onnx.save(proto, str(tmp_path / "big.onnx"))
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    process = subprocess.Popen(
        [sys.executable, "-m", "surgeon", "rewrite", str(tmp_path / "big.onnx"), "-p", "sort", "-o", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.onnx.*.tmp")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the file was complete before the signal arrived")
    assert process.returncode == 2
    assert err.strip() == "surgeon: interrupted; nothing was left half-written"
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.onnx", "out.onnx"]
