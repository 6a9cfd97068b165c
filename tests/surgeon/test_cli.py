"""What people type, what they read, and the exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.surgeon.typing_commands import ENV, Type


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from surgeon import cli; code = cli.run(['--help']); "
        "heavy = {'numpy', 'onnx', 'onnx_ir', 'onnxruntime', 'rich', 'google'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENV, check=False)
    assert done.returncode == 0, done.stderr
    assert "rewrite" in done.stdout


def test_the_public_face_is_lazy_and_complete() -> None:
    script = (
        "import sys, surgeon; assert 'numpy' not in sys.modules; "
        "[getattr(surgeon, name) for name in surgeon.__all__]; assert 'numpy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], env=ENV, check=True)


@pytest.mark.parametrize(
    "command", ["inspect", "rewrite", "extract", "passes", "run", "compare", "find", "replay", "doctor", "demo"]
)
def test_every_command_has_help(surgeon: Type, command: str) -> None:
    said = surgeon(command, "--help")
    assert said.code == 0
    assert said.out.startswith(f"Usage: surgeon {command}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspct"], "Did you mean 'inspect'?"),
        (["inspect"], "Missing argument 'MODEL'"),
        (["inspect", "nothing.onnx"], "nothing.onnx: there is no such file"),
        (["inspect", "."], "is not a file"),
        (["rewrite", "{model}", "-o", "out.onnx"], "no pass is given"),
        (["rewrite", "{model}", "-p", "fold-constant", "-o", "out.onnx"], "did you mean 'fold-constants'"),
        (["rewrite", "{model}", "-r", "simplfy", "-o", "out.onnx"], "there is no pass or recipe 'simplfy'"),
        (["rewrite", "{model}", "-p", "fold-constants:sise=1", "-o", "out.onnx"], "has no option 'sise'"),
        (["rewrite", "{model}", "-r", "nothing.toml", "-o", "out.onnx"], "cannot be read"),
        (["rewrite", "{model}", "-r", "simplify", "-o", "{model}"], "never modified"),
        (["rewrite", "{model}", "-r", "simplify", "-o", "no/such/folder/out.onnx"], "folder does not exist"),
        (["rewrite", "{model}", "-r", "simplify", "-o", "o.onnx", "--keep-weights", "--weights", "inline"], "excludes"),
        (["rewrite", "{model}", "-r", "simplify", "-o", "o.onnx", "--shard-size", "big"], "not a size"),
        (["rewrite", "{model}", "-p", "gs:./nothing.py:f", "-o", "o.onnx"], "nothing.py"),
        (["rewrite", "{model}", "-p", "onnx_ir.passes.common.Nothing", "-o", "o.onnx"], "Nothing"),
        (["extract", "{model}", "--outputs", "productt", "-o", "o.onnx"], "did you mean 'product'"),
        (["extract", "{model}", "-o", "o.onnx"], "nothing says what to extract"),
        (["run", "{model}", "--runner", "onnxruntme"], "did you mean 'onnxruntime'"),
        (["run", "{model}", "--runner", "onnxruntime:optimise=none"], "no option 'optimise'"),
        (["run", "{model}", "--dims", "N"], "not a dimension"),
        (["run", "{model}", "--dims", "M=3"], "M"),
        (["run", "{model}", "--outputs", "z"], "no tensor 'z'"),
        (["run", "{model}", "--feeds", "nothing.npz"], "no such file"),
        (["run", "{model}", "--save", "out.txt"], "npz"),
        (["passes", "fold"], "no pass or recipe 'fold'"),
    ],
)
def test_bad_input_gets_one_sentence_and_code_2(
    surgeon: Type, model: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    before = sorted(p.name for p in model.parent.iterdir())
    said = surgeon(*(a.replace("{model}", str(model)) for a in arguments))
    assert said.code == 2
    assert words in said.err
    assert said.err.startswith("surgeon: ")
    assert said.err.count("\n") == 1
    assert sorted(p.name for p in model.parent.iterdir()) == before


def test_inspect(surgeon: Type, model: Path) -> None:
    said = surgeon("inspect", model)
    assert "8 nodes" in said.out
    assert "N x 4" in said.out
    document = surgeon("inspect", model, "--json", "--nodes", "*MatMul").document
    assert document["schema"] == "surgeon.inspect/1"
    assert document["ops"]["Mul"] == 2
    assert [node["name"] for node in document["listed"]] == ["/product/MatMul"]


def test_passes(surgeon: Type) -> None:
    listing = surgeon("passes").out
    for entry in surgeon("passes", "--json").document["passes"]:
        assert entry["name"] in listing
        assert entry["summary"]
        said = surgeon("passes", entry["name"])
        assert said.code == 0
        document = surgeon("passes", entry["name"], "--json").document
        assert all(option["help"] for option in document["options"])
        assert document["example"].startswith("surgeon ")
        assert len(document["doc"]) > 200, "say what it touches and what it leaves alone"
    assert "fold-constants" in surgeon("passes", "simplify").out


def test_rewrite_simplifies_verifies_and_writes(surgeon: Type, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    said = surgeon(
        "rewrite", model, "-r", "simplify", "-o", out, "--verify", "--changes", "--journal", tmp_path / "j.jsonl"
    )
    assert said.code == 0, said.err
    assert "8 -> 3 nodes" in said.out
    assert [n.op_type for n in onnx.load(str(out)).graph.node] == ["MatMul", "Relu", "Gather"]
    assert "#1 " in said.out
    assert (tmp_path / "j.jsonl").read_text().count('"record": "change"') == said.out.count("  #")
    document = surgeon("rewrite", model, "-r", "simplify", "-o", out, "--verify", "--json").document
    assert document["schema"] == "surgeon.rewrite/1"
    assert document["verification"]["verdict"] == "equal"


def test_every_limit_gives_a_valid_and_equal_model(surgeon: Type, model: Path, tmp_path: Path) -> None:
    total = len(surgeon("rewrite", model, "-r", "simplify", "--json").document["changes"])
    assert total >= 5
    for limit in range(total + 1):
        out = tmp_path / "out.onnx"
        said = surgeon("rewrite", model, "-r", "simplify", "-o", out, "--verify", "--rewrite-limit", limit, "--json")
        assert said.code == 0
        assert len(said.document["changes"]) == limit
        onnx.checker.check_model(str(out))


def test_a_pass_that_lies_is_found_by_number(surgeon: Type, model: Path, tmp_path: Path) -> None:
    script = tmp_path / "edit.py"
    script.write_text(
        "import numpy as np\n"
        "def double(graph):\n"
        "    graph.tensors()['w'].values = graph.tensors()['w'].values * 2\n"
        "    return graph\n"
    )
    out = tmp_path / "out.onnx"
    said = surgeon(
        "rewrite", model, "-p", "remove-dead", "-p", f"gs:{script}:double", "-p", "dedupe", "-o", out, "--verify"
    )
    assert said.code == 1
    assert "gs:" in said.out
    assert not out.exists()
    document = surgeon(
        "rewrite", model, "-p", "remove-dead", "-p", f"gs:{script}:double", "--verify", "--json"
    ).document
    culprit = document["verification"]["culprit"]
    assert culprit["step"] == "gs"
    assert document["verification"]["verdict"] == "altered"


def test_extract_writes_a_piece_that_runs(surgeon: Type, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "piece.onnx"
    assert surgeon("extract", model, "--nodes", "/product/*", "--nodes", "/scaled/*", "-o", out).code == 0
    assert surgeon("run", out, "--dims", "N=3").code == 0
    said = surgeon("extract", model, "--inputs", "product", "--outputs", "y", "-o", out, "--json")
    assert [i["name"] for i in said.document["inputs"]] == ["product"]


def test_run_saves_what_it_shows_and_reads_it_back(surgeon: Type, model: Path, tmp_path: Path) -> None:
    feeds = tmp_path / "feeds.npz"
    np.savez(feeds, x=np.ones((2, 4), np.float32), ids=np.array([0, 3]))
    saved = tmp_path / "out.npz"
    said = surgeon("run", model, "--feeds", feeds, "--save", saved, "--layers", "--json")
    assert said.code == 0
    with np.load(saved) as archive:
        np.testing.assert_array_equal(archive["y"], np.tile([[28, 32, 36, 40]], (2, 1)))
        assert {t["tensor"] for t in said.document["tensors"]} == set(archive.files)
    assert "28" in surgeon("run", model, "--feeds", feeds).out


def test_doctor_finds_the_engines(surgeon: Type) -> None:
    document = surgeon("doctor", "--json").document
    assert {r["name"]: r["works"] for r in document["runners"]}["onnxruntime"] is True
    assert "onnxruntime" in surgeon("doctor").out


def test_a_bug_is_called_a_bug(surgeon: Type, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr("surgeon_passes.census.census_of", broken)
    said = surgeon("inspect", model)
    assert said.code == 3
    assert "this is a bug in surgeon: ZeroDivisionError: deep inside; --debug shows where" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in surgeon("inspect", model, "--debug").err


def test_an_interrupt_is_one_sentence(surgeon: Type, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("surgeon_passes.census.census_of", interrupted)
    said = surgeon("inspect", model)
    assert said.code == 2
    assert said.err.strip() == "surgeon: interrupted; nothing was left half-written"


def test_a_reader_that_goes_away_is_no_error(model: Path) -> None:
    command = f"{sys.executable} -m surgeon inspect {model} --json | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=ENV, check=False)
    assert done.stderr == ""


def test_compare_names_the_layer(surgeon: Type, model: Path, tmp_path: Path) -> None:
    runner = tmp_path / "mine.py"
    runner.write_text(
        "import onnxruntime\n"
        "from surgeon_debug.runners.onnxruntime import OnnxRuntime\n"
        "class Mine(OnnxRuntime):\n"
        "    def __init__(self, off: float = 0.5):\n"
        "        super().__init__(optimize='none')\n"
        "        self.off = off\n"
        "    def run(self, feeds):\n"
        "        values = super().run(feeds)\n"
        "        for name in ('scaled', 'same', 'y'):\n"
        "            if name in values:\n"
        "                values[name] = values[name] + self.off\n"
        "        return values\n"
    )
    assert surgeon("compare", model, "--target", "reference", "--layers").code == 0
    said = surgeon("compare", model, "--target", f"{runner}:Mine:off=0.25", "--layers")
    assert said.code == 1
    assert "the error starts at /scaled/Mul" in said.out
    assert said.out.count("\n") <= 40
    document = surgeon("compare", model, "--target", f"{runner}:Mine", "--layers", "--json").document
    assert document["schema"] == "surgeon.compare/2"
    assert document["verdict"] == "differ"
    assert document["first"]["node"] == "/scaled/Mul"
    assert surgeon("compare", model).code == 2


def test_extract_learns_unknown_types_from_a_run(surgeon: Type, tmp_path: Path) -> None:
    """onnx's inference knows nothing of onnxruntime's own operators; one run does."""
    text = """
    <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[N, 4] x) => (float[N, 4] y) { a = Relu (x)  b = com.microsoft.QuickGelu (a)  c = Neg (b)  y = Abs (c) }
    """
    proto = onnx.parser.parse_model(text)
    onnx.save(proto, str(tmp_path / "m.onnx"))
    out, feeds = tmp_path / "piece.onnx", tmp_path / "feeds.npz"
    np.savez(feeds, x=np.ones((3, 4), np.float32))
    said = surgeon("extract", tmp_path / "m.onnx", "--inputs", "b", "--outputs", "c", "-o", out)
    assert said.code == 2
    assert "--feeds" in said.err
    assert not out.exists()
    said = surgeon("extract", tmp_path / "m.onnx", "--inputs", "b", "--outputs", "c", "--feeds", feeds, "-o", out)
    assert said.code == 0, said.err
    assert surgeon("run", out).code == 0


def test_a_loop_body_learns_what_it_is_given_from_a_run(surgeon: Type, tmp_path: Path) -> None:
    """The loop carries a value whose rank nothing in the file tells."""
    text = """
    <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[N, 4] x) => (float[N, 4] y)
    <int64 trips = {3}, bool go = {1}> {
        a = com.microsoft.QuickGelu (x)
        y = Loop <body = b (int64 i, bool c, carried) => (bool c_out, float[M, 4] next) {
            c_out = Identity (c)
            halved = Add (carried, a)
            next = Relu (halved)
        }> (trips, go, a)
    }
    """
    proto = onnx.parser.parse_model(text)
    proto.graph.node[1].name = "loop"
    onnx.save(proto, str(tmp_path / "m.onnx"))
    out, feeds = tmp_path / "body.onnx", tmp_path / "feeds.npz"
    np.savez(feeds, x=np.ones((3, 4), np.float32))
    command = ["extract", tmp_path / "m.onnx", "--inside", "loop/body", "-o", out]
    assert "--feeds" in surgeon(*command).err
    said = surgeon(*command, "--feeds", feeds)
    assert said.code == 0, said.err
    assert [i.name for i in onnx.load(str(out)).graph.input] == ["c", "carried", "a"]
    given = tmp_path / "given.npz"
    ones = np.ones((3, 4), np.float32)
    np.savez(given, c=np.array(True), carried=ones, a=ones)
    assert surgeon("run", out, "--feeds", given).code == 0
