from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from surgeon_debug.bundle_values import ValueReader, write_values
from surgeon_debug.find.bundle_culprit import BundleRequest, bundle_culprit
from surgeon_debug.find.oracle import FailureKind, Signature
from surgeon_debug.limits import Limits
from surgeon_debug.packed_runner import pack_runner
from surgeon_debug.values import same
from surgeon_passes.errors import BadOptionError, FileError
from tests.debug.test_culprit_piece import declared, model_of, weight

ORT = "onnxruntime:optimize=none,threads=1"
RUNNERS = Path(__file__).parent / "culprit_runners.py"
FAULTS = Path(__file__).parents[1] / "bench" / "planted_layers" / "faults.py"
RNG = np.random.default_rng(2)
WRONG = Signature(FailureKind.WRONG_NUMBERS)


def perceptron(folder: Path) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "w2", "c2"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["y"]),
    ]
    weights = [weight("w1", 16, 32), weight("w2", 32, 8), weight("c2", 8)]
    path = folder / "model.onnx"
    onnx.save(model_of(nodes, [declared("x", ["n", 16])], ["y"], weights), str(path))
    return path


def feeds(*sizes: int) -> list[dict[str, Any]]:
    return [{"x": RNG.normal(size=(n, 16)).astype(np.float32)} for n in sizes or (4,)]


def request(model: Path, options: str, signature: Signature = WRONG, **more: Any) -> BundleRequest:
    more.setdefault("feeds", feeds())
    more.setdefault("positions", [2])
    return BundleRequest(model, reference=ORT, target=f"{RUNNERS}:AtOperator:{options}", signature=signature, **more)


def unpacked(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def reproduced(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-I", str(folder / "reproduce.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_wrong_numbers(tmp_path: Path) -> None:
    out = tmp_path / "culprit.zip"
    asked = request(perceptron(tmp_path), "op=Gemm,gain=1.01", feeds=feeds(3, 9), command="surgeon find nodes")
    info = bundle_culprit(out, asked)
    assert info.made, info.reason
    assert info.nbytes == out.stat().st_size < 1 << 20
    folder = unpacked(out, tmp_path / "there")
    code, said = reproduced(folder)
    assert code == 1, said
    assert "WRONG" in said
    assert "bit by bit: yes" in said
    document = json.loads((folder / "bundle.json").read_text())
    assert document["schema"] == "surgeon.bundle/1"
    assert document["culprit"] == {"nodes": ["Gemm(c)"], "ops": ["Gemm"]}
    assert document["command"] == "surgeon find nodes"
    assert document["versions"]["target"]["onnxruntime"]
    assert "python reproduce.py" in (folder / "README.md").read_text()
    assert (folder / "runner" / RUNNERS.name).read_bytes() == RUNNERS.read_bytes()
    assert any("runner" in note for note in info.notes)
    model = onnx.load(str(folder / "model.onnx"))
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Gemm"]


def test_the_same_again_is_the_same_file(tmp_path: Path) -> None:
    asked = request(perceptron(tmp_path), "op=Gemm,gain=1.01")
    paths = [tmp_path / name / "culprit.zip" for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        assert bundle_culprit(path, asked).made
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("how", "signature", "code"),
    [
        ("crash", Signature(FailureKind.CRASHED, "SIGSEGV"), 1),
        ("leave", Signature(FailureKind.CRASHED, "exit code 7"), 1),
        ("refuse", Signature(FailureKind.REFUSED, "no kernel for Gemm of with inputs"), 1),
    ],
)
def test_an_engine_that_does_not_deliver(how: str, signature: Signature, code: int, tmp_path: Path) -> None:
    out = tmp_path / "culprit.zip"
    info = bundle_culprit(out, request(perceptron(tmp_path), f"op=Gemm,how={how}", signature))
    assert info.made, info.reason
    folder = unpacked(out, tmp_path / "there")
    found, said = reproduced(folder)
    assert found == code, said
    weights = onnx.load(str(folder / "model.onnx")).graph.initializer
    assert {size for tensor in weights for size in tensor.dims} == {1}, "it fails on the smallest Gemm as well"


def test_an_engine_that_hangs(tmp_path: Path) -> None:
    out = tmp_path / "culprit.zip"
    signature = Signature(FailureKind.HUNG)
    asked = request(perceptron(tmp_path), "op=Gemm,how=hang", signature, timeout=1.0, trials=3)
    info = bundle_culprit(out, asked)
    assert info.made, info.reason
    code, said = reproduced(unpacked(out, tmp_path / "there"), "--timeout", "2")
    assert code == 1, said
    assert "hangs" in said


def test_an_engine_that_eats_all_memory(tmp_path: Path) -> None:
    out = tmp_path / "culprit.zip"
    signature = Signature(FailureKind.OUT_OF_MEMORY)
    asked = request(perceptron(tmp_path), "op=Gemm,how=eat", signature, memory_cap=600 << 20, trials=2)
    info = bundle_culprit(out, asked)
    assert info.made, info.reason
    code, said = reproduced(unpacked(out, tmp_path / "there"))
    assert code == 1, said


def test_a_node_that_does_not_fail_makes_no_bundle(tmp_path: Path) -> None:
    out = tmp_path / "culprit.zip"
    out.write_bytes(b"older")
    info = bundle_culprit(out, request(perceptron(tmp_path), "op=Gemm,gain=1.01", positions=[1]))
    assert not info.made
    assert info.reason.startswith("no bundle was made")
    assert out.read_bytes() == b"older"


def test_a_failure_that_is_gone_in_a_clean_process_makes_no_bundle(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    runner = tmp_path / "fleeting.py"
    runner.write_text(
        RUNNERS.read_text()
        + f"""
class Fleeting(AtOperator):
    def __init__(self, op: str) -> None:
        from pathlib import Path
        flag = Path({str(flag)!r})
        super().__init__(op, gain=1.0 if flag.exists() else 1.5)
        flag.touch()
"""
    )
    asked = BundleRequest(perceptron(tmp_path), [2], feeds(), ORT, f"{runner}:Fleeting:op=Gemm", WRONG)
    info = bundle_culprit(tmp_path / "culprit.zip", asked)
    assert not info.made
    assert "in a clean process" in info.reason
    assert not (tmp_path / "culprit.zip").exists()


def test_a_command_is_not_bundled(tmp_path: Path) -> None:
    info = bundle_culprit(
        tmp_path / "culprit.zip", request(perceptron(tmp_path), "op=Gemm", Signature(FailureKind.CHECK))
    )
    assert not info.made
    assert "command" in info.reason


def test_a_small_error_counts_where_noise_or_limits_say_so(tmp_path: Path) -> None:
    model = perceptron(tmp_path)
    small = "op=Gemm,gain=1.00003"
    out = tmp_path / "culprit.zip"
    assert not bundle_culprit(out, request(model, small)).made
    assert bundle_culprit(out, request(model, small, noise=1e-7)).made
    assert bundle_culprit(out, request(model, small, limits=Limits.parse(["rel_l2<1e-5"]))).made
    assert reproduced(unpacked(out, tmp_path / "there"))[0] == 1
    assert not bundle_culprit(out, request(model, small, noise=1e-4)).made


def test_no_weights_leaves_none_of_the_values(tmp_path: Path) -> None:
    model = perceptron(tmp_path)
    out = tmp_path / "culprit.zip"
    info = bundle_culprit(out, request(model, "op=Gemm,gain=1.5,least=8", no_weights=True))
    assert info.made, info.reason
    private = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(model)).graph.initializer}
    folder = unpacked(out, tmp_path / "there")
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(folder / "model.onnx")).graph.initializer}
    assert all(not np.isin(array, private[name]).any() for name, array in held.items())
    assert "random numbers" in info.private
    assert "random numbers" in (folder / "README.md").read_text()


