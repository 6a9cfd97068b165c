"""``surgeon find nodes``, every option on real files: whom it names, what it writes, and how it ends."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import surgeon as face
from surgeon import cli, console, finding, searching
from surgeon_debug.find.finding import FindOutcome
from surgeon_passes.errors import BadOptionError
from tests.surgeon.conftest import Said
from tests.surgeon.typing_commands import BRANCHED, ENV, LOOP, ORT, RUNNERS, WRONG, Type, write_model

# Ends in its own way wherever the node of one tensor is in the model; FLAKY fails in every other process or so.
ENDING = """
import ctypes, os, time
from pathlib import Path
import numpy as np, onnx
from tests.debug.wrong_runner import Wrong


class Ends(Wrong):
    def __init__(self, how: str, at: str) -> None:
        super().__init__()
        self.how, self.at = how, at

    def prepare(self, model_path, outputs):
        if any(self.at in node.output for node in onnx.load(str(model_path)).graph.node):
            if self.how == "crash":
                ctypes.string_at(0)
            if self.how == "hang":
                time.sleep(600)
            raise RuntimeError(f"no kernel for {self.at}")
        super().prepare(model_path, outputs)


class Both(Wrong):
    # Two tensors come out wrong.
    def __init__(self, first: str, second: str) -> None:
        super().__init__(tensor=first)
        self.second = second

    def prepare(self, model_path, outputs):
        model = onnx.load(str(model_path))
        for node in model.graph.node:
            if self.second in node.output:
                node.op_type = "Identity"
        model_path = Path(model_path).with_name("both.onnx")
        onnx.save(model, str(model_path))
        super().prepare(model_path, outputs)
