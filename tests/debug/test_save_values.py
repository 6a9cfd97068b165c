from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from surgeon_debug.golden import GoldenReader
from surgeon_debug.polygraphy_files import read_polygraphy_outputs
from surgeon_debug.save_values import check_ending, save_npz, saving
from surgeon_passes.errors import BadOptionError, FileError

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def save(path: Path, samples: int, values: dict[str, object]) -> None:
    with saving(path, runner="ort", meta={"seed": 0}) as saver:
        for sample in range(samples):
            saver.add(sample, {"x": X + sample}, values)


def test_golden_takes_everything(tmp_path: Path) -> None:
    save(tmp_path / "a.golden", 3, {"y": X, "s": [X, X], "t": np.array(["a"]), "n": None, "file": X})
    with GoldenReader(tmp_path / "a.golden") as reader:
        assert reader.samples == 3 and reader.meta == {"seed": 0}
        assert reader.names(2) == ["y", "s", "t", "n", "file"]
        assert reader.feeds(2)["x"][0, 0] == 2
        assert reader.get(1, "n") is None


def test_polygraphys_form_takes_tensors(tmp_path: Path) -> None:
    save(tmp_path / "a.json", 2, {"y": X})
    ((runner, samples),) = read_polygraphy_outputs(tmp_path / "a.json")
    assert runner == "ort" and len(samples) == 2
    np.testing.assert_array_equal(samples[1]["y"], X)
    with pytest.raises(BadOptionError, match="'s' is a sequence"):
        save(tmp_path / "b.json", 1, {"s": [X]})
    assert not (tmp_path / "b.json").exists()


def test_npz_takes_one_sample(tmp_path: Path) -> None:
    low = np.ones(2, ml_dtypes.bfloat16)
    values = {"y": X, "s": [X, X + 1], "t": np.array(["a", "bc"], object), "n": None, "file": X, "low": low}
    save(tmp_path / "a.npz", 1, {**values, "allow_pickle": X})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"y", "s[0]", "s[1]", "t", "file", "low", "allow_pickle"}
        assert archive["s[1]"].max() == 6
        assert archive["t"].tolist() == ["a", "bc"]
        assert archive["low"].view(ml_dtypes.bfloat16).tolist() == [1, 1]
    with pytest.raises(BadOptionError, match=r"takes one sample, and there are 2; write a\.golden"):
        save(tmp_path / "a.npz", 2, values)
    for name, value in {"map": {"a": X}, "cut": np.array(["a\0"], object)}.items():
        with pytest.raises(BadOptionError, match=r"write b\.golden"):
            save_npz({name: value}, tmp_path / "b.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz"}


@pytest.mark.parametrize("name", ["a.golden", "a.json", "a.npz"])
def test_a_failed_run_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ZeroDivisionError), saving(tmp_path / name, runner="ort") as saver:
        saver.add(0, {"x": X}, {"y": X})
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_bad_target_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    for name in ("a.txt", "a", "a.npy"):
        with pytest.raises(BadOptionError, match=r"saved as \.npz, \.golden or \.json; write a\.npz"):
            check_ending(tmp_path / name)
    with pytest.raises(FileError, match="folder does not exist"):
        check_ending(tmp_path / "no" / "a.golden")
    with pytest.raises(BadOptionError, match="takes one sample, and there are 3"):
        check_ending(tmp_path / "a.npz", 3)
