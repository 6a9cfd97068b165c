"""The address of a question changes with everything an answer depends on, and with nothing else."""

from __future__ import annotations

import shutil
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from surgeon_debug.find.content_address import content_address, files_of, model_address, runner_facts
from surgeon_debug.find.versions import imported_files, versions_of
from surgeon_passes.errors import BadModelError, BadOptionError, EngineError, FileError

FEEDS: list[dict[str, Any]] = [{"x": np.arange(4, dtype=np.float32)}]


def write_model(folder: Path, sizes: tuple[int, ...] = (4, 4), location: str = "weights.bin") -> Path:
    folder.mkdir(exist_ok=True)
    weights = [numpy_helper.from_array(np.arange(size, dtype=np.float32), f"w{i}") for i, size in enumerate(sizes)]
    nodes = [helper.make_node("Sum", ["x", *(f"w{i}" for i in range(len(sizes)))], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [sizes[0]]) for name in "xy")
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights))
    onnx.save(model, str(folder / "model.onnx"), save_as_external_data=True, location=location, size_threshold=0)
    return folder / "model.onnx"


def address(model: Path, feeds: list[dict[str, Any]] = FEEDS, **others: Any) -> str:
    return content_address(model, feeds, **others)


def test_it_is_the_same_in_another_place_and_at_another_time(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    runners = ["onnxruntime:optimize=none", f"onnxruntime:python={sys.executable}"]
    assert address(first, runners=runners) == address(tmp_path / "b" / "model.onnx", runners=runners)
    assert address(first) == address(first, [{"x": FEEDS[0]["x"].copy()}])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_every_byte_of_model_and_weights_counts(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a")
    seen = {model_address(model)}
    weights = tmp_path / "a" / "weights.bin"
    for at in range(0, weights.stat().st_size, 3):
        flip(weights, at)
        seen.add(model_address(model))
        flip(weights, at)
    assert len(seen) == 1 + len(range(0, weights.stat().st_size, 3))
    changed = onnx.load(str(model), load_external_data=False)
    changed.doc_string = "another"
    onnx.save(changed, str(model))
    assert model_address(model) not in seen


def test_weights_that_change_places_count(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a", (4, 4))
    before = model_address(model)
    swapped = onnx.load(str(model), load_external_data=False)
    one, two = swapped.graph.initializer
    one.name, two.name = two.name, one.name
    onnx.save(swapped, str(model))
    assert model_address(model) != before


def test_weights_must_stay_in_the_folder(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a")
    proto = onnx.load(str(model), load_external_data=False)
    (tmp_path / "a" / "weights.bin").rename(tmp_path / "outside.bin")
    for tensor in proto.graph.initializer:
        tensor.external_data[0].value = "../outside.bin"
    onnx.save(proto, str(model))
    with pytest.raises(BadModelError, match="outside the model's folder"):
        model_address(model)
    assert model_address(model, allow_external=True)
    assert files_of(model, allow_external=True) == [model, (tmp_path / "outside.bin").resolve()]


def test_missing_or_short_weights_are_an_error(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a")
    weights = tmp_path / "a" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BadModelError, match="too short"):
        model_address(model)
    weights.unlink()
    with pytest.raises(BadModelError, match="missing"):
        model_address(model)
    with pytest.raises(FileError, match="no such file"):
        model_address(tmp_path / "none.onnx")


def test_weights_are_streamed(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a", (8 << 20,))
    tracemalloc.start()
    try:
        model_address(model)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20 < (tmp_path / "a" / "weights.bin").stat().st_size


@pytest.mark.parametrize(
    "other",
    [
        [],
        [*FEEDS, *FEEDS],
        [{"z": FEEDS[0]["x"]}],
        [{"x": FEEDS[0]["x"].astype(np.float64)}],
        [{"x": FEEDS[0]["x"].astype(ml_dtypes.bfloat16)}],
        [{"x": FEEDS[0]["x"].reshape(2, 2)}],
        [{"x": FEEDS[0]["x"] + np.float32(1e-7)}],
        [{"x": np.array(["a", "bc"], dtype=object)}],
        [{"x": [FEEDS[0]["x"]]}],
        [{"x": None}],
    ],
)
def test_every_part_of_an_input_counts(tmp_path: Path, other: list[dict[str, Any]]) -> None:
    model = write_model(tmp_path / "a")
    assert address(model, other) != address(model)
    assert address(model, other) == address(model, other)


def test_texts_are_told_apart_by_where_they_end(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a")
    one, two = (np.array(words, dtype=object) for words in (["a", "bc"], ["ab", "c"]))
    assert address(model, [{"x": one}]) != address(model, [{"x": two}])


def test_what_is_said_of_runners_and_limits_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_model(tmp_path / "a")
    seen = [
        address(model),
        address(model, runners=["onnxruntime"]),
        address(model, runners=["onnxruntime", "onnxruntime"]),
        address(model, runners=["onnxruntime:optimize=none"]),
        address(model, commands=["onnxruntime"]),
        address(model, texts=["onnxruntime"]),
        address(model, texts=["onnx", "runtime"]),
    ]
    monkeypatch.setattr("surgeon_debug.find.content_address.versions_of", lambda *_: {"onnxruntime": "0.1"})
    seen.append(address(model, runners=["onnxruntime"]))
    monkeypatch.setattr("surgeon_debug.find.content_address.machine_facts", lambda: ["abacus"])
    seen.append(address(model))
    assert len(set(seen)) == len(seen)
    with pytest.raises(BadOptionError):
        address(model, runners=["onnxruntime:python=nowhere"])


def write_runner(folder: Path) -> Path:
    (folder / "kernel").mkdir()
    (folder / "kernel" / "__init__.py").write_text("from kernel.deep import x\n")
    (folder / "kernel" / "deep.py").write_text("x = 1\n")
    (folder / "beside.py").write_text("import mine\n")
    (folder / "stranger.py").write_text("y = 1\n")
    (folder / "mine.py").write_text(
        "import json\nimport numpy.linalg\ndef f():\n    import beside\n    import kernel.deep\n"
    )
    return folder / "mine.py"


def test_a_users_file_counts_with_what_it_imports_from_its_folder(tmp_path: Path) -> None:
    path = write_runner(tmp_path)
    files, packages = imported_files(path)
    assert {file.relative_to(tmp_path).as_posix() for file in files} == {
        "mine.py",
        "beside.py",
        "kernel/__init__.py",
        "kernel/deep.py",
    }
    assert packages == {"json", "numpy"}
    text = f"{path}:Mine"
    seen = [list(runner_facts(text))]
    for name in ("mine.py", "beside.py", "kernel/deep.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "# another\n")
        seen.append(list(runner_facts(text)))
    assert len({tuple(facts) for facts in seen}) == 4
    (tmp_path / "stranger.py").write_text("y = 2\n")
    assert list(runner_facts(text)) == seen[-1]


@pytest.mark.parametrize(
    "text",
    [
        lambda file: f"command:run=python {file} {{model}} {{outputs}}",
        lambda file: f"onnxruntime:library={file}",
    ],
)
def test_files_that_a_text_names_count(tmp_path: Path, text: Callable[[Path], str]) -> None:
    file = tmp_path / "file.bin"
    file.write_text("1")
    before = list(runner_facts(text(file)))
    file.write_text("2")
    assert list(runner_facts(text(file))) != before


def test_versions_are_those_of_the_environment_that_the_runner_runs_in(tmp_path: Path) -> None:
    here = versions_of("onnxruntime", ["onnx", "json"], None)
    assert {"python", "numpy", "onnx", "onnxruntime", "onnx-surgeon"} == set(here)
    assert versions_of("onnxruntime", ["onnx", "json"], Path(sys.executable)) == here
    packages = tmp_path / "packages"
    for name, version in (("numpy", "9.9"), ("onnxruntime_gpu", "8.8")):
        info = packages / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
        (info / "top_level.txt").write_text(name.replace("_gpu", "") + "\n")
        (info / "RECORD").write_text("")
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        f"sys.path.insert(0, {str(packages)!r})\ncode = sys.argv[3]\nsys.argv = ['-c', *sys.argv[4:]]\nexec(code)\n"
    )
    python.chmod(0o755)
    there = versions_of("onnxruntime", [], python)
    assert there["numpy"] == "9.9"
    assert there["onnxruntime-gpu"] == "8.8"
    assert "onnxruntime" not in there


def test_an_interpreter_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(EngineError, match="does not say which packages it has: no"):
        versions_of("onnxruntime", [], python)
