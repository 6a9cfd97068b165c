from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from surgeon_debug.polygraphy_files import (
    read_polygraphy_inputs,
    read_polygraphy_outputs,
    save_polygraphy_inputs,
    save_polygraphy_outputs,
)
from surgeon_passes.errors import BadOptionError, FileError

polygraphy_json = pytest.importorskip("polygraphy.json")
comparator = pytest.importorskip("polygraphy.comparator")

X = np.arange(6, dtype=np.float32).reshape(2, 3)
SAMPLES = [{"x": X, "ids": np.array([1, 2])}, {"x": X + 1, "ids": np.array([3, 4])}]
INTEGERS = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
NATIVE = [*INTEGERS, "float16", "float32", "float64", "complex64", "complex128"]


def assert_equal_samples(seen: list[dict[str, np.ndarray]], wanted: list[dict[str, np.ndarray]]) -> None:
    assert len(seen) == len(wanted)
    for one, other in zip(seen, wanted, strict=True):
        assert list(one) == list(other)
        for name, value in other.items():
            assert one[name].dtype == value.dtype and one[name].shape == value.shape
            assert one[name].tobytes() == value.tobytes()


def test_polygraphy_reads_our_inputs(tmp_path: Path) -> None:
    save_polygraphy_inputs(SAMPLES, tmp_path / "in.json")
    assert_equal_samples(polygraphy_json.load_json(str(tmp_path / "in.json")), SAMPLES)
    loader = pytest.importorskip("polygraphy.comparator.data_loader")
    if hasattr(loader, "StreamingDataLoader"):
        assert_equal_samples(list(loader.StreamingDataLoader(str(tmp_path / "in.json"))), SAMPLES)
    assert_equal_samples(read_polygraphy_inputs(tmp_path / "in.json"), SAMPLES)


def test_polygraphy_reads_our_outputs(tmp_path: Path) -> None:
    save_polygraphy_outputs([("ort", SAMPLES), ("other", SAMPLES[:1])], tmp_path / "out.json")
    loaded = comparator.RunResults.load(str(tmp_path / "out.json"))
    assert list(loaded.keys()) == ["ort", "other"]
    assert_equal_samples([dict(result.items()) for result in loaded["ort"]], SAMPLES)
    assert bool(comparator.Comparator.compare_accuracy(comparator.RunResults([*loaded][:1] * 2)))
    runs = read_polygraphy_outputs(tmp_path / "out.json")
    assert [name for name, _ in runs] == ["ort", "other"]
    assert_equal_samples(runs[0][1], SAMPLES)
    assert_equal_samples(runs[1][1], SAMPLES[:1])


def test_we_read_what_polygraphy_wrote(tmp_path: Path) -> None:
    polygraphy_json.save_json(SAMPLES, str(tmp_path / "in.json"))
    assert_equal_samples(read_polygraphy_inputs(tmp_path / "in.json"), SAMPLES)
    polygraphy_json.save_json(SAMPLES[0], str(tmp_path / "one.json"))
    assert_equal_samples(read_polygraphy_inputs(tmp_path / "one.json"), SAMPLES[:1])
    results = comparator.RunResults()
    results.add(SAMPLES, runtime=0.5, runner_name="trt-runner")
    results.save(str(tmp_path / "out.json"))
    ((runner, samples),) = read_polygraphy_outputs(tmp_path / "out.json")
    assert runner == "trt-runner"
    assert_equal_samples(samples, SAMPLES)


def test_a_folder_with_a_file_for_each_sample(tmp_path: Path) -> None:
    for kind in ("in", "out"):
        (tmp_path / kind).mkdir()
    for i, sample in enumerate(SAMPLES * 6):
        polygraphy_json.save_json(sample, str(tmp_path / "in" / f"{i:010d}.json"))
        save_polygraphy_outputs([("a", [sample]), ("b", [sample])], tmp_path / "out" / f"{i:010d}.json")
    assert_equal_samples(read_polygraphy_inputs(tmp_path / "in"), SAMPLES * 6)
    runs = read_polygraphy_outputs(tmp_path / "out")
    assert [name for name, _ in runs] == ["a", "b"]
    assert_equal_samples(runs[1][1], SAMPLES * 6)


def test_arrays_that_polygraphy_swaps_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_polygraphy_outputs([("a", SAMPLES)], tmp_path / "out.json")
    monkeypatch.setattr("polygraphy.config.ARRAY_SWAP_THRESHOLD_MB", 0)
    assert_equal_samples(read_polygraphy_outputs(tmp_path / "out.json")[0][1], SAMPLES)
    polygraphy_json.save_json([{"x": comparator.struct.LazyArray(X)}], str(tmp_path / "in.json"))
    assert_equal_samples(read_polygraphy_inputs(tmp_path / "in.json"), [{"x": X}])


def test_padded_arrays(tmp_path: Path) -> None:
    from polygraphy.common import FormattedArray

    polygraphy_json.save_json([{"x": FormattedArray(X.reshape(-1), (2, 3))}], str(tmp_path / "in.json"))
    assert_equal_samples(read_polygraphy_inputs(tmp_path / "in.json"), [{"x": X}])
    polygraphy_json.save_json([{"x": FormattedArray(X.reshape(-1), (2, 2))}], str(tmp_path / "in.json"))
    with pytest.raises(FileError, match="'x' is in an engine's own padded layout"):
        read_polygraphy_inputs(tmp_path / "in.json")


