"""``surgeon run``: samples, and the files it saves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.golden import GoldenReader
from tests.surgeon.typing_commands import Type


def test_run_takes_several_samples(surgeon: Type, model: Path, tmp_path: Path) -> None:
    """Seeded ones, a folder of them, and those of an earlier run."""
    golden = tmp_path / "a.golden"
    first = surgeon("run", model, "--samples", 3, "--layers", "--save", golden, "--json")
    assert first.code == 0, first.err
    assert first.document["samples"] == 3
    again = surgeon("run", model, "--feeds", golden, "--layers", "--json")
    assert again.document["tensors"] == first.document["tensors"]
    one = surgeon("run", model, "--feeds", golden, "--samples", 1, "--save", tmp_path / "one.npz", "--json")
    assert one.document["samples"] == 1
    folder = tmp_path / "samples"
    folder.mkdir()
    for rows in (1, 2):
        np.savez(folder / f"{rows}.npz", x=np.ones((rows, 4), np.float32), ids=np.zeros(rows, np.int64))
    said = surgeon("run", model, "--feeds", folder, "--save", tmp_path / "out.json")
    assert said.code == 0, said.err
    assert "for each of 2 samples" in " ".join(said.out.split()) and "1x4 (varies)" in said.out
    assert (tmp_path / "out.json").exists()
    said = surgeon("run", model, "--feeds", folder, "--save", tmp_path / "two.npz")
    assert said.code == 2 and ".npz takes one sample, and there are 2" in said.err
    assert not (tmp_path / "two.npz").exists()


def test_what_is_saved_as_golden_says_where_it_comes_from(surgeon: Type, model: Path, tmp_path: Path) -> None:
    assert surgeon("run", model, "--seed", 3, "--dims", "N=5", "--save", tmp_path / "a.golden").code == 0
    with GoldenReader(tmp_path / "a.golden") as reader:
        assert reader.meta["runner"] == "onnxruntime" and reader.meta["model"] == str(model)
        assert reader.meta["seed"] == 3 and reader.meta["dims"] == {"N": 5}
        assert len(reader.meta["model_digest"]) == 64 and "onnxruntime" in reader.meta["versions"]
        assert reader.names(0) == ["y", "looked_up"]
        assert reader.feeds(0)["x"].shape == (5, 4)


def test_polygraphy_agrees_with_what_is_saved_for_it(surgeon: Type, model: Path, tmp_path: Path) -> None:
    from surgeon_debug.feed_files import load_feeds
    from surgeon_debug.polygraphy_files import save_polygraphy_inputs
    from surgeon_passes.graph import load

    program = Path(sys.executable).with_name("polygraphy")
    if not program.exists():
        pytest.skip("the command is not installed beside this interpreter")
    surgeon("run", model, "--samples", 2, "--save", tmp_path / "a.golden")
    save_polygraphy_inputs(load_feeds(tmp_path / "a.golden", load(model)), tmp_path / "in.json")
    said = surgeon("run", model, "--feeds", tmp_path / "in.json", "--save", tmp_path / "out.json")
    assert said.code == 0, said.err
    command = [program, "run", model, "--onnxrt", "--load-inputs", "in.json", "--load-outputs", "out.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "PASSED" in done.stdout


def test_values_of_a_failed_run_are_not_saved(surgeon: Type, tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N] x, float[M] z) => (float[K] y) { y = Add (x, z) }"""
    onnx.save(onnx.parser.parse_model(text), str(tmp_path / "m.onnx"))
    np.savez(tmp_path / "in.npz", x=np.ones(2, np.float32), z=np.ones(3, np.float32))
    for name in ("a.golden", "a.json", "a.npz"):
        said = surgeon("run", tmp_path / "m.onnx", "--feeds", tmp_path / "in.npz", "--save", tmp_path / name)
        assert said.code != 0
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "in.npz"}


def test_sample_counts_below_one_are_refused(surgeon: Type, model: Path) -> None:
    assert surgeon("run", model, "--samples", 0).code == 2
