"""``surgeon replay``: whether a bundle still fails here, in words, in JSON and as an exit code."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from rich.cells import cell_len
from rich.console import Console

import surgeon as face
from surgeon import cli
from surgeon.report.replay_report import exit_code, print_replay
from surgeon_debug.replay import ReplayedOutput, ReplayResult
from surgeon_debug.search.trial import Outcome
from surgeon_passes.errors import BadOptionError
from tests.surgeon.typing_commands import ENV, Type

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
    branched (float[N, 4] x) => (float[N, 4] y)
    <float[4, 4] w = {1,2,-3,4,5,-6,7,8,-9,1,1,2,1,-1,1,1}> {
        a = MatMul (x, w)
        right = Neg (a)
        y = Abs (right)
    }"""

DONE = ReplayResult(
    bundle="fault.zip", nodes=("conv_17",), target="openvino", outcome=Outcome.REPRODUCES,
    words="conv_out: relative L2 0.31 > 0.001", then="conv_out: relative L2 0.3 > 0.001", error=0.31, same_bits=False,
    reference_agrees=None, outputs=(ReplayedOutput("conv_out", True, 0.31, 2.5, (0, 3), "relative L2 0.31 > 0.001"),),
    changes=("openvino 2025.3 then, 2025.4 now",), notes=("Code that is in the bundle was executed.",),
)  # fmt: skip


def printed(done: ReplayResult, width: int = 120) -> list[str]:
    out = io.StringIO()
    print_replay(Console(file=out, width=width, highlight=False, emoji=False), done)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_answer_comes_first() -> None:
    lines = printed(DONE)
    assert lines[0] == "it still fails: conv_out: relative L2 0.31 > 0.001"
    assert lines[1] == "fault.zip: node 'conv_17'; target openvino"
    assert lines[2].split() == ["then", "conv_out:", "relative", "L2", "0.3", ">", "0.001"]
    assert lines[3].split() == ["outputs", "other", "bits", "than", "then"]
    assert lines[5].split()[:5] == ["conv_out", "wrong", "0.31", "2.5", "0/3"]
    assert lines[-2:] == ["other: openvino 2025.3 then, 2025.4 now", "note: Code that is in the bundle was executed."]


@pytest.mark.parametrize(
    ("outcome", "words", "code"),
    [
        (Outcome.REPRODUCES, "it still fails: ", cli.FINDING),
        (Outcome.CLEAN, "it does not fail here: ", cli.DONE),
        (Outcome.UNRESOLVED, "could not decide: ", cli.UNDECIDED),
    ],
)
def test_outcomes(outcome: Outcome, words: str, code: int) -> None:
    done = dataclasses.replace(DONE, outcome=outcome)
    assert printed(done)[0].startswith(words) and exit_code(done) == code