"""


@pytest.fixture
def branched(tmp_path: Path) -> Path:
    return write_model(tmp_path / "branched.onnx", BRANCHED)


@pytest.fixture
def runners(tmp_path: Path) -> Path:
    (tmp_path / "runners.py").write_text(ENDING)
    return tmp_path / "runners.py"


def find(surgeon: Type, model: Path, *options: object, target: str = ORT) -> Said:
    return surgeon("find", "nodes", model, "--reference", ORT, "--target", target, *options)


def document(surgeon: Type, model: Path, *options: object, target: str = ORT, code: int = 0) -> dict[str, Any]:
    said = find(surgeon, model, "--json", *options, target=target)
    assert said.code == code, said.err or said.out
    assert said.err == ""
    return said.document


def test_the_culprit_is_named_and_verified(surgeon: Type, branched: Path) -> None:
    found = document(surgeon, branched, "--samples", 2, target=f"{WRONG}:tensor=right")
    assert found["schema"] == "surgeon.find/1"
    assert (found["outcome"], found["culprits"], found["latent"]) == ("found", [["/right"]], [])
    assert (found["elements"], found["samples"], found["target"]) == (6, 2, f"{WRONG}:tensor=right")
    detail = found["details"][0]
    assert (detail["alone"], detail["cured"], detail["kind"], detail["ops"]) == (True, True, "wrong numbers", ["Neg"])
    assert found["builds"] > 0 and found["trials"] == sum(step["trials"] for step in found["steps"])


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
def test_one_screen_at_every_width(surgeon: Type, branched: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(console, "_PIPED_WIDTH", width)
    said = find(surgeon, branched, target=f"{WRONG}:tensor=right")
    lines = said.out.splitlines()
    assert (said.code, said.err) == (0, "")
    assert len(lines) <= 30 and max(map(len, lines)) <= width
    assert lines[0].startswith("culprit: node '/right' (Neg) computes wrongly under ")
    assert any(line.startswith("next: ") for line in lines)


def test_only_results_on_stdout_and_nothing_on_stderr_when_piped(branched: Path) -> None:
    command = [sys.executable, "-m", "surgeon", "find", "nodes", str(branched), "--target", ORT, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["outcome"] == "nothing"


def test_nothing_to_find_is_a_finding(surgeon: Type, branched: Path) -> None:
    said = find(surgeon, branched)
    assert said.code == 1 and said.out.startswith("nothing to find: ") and "next: " in said.out
    assert document(surgeon, branched, code=1)["culprits"] == []


def test_a_budget_too_small_decides_nothing(surgeon: Type, branched: Path) -> None:
    said = find(surgeon, branched, "--max-trials", 1, target=f"{WRONG}:tensor=right")
    assert said.code == 3 and said.out.startswith("could not decide: ") and "culprit" not in said.out.splitlines()[0]
    assert "trials allowed are used up" in said.out and "next: " in said.out and "--resume" in said.out


def test_two_faults_are_both_named(surgeon: Type, branched: Path, runners: Path) -> None:
    found = document(surgeon, branched, target=f"{runners}:Both:first=right,second=left")
    assert sorted(found["culprits"]) == [["/left"], ["/right"]]
    said = find(surgeon, branched, target=f"{runners}:Both:first=right,second=left")
    assert said.out.startswith("2 culprits under ")


@pytest.mark.parametrize(
    ("how", "words"), [("crash", "crashes (SIGSEGV) under"), ("hang", "hangs under"), ("refuse", "is refused under")]
)
def test_other_ways_to_fail(surgeon: Type, branched: Path, runners: Path, how: str, words: str) -> None:
    limits = ["--timeout", 2] if how == "hang" else []
    said = find(surgeon, branched, *limits, target=f"{runners}:Ends:how={how},at=right")
    assert said.code == 0, said.err + said.out
    assert said.out.startswith(f"culprit: node '/right' (Neg) {words}")


def test_inside_a_loop(surgeon: Type, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import onnx\nfrom tests.debug.wrong_runner import Wrong\n"
        "class Mine(Wrong):\n"
        "    def prepare(self, model_path, outputs):\n"
        "        model = onnx.load(str(model_path))\n"
        "        for node in model.graph.node:\n"
        "            for attribute in node.attribute:\n"
        "                for inner in attribute.g.node:\n"
        "                    if inner.op_type == 'Sigmoid':\n"
        "                        inner.op_type = 'Tanh'\n"
        "        path = model_path.with_name('mine.onnx')\n"
        "        onnx.save(model, str(path))\n"
        "        super().prepare(path, outputs)\n"
    )
    model = write_model(tmp_path / "loop.onnx", LOOP)
    found = document(surgeon, model, target=f"{tmp_path / 'mine.py'}:Mine")
    assert found["culprits"] == [["/b"]]
    assert "iteration 0" in found["details"][0]["inside"]


# The names of operators stand in a model's file as they are.
NEG = "! grep -q Neg {model}"
NEG_AND_ADD = "! (grep -q Neg {model} && grep -q Add {model})"


def test_a_check_of_ones_own(surgeon: Type, branched: Path) -> None:
    said = surgeon("find", "nodes", branched, "--check", NEG, "--json")
    assert said.code == 0, said.err + said.out
    assert said.document["culprits"] == [["/right"]] and said.document["target"] == NEG
    said = surgeon("find", "nodes", branched, "--check", NEG)
    assert said.out.startswith("culprit: node '/right' (Neg) fails the check\n")
    assert "next: cut it out" in said.out


def test_a_check_that_needs_two_nodes_names_both(surgeon: Type, branched: Path) -> None:
    said = surgeon("find", "nodes", branched, "--check", NEG_AND_ADD, "--json")
    assert said.code == 0, said.err + said.out
    assert said.document["culprits"] == [["/right", "/joined"]]


def test_a_check_that_is_always_good_or_cannot_tell(surgeon: Type, branched: Path) -> None:
    assert surgeon("find", "nodes", branched, "--check", "test -f {model}").code == 1
    said = surgeon("find", "nodes", branched, "--check", "test -f {model} && exit 125")
    assert said.code == 3 and said.out.startswith("could not decide: ")


def test_a_check_is_given_inputs_and_what_is_expected(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(
        "import sys\nimport numpy as np\nimport onnxruntime as ort\n"
        "model, inputs, expected = sys.argv[1:]\n"
        "session = ort.InferenceSession(model)\n"
        "names = [output.name for output in session.get_outputs()]\n"
        "seen = session.run(names, dict(np.load(inputs)))\n"
        "right = all(np.allclose(a, b, 1e-5) for a, b in zip(seen, map(np.load(expected).__getitem__, names)))\n"
        "sys.exit(not right or b'Neg' in open(model, 'rb').read())\n"
    )
    check = shlex.join([sys.executable, str(tmp_path / "check.py")]) + " {model} {inputs} {expected}"
    said = surgeon("find", "nodes", branched, "--check", check, "--json", "--reference", ORT)
    assert said.code == 0, said.err + said.out
    assert said.document["culprits"] == [["/right"]]


def test_two_versions_of_one_engine(surgeon: Type, branched: Path) -> None:
    said = surgeon("find", "nodes", branched, "--versions", sys.executable, sys.executable, "--json")
    assert said.code == 1, said.err
    assert said.document["target"] == f"onnxruntime:python={sys.executable}" == said.document["reference"]


def test_versions_of_a_runner_with_options(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    import google
    import ml_dtypes
    import onnxruntime

    # A runner that is wrong in one environment and right in the other.
    other = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(other)], check=True)
    site = next((other / "lib").glob("python*")) / "site-packages"
    for package in (np, onnx, onnxruntime, ml_dtypes, google):
        folder = Path(next(iter(package.__path__)))
        for entry in (folder, folder.with_name(f"{folder.name}.libs"), folder.parent / "typing_extensions.py"):
            if entry.exists() and not (site / entry.name).exists():
                (site / entry.name).symlink_to(entry)
    for name in ("flatbuffers", "packaging"):
        if (Path(onnx.__file__).parents[1] / name).exists():
            (site / name).symlink_to(Path(onnx.__file__).parents[1] / name)
    (tmp_path / "mine.py").write_text(
        (RUNNERS / "wrong_runner.py").read_text() + "\n\nimport sys\n\n\n"
        "class Mine(Wrong):\n"
        "    def __init__(self, tensor: str) -> None:\n"
        f"        super().__init__(tensor=tensor if sys.prefix == {str(other)!r} else '')\n"
    )
    runner = f"{tmp_path / 'mine.py'}:Mine:tensor=right"
    said = surgeon("find", "nodes", branched, "--target", runner, "--versions", sys.executable, other, "--json")
    assert said.code == 0, said.err + said.out
    assert said.document["culprits"] == [["/right"]]


@pytest.mark.parametrize(
    ("runner", "expected"),
    [
        ("onnxruntime", "onnxruntime:python={0}"),
        ("onnxruntime:optimize=none", "onnxruntime:optimize=none,python={0}"),
        ("onnxruntime:timeout=5", "onnxruntime:timeout=5,python={0}"),
        ("./mine.py:Mine", "./mine.py:Mine:python={0}"),
        ("./mine.py:Mine:a=1", "./mine.py:Mine:a=1,python={0}"),
    ],
)
def test_an_environment_is_added_to_any_runner(runner: str, expected: str) -> None:
    assert finding.with_python(runner, sys.executable) == expected.format(sys.executable)


def test_an_environment_with_an_odd_path(tmp_path: Path) -> None:
    from surgeon_debug.runners.runner_text import parse_runner

    odd = tmp_path / 'a,b="c"'
    odd.mkdir()
    (odd / "python").symlink_to(sys.executable)
    _, confines = parse_runner(finding.with_python("openvino:precision=f16", str(odd / "python")))
    assert confines.python == odd / "python"


def test_saved_result_is_the_document(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    saved = tmp_path / "r.json"
    said = find(surgeon, branched, "--save", saved, "--json", target=f"{WRONG}:tensor=right")
    assert said.code == 0 and json.loads(saved.read_text()) == said.document


def test_a_result_that_cannot_be_kept_is_printed_all_the_same(
    surgeon: Type, branched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from surgeon_passes.errors import FileError

    def full(*_: object) -> None:
        raise FileError("no space left", where="r.json")

    monkeypatch.setattr(searching, "save_result", full)
    said = find(surgeon, branched, "--save", tmp_path / "r.json", target=f"{WRONG}:tensor=right")
    assert said.code == 2 and said.out.startswith("culprit: ") and said.err == "surgeon: r.json: no space left\n"


def test_finished_trials_are_not_made_again(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    options = ["--resume", tmp_path / "trials"]
    first = document(surgeon, branched, *options, target=f"{WRONG}:tensor=right")
    again = document(surgeon, branched, *options, target=f"{WRONG}:tensor=right")
    assert again["culprits"] == first["culprits"] == [["/right"]]
    assert first["trials"] > 0 == sum(step["cached"] for step in first["steps"])
    assert sum(step["cached"] for step in again["steps"]) >= first["trials"] and again["trials"] == 0


def test_two_jobs_find_the_same(surgeon: Type, branched: Path) -> None:
    one = document(surgeon, branched, target=f"{WRONG}:tensor=joined")
    two = document(surgeon, branched, "--jobs", 2, target=f"{WRONG}:tensor=joined")
    assert one["culprits"] == two["culprits"] == [["/joined"]]


def test_limits_of_ones_own(surgeon: Type, branched: Path) -> None:
    target = f"{WRONG}:tensor=right,gain=1.01"
    assert document(surgeon, branched, target=target)["culprits"] == [["/right"]]
    # By limits that allow it the outputs are right, and the node is wrong all the same.
    allowed = document(surgeon, branched, "--metric", "rel_l2<0.5", target=target)
    assert (allowed["culprits"], allowed["latent"], allowed["signature"]) == ([], [["/right"]], None)


def test_a_postprocess_of_ones_own(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def only_z(outputs):\n    return {'z': outputs['z']}\n")
    found = document(surgeon, branched, "--postprocess", f"{tmp_path}/mine.py:only_z", target=f"{WRONG}:tensor=joined")
    assert (found["culprits"], found["latent"]) == ([], [["/joined"]])


def test_a_bundle_is_written_and_the_command_is_in_it(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "fault.zip"
    said = find(surgeon, branched, "--bundle", bundle, target=f"{WRONG}:tensor=right")
    assert said.code == 0 and "bundle: " in said.out, said.err + said.out
    with zipfile.ZipFile(bundle) as files:
        text = files.read("bundle.json").decode() + files.read("README.md").decode()
    assert "find nodes" in text and "tensor=right" in text


def start(*arguments: object, env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "surgeon", "find", "nodes", *(str(a) for a in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def test_an_interrupt_says_what_is_known_and_how_to_go_on(branched: Path, tmp_path: Path) -> None:
    # The fourth trial hangs until there is a file; each is counted.
    count, go, trials = (tmp_path / name for name in ("count", "go", "trials"))
    (tmp_path / "try.sh").write_text(
        f"printf x >> {shlex.quote(str(count))}\n"
        f"[ $(wc -c < {shlex.quote(str(count))}) -lt 4 ] || [ -e {shlex.quote(str(go))} ] || sleep 600\n"
        "! grep -q Neg $1\n"
    )
    options = [branched, "--check", f"sh {shlex.quote(str(tmp_path / 'try.sh'))} {{model}}", "--resume", trials]
    process = start(*options, env=ENV)
    end = time.monotonic() + 60
    while not (count.exists() and len(count.read_text()) == 4):
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert f"finished trials are kept in {trials}: the same command goes on from there" in err
    assert err.endswith("surgeon: interrupted; nothing was left half-written\n")
    # The same command, now that nothing sleeps any more, makes only what was not finished.
    go.touch()
    process = start(*options, "--json", env=ENV)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert found["culprits"] == [["/right"]] and sum(step["cached"] for step in found["steps"]) == 3
    assert len(count.read_text()) - 4 == found["trials"]


@pytest.fixture(scope="module")
def littered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a few files to stumble over."""
    folder = tmp_path_factory.mktemp("littered")
    write_model(folder / "m.onnx", BRANCHED)
    (folder / "text.onnx").write_text("this is no model")
    (folder / "weights.bin").write_bytes(np.ones(16, np.float32).tobytes())
    return folder


