"""The script in a bundle judges as this package does, on every engine and type that it knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from surgeon_debug.bundle import Story, make_bundle
from surgeon_debug.find import culprit_piece
from surgeon_debug.find.culprit_piece import CulpritPiece
from surgeon_debug.find.oracle import FailureKind, Signature
from surgeon_debug.find.piece_failure import OutputRule, PieceFailure
from surgeon_debug.packed_runner import PackedRunner
from surgeon_debug.replay import replay
from surgeon_debug.reproduce_script import reproduce_script
from surgeon_debug.search.trial import Outcome
from surgeon_debug.values import numpy_dtype
from tests.debug.test_culprit_piece import declared

WRONG = Signature(FailureKind.WRONG_NUMBERS)
BARE = """
import sys
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("surgeon", "surgeon_debug", "surgeon_passes", "onnx_ir", "surgeon_search"):
            raise ImportError(f"{name} is not to be used")
sys.meta_path.insert(0, Bare())
"""


def piece_of(op: str, kind: int, array: Any, **attributes: Any) -> CulpritPiece:
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", [declared("x", list(array.shape), kind)], [onnx.ValueInfoProto(name="y")])
    opset = [helper.make_opsetid("", 21)]
    piece = CulpritPiece(
        helper.make_model(graph, ir_version=10, opset_imports=opset), {}, ({"x": array},), ("y",), ("y",)
    )
    return piece.changed()


def bundled(out: Path, piece: CulpritPiece, expected: Any, target: str, rule: float = 1e-3) -> None:
    failure = PieceFailure(WRONG, {"y": OutputRule("float32", rule)})
    info = make_bundle(out, piece.with_expected([{"y": expected}]), failure, Story("reference", target, "It is wrong."))
    assert info.made, info.reason
    assert "reproduce.py showed the failure in a clean process." in info.notes


def reproduced(out: Path, folder: Path) -> tuple[int, str]:
    with zipfile.ZipFile(out) as archive:
        archive.extractall(folder)
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BARE)
    done = subprocess.run(
        [sys.executable, str(folder / "reproduce.py")],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("target", ["onnxruntime:optimize=none,threads=1", "openvino:precision=f32", "reference"])
def test_every_engine_it_knows(target: str, tmp_path: Path) -> None:
    if target.startswith("openvino"):
        pytest.importorskip("openvino")
    array = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6)
    out = tmp_path / "culprit.zip"
    bundled(out, piece_of("Relu", TensorProto.FLOAT, array), np.maximum(array, 0) * 1.1, target)
    code, said = reproduced(out, tmp_path / "there")
    assert code == 1, said
    result = replay(out)
    assert result.outcome is Outcome.REPRODUCES
    assert result.same_bits


@pytest.mark.parametrize(
    "kind",
    [
        TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2, TensorProto.INT4,
        TensorProto.UINT4, TensorProto.INT8, TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.INT64,
    ],
)  # fmt: skip
def test_every_type(kind: int, tmp_path: Path) -> None:
    array = np.array([[0, 1, 2], [3, 4, 1]], np.float32).astype(numpy_dtype(kind))
    other = np.array([[0, 1, 2], [3, 6, 1]], np.float32).astype(numpy_dtype(kind))
    if kind == TensorProto.BOOL:
        other = ~array
    out = tmp_path / "culprit.zip"
    # onnxruntime has no Identity for the types of four bits.
    op, attributes = (
        ("Transpose", {"perm": [0, 1]}) if kind in (TensorProto.INT4, TensorProto.UINT4) else ("Identity", {})
    )
    bundled(out, piece_of(op, kind, array, **attributes), other, "onnxruntime:optimize=none,threads=1")
    code, said = reproduced(out, tmp_path / "there")
    assert code == 1, said
    assert "1 of 6 unequal" in said or kind == TensorProto.BOOL
    assert replay(out).outcome is Outcome.REPRODUCES


def test_text(tmp_path: Path) -> None:
    array = np.array(["one", "two \N{SNOWMAN}"], object)
    other = np.array(["one", "too"], object)
    out = tmp_path / "culprit.zip"
    bundled(out, piece_of("Identity", TensorProto.STRING, array), other, "onnxruntime:optimize=none")
    code, said = reproduced(out, tmp_path / "there")
    assert code == 1, said
    assert replay(out).outcome is Outcome.REPRODUCES


def test_without_the_engine_it_cannot_run(tmp_path: Path) -> None:
    array = np.ones((2, 3), np.float32)
    out = tmp_path / "culprit.zip"
    bundled(out, piece_of("Relu", TensorProto.FLOAT, array), 2 * array, "onnxruntime:optimize=none")
    folder = tmp_path / "there"
    with zipfile.ZipFile(out) as archive:
        archive.extractall(folder)
    (folder / "onnxruntime.py").write_text("raise ImportError('no engine')")
    done = subprocess.run([sys.executable, str(folder / "reproduce.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot run: onnxruntime is not installed" in done.stdout
    (folder / "bundle.json").write_text("[]")
    done = subprocess.run([sys.executable, str(folder / "reproduce.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 2


def test_a_right_engine_is_clean(tmp_path: Path) -> None:
    array = np.ones((2, 3), np.float32)
    out = tmp_path / "culprit.zip"
    bundled(out, piece_of("Relu", TensorProto.FLOAT, array), 2 * array, "onnxruntime:optimize=none")
    folder = tmp_path / "there"
    with zipfile.ZipFile(out) as archive:
        archive.extractall(folder)
    with np.load(folder / "seen" / "0.npz") as seen, (folder / "expected" / "0.npz").open("wb") as file:
        np.savez(file, **{name: seen[name] for name in seen.files})
    done = subprocess.run([sys.executable, str(folder / "reproduce.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_engine_that_only_this_package_has_gets_no_script() -> None:
    assert reproduce_script(PackedRunner("command:run=x", "command", "", {"run": "x"})) is None


def script_module() -> dict[str, Any]:
    text = reproduce_script(PackedRunner("reference", "reference", "", {}))
    assert text is not None
    found: dict[str, Any] = {"__name__": "script", "__file__": __file__}
    exec(compile(text, "reproduce.py", "exec"), found)
    return found


SPECIAL = st.sampled_from([0.0, 1.0, -1.0, 1.0001, 1e-30, 3e38, float("nan"), float("inf"), float("-inf")])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(SPECIAL, SPECIAL), min_size=1, max_size=6),
    st.sampled_from(["float32", "float64", "int32", "uint64", "bool", "complex64", "float16"]),
    st.sampled_from([1e-5, 1e-1]),
    st.booleans(),
)
def test_the_script_judges_as_the_package_does(
    pairs: list[tuple[float, float]], dtype: str, rule: float, rounds: bool
) -> None:
    with np.errstate(all="ignore"):
        exact = np.dtype(dtype).kind in "biu"
        sides = [np.array([p[i] for p in pairs]) for i in (0, 1)]
        if exact:
            sides = [np.nan_to_num(side, posinf=3, neginf=2, nan=5).clip(-5, 5) for side in sides]
            sides = [abs(side) if dtype == "uint64" else side for side in sides]
        one, other = (side.astype(dtype) for side in sides)
    failure = PieceFailure(WRONG, {"y": OutputRule("float32", rule, rounds)})
    ours = failure.of_values([{"y": one}], [{"y": other}]).signature is not None
    own = failure.to_json()["rules"]["y"]
    assert script_module()["compare"]("y", own, [{"y": one}], [{"y": other}]) == ours


def test_the_document_says_when_numbers_are_infinite(tmp_path: Path) -> None:
    array = np.ones((2, 3), np.float32)
    out = tmp_path / "culprit.zip"
    bundled(out, piece_of("Relu", TensorProto.FLOAT, array), 0 * array, "onnxruntime:optimize=none")
    with zipfile.ZipFile(out) as archive:
        assert json.loads(archive.read("bundle.json"))["failure"]["error"] == "inf"
    assert reproduced(out, tmp_path / "there")[0] == 1


def test_large_weights_lie_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(culprit_piece, "INSIDE_LIMIT", 5000)
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    array = np.ones((2, 64), np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    held = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 64])
    graph = helper.make_graph(
        [node], "g", [declared("x", [2, 64])], [onnx.ValueInfoProto(name="y")], [held]
    )  # fmt: skip
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    piece = CulpritPiece(model, {"w": weights}, ({"x": array},), ("y",), ("MatMul(y)",)).changed()
    out = tmp_path / "culprit.zip"
    bundled(out, piece, 1.5 * (array @ weights), "onnxruntime:optimize=none")
    with zipfile.ZipFile(out) as archive:
        assert archive.getinfo("model.onnx.data").file_size == weights.nbytes
        assert archive.getinfo("model.onnx").file_size < 1000
    code, said = reproduced(out, tmp_path / "there")
    assert code == 1, said
    assert replay(out).outcome is Outcome.REPRODUCES