def test_other_facts() -> None:
    bits = " ".join(
        " ".join(printed(dataclasses.replace(DONE, same_bits=True, reference_agrees=False, changes=()))).split()
    )
    assert "outputs the same as then, bit by bit" in bits
    assert "reference does not compute what it did then" in bits and "other:" not in bits
    # A crash has no outputs, and what it is now is what it was then.
    crash = dataclasses.replace(
        DONE, words="crashed (SIGSEGV)", then="crashed (SIGSEGV)", outputs=(), same_bits=None, nodes=("a", "b")
    )
    lines = printed(crash)
    assert lines[0] == "it still fails: crashed (SIGSEGV)" and "'a', 'b'" in lines[1]
    assert not any(line.startswith(("then", "outputs", "output")) for line in lines)


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("name", ["/very/long" * 40, "[red]x[/]", "\x1b[31m", "ノード" * 50])
def test_one_screen_of_any_names(name: str, width: int) -> None:
    output = dataclasses.replace(DONE.outputs[0], name=name, words=name * 3)
    busy = dataclasses.replace(
        DONE, bundle=name, nodes=(name,) * 20, target=name, words=name * 9, then=name, outputs=(output,) * 40,
        changes=(name,) * 30, notes=(name,) * 30, reference_agrees=True,
    )  # fmt: skip
    lines = printed(busy, width)
    assert len(lines) <= (60 if width == 80 else 45) and all(cell_len(line) <= width for line in lines)
    assert "\x1b" not in "".join(lines) and "and 34 more outputs" in "".join(lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a runner that is wrong, and a bundle of what was found."""
    folder = tmp_path_factory.mktemp("bundled")
    proto = onnx.parser.parse_model(MODEL)
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}"
    onnx.save(proto, str(folder / "m.onnx"))
    runner = (Path(__file__).parents[1] / "debug" / "wrong_runner.py").read_text()
    (folder / "mine.py").write_text(runner)
    target = f"{folder / 'mine.py'}:Wrong:tensor=right"
    assert cli.run(["find", "nodes", f"{folder}/m.onnx", "--target", target, "--bundle", f"{folder}/fault.zip"]) == 0
    return folder


def test_code_in_a_bundle_is_not_run_unasked(surgeon: Type, folder: Path) -> None:
    said = surgeon("replay", folder / "fault.zip")
    assert said.code == 2 and said.out == "" and "--allow-code" in said.err and said.err.count("\n") == 1
    with pytest.raises(BadOptionError, match="allow-code"):
        face.replay(folder / "fault.zip")


def test_the_failure_is_still_there(surgeon: Type, folder: Path) -> None:
    said = surgeon("replay", folder / "fault.zip", "--allow-code")
    assert (said.code, said.err) == (1, "") and said.out.startswith("it still fails: ")
    assert "'/right'" in said.out and "bit by bit" in said.out
    found = surgeon("replay", folder / "fault.zip", "--allow-code", "--json").document
    assert (found["schema"], found["outcome"], found["nodes"]) == ("surgeon.replay/1", "reproduces", ["/right"])
    assert found["same_bits"] is True


def test_another_runner_does_not_fail(surgeon: Type, folder: Path) -> None:
    said = surgeon("replay", folder / "fault.zip", "--target", "onnxruntime", "--reference", "reference")
    assert (said.code, said.err) == (0, "") and said.out.startswith("it does not fail here: ")
    assert "computes what the bundle expects" in said.out
    assert face.replay(folder / "fault.zip", target="onnxruntime").outcome is Outcome.CLEAN


def test_another_failure_decides_nothing(surgeon: Type, folder: Path) -> None:
    (folder / "ends.py").write_text(
        "import ctypes\nclass Ends:\n    def prepare(self, *_):\n        ctypes.string_at(0)\n    run = prepare\n"
    )
    said = surgeon("replay", folder / "fault.zip", "--target", f"{folder / 'ends.py'}:Ends")
    assert said.code == 3 and said.out.startswith("could not decide: ") and "SIGSEGV" in said.out


def test_in_a_pipe_there_are_only_results(folder: Path) -> None:
    command = [sys.executable, "-m", "surgeon", "replay", str(folder / "fault.zip"), "--allow-code", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, check=False)
    assert (done.returncode, done.stderr) == (1, "") and json.loads(done.stdout)["outcome"] == "reproduces"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nothing.zip"], "nothing.zip: there is no such file"),
        (["m.onnx"], "is no bundle"),
        (["."], "."),
        ([], "Missing argument"),
        (["fault.zip", "--target", "onnxruntme"], "did you mean 'onnxruntime'"),
        (["fault.zip", "--allow-code", "--reference", "onnxruntme"], "did you mean 'onnxruntime'"),
        (["fault.zip", "--allow-code", "--timeout", "-1"], "timeout"),
        (["fault.zip", "--allow-code", "--memory-cap", "much"], "not a size"),
        (["fault.zip", "--allow-code", "--memory-cap", "0"], "memory"),
    ],
)
def test_bad_input_is_one_sentence(
    surgeon: Type, folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(folder)
    said = surgeon("replay", *options)
    assert said.code == 2, said.out + said.err
    assert said.err.startswith("surgeon: ") and said.err.count("\n") == 1 and said.out == ""
    assert words in said.err and "bug in surgeon" not in said.err