CHECK = ["--check", "true {model}"]
TARGET = ["--target", ORT]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["m.onnx"], "nothing says what to suspect"),
        (["m.onnx", *CHECK, *TARGET], "--target does not matter"),
        (["m.onnx", *CHECK, "--versions", sys.executable, sys.executable], "--versions does not matter"),
        (["m.onnx", *CHECK, "--rtol", "1"], "--rtol does not matter"),
        (["m.onnx", *CHECK, "--atol", "0"], "--atol does not matter"),
        (["m.onnx", *CHECK, "--metric", "rel_l2<1"], "--metric does not matter"),
        (["m.onnx", *CHECK, "--memory-cap", "1GB"], "--memory-cap does not matter"),
        (["m.onnx", "--check", "true {model} {output}"], "{output}"),
        (["m.onnx", "--check", "/nothing/here {model}"], "was not found"),
        (["m.onnx", *TARGET, "--postprocess", "nothing.py:f"], "nothing.py"),
        (["m.onnx", *CHECK, "--per-tensor", "l.toml"], "--per-tensor does not matter"),
        (["m.onnx", *CHECK, "--bundle", "b.zip"], "a bundle holds no command"),
        (["m.onnx", "--check", "true"], "write {model}"),
        (["m.onnx", "--check", ""], "write {model}"),
        (["m.onnx", "--versions", sys.executable, "/etc/passwd"], "no interpreter"),
        (["m.onnx", "--versions", sys.executable], "--versions"),
        (["m.onnx", "--versions", sys.executable, sys.executable, "--reference", ORT], "leave --reference out"),
        (
            ["m.onnx", "--versions", sys.executable, sys.executable, "--target", f"openvino:python={sys.executable}"],
            "leave python= out",
        ),
        (["m.onnx", *TARGET, "--no-weights"], "add --bundle"),
        (["m.onnx", *TARGET, "--jobs", "2", "--workers", "tcp://here:1"], "give one of them"),
        (["m.onnx", *TARGET, "--jobs", "0"], "--jobs"),
        (["m.onnx", *TARGET, "--max-trials", "0"], "--max-trials"),
        (["m.onnx", *TARGET, "--max-seconds", "0"], "--max-seconds"),
        (["m.onnx", *TARGET, "--samples", "0"], "--samples"),
        (["m.onnx", *TARGET, "--resume", "weights.bin"], "is no folder"),
        (["m.onnx", *TARGET, "--save", "m.onnx"], "--save names a file that is read"),
        (["m.onnx", *TARGET, "--save", "weights.bin"], "nothing that --save wrote"),
        (["m.onnx", *TARGET, "--save", "r", "--bundle", "r"], "name the same file"),
        (["m.onnx", *TARGET, "--bundle", "m.onnx"], "--bundle names a file that is read"),
        (["m.onnx", *TARGET, "--bundle", "weights.bin"], "nothing that --bundle wrote"),
        (["m.onnx", *TARGET, "--bundle", "no/such/b.zip"], "folder does not exist"),
        (["m.onnx", *TARGET, "--metric", "rel_l3<0.1"], "rel_l2"),
        (["m.onnx", *TARGET, "--feeds", "nothing.npz"], "nothing.npz: there is no such file"),
        (["m.onnx", *TARGET, "--dims", "M=2"], "M"),
        (["m.onnx", *TARGET, "--timeout", "-1"], "timeout"),
        (["m.onnx", *TARGET, "--memory-cap", "much"], "not a size"),
        (["m.onnx", "--target", "onnxruntme"], "did you mean 'onnxruntime'"),
        (["m.onnx", "--target", "onnxruntime:optimise=none"], "no option 'optimise'"),
        (["m.onnx", *TARGET, "--reference", "onnxruntme"], "did you mean 'onnxruntime'"),
        (["nothing.onnx", *TARGET], "nothing.onnx: there is no such file"),
        (["text.onnx", *TARGET], "text.onnx"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    surgeon: Type, littered: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(littered)
    before = {path: path.read_bytes() for path in littered.iterdir()}
    said = surgeon("find", "nodes", *options)
    assert said.code == 2, said.out + said.err
    assert said.err.startswith("surgeon: ") and said.err.count("\n") == 1 and said.out == ""
    assert words in said.err and "bug in surgeon" not in said.err
    assert {path: path.read_bytes() for path in littered.iterdir()} == before


def test_the_group_lists_what_there_is(surgeon: Type) -> None:
    said = surgeon("find", "--help")
    assert said.code == 0 and "nodes" in said.out
    commands = said.out.partition("Commands:")[2].split("\n")
    listed = [line.split()[0] for line in commands if line.startswith("  ") and line[2] != " "]
    assert listed == ["nodes", "tactic", "fusion", "auto"]
    assert "surgeon find nodes model.onnx --target openvino\n" in surgeon("find", "nodes", "--help").out
    said = surgeon("find", "noeds")
    assert said.code == 2 and "Did you mean 'nodes'?" in said.err


def test_help_of_the_group_costs_nothing() -> None:
    code = (
        "import sys; from surgeon import cli; code = cli.run(['find', 'nodes', '--help']); "
        "sys.exit(str({'numpy', 'onnx', 'rich'} & set(sys.modules)) if 'numpy' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENV, check=False)
    assert done.returncode == 0, done.stderr


def test_in_python(branched: Path) -> None:
    heard: list[str] = []
    found = face.find.nodes(branched, target=f"{WRONG}:tensor=right", samples=2, progress=heard.append)
    assert (found.outcome, [c.nodes for c in found.culprits]) == (FindOutcome.FOUND, [("/right",)])
    assert heard and all(isinstance(words, str) and "\n" not in words for words in heard)
    # A model in memory is not changed.
    proto = onnx.load(str(branched))
    before = proto.SerializeToString(deterministic=True)
    feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
    found = face.find.nodes(proto, target=f"{WRONG}:tensor=left", feeds=feeds, metrics=["rel_l2<0.001"])
    assert [c.nodes for c in found.culprits] == [("/left",)]
    assert proto.SerializeToString(deterministic=True) == before
    with pytest.raises(BadOptionError, match="did you mean"):
        face.find.nodes(branched, target="onnxruntme")


def test_the_code_says_the_outcome() -> None:
    codes = {FindOutcome.FOUND: cli.DONE, FindOutcome.NOTHING: cli.FINDING, FindOutcome.UNDECIDED: cli.UNDECIDED}
    assert codes == searching.EXIT_CODES
