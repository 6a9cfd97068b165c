from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_debug.feed_files import check_feeds, load_feeds
from surgeon_debug.golden import GoldenWriter
from surgeon_passes.errors import BadOptionError, FileError
from tests.numeric import model_of

MODEL = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[N, 3] features, int64[N] ids, bfloat16[2] low) => (float[N, 3] y) { y = Identity (features) }"""
FEATURES = np.arange(6, dtype=np.float32).reshape(2, 3)
IDS = np.array([1, 0])
LOW = np.array([1.5, -2], ml_dtypes.bfloat16)
GOOD = {"features": FEATURES, "ids": IDS, "low": LOW}


@pytest.fixture
def model() -> ir.Model:
    return model_of(MODEL)


def assert_good(samples: list[dict[str, np.ndarray]], count: int = 1) -> None:
    assert len(samples) == count
    for sample in samples:
        assert list(sample) == ["features", "ids", "low"]
        for name, value in GOOD.items():
            assert sample[name].dtype == value.dtype
            np.testing.assert_array_equal(sample[name], value)


def test_npz_with_a_type_numpy_lacks(tmp_path: Path, model: ir.Model) -> None:
    np.savez(tmp_path / "a.npz", **GOOD)
    assert_good(load_feeds(tmp_path / "a.npz", model))


def write_test_data(folder: Path, named: bool = True) -> None:
    folder.mkdir(parents=True)
    for i, (name, value) in enumerate(GOOD.items()):
        proto = onnx.numpy_helper.from_array(value, name if named else "")
        (folder / f"input_{i}.pb").write_bytes(proto.SerializeToString())


@pytest.mark.parametrize("named", [True, False])
def test_onnx_test_data(tmp_path: Path, model: ir.Model, named: bool) -> None:
    write_test_data(tmp_path / "one", named)
    assert_good(load_feeds(tmp_path / "one", model))
    for i in (0, 2, 10):
        write_test_data(tmp_path / "many" / f"test_data_set_{i}", named)
    assert_good(load_feeds(tmp_path / "many", model), 3)


def test_names_in_test_data_go_before_positions(tmp_path: Path, model: ir.Model) -> None:
    for i, name in enumerate(["low", "features", "ids"]):
        (tmp_path / f"input_{i}.pb").write_bytes(onnx.numpy_helper.from_array(GOOD[name], name).SerializeToString())
    assert_good(load_feeds(tmp_path, model))


def test_a_sequence_in_test_data(tmp_path: Path) -> None:
    model = model_of("""<ir_version: 8, opset_import: ["" : 17]>
        g (seq(float[N]) s) => (float[N] y) <int64 i = {0}> { y = SequenceAt (s, i) }""")
    proto = onnx.numpy_helper.from_list([np.ones(2, np.float32), np.zeros(2, np.float32)], "s")
    (tmp_path / "input_0.pb").write_bytes(proto.SerializeToString())
    (sample,) = load_feeds(tmp_path, model)
    assert [item.tolist() for item in sample["s"]] == [[1, 1], [0, 0]]


def test_polygraphy_json(tmp_path: Path) -> None:
    polygraphy = pytest.importorskip("polygraphy.json")
    model = model_of(MODEL.replace(", bfloat16[2] low", ""))
    polygraphy.save_json([{"features": FEATURES, "ids": IDS}] * 2, str(tmp_path / "in.json"))
    samples = load_feeds(tmp_path / "in.json", model)
    assert len(samples) == 2
    np.testing.assert_array_equal(samples[1]["features"], FEATURES)


def test_golden(tmp_path: Path, model: ir.Model) -> None:
    with GoldenWriter(tmp_path / "a.golden") as writer:
        for sample in range(3):
            writer.add_feeds(sample, GOOD)
            writer.add(sample, "y", FEATURES)
    assert_good(load_feeds(tmp_path / "a.golden", model), 3)
    assert_good(load_feeds(tmp_path / "a.golden", model, most=2), 2)
    with GoldenWriter(tmp_path / "b.golden") as writer:
        writer.add(0, "y", FEATURES)
    with pytest.raises(FileError, match="holds no inputs, only what was computed"):
        load_feeds(tmp_path / "b.golden", model)


def test_a_folder_of_files_is_a_sample_each_by_number(tmp_path: Path, model: ir.Model) -> None:
    for i in (10, 9, 0):
        np.savez(tmp_path / f"sample_{i}.npz", **{**GOOD, "features": FEATURES + i})
    samples = load_feeds(tmp_path, model)
    assert [sample["features"][0, 0] for sample in samples] == [0, 9, 10]
    assert [sample["features"][0, 0] for sample in load_feeds(tmp_path, model, most=2)] == [0, 9]
    np.savez(tmp_path / "sample_9.npz", features=FEATURES)
    with pytest.raises(BadOptionError, match=r"\(sample 1\): input 'ids' is not given"):
        load_feeds(tmp_path, model)
    (tmp_path / "a.json").touch()
    with pytest.raises(FileError, match=r"holds inputs of several kinds: \.npz and \.json"):
        load_feeds(tmp_path, model)


def test_a_folder_that_polygraphy_wrote(tmp_path: Path) -> None:
    polygraphy = pytest.importorskip("polygraphy.json")
    model = model_of(MODEL.replace(", bfloat16[2] low", ""))
    for i in range(11):
        polygraphy.save_json({"features": FEATURES + i, "ids": IDS}, str(tmp_path / f"{i:010d}.json"))
    assert [sample["features"][0, 0] for sample in load_feeds(tmp_path, model)] == list(range(11))


def test_safetensors(tmp_path: Path, model: ir.Model) -> None:
    body, header = b"", {"__metadata__": {"by": "hand"}}
    for (name, value), kind in zip(GOOD.items(), ("F32", "I64", "BF16"), strict=True):
        data = value.tobytes()
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [len(body), len(body) + len(data)]}  # type: ignore[assignment]
        body += data
    head = json.dumps(header).encode()
    (tmp_path / "in.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + body)
    assert_good(load_feeds(tmp_path / "in.safetensors", model))


def test_a_misspelt_name_is_an_error(model: ir.Model) -> None:
    with pytest.raises(BadOptionError, match="no input 'feature'; did you mean 'features'"):
        check_feeds({"feature": FEATURES, "ids": IDS, "low": LOW}, model)
    with pytest.raises(BadOptionError, match="no input 'zzz'; its inputs are features, ids, low"):
        check_feeds({**GOOD, "zzz": IDS}, model)


def test_a_missing_input_is_an_error(model: ir.Model) -> None:
    with pytest.raises(BadOptionError, match="input 'ids' is not given"):
        check_feeds({"features": FEATURES, "low": LOW}, model)


def test_a_contradicting_shape_is_an_error(model: ir.Model) -> None:
    with pytest.raises(BadOptionError, match="'features' is Nx3 in the model and 2x4 in the data"):
        check_feeds({**GOOD, "features": np.zeros((2, 4), np.float32)}, model)
    with pytest.raises(BadOptionError, match="'features' is Nx3 in the model and 3 in the data"):
        check_feeds({**GOOD, "features": np.zeros(3, np.float32)}, model)
    check_feeds({**GOOD, "features": np.zeros((9, 3), np.float32)}, model)


def test_types_are_converted_where_nothing_is_lost(model: ir.Model) -> None:
    assert check_feeds({**GOOD, "ids": IDS.astype(np.int8)}, model)["ids"].dtype == np.int64
    with pytest.raises(BadOptionError, match="'features' is float32 in the model and float64 in the data"):
        check_feeds({**GOOD, "features": FEATURES.astype(np.float64)}, model)
    with pytest.raises(BadOptionError, match="'ids' is int64 in the model and float32"):
        check_feeds({**GOOD, "ids": IDS.astype(np.float32)}, model)
    narrow = model_of(MODEL.replace("int64[N]", "int8[N]"))
    with pytest.raises(BadOptionError, match="integers that do not fit int8"):
        check_feeds({**GOOD, "ids": np.array([1, 300])}, narrow)


@pytest.mark.parametrize("name", ["a.npz", "a.json", "a.safetensors", "a.golden", "a.txt"])
def test_a_bad_file_is_one_sentence(tmp_path: Path, model: ir.Model, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(FileError, match="no such file"):
        load_feeds(path, model)
    path.write_bytes(b"not that")
    with pytest.raises(FileError) as caught:
        load_feeds(path, model)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds no inputs"):
        load_feeds(tmp_path / "empty", model)


def test_the_default_of_an_input_can_be_overridden() -> None:
    model = model_of("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add (x, w) }""")
    ones = np.ones(2, np.float32)
    assert list(check_feeds({"x": ones}, model)) == ["x"]
    assert list(check_feeds({"w": ones, "x": ones}, model)) == ["x", "w"]
