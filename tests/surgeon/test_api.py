"""The Python face: every kind of model goes in, and none is changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import surgeon


def kinds(path: Path) -> dict[str, object]:
    return {"text": str(path), "path": path, "proto": onnx.load(str(path)), "model": surgeon.load(path)}


def fingerprint(model: object) -> bytes:
    if isinstance(model, ir.Model):
        return surgeon.to_proto(model).SerializeToString(deterministic=True)
    if isinstance(model, onnx.ModelProto):
        return model.SerializeToString(deterministic=True)
    return Path(str(model)).read_bytes()


@pytest.mark.parametrize("kind", ["text", "path", "proto", "model"])
def test_every_function_takes_every_kind_and_changes_none(kind: str, model: Path, tmp_path: Path) -> None:
    given = kinds(model)[kind]
    before = fingerprint(given)
    done = surgeon.rewrite(given, "simplify", verify=True)
    assert [node.op_type for node in done.model.graph] == ["MatMul", "Relu", "Gather"]
    assert done.verified is not None
    assert done.verified.verification.exact
    assert len(done.changes) == len(done.report.changes) > 0
    assert len(surgeon.simplify(given).graph) == 3
    assert len(surgeon.rewrite(given, ["name-everything", surgeon.Recipe(())]).model.graph) == 8
    piece = surgeon.extract(given, outputs=["product"])
    surgeon.save(piece, tmp_path / "piece.onnx")
    values = surgeon.run(given, feeds={"x": np.eye(4, dtype=np.float32), "ids": np.array([1])}, outputs=["product"])
    np.testing.assert_array_equal(values["product"][0], [1, 2, 3, 4])
    assert surgeon.compare(given, target="reference", layers=True).verdict == "agree"
    assert surgeon.compare(given, done.model, target="onnxruntime").verdict == "agree"
    surgeon.save(given, tmp_path / "copy.onnx")
    assert fingerprint(given) == before


def test_a_changed_value_is_an_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "edit.py").write_text(
        "def edit(graph):\n    graph.tensors()['w'].values = graph.tensors()['w'].values + 1\n    return graph\n"
    )
    with pytest.raises(surgeon.SurgeonError, match="first altered by change 1: gs"):
        surgeon.rewrite(model, [f"gs:{tmp_path / 'edit.py'}:edit"], verify=True)


def test_bad_arguments_get_a_sentence(model: Path, tmp_path: Path) -> None:
    for call in (
        lambda: surgeon.rewrite(model, []),
        lambda: surgeon.rewrite(model, "simplfy"),
        lambda: surgeon.save(model, tmp_path / "o.onnx", weights="outside"),
        lambda: surgeon.run(model, feeds={"x": np.eye(4, dtype=np.float32)}),
        lambda: surgeon.run(model, feeds="nothing.npz"),
        lambda: surgeon.compare(model, target="nothing"),
        lambda: surgeon.load("nothing.onnx"),
    ):
        with pytest.raises(surgeon.SurgeonError) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_runner_may_be_an_object(model: Path) -> None:
    class Twice:
        def prepare(self, model_path: Path, outputs: list[str]) -> None:
            self.outputs = outputs

        def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: np.zeros((2, 4), np.float32) for name in self.outputs}

    result = surgeon.compare(model, target=Twice())
    assert result.verdict == "differ"
    assert surgeon.run(model, Twice(), outputs=["y"])["y"].sum() == 0
