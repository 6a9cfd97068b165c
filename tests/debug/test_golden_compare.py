"""Comparisons against values that were computed earlier: the same answers, or a refusal."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.comparison import Comparison
from surgeon_debug.golden import GoldenReader, GoldenWriter
from surgeon_debug.layers import as_engine, compare_models
from surgeon_debug.pair import LayerOptions
from surgeon_debug.runners.contract import Engine
from surgeon_debug.verdict import Verdict
from surgeon_passes.errors import BadOptionError, EngineError, FileError
from tests.debug.test_inner_layers import loop
from tests.debug.test_layers import branched, half
from tests.debug.wrong_runner import Broken, Wrong
from tests.numeric import feeds_of

ORT = "onnxruntime:optimize=none,threads=1"


@functools.cache
def engine() -> Engine:
    return as_engine(ORT)


@functools.cache
def evaluator() -> Engine:
    return as_engine("reference")


def layers_of(found: Comparison) -> str:
    return json.dumps(found.to_json()["layers"])


def save(path: Path, *, layers: bool | LayerOptions = True, samples: int = 2) -> Path:
    found = compare_models(
        branched(), reference=engine(), target=engine_two(), layers=layers, samples=samples, seed=3, save_reference=path
    )
    assert found.verdict == "agree"
    return path


@functools.cache
def engine_two() -> Engine:
    return as_engine(ORT)


@pytest.mark.parametrize("tensor", ["", "a", "left2", "joined", "z"])
@pytest.mark.parametrize("memory", [1, None])
def test_a_saved_reference_gives_the_same_layers(tmp_path: Path, tensor: str, memory: int | None) -> None:
    path, target, options = tmp_path / "m.golden", Wrong(tensor, 1.01), LayerOptions(memory=memory)
    live = compare_models(
        branched(), reference=engine(), target=target, layers=options, samples=2, seed=3, save_reference=path
    )
    again = compare_models(branched(), reference=engine(), target=target, layers=options, seed=3, against=path)
    assert layers_of(again) == layers_of(live)
    assert [r.difference for r in again.outputs] == [r.difference for r in live.outputs]
    assert (again.verdict, again.samples) == (live.verdict, 2) and again.reference == str(path)
    assert not again.notes and not again.unobserved


def test_the_noise_floor_of_a_recording_is_emulated(tmp_path: Path) -> None:
    path = tmp_path / "m.golden"
    live = compare_models(
        branched(), half(branched()), reference=engine(), target=evaluator(), layers=True, save_reference=path
    )
    again = compare_models(
        branched(), half(branched()), reference=engine(), target=evaluator(), layers=True, against=path
    )
    assert layers_of(again) == layers_of(live)
    assert all(r.floor is not None for r in again.layers)


@pytest.mark.parametrize("at", [None, 2])
def test_loops_are_recorded_inside(tmp_path: Path, at: int | None) -> None:
    path = tmp_path / "m.golden"
    live = compare_models(
        loop(), loop(at), reference=engine(), target=engine_two(), layers=True, seed=1, save_reference=path
    )
    again = compare_models(loop(), loop(at), reference=engine(), target=engine_two(), layers=True, seed=1, against=path)
    assert layers_of(again) == layers_of(live)
    with GoldenReader(path) as kept:
        assert {"loop/body/m", "loop/body/scaled", "start", "y", "all"} <= set(kept.names(0))


def test_what_is_recorded_is_what_the_reference_computes(tmp_path: Path) -> None:
    """Not what the target does, and not what is fed to it."""
    path = tmp_path / "m.golden"
    feeds = [feeds_of(branched(), {"N": size}, size) for size in (1, 4)]
    compare_models(
        branched(), reference=engine(), target=Wrong("left"), feeds=feeds, layers=LayerOptions(memory=1),
        save_reference=path,
    )  # fmt: skip
    names = [node.output[0] for node in branched().graph.node]
    file = tmp_path / "m.onnx"
    onnx.save(branched(), str(file))
    with GoldenReader(path) as kept:
        assert kept.samples == 2
        for sample, fed in enumerate(feeds):
            engine().prepare(file, names)
            wanted = engine().run(fed)
            assert set(kept.names(sample)) == set(names)
            np.testing.assert_array_equal(kept.feeds(sample)["x"], fed["x"])
            for name in names:
                np.testing.assert_array_equal(kept.get(sample, name), wanted[name])


@pytest.mark.parametrize("memory", [1, None])
@pytest.mark.parametrize(("tensor", "named"), [("", None), ("left2", "y"), ("right2", "y"), ("z", "z")])
def test_where_only_outputs_were_recorded_layers_reach_from_the_inputs(
    tmp_path: Path, tensor: str, named: str | None, memory: int | None
) -> None:
    path = save(tmp_path / "m.golden", layers=False)
    found = compare_models(
        branched(), reference=engine(), target=Wrong(tensor), layers=LayerOptions(memory=memory), against=path
    )
    assert [r.tensor for r in found.layers] == ["y", "z"]
    assert {name for name, _ in found.unobserved} == {"a", "left", "right", "left2", "right2", "joined"}
    assert {why for _, why in found.unobserved} == {f"not delivered by {path}"}
    assert all(r.introduced is not None for r in found.layers)
    assert (found.first.tensor if found.first else None) == named
    assert found.verdict == ("agree" if named is None else "differ")


def test_outputs_alone_against_a_recording(tmp_path: Path) -> None:
    path = save(tmp_path / "m.golden", layers=False)
    for layers in (False, True):
        assert compare_models(branched(), reference=Broken("prepare"), target=engine(), against=path).verdict == "agree"
        found = compare_models(branched(), reference=engine(), target=Wrong("y"), layers=layers, against=path)
        assert {r.tensor: r.verdict for r in found.outputs} == {"y": Verdict.DIFFER, "z": Verdict.AGREE}


def test_an_emulator_that_fails_costs_the_floor_alone(tmp_path: Path) -> None:
    """The values are recorded; the engine beside them is only asked what float16 explains."""
    path = save(tmp_path / "m.golden", samples=1)
    found = compare_models(
        branched(), half(branched()), reference=Broken("prepare"), target=evaluator(), layers=True, against=path
    )
    assert len(found.layers) == 8 and not found.wrong
    assert all(r.floor is None for r in found.layers)
    assert all(r.attribution is not None and "on fire" in r.attribution.unjudged for r in found.layers)


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.golden", samples=1)
    with GoldenReader(path) as kept:
        same = {name: np.array(value) for name, value in kept.feeds(0).items()}
    other = {"x": same["x"] + np.float32(1e-6)}
    run = functools.partial(compare_models, branched(), reference=engine(), target=engine_two(), against=path)
    assert run(feeds=[same]).verdict == "agree"
    with pytest.raises(BadOptionError, match="computed from other values of input 'x' in sample 0"):
        run(feeds=[other])
    with pytest.raises(BadOptionError, match="holds 1 samples and the run has 2"):
        run(feeds=[same, same])
    with pytest.raises(BadOptionError, match="other values of input 'x'"):
        run(feeds=[other], layers=True)


def test_an_output_that_was_not_recorded_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.golden", samples=1)
    more = branched()
    more.graph.node.append(onnx.helper.make_node("Neg", ["joined"], ["extra"]))
    more.graph.output.append(onnx.helper.make_tensor_value_info("extra", 1, ["N", 4]))
    for layers in (False, True):
        with pytest.raises(BadOptionError, match="does not hold 'extra'"):
            compare_models(more, reference=engine(), target=engine_two(), layers=layers, against=path)
    gone = tmp_path / "gone.golden"
    with pytest.raises(FileError, match=r"gone\.golden"):
        compare_models(branched(), reference=engine(), target=engine_two(), against=gone)


def test_a_name_that_could_not_be_read_again_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOptionError, match=r"ends in \.golden"):
        compare_models(branched(), reference=engine(), target=engine_two(), save_reference=tmp_path / "m.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_recording_without_inputs_needs_feeds(tmp_path: Path) -> None:
    path, feeds = tmp_path / "m.golden", feeds_of(branched())
    file = tmp_path / "m.onnx"
    onnx.save(branched(), str(file))
    engine().prepare(file, ["y", "z"])
    with GoldenWriter(path) as kept:
        for name, value in engine().run(feeds).items():
            kept.add(0, name, value)
    found = compare_models(branched(), reference=engine(), target=engine_two(), feeds=[feeds], against=path)
    assert found.verdict == "agree"
    assert any("does not say which inputs it was computed from" in note for note in found.notes)


def test_a_recording_of_another_model_of_the_same_outputs(tmp_path: Path) -> None:
    """What a new version of a model no longer has is not compared; the rest is."""
    path = save(tmp_path / "m.golden", samples=1)
    newer = branched()
    for node in newer.graph.node:
        for side in (node.input, node.output):
            for i, name in enumerate(side):
                side[i] = {"left2": "squared"}.get(name, name)
    found = compare_models(newer, reference=engine(), target=Wrong("squared"), layers=True, against=path)
    assert [name for name, _ in found.unobserved] == ["squared"]
    assert found.first is not None and found.first.tensor == "joined"
    assert [r.tensor for r in found.layers if r.verdict is Verdict.WRONG] == ["joined"]


def test_nothing_is_left_behind_where_a_side_fails(tmp_path: Path) -> None:
    path = tmp_path / "m.golden"
    with pytest.raises(EngineError, match="on fire"):
        compare_models(
            branched(), reference=engine(), target=Broken("prepare"), layers=True, save_reference=path
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    path.write_text("older")
    with pytest.raises(EngineError, match="on fire"):
        compare_models(branched(), reference=Broken("prepare"), target=engine(), save_reference=path)
    assert path.read_text() == "older" and list(tmp_path.iterdir()) == [path]


def test_values_recorded_from_a_recording(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one.golden"), tmp_path / "two.golden"
    compare_models(branched(), reference=engine(), target=engine_two(), layers=True, against=one, save_reference=two)
    with GoldenReader(one) as first, GoldenReader(two) as second:
        assert sorted(first.names(1)) == sorted(second.names(1))
        for name in first.names(1):
            np.testing.assert_array_equal(first.get(1, name), second.get(1, name))
