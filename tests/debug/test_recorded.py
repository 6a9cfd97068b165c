from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_debug.feeds import make_feeds
from surgeon_debug.golden import GoldenReader, GoldenWriter
from surgeon_debug.layers import compare_models
from surgeon_debug.polygraphy_files import save_polygraphy_outputs
from surgeon_debug.recorded import Recorded
from surgeon_debug.recording import MemoryRecording, describe, open_recording
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine, Runner
from surgeon_debug.values import digest
from surgeon_passes import graph
from surgeon_passes.errors import BadOptionError, EngineError, FileError
from tests.numeric import model_of

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[N, 3] x, int64[N] ids) => (float[N, 3] y, bfloat16[N, 3] low, int64[N] next)
    <int64 one = {1}> {
        inner = Relu (x)
        y = Add (inner, x)
        low = Cast <to = 16> (y)
        next = Add (ids, one)
    }"""
OUTPUTS = ["y", "low", "next"]


@pytest.fixture
def model() -> ir.Model:
    return model_of(TEXT)


@pytest.fixture
def path(tmp_path: Path, model: ir.Model) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(ir.to_proto(model), str(path))
    return path


@pytest.fixture
def golden(tmp_path: Path, model: ir.Model, path: Path) -> Path:
    """Two samples of everything, as onnxruntime computes it."""
    target = tmp_path / "m.golden"
    meta = describe(model, name="m.onnx", runner="onnxruntime:optimize=none", seed=0)
    with make_engine("onnxruntime:optimize=none") as engine, GoldenWriter(target, meta) as writer:
        engine.prepare(path, ["inner", *OUTPUTS])
        for sample in range(2):
            feeds = make_feeds(model, sample=sample)
            writer.add_feeds(sample, feeds)
            for name, value in engine.run(feeds).items():
                writer.add(sample, name, value)
    return target


def test_it_says_where_it_comes_from(model: ir.Model, golden: Path) -> None:
    recorded = Recorded(open_recording(golden, model), str(golden))
    assert recorded.meta["model_digest"] == graph.digest(model)
    assert recorded.meta["opset"] == {"": 21} and recorded.meta["seed"] == 0
    assert recorded.origin.startswith("m.onnx on onnxruntime:optimize=none (onnxruntime 1.")
    assert Recorded(MemoryRecording([{}]), "r").origin == ""


def test_values_are_those_recorded(model: ir.Model, golden: Path) -> None:
    recorded = Recorded(open_recording(golden, model), str(golden))
    assert recorded.samples == 2
    assert set(recorded.names(1)) == {"inner", *OUTPUTS}
    found = recorded.values(1, ["y", "nothing", "inner", "y"])
    assert list(found) == ["y", "inner"]
    np.testing.assert_array_equal(found["inner"], np.maximum(recorded.feeds(1)["x"], 0))
    assert recorded.values(0, ["low"])["low"].dtype == ml_dtypes.bfloat16


def test_another_model_is_said_and_a_missing_tensor_refused(model: ir.Model, golden: Path) -> None:
    recorded = Recorded(open_recording(golden, model), "m.golden")
    assert recorded.check_fits(graph.digest(model), OUTPUTS) == []
    assert recorded.check_fits("", OUTPUTS) == []
    (said,) = recorded.check_fits("0" * 64, OUTPUTS)
    assert "m.golden was recorded from another version of the model" in said
    with pytest.raises(BadOptionError, match=r"m\.golden: does not hold 'inne' in sample 0; did you mean 'inner'"):
        recorded.check_fits("", ["inne"])
    with pytest.raises(BadOptionError, match="holds no sample"):
        Recorded(MemoryRecording([]), "r").check_fits("", [])
    (said,) = Recorded(MemoryRecording([{"y": np.ones(1)}]), "r").check_fits("0" * 64, ["y"])
    assert said == "r does not say which model it was recorded from"


def test_other_inputs_are_refused(model: ir.Model, golden: Path) -> None:
    recorded = Recorded(open_recording(golden, model), "m.golden")
    right = [make_feeds(model, sample=sample) for sample in range(2)]
    assert recorded.check_feeds(right) == []
    with pytest.raises(BadOptionError, match="holds 2 samples and the run has 1"):
        recorded.check_feeds(right[:1])
    with pytest.raises(BadOptionError, match="from other values of input 'x' in sample 1"):
        recorded.check_feeds([right[0], {**right[1], "x": right[1]["x"] + 1}])
    with pytest.raises(BadOptionError, match="does not hold the input 'mask'"):
        recorded.check_feeds([{**right[0], "mask": np.ones(1)}, right[1]])
    silent = Recorded(MemoryRecording([{"y": np.ones(1)}]), "r")
    assert silent.check_feeds([{}]) == []
    assert "does not say which inputs" in silent.check_feeds(right[:1])[0]


def test_it_is_a_runner_that_finds_the_sample_by_its_inputs(model: ir.Model, path: Path, golden: Path) -> None:
    recorded = Recorded(open_recording(golden, model), "m.golden")
    assert isinstance(recorded, Runner)
    with Engine("recorded", recorded) as engine:
        engine.prepare(path, ["y", "nothing"])
        for sample in (1, 0):
            found = engine.run(make_feeds(model, sample=sample))
            assert list(found) == ["y"]
            assert digest(found["y"]) == digest(recorded.values(sample, ["y"])["y"])
        with pytest.raises(EngineError, match=r"m\.golden does not hold what these inputs give"):
            engine.run(make_feeds(model, sample=2))
    one, two = (Recorded(MemoryRecording([{"y": np.ones(1)}] * n), "r") for n in (1, 2))
    one.prepare(path, ["y"])
    assert list(one.run({"x": np.ones(1)})) == ["y"]
    with pytest.raises(EngineError, match="does not say which inputs they belong to"):
        two.run({"x": np.ones(1)})


def test_a_model_is_compared_with_what_it_computed_before(model: ir.Model, path: Path, golden: Path) -> None:
    feeds = [make_feeds(model, sample=sample) for sample in range(2)]
    reference = Engine("m.golden", Recorded(GoldenReader(golden), "m.golden"))
    assert compare_models(path, target="onnxruntime", reference=reference, feeds=feeds).verdict == "agree"
    changed = path.with_name("changed.onnx")
    onnx.save(onnx.parser.parse_model(TEXT.replace("{1}", "{2}")), str(changed))
    done = compare_models(changed, target="onnxruntime", reference=reference, feeds=feeds)
    assert done.verdict == "differ"
    assert [result.tensor for result in done.outputs if result.suspect] == ["next"]


def test_polygraphys_outputs(tmp_path: Path, model: ir.Model) -> None:
    y = np.ones((2, 3), np.float32)
    save_polygraphy_outputs([("ort", [{"y": y}] * 2), ("trt", [{"y": y + 1}])], tmp_path / "out.json")
    assert open_recording(tmp_path / "out.json", model, run="ort").samples == 2
    found = open_recording(tmp_path / "out.json", model, run="trt")
    assert found.get(0, "y").max() == 2 and found.meta == {"runner": "trt"} and not found.has_feeds(0)
    with pytest.raises(BadOptionError, match="holds the outputs of several runners; it has ort, trt"):
        open_recording(tmp_path / "out.json", model)
    with pytest.raises(BadOptionError, match="holds no outputs of 'tvm'; it has ort, trt"):
        open_recording(tmp_path / "out.json", model, run="tvm")


def test_npz_gets_its_types_back_from_the_model(tmp_path: Path, model: ir.Model) -> None:
    np.savez(tmp_path / "out.npz", low=np.full((2, 3), 1.5, ml_dtypes.bfloat16), y=np.ones((2, 3), np.float32))
    found = open_recording(tmp_path / "out.npz", model)
    assert found.get(0, "low").dtype == ml_dtypes.bfloat16 and found.get(0, "low").max() == 1.5
    assert found.names(0) == ["low", "y"] and found.feeds(0) == {}


@pytest.mark.parametrize("with_inputs", [True, False])
def test_onnx_test_data(tmp_path: Path, model: ir.Model, with_inputs: bool) -> None:
    for sample in range(11):
        folder = tmp_path / "data" / f"test_data_set_{sample}"
        folder.mkdir(parents=True)
        feeds = make_feeds(model, sample=sample)
        values = {"y": np.full((2, 3), sample, np.float32), "low": np.ones((2, 3), ml_dtypes.bfloat16)}
        parts = [("output", values), ("input", feeds)]
        for role, named in parts[: 1 + with_inputs]:
            for i, value in enumerate(named.values()):
                (folder / f"{role}_{i}.pb").write_bytes(onnx.numpy_helper.from_array(value, "").SerializeToString())
    found = open_recording(tmp_path / "data", model)
    assert found.samples == 11 and found.names(0) == ["y", "low"]
    assert [found.get(sample, "y").max() for sample in range(11)] == list(range(11))
    assert found.get(0, "low").dtype == ml_dtypes.bfloat16
    assert found.has_feeds(3) is with_inputs
    if with_inputs:
        assert Recorded(found, "r").check_feeds([make_feeds(model, sample=sample) for sample in range(11)]) == []


@pytest.mark.parametrize("name", ["a.golden", "a.json", "a.npz", "a.bin", "folder"])
def test_a_bad_file_is_one_sentence(tmp_path: Path, model: ir.Model, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(FileError, match="no such file"):
        open_recording(path, model)
    if name == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"not that")
    with pytest.raises(FileError) as caught:
        open_recording(path, model)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
