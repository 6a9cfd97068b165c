"""The demo ends well, for the right reason, and within its promise."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from surgeon.demo_model import build_demo_model
from tests.surgeon.typing_commands import Type


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_story_names_the_layer_and_repairs_it(surgeon: Type, tmp_path: Path, seed: int) -> None:
    said = surgeon("demo", "--keep", tmp_path, "--seed", seed)
    assert said.code == 0, said.out + said.err
    assert "The error starts at /blocks.2/mlp/fc1/MatMul" in said.out
    assert "verified: equal under onnxruntime on 2 samples" in said.out
    assert "The outputs agree again." in said.out
    assert "culprit: node '/head/MatMul' (MatMul) computes wrongly under tiled.py:Tiled" in said.out
    kept = {n.name for n in onnx.load(str(tmp_path / "fixed.onnx")).graph.node if n.op_type != "Cast"}
    assert "/blocks.2/mlp/fc1/MatMul" in kept
    # What the story claims is in the files: the commands it shows say the same of them.
    small, half, fixed = (tmp_path / f"{name}.onnx" for name in ("small", "half", "fixed"))
    assert surgeon("compare", small, half, "--target", "reference").code == 1
    assert surgeon("compare", small, fixed, "--target", "reference").code == 0
    engine = f"{tmp_path / 'tiled.py'}:Tiled"
    assert surgeon("find", "nodes", small, "--target", engine, "--json").document["culprits"] == [["/head/MatMul"]]


def test_the_model_is_what_an_exporter_writes() -> None:
    proto = build_demo_model()
    onnx.checker.check_model(proto, full_check=True)
    assert proto.SerializeToString() == build_demo_model().SerializeToString()
    ops = {node.op_type for node in proto.graph.node}
    assert {"Shape", "Gather", "Concat", "Dropout", "Identity", "Softmax", "LayerNormalization"} <= ops
    assert [d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim] == ["batch", "sequence"]