@given(
    st.sampled_from(NATIVE).flatmap(
        lambda name: arrays.arrays(np.dtype(name), arrays.array_shapes(min_dims=0, min_side=0, max_side=3))
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_survive_to_the_bit(tmp_path: Path, value: np.ndarray) -> None:
    save_polygraphy_inputs([{"x": value}], tmp_path / "in.json")
    assert_equal_samples(read_polygraphy_inputs(tmp_path / "in.json"), [{"x": value}])
    assert_equal_samples(polygraphy_json.load_json(str(tmp_path / "in.json")), [{"x": value}])


def test_text(tmp_path: Path) -> None:
    text = np.array([["a", "é😀"], ["", "long\x00er"]], object)
    save_polygraphy_inputs([{"t": text}], tmp_path / "in.json")
    (sample,) = read_polygraphy_inputs(tmp_path / "in.json")
    assert sample["t"].tolist() == text.tolist() and sample["t"].dtype == object


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([X], "'x' is a sequence, for which Polygraphy's files have no form"),
        ({"a": X}, "'x' is a map"),
        (None, "'x' is an optional without a value"),
        (np.array(["a\0"], object), "'x' is text that ends with a NUL"),
        (np.ones(2, ml_dtypes.int4), "'x' is int4"),
        (np.ones(2, ml_dtypes.float4_e2m1fn), "'x' is float4_e2m1fn"),
    ],
)
def test_what_has_no_form_is_refused(tmp_path: Path, value: object, words: str) -> None:
    for save in (
        lambda path: save_polygraphy_inputs([{"x": value}], path),
        lambda path: save_polygraphy_outputs([("a", [{"x": value}])], path),
    ):
        with pytest.raises(BadOptionError) as caught:
            save(tmp_path / "x.json")
        assert words in str(caught.value) and ".golden" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_types_that_numpy_lacks_need_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BadOptionError, match="'x' is bfloat16, which Polygraphy's files hold as a tensor of torch"):
        save_polygraphy_inputs([{"x": np.ones(2, ml_dtypes.bfloat16)}], tmp_path / "x.json")


def test_tensors_of_torch_without_torch(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if "torch" in sys.modules:
        pytest.skip("torch is here")
    (tmp_path / "x.json").write_text('[{"x": {"tensor": "", "polygraphy_class": "Tensor"}}]')
    with pytest.raises(FileError, match="holds tensors of torch; install torch"):
        read_polygraphy_inputs(tmp_path / "x.json")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
def test_types_that_numpy_lacks_with_torch(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    values = [np.array([1.5, -0.0, np.inf, np.nan, 2**-6]).astype(name), np.array(2).astype(name)]
    samples = [{"x": value, "y": X} for value in values]
    save_polygraphy_inputs(samples, tmp_path / "x.json")
    assert_equal_samples(read_polygraphy_inputs(tmp_path / "x.json"), samples)
    loaded = polygraphy_json.load_json(str(tmp_path / "x.json"))
    assert loaded[0]["x"].dtype == getattr(torch, name)
    assert loaded[0]["x"].float()[0] == 1.5


@pytest.mark.parametrize("read", [read_polygraphy_inputs, read_polygraphy_outputs])
@pytest.mark.parametrize("text", ["", "not that", "[1, 2]", "3", '{"polygraphy_class": "Nothing"}', '{"a": {"b": 1}}'])
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, read: type, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(FileError):
        read(path)
    with pytest.raises(FileError):
        read(tmp_path)
    path.write_text(text)
    with pytest.raises(FileError) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_one_kind_is_not_taken_for_the_other(tmp_path: Path) -> None:
    save_polygraphy_outputs([("a", SAMPLES)], tmp_path / "out.json")
    save_polygraphy_inputs(SAMPLES, tmp_path / "in.json")
    with pytest.raises(FileError, match="holds outputs, not inputs"):
        read_polygraphy_inputs(tmp_path / "out.json")
    with pytest.raises(FileError, match="not Polygraphy's outputs"):
        read_polygraphy_outputs(tmp_path / "in.json")


def test_polygraphy_run_takes_and_gives_both(tmp_path: Path) -> None:
    """The command itself: our inputs and outputs loaded, and what it saves read."""
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2, 3] x) => (float[2, 3] y) { y = Relu (x) }'
    onnx.save(onnx.parser.parse_model(text), str(tmp_path / "m.onnx"))
    samples = [{"x": X - 2}, {"x": X - 3}]
    save_polygraphy_inputs(samples, tmp_path / "in.json")
    for name, wrong in (("good", 0), ("bad", 1)):
        outputs = [{"y": np.maximum(sample["x"], 0) + np.float32(wrong)} for sample in samples]
        save_polygraphy_outputs([("golden", outputs)], tmp_path / f"{name}.json")
    program = Path(sys.executable).with_name("polygraphy")
    if not program.exists():
        pytest.skip("the command is not installed beside this interpreter")
    command = [str(program), "run", "m.onnx", "--onnxrt", "--load-inputs", "in.json"]
    env = {**os.environ, "POLYGRAPHY_AUTOINSTALL_DEPS": "0"}
    codes = []
    for name in ("good", "bad"):
        save = ["--save-inputs", f"{name}_in.json", "--save-outputs", f"{name}_out.json"]
        full = [*command, "--load-outputs", f"{name}.json", *save]
        codes.append(subprocess.run(full, cwd=tmp_path, env=env, capture_output=True, check=False).returncode)
    assert codes == [0, 1]
    assert_equal_samples(read_polygraphy_inputs(tmp_path / "good_in.json"), samples)
    ((runner, seen),) = [run for run in read_polygraphy_outputs(tmp_path / "good_out.json") if run[0] != "golden"]
    assert runner.startswith("onnxrt")
    assert_equal_samples(seen, [{"y": np.maximum(sample["x"], 0)} for sample in samples])
    assert json.loads((tmp_path / "good_in.json").read_text())
