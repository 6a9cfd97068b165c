"""``surgeon compare``, every option on real files: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from surgeon import cli, console
from tests.surgeon.conftest import Said
from tests.surgeon.typing_commands import BRANCHED, ENV, LOOP, ORT, RUNNERS, WRONG, Type, write_model

ODD = f"{RUNNERS / 'odd_runners.py'}:Odd"


@pytest.fixture
def branched(tmp_path: Path) -> Path:
    return write_model(tmp_path / "branched.onnx", BRANCHED)


def compare(surgeon: Type, model: Path, *options: object, reference: str = ORT, target: str = ORT) -> Said:
    return surgeon("compare", model, "--reference", reference, "--target", target, *options)


def document(surgeon: Type, model: Path, *options: object, target: str = ORT, code: int = 0) -> dict[str, Any]:
    said = compare(surgeon, model, "--json", *options, target=target)
    assert said.code == code, said.err or said.out
    assert said.err == ""
    return said.document


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {layer["tensor"]: layer for layer in found["layers"]}


def test_the_document_has_every_number(surgeon: Type, branched: Path) -> None:
    found = document(surgeon, branched, "--layers", "--samples", 2, target=f"{WRONG}:tensor=right", code=1)
    assert found["schema"] == "surgeon.compare/2"
    assert (found["verdict"], found["cause"], found["samples"], found["flaky"]) == ("differ", "layer", 2, [])
    assert found["first"] == {"tensor": "right", "node": "/right", "op": "Neg"}
    assert found["segments"] >= 1
    layers = by_name(found)
    assert list(layers) == ["a", "left", "right", "joined", "y", "z"]
    right, joined = layers["right"], layers["joined"]
    fields = {"tensor", "node", "introduced", "inherited", "amplification", "floor", "ratio", "verdict"}
    assert all(fields <= set(layer) for layer in found["layers"])
    assert right["verdict"] == "wrong"
    assert right["introduced"] == pytest.approx(0.5)
    assert right["ratio"] > 1e3
    assert right["ratio"] == pytest.approx(right["introduced"] / right["floor"], rel=0.1)
    assert joined["verdict"] == "inherits"
    assert joined["introduced"] == 0.0
    assert joined["inherited"] > 0.01
    assert 0.1 < joined["amplification"] < 10
    assert layers["left"]["inherited"] == 0.0


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
def test_one_screen_at_every_width(surgeon: Type, branched: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(console, "_PIPED_WIDTH", width)
    said = compare(surgeon, branched, "--layers", target=f"{WRONG}:tensor=right")
    lines = said.out.splitlines()
    assert said.code == 1 and said.err == ""
    assert len(lines) <= 40 and max(map(len, lines)) <= width
    assert lines[0].startswith("DIFFER: a layer is wrong")
    assert sum("the error starts at /right" in line for line in lines) == 1
    assert any(line.startswith("next: look at /right alone") for line in lines)


def test_only_results_on_stdout_and_nothing_on_stderr_when_piped(branched: Path) -> None:
    command = [sys.executable, "-m", "surgeon", "compare", str(branched), "--target", "reference", "--layers", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verdict"] == "agree"


def test_without_isolation_there_is_total_error_only(surgeon: Type, branched: Path) -> None:
    found = document(surgeon, branched, "--layers", "--no-isolate", target=f"{WRONG}:tensor=right", code=1)
    layers = by_name(found)
    assert found["first"]["tensor"] == "right"
    assert all(layer["introduced"] is None for layer in found["layers"])
    assert layers["joined"]["verdict"] == layers["right"]["verdict"] == "differ"
    said = compare(surgeon, branched, "--layers", "--no-isolate", target=f"{WRONG}:tensor=right")
    assert "by their total error" in said.out and "relative L2: introduced" not in said.out


def test_less_memory_makes_more_segments_and_the_same_numbers(surgeon: Type, tmp_path: Path) -> None:
    chain = " ".join(f"h{i + 1} = Sigmoid (h{i})" for i in range(12))
    text = f'<ir_version: 8, opset_import: ["" : 17]> chain (float[64, 64] h0) => (float[64, 64] h12) {{ {chain} }}'
    model = write_model(tmp_path / "chain.onnx", text)
    wide = document(surgeon, model, "--layers", target=f"{WRONG}:tensor=h7", code=1)
    tight = document(surgeon, model, "--layers", "--memory", "64KiB", target=f"{WRONG}:tensor=h7", code=1)
    assert tight["segments"] > wide["segments"] == 1
    assert tight["first"] == wide["first"]
    for mine, theirs in zip(tight["layers"], wide["layers"], strict=True):
        assert (mine["tensor"], mine["verdict"]) == (theirs["tensor"], theirs["verdict"])
        assert mine["introduced"] == theirs["introduced"] and mine["inherited"] == theirs["inherited"]


def test_whole_and_not_whole(surgeon: Type, branched: Path) -> None:
    without = document(surgeon, branched, "--layers", "--no-whole")
    assert any("whole model was not run at once" in note for note in without["notes"])
    assert document(surgeon, branched, "--layers", "--whole")["notes"] == []


def test_a_fault_that_looking_heals_is_called_that(surgeon: Type, branched: Path) -> None:
    said = compare(surgeon, branched, "--layers", target=f"{WRONG}:tensor=z,hidden=true")
    assert said.code == 1
    assert said.out.startswith("DIFFER: but not while anybody looks inside")
    assert "the error starts at" not in said.out and "next: switch off the target's fusions" in said.out


def test_iterations_and_tensors_of_bodies(surgeon: Type, tmp_path: Path) -> None:
    model = write_model(tmp_path / "loop.onnx", LOOP)
    for count in (1, 3):
        found = by_name(document(surgeon, model, "--layers", "--iterations", count))
        assert list(found) == ["a", "b", "/b/body/half", "/b/body/next", "y"]
        assert found["/b/body/half"]["total"]["elements"] == count * 2 * 4
    assert list(by_name(document(surgeon, model, "--layers", "--inner", 0))) == ["a", "b", "y"]
    assert list(by_name(document(surgeon, model, "--layers", "--inner", 1))) == ["a", "b", "/b/body/half", "y"]
    said = compare(surgeon, model, "--layers", "--inner", 1)
    assert "note: 1 tensor of bodies left out; --inner says how many are looked at" in said.out


def test_metrics(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    off = f"{WRONG}:tensor=z"
    assert compare(surgeon, branched, "--metric", "rel_l2<0.6", target=off).code == 0
    assert compare(surgeon, branched, "--metric", "rel_l2<0.4", target=off).code == 1
    assert compare(surgeon, branched, "--metric", "rel_l2<0.6", "--metric", "max_abs<1e-9", target=off).code == 1
    assert compare(surgeon, branched, "--metric", "cosine>0.999", target=off).code == 0
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef score(r, t):\n    return np.abs(r - t).max()\ndef bad(r, t):\n    return 'x'\n"
    )
    assert compare(surgeon, branched, "--metric", f"{tmp_path}/mine.py:score<0.9", target=off).code == 0
    assert compare(surgeon, branched, "--metric", f"{tmp_path}/mine.py:score<0.01", target=off).code == 1


def test_limits_are_strict_and_said(surgeon: Type, branched: Path) -> None:
    assert compare(surgeon, branched, "--rtol", 0.6, target=f"{WRONG}:tensor=z").code == 0
    found = document(surgeon, branched, "--rtol", 0.4, "--atol", 1e-6, target=f"{WRONG}:tensor=z", code=1)
    assert "0.4" in found["tolerance"]
    assert {r["tensor"]: r["verdict"] for r in found["outputs"]} == {"y": "agree", "z": "differ"}


def test_limits_per_tensor(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    off = f"{WRONG}:tensor=z"
    file.write_text('["z"]\nrel_l2 = 0.6\n')
    assert compare(surgeon, branched, "--per-tensor", file, target=off).code == 0
    file.write_text('["z"]\nrel_l2 = 0.4\n["y*"]\nmetric = ["max_abs<1"]\n')
    assert compare(surgeon, branched, "--per-tensor", file, target=off).code == 1


def test_postprocess(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def best(outputs):\n    return {'best': outputs['z'].argmax(axis=-1)}\ndef none(outputs):\n    return {}\n"
    )
    off = f"{WRONG}:tensor=z"
    found = document(surgeon, branched, "--postprocess", f"{tmp_path}/mine.py:best", target=off)
    assert [result["tensor"] for result in found["outputs"]] == ["best"]
    assert compare(surgeon, branched, target=off).code == 1
    assert "empty dict" in compare(surgeon, branched, "--postprocess", f"{tmp_path}/mine.py:none").err


def test_saved_result_is_the_document(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    said = compare(surgeon, branched, "--layers", "--json", "--save", out, target=f"{WRONG}:tensor=z")
    assert said.code == 1
    assert json.loads(out.read_text()) == said.document


@pytest.mark.parametrize("layers", [(), ("--layers",)])
def test_a_golden_file_takes_the_place_of_the_reference(
    surgeon: Type, branched: Path, tmp_path: Path, layers: tuple[str, ...]
) -> None:
    golden = tmp_path / "kept.golden"
    live = document(surgeon, branched, *layers, "--samples", 2, "--save-reference", golden)
    again = document(surgeon, branched, *layers, "--against", golden)
    assert golden.exists() and again["verdict"] == live["verdict"] == "agree"
    assert again["samples"] == 2 and len(again["layers"]) == len(live["layers"])
    worse = document(surgeon, branched, *layers, "--against", golden, target=f"{WRONG}:tensor=z", code=1)
    assert {r["tensor"]: r["verdict"] for r in worse["outputs"]} == {"y": "agree", "z": "differ"}
    if layers:
        assert worse["first"]["tensor"] == "z"
        assert "kept.golden" in worse["reference"]


def test_against_npz_and_a_folder_of_test_data(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    feeds, values = tmp_path / "x.npz", tmp_path / "golden.npz"
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.savez(feeds, x=x)
    assert surgeon("run", branched, "--runner", ORT, "--feeds", feeds, "--save", values).code == 0
    assert compare(surgeon, branched, "--against", values, "--feeds", feeds).code == 0
    assert compare(surgeon, branched, "--against", values, "--feeds", feeds, target=f"{WRONG}:tensor=z").code == 1
    folder = tmp_path / "test_data_set_0"
    folder.mkdir()
    with np.load(values) as saved:
        for kind, number, name, array in (
            ("input", 0, "x", x),
            ("output", 0, "y", saved["y"]),
            ("output", 1, "z", saved["z"]),
        ):
            tensor = onnx.numpy_helper.from_array(array, name)
            (folder / f"{kind}_{number}.pb").write_bytes(tensor.SerializeToString())
    assert compare(surgeon, branched, "--against", folder).code == 0
    assert compare(surgeon, branched, "--against", folder, target=f"{WRONG}:tensor=y").code == 1
    assert compare(surgeon, branched, "--feeds", folder).code == 0


def test_annotated_copy_has_findings_and_the_same_values(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    out = tmp_path / "annotated.onnx"
    assert compare(surgeon, branched, "--layers", "--annotate", out, target=f"{WRONG}:tensor=right").code == 1
    proto = onnx.load(str(out))
    onnx.checker.check_model(proto)
    notes = {n.output[0]: {p.key: p.value for p in n.metadata_props} for n in proto.graph.node}
    assert notes["right"]["surgeon.verdict"] == "wrong"
    assert float(notes["right"]["surgeon.introduced"]) == pytest.approx(0.5)
    assert notes["a"]["surgeon.verdict"] == "agree"
    same = surgeon("compare", branched, out, "--layers", "--rtol", 0, "--atol", 1e-30, "--json")
    assert same.document["verdict"] == "agree"
    assert all(result["difference"]["unequal"] == 0 for result in same.document["outputs"])


def test_a_hang_and_a_glutton_have_names(surgeon: Type, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 3] y) { y = Add (x, x) }'
    model = write_model(tmp_path / "m.onnx", text)
    said = compare(surgeon, model, "--timeout", 0.5, target=f"{ODD}:how=hang")
    assert said.code == 3 and "hung while running" in said.err and "0.5 s" in said.err
    said = compare(surgeon, model, "--memory-cap", "700MB", target=f"{ODD}:how=eat")
    assert said.code == 3 and "ran out of memory" in said.err
    assert said.err.count("\n") == 1


def test_a_crash_decides_nothing_and_a_refusal_is_bad_input(surgeon: Type, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 3] y) { y = Add (x, x) }'
    model = write_model(tmp_path / "m.onnx", text)
    said = compare(surgeon, model, target=f"{ODD}:how=segfault")
    assert said.code == 3 and "crashed while running m.onnx, ended by SIGSEGV" in said.err
    said = compare(surgeon, model, target=f"{ODD}:how=leave")
    assert said.code == 2 and "left while running m.onnx, with exit code 4" in said.err
    said = compare(surgeon, model, target=f"{ODD}:how=raise")
    assert said.code == 2 and "division by zero" in said.err


def test_outputs_right_though_a_layer_overflows(surgeon: Type, tmp_path: Path) -> None:
    """What goes beyond float16 only where it is looked at is worth a word, and the outputs still agree."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 3] y)
        <float k = {3000.0}> { a = Mul (x, k)  b = Mul (a, k)  c = Tanh (b)  y = Neg (c) }"""
    model, half, feeds = write_model(tmp_path / "m.onnx", text), tmp_path / "half.onnx", tmp_path / "x.npz"
    np.savez(feeds, x=np.ones((2, 3), np.float32))
    assert surgeon("rewrite", model, "-p", "convert-precision", "-o", half).code == 0
    said = surgeon("compare", model, half, "--layers", "--feeds", feeds, "--target", "reference")
    assert said.code == 0, said.out
    assert said.out.startswith("agree") and "the outputs agree, but look at /b (Mul)" in said.out
    assert "next: keep in float32: /b" in said.out


def test_flakiness_is_measured(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom tests.debug.wrong_runner import Wrong\n"
        "class Mine(Wrong):\n    times = 0\n    def run(self, feeds):\n        found = super().run(feeds)\n"
        "        Mine.times += 1\n"
        "        return {name: value * np.float32(1 + 1e-3 * Mine.times) for name, value in found.items()}\n"
    )
    found = document(surgeon, branched, target=f"{tmp_path}/mine.py:Mine", code=1)
    assert {entry["tensor"] for entry in found["flaky"]} == {"y", "z"}
    assert all(entry["rel_l2"] == pytest.approx(1e-3, rel=0.1) for entry in found["flaky"])
    assert "flaky" in compare(surgeon, branched, target=f"{tmp_path}/mine.py:Mine").out


def test_help_shows_examples_line_by_line(surgeon: Type) -> None:
    said = surgeon("compare", "--help")
    assert "\b" not in said.out.replace("\b\n", "") and "\\b" not in said.out
    assert "\n    surgeon compare model.onnx --target openvino --layers\n" in said.out


def test_samples_seed_and_dims(surgeon: Type, branched: Path) -> None:
    found = document(surgeon, branched, "--samples", 3, "--dims", "N=5", "--layers")
    assert found["samples"] == 3
    assert by_name(found)["a"]["total"]["elements"] == 3 * 5 * 4
    one, same, other = (
        document(surgeon, branched, "--seed", seed, target=f"{WRONG}:tensor=z", code=1)["outputs"][1]["difference"]
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_feeds_from_a_folder_of_samples(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for sample in range(2):
        (folder / f"test_data_set_{sample}").mkdir(parents=True)
        tensor = onnx.numpy_helper.from_array(np.full((sample + 1, 4), 2.0, np.float32), "x")
        (folder / f"test_data_set_{sample}" / "input_0.pb").write_bytes(tensor.SerializeToString())
    assert document(surgeon, branched, "--feeds", folder)["samples"] == 2


def test_two_environments_in_one_command(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    import onnxruntime

    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    site = next((home / "lib").glob("python*")) / "site-packages"
    for package in (np, onnxruntime):
        folder = Path(package.__file__).parent
        for entry in (folder, folder.with_name(f"{folder.name}.libs")):
            if entry.exists():
                (site / entry.name).symlink_to(entry)
    for name in ("flatbuffers", "google", "packaging"):
        if (folder.parent / name).exists():
            (site / name).symlink_to(folder.parent / name)
    target = f"onnxruntime:python={home / 'bin' / 'python'}"
    found = document(surgeon, branched, "--layers", target=target)
    assert found["target"] == target and len(found["layers"]) == 6


def test_polygraphy_values_serve_as_golden(surgeon: Type, branched: Path, tmp_path: Path) -> None:
    pytest.importorskip("polygraphy")
    from polygraphy.comparator import IterationResult, RunResults
    from polygraphy.json import save_json

    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    feeds, values, outputs = tmp_path / "x.json", tmp_path / "v.npz", tmp_path / "out.json"
    save_json([{"x": x}], str(feeds))
    assert surgeon("run", branched, "--runner", ORT, "--feeds", feeds, "--save", values).code == 0
    with np.load(values) as saved:
        results = RunResults()
        results.append(("ort", [IterationResult({name: saved[name] for name in ("y", "z")}, runner_name="ort")]))
    results.save(str(outputs))
    assert compare(surgeon, branched, "--against", outputs, "--feeds", feeds).code == 0
    assert compare(surgeon, branched, "--against", outputs, "--feeds", feeds, target=f"{WRONG}:tensor=z").code == 1


@pytest.fixture(scope="module")
def littered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a golden file of it, whole and cut short, and a few files to stumble over."""
    folder = tmp_path_factory.mktemp("littered")
    write_model(folder / "m.onnx", BRANCHED)
    cli.run(["compare", f"{folder}/m.onnx", "--target", ORT, "--save-reference", f"{folder}/whole.golden"])
    whole = (folder / "whole.golden").read_bytes()
    (folder / "cut.golden").write_bytes(whole[:-20])
    (folder / "zz.toml").write_text('["zz"]\nrel_l2 = 1.0\n')
    (folder / "fake").write_text("#!/bin/sh\nexit 0\n")
    (folder / "fake").chmod(0o755)
    (folder / "cut.onnx").write_bytes((folder / "m.onnx").read_bytes()[:-30])
    (folder / "text.onnx").write_text("this is no model")
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "weights.bin").write_bytes(np.ones(16, np.float32).tobytes())
    return folder


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["m.onnx", "--metric", "rel_l2>0.1"], "rel_l2"),
        (["m.onnx", "--metric", "rel_l3<0.1"], "rel_l2"),
        (["m.onnx", "--metric", "rel_l2"], "rel_l2"),
        (["m.onnx", "--metric", "cosine<0.9"], "cosine>"),
        (["m.onnx", "--metric", "nothing.py:f<1"], "nothing.py"),
        (["m.onnx", "--per-tensor", "zz.toml"], "did you mean 'z'"),
        (["m.onnx", "--per-tensor", "nothing.toml"], "nothing.toml: cannot be read"),
        (["m.onnx", "--per-tensor", "fake"], "is not TOML"),
        (["m.onnx", "--postprocess", "nothing.py:f"], "nothing.py"),
        (["m.onnx", "--layers", "--memory", "much"], "not a size"),
        (["m.onnx", "--layers", "--memory", "0"], "budget"),
        (["m.onnx", "--memory", "1GB"], "add --layers"),
        (["m.onnx", "--no-isolate"], "add --layers"),
        (["m.onnx", "--whole"], "add --layers"),
        (["m.onnx", "--memory-cap", "much"], "not a size"),
        (["m.onnx", "--timeout", "0"], "timeout"),
        (["m.onnx", "--timeout", "-1"], "timeout"),
        (["m.onnx", "--timeout", "soon"], "--timeout"),
        (["m.onnx", "--iterations", "0"], "--iterations"),
        (["m.onnx", "--samples", "0"], "--samples"),
        (["m.onnx", "--dims", "M=2"], "M"),
        (["m.onnx", "--rtol", "-1"], "rtol"),
        (["m.onnx", "--rtol", "nan"], "rtol"),
        (["m.onnx", "--annotate", "a.onnx"], "add --layers"),
        (["m.onnx", "--layers", "--annotate", "no/such/a.onnx"], "folder does not exist"),
        (["m.onnx", "--save", "no/such/r.json"], "folder does not exist"),
        (["m.onnx", "--save-reference", "no/such/r.golden"], "folder does not exist"),
        (["m.onnx", "--save", "."], "it is a folder"),
        (["m.onnx", "--layers", "--annotate", "m.onnx"], "--annotate names a file that is read"),
        (["m.onnx", "--save", "m.onnx"], "--save names a file that is read"),
        (["m.onnx", "--save-reference", "./m.onnx"], "--save-reference names a file that is read"),
        (["m.onnx", "--against", "whole.golden", "--save-reference", "whole.golden"], "file that is read"),
        (["m.onnx", "--save", "r", "--save-reference", "r"], "name the same file"),
        (["m.onnx", "--save", "weights.bin"], "nothing that --save wrote"),
        (["m.onnx", "--save-reference", "weights.bin"], "nothing that --save-reference wrote"),
        (["m.onnx", "--against", "nothing.golden"], "nothing.golden: cannot be read: no such file"),
        (["m.onnx", "--against", "cut.golden"], "cut.golden"),
        (["m.onnx", "--feeds", "cut.golden"], "cut.golden"),
        (["m.onnx", "--feeds", "nothing.npz"], "nothing.npz: there is no such file"),
        (["m.onnx", "--target", "onnxruntme"], "did you mean 'onnxruntime'"),
        (["m.onnx", "--target", "onnxruntime:optimise=none"], "no option 'optimise'"),
        (["m.onnx", "--target", "onnxruntime:optimize=lots"], "no optimisation level"),
        (["m.onnx", "--target", "onnxruntime:python=/etc/passwd"], "no interpreter"),
        (["m.onnx", "--target", "onnxruntime:python=./fake"], "fake is a Python, 3.10 or newer"),
        (["m.onnx", "--target", "./nothing.py:Mine"], "nothing.py"),
        (["m.onnx", "--reference", "onnxruntme"], "did you mean 'onnxruntime'"),
        (["nothing.onnx"], "nothing.onnx: there is no such file"),
        (["cut.onnx"], "cut.onnx"),
        (["text.onnx"], "text.onnx"),
        (["empty.onnx"], "empty.onnx"),
        (["m.onnx", "cut.onnx"], "cut.onnx"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    surgeon: Type, littered: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(littered)
    before = {path: path.read_bytes() for path in littered.iterdir()}
    said = surgeon("compare", *options, *([] if "--target" in options else ["--target", ORT]))
    assert said.code == 2, said.out + said.err
    assert said.err.startswith("surgeon: ") and said.err.count("\n") == 1 and said.out == ""
    assert words in said.err and "bug in surgeon" not in said.err
    assert {path: path.read_bytes() for path in littered.iterdir()} == before