def test_a_fault_by_tensor_name_with_a_file_of_its_own(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    fault = {"tensor": "c", "kind": "gain", "dtype": 1, "shape": [4, 8], "size": 0.05}
    plan.write_text(json.dumps({"base": ORT, "faults": [fault]}))
    asked = BundleRequest(perceptron(tmp_path), [2], feeds(4), ORT, f"{FAULTS}:FaultyEngine:plan={plan}", WRONG)
    out = tmp_path / "culprit.zip"
    info = bundle_culprit(out, asked)
    assert info.made, info.reason
    names = zipfile.ZipFile(out).namelist()
    assert "runner/options/0-plan.json" in names
    assert "runner/corrupt.py" in names


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int4", "string", "complex64", "bool", "float32"])
def test_values_of_every_kind_are_read_as_they_were_written(dtype: str, tmp_path: Path) -> None:
    if dtype == "string":
        array = np.array([["a", "\N{SNOWMAN}\udcff"], ["", "b\0"]], object)
    else:
        kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
        array = RNG.normal(size=(2, 3)).astype(np.float32).astype(kind)
    sample = {
        "/a/../b": array, "x.npy": array[:1], "x": array[1:], "s": [array, [array]], "n": None, "e": array[:0],
        "scalar": np.asarray(array[0, 0], array.dtype), "m": {"k": array, 3: array},
    }  # fmt: skip
    described = write_values(tmp_path / "values", [sample, {"x": array}])
    described = json.loads(json.dumps(described))
    read = ValueReader(tmp_path / "values", "here").read(described)
    assert all(same(read[0][name], value) for name, value in sample.items())
    assert same(read[1]["x"], array)
    assert all(path.parent == tmp_path / "values" for path in tmp_path.rglob("*.*"))


def test_a_runner_of_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadOptionError):
        pack_runner("./nobody.py:Runner")


def test_a_folder_that_is_not_there_is_said_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        bundle_culprit(tmp_path / "no" / "culprit.zip", request(tmp_path / "none.onnx", "op=Gemm"))


def test_a_large_model_makes_a_small_bundle_and_its_other_weights_are_not_read(tmp_path: Path) -> None:
    size = 200 << 20
    rows = 256
    columns = size // 4 // 8 // rows
    data = tmp_path / "weights.data"
    part = rows * columns * 4
    with data.open("wb") as file:
        file.truncate(8 * part)  # holes, so that it takes no room here
        file.seek(0)
        file.write(RNG.normal(size=(rows, columns)).astype(np.float32).tobytes())
    tensors, nodes, reads = [], [], "x"
    for i in range(8):
        tensor = onnx.TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT)
        tensor.dims.extend([rows, columns] if i % 2 == 0 else [columns, rows])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": data.name, "offset": i * part, "length": part}.items():
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        nodes += [helper.make_node("MatMul", [reads, f"w{i}"], [f"y{i}"])]
        reads = f"y{i}"
    model = tmp_path / "model.onnx"
    model.write_bytes(model_of(nodes, [declared("x", [1, rows])], ["y7"], tensors).SerializeToString())
    out = tmp_path / "culprit.zip"
    asked = request(model, "op=MatMul,gain=1.01", positions=[0], feeds=[{"x": np.ones((1, rows), np.float32)}])
    info = bundle_culprit(out, asked)
    assert info.made, info.reason
    assert info.nbytes < 1 << 20
    whole = tmp_path / "whole.zip"
    assert bundle_culprit(whole, BundleRequest(**{**vars(asked), "trials": 0})).made
    assert whole.stat().st_size < 1.2 * part
