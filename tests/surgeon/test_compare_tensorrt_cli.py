"""``compare --layers`` on TensorRT, with the simulated one where it takes one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.debug.tensorrt_places import net, play
from tests.simulated_tensorrt.plan import Fault, Where

Command = Callable[..., Any]
TARGET = ("--target", "tensorrt:tf32=false", "--layers")
C_IS_WRONG = Fault("wrong_values", Where(node="/c"), amount=0.2)


def test_what_fusion_has_left_is_shown_of_a_right_engine(surgeon: Command, any_tensorrt: str, tmp_path: Path) -> None:
    said = surgeon("compare", net(tmp_path), *TARGET)
    assert said.code == 0 and said.out.startswith("agree ")
    assert "right: the outputs are right, and so is every tensor that fusion has left" in said.out
    assert "engine layer" in said.out and "computes" in said.out and "steps, each more" not in said.out


def test_where_the_error_starts(
    surgeon: Command, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, C_IS_WRONG, hidden_share=0.0)
    model, result, noted = net(tmp_path), tmp_path / "result.json", tmp_path / "noted.onnx"
    said = surgeon("compare", model, *TARGET, "--save", result, "--annotate", noted)
    assert said.code == 1 and said.out.startswith("DIFFER: a layer is wrong  ")
    lines = said.out.splitlines()
    assert "located: /c is given right values and makes wrong ones, also when it runs alone" in lines
    (row,) = [line.split() for line in lines if " wrong " in f"{line} " and "/c, /d" in line]
    assert row[:2] == ["2", "d"] and "/c_myl0_1" in row
    assert len(lines) <= 40 and any(line.startswith("next: surgeon find tactic ") for line in lines)
    kept = json.loads(result.read_text())
    assert kept["cause"] == "layer" and kept["ladder"]["nodes"] == ["/c"] and kept["first"]["tensor"] == "d"
    notes = {node.name: {e.key: e.value for e in node.metadata_props} for node in onnx.load(str(noted)).graph.node}
    assert notes["/d"]["surgeon.verdict"] == "wrong" and notes["/b"]["surgeon.verdict"] == "agree"


def test_looking_that_heals(
    surgeon: Command, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node="/c"), fused_with=("/d",), amount=0.2))
    said = surgeon("compare", net(tmp_path), *TARGET)
    assert said.code == 1 and said.out.startswith("DIFFER: but not while anybody looks inside")
    words = " ".join(said.out.split())
    assert "fusion dependent: the outputs are right with a few tensors marked" in words
    assert "/c, /d are computed together" in words
    command = "next: surgeon find fusion net.onnx --target tensorrt:tf32=false says"
    assert command in words.replace(str(tmp_path) + "/", "")


def test_piece_by_piece_is_one_option_away(surgeon: Command, any_tensorrt: str, tmp_path: Path) -> None:
    model = net(tmp_path)
    said = surgeon("compare", model, *TARGET, "--pieces", "--json")
    assert said.code == 0 and "ladder" not in said.document and len(said.document["layers"]) == 5
    assert surgeon("compare", model, *TARGET, "--pieces", "--no-whole", "--memory", "64MB").code == 0
    said = surgeon("compare", model, "--target", "tensorrt", "--pieces")
    assert said.code == 2 and "--pieces means nothing without layers" in said.err


@pytest.mark.parametrize("option", [("--memory", "1GB"), ("--no-isolate",), ("--whole",), ("--no-whole",)])
def test_options_of_the_other_way_are_refused(surgeon: Command, tmp_path: Path, option: tuple[str, ...]) -> None:
    said = surgeon("compare", net(tmp_path), *TARGET, *option)
    assert said.code == 2 and "is about comparing piece by piece" in said.err and "add --pieces" in said.err


def test_two_models_are_compared_piece_by_piece(surgeon: Command, any_tensorrt: str, tmp_path: Path) -> None:
    model = net(tmp_path)
    said = surgeon("compare", model, model, *TARGET, "--json")
    assert said.code == 0 and "ladder" not in said.document


def test_values_are_kept_and_used_again(
    surgeon: Command, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, C_IS_WRONG, hidden_share=0.0)
    model, golden = net(tmp_path), tmp_path / "net.golden"
    first = surgeon("compare", model, *TARGET, "--save-reference", golden, "--seed", "5", "--json")
    assert first.code == 1 and golden.exists()
    again = surgeon("compare", model, *TARGET, "--against", golden, "--json")
    assert again.code == 1 and again.document["reference"] == str(golden)
    for one, other in zip(first.document["ladder"]["tensors"], again.document["ladder"]["tensors"], strict=True):
        assert one == other
    assert again.document["ladder"]["nodes"] == ["/c"]


def test_own_limits_judge_outputs_and_that_is_said(
    surgeon: Command, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, C_IS_WRONG, hidden_share=0.0)
    said = surgeon("compare", net(tmp_path), *TARGET, "--metric", "rel_l2<0.9")
    words = " ".join(said.out.split())
    assert "output y: agree" in words and "note: your limits judge the outputs" in words
    assert said.code == 1 and "hidden: the outputs are right, but /c is given right values" in words


def test_samples_of_several_sizes(
    surgeon: Command, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault shows at sizes that the engine was not made fast for: in the second sample alone."""
    model = net(tmp_path)
    proto = onnx.load(str(model))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(proto, str(model))
    for sample, size in enumerate((2, 5)):
        folder = tmp_path / "feeds" / str(sample)
        folder.mkdir(parents=True)
        value = np.random.default_rng(sample).standard_normal((size, 8)).astype(np.float32)
        (folder / "input_0.pb").write_bytes(onnx.numpy_helper.from_array(value, "x").SerializeToString())
    play(monkeypatch, tmp_path, hidden_share=0.0)
    assert surgeon("compare", model, *TARGET, "--feeds", tmp_path / "feeds").code == 0
    fault = Fault("wrong_values", Where(node="/c"), amount=0.2, non_opt_shape=True)
    play(monkeypatch, tmp_path, fault, hidden_share=0.0)
    said = surgeon("compare", model, *TARGET, "--feeds", tmp_path / "feeds", "--json")
    assert said.code == 1 and said.document["samples"] == 2 and said.document["ladder"]["nodes"] == ["/c"]
    looks = said.document["ladder"]["steps"][1]["looks"]
    assert {look["run"] for look in looks if look["rel_l2"] > 0.01} == {1}


def test_in_python_too(new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import surgeon
    from surgeon_debug.pair import LayerOptions

    play(monkeypatch, tmp_path, C_IS_WRONG, hidden_share=0.0)
    done = surgeon.compare(net(tmp_path), target="tensorrt:tf32=false", layers=True)
    assert done.ladder is not None and done.ladder.nodes == ("/c",) and done.verdict == "differ"
    by_pieces = surgeon.compare(net(tmp_path), target="tensorrt:tf32=false", layers=LayerOptions())
    assert by_pieces.ladder is None and by_pieces.first is not None and by_pieces.first.node == "/c"
