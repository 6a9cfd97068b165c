"""Tactics, fusions and triage on the simulated TensorRT, each engine in a process of its own."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.find.auto import find_auto
from surgeon_debug.find.engine_ground import Question
from surgeon_debug.find.engine_trials import HowToSearch
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.fusion import find_fusion
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.find.tactic import find_tactic
from surgeon_debug.find.triage import Lever, Suspect, suspect_of
from surgeon_debug.runners.catalogue import make_engine
from surgeon_passes.errors import BadOptionError
from tests.bench.planted_tactics.networks import network
from tests.debug.library_in_process import forgotten, here, loaded
from tests.debug.tensorrt_places import INSTALLED, play
from tests.simulated_tensorrt.plan import Fault, Where

__all__ = ["forgotten"]
pytestmark = pytest.mark.usefixtures("forgotten")

KERNEL = Fault("wrong_values", Where(node="matmul_4", rank=0), amount=1.0)
FUSED = Fault("wrong_values", Where(node="matmul_4"), fused_with=("tanh_6",), amount=1.0)
NODE = Fault("wrong_values", Where(node="matmul_4"), amount=1.0)
TF32 = Fault("wrong_values", Where(node="matmul_4"), tf32=True, amount=1.0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(network("residual", 1, 3), path)
    return path


def installed(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.syspath_prepend(str(INSTALLED / version))
    for name in loaded():
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("version", ["10.16", "11.4"])
def test_a_bad_kernel_is_named_and_avoided(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    installed(monkeypatch, version)
    play(monkeypatch, tmp_path, KERNEL)
    cache = tmp_path / "good.cache"
    found = find_tactic(Question(model), output=cache)
    (one,) = found.culprits
    assert one.members[0].nodes[0] == "matmul_4"
    assert (one.alone, one.cured) == (True, True)
    assert found.cache == str(cache)
    assert found.version.startswith(version)
    assert "--pin" in found.command
    # The cache does what it promises, in a process that knows nothing of the search.
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)}
    outputs = [value.name for value in onnx.load(str(model)).graph.output]
    results = []
    for text in ("onnxruntime", f"tensorrt:cache={cache},strict=true,editable=true", "tensorrt"):
        with make_engine(text, isolated=True, timeout=60) as engine:
            engine.prepare(model, outputs)
            results.append(np.asarray(engine.run(feeds)[outputs[0]]))
    assert np.abs(results[1] - results[0]).max() < 0.01 < np.abs(results[2] - results[0]).max()
    # That cache as the good build: only what differs is searched.
    again = find_tactic(Question(model), good=cache, builder=here)
    assert again.differing == 1
    assert [m.key for m in again.culprits[0].members] == [m.key for m in one.members]


@pytest.mark.parametrize("version", ["10.16", "11.4"])
def test_what_no_tactic_changes_is_said_after_a_census(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Kernels of both orders of channels, so that each round gives neighbours keys that no build has had."""
    path = tmp_path / "strided.onnx"
    proto = network("strided", 2, 10)
    onnx.save(proto, path)
    node = [node.name for node in proto.graph.node if node.op_type == "Conv"][5]
    installed(monkeypatch, version)
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node=node), amount=1.0))
    found = find_tactic(Question(path), builder=here)
    assert found.keys == 24
    assert found.outcome is FindOutcome.UNDECIDED
    assert "not a tactic (or several at once)" in found.reason
    assert found.coverage is not None
    assert found.coverage.failing >= 0.9 * found.coverage.tactics
    most = 8  # tactics of a key
    assert found.builds <= most + 1
    # One kernel of it: the same model, and no more builds than for a model of one format.
    installed(monkeypatch, version)
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node=node, rank=0), amount=1.0))
    named = find_tactic(Question(path), builder=here)
    (one,) = named.culprits
    assert node in one.members[0].nodes
    assert named.builds <= most + 1 + named.differing.bit_length() + 2


def test_a_bad_fusion_is_named_by_knob_and_by_output(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "11.4")
    play(monkeypatch, tmp_path, FUSED)
    found = find_fusion(Question(model), builder=here)
    assert [one.nodes for one in found.culprits] == [("matmul_4", "add_5", "tanh_6")]
    assert len(found.knobs) == 1
    assert "fusion" in found.knobs[0].knob
    assert any("matmul_4" in one.nodes for one in found.regrouped)
    assert "--route" in found.command
    assert found.to_json()["fusion_dependent"] is True


def test_without_knobs_outputs_break_it(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "10.16")
    play(monkeypatch, tmp_path, FUSED)
    found = find_fusion(Question(model), builder=here)
    assert [one.nodes for one in found.culprits] == [("matmul_4", "add_5", "tanh_6")]
    assert found.outputs
    assert not found.knobs
    assert "expose-tensors" in found.command


def test_a_tactic_is_not_taken_for_a_fusion(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "10.16")
    play(monkeypatch, tmp_path, dataclasses.replace(KERNEL, fused_with=("tanh_6",)))
    found = find_fusion(Question(model), builder=here)
    assert found.outcome is FindOutcome.UNDECIDED
    assert not found.culprits
    assert "find tactic" in found.advice


@pytest.mark.parametrize(
    ("fault", "suspect"),
    [
        (KERNEL, Suspect.TACTIC),
        (FUSED, Suspect.FUSION),
        (NODE, Suspect.NODES),
        (TF32, Suspect.PRECISION),
        (dataclasses.replace(KERNEL, effect="nan"), Suspect.TACTIC),
        (dataclasses.replace(KERNEL, every=2), Suspect.TACTIC),
        (dataclasses.replace(KERNEL, effect="execute_false"), Suspect.TACTIC),
        (dataclasses.replace(KERNEL, effect="deserialize_none"), Suspect.TACTIC),
        (dataclasses.replace(KERNEL, effect="build_none"), Suspect.TACTIC),
        (dataclasses.replace(KERNEL, fused_with=("tanh_6",)), Suspect.TACTIC),
        (dataclasses.replace(NODE, effect="nan"), Suspect.NODES),
        (dataclasses.replace(FUSED, effect="nan"), Suspect.FUSION),
    ],
)
def test_triage_says_what_to_search(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, suspect: Suspect
) -> None:
    installed(monkeypatch, "11.4")
    play(monkeypatch, tmp_path, fault)
    found = find_auto(Question(model), builder=here)
    assert found.suspect is suspect, found.why
    assert found.builds == 11
    assert not found.command or found.command.startswith("surgeon ")


def test_triage_gets_round_tactics_that_cannot_be_built(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "11.4")
    refused = [Fault("build_none", Where(node="matmul_8", rank=rank)) for rank in range(1, 4)]
    play(monkeypatch, tmp_path, KERNEL, *refused)
    found = find_auto(Question(model), builder=here)
    assert found.suspect is Suspect.TACTIC, found.why
    assert found.builds <= 11 + 8 + 4 * 3


def test_triage_says_what_it_could_not_try(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "11.4")
    play(monkeypatch, tmp_path, KERNEL, Fault("cache_ignored"))
    found = find_auto(Question(model), builder=here)
    assert found.suspect is not Suspect.NOBODY
    assert found.why.endswith("other tactics could not be tried, so it may be one")


def test_a_healthy_engine_leads_nowhere(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "10.16")
    play(monkeypatch, tmp_path)
    for find in (find_auto, find_fusion, find_tactic):
        found = find(Question(model), builder=here)  # type: ignore[operator]
        assert found.outcome is FindOutcome.NOTHING
        assert found.builds == 1


def test_a_graph_that_is_wrong_by_itself_is_said_to_be(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "10.16")
    play(monkeypatch, tmp_path, KERNEL)
    proto = onnx.load(str(model))
    weight = next(t for t in proto.graph.initializer if t.name == "w2")
    spoilt = onnx.numpy_helper.to_array(weight) * 2
    weight.CopyFrom(onnx.numpy_helper.from_array(spoilt, "w2"))
    rewritten = tmp_path / "rewritten.onnx"
    onnx.save(proto, rewritten)
    for find in (find_tactic, find_fusion, find_auto):
        found = find(Question(rewritten, original=model))  # type: ignore[operator]
        assert found.builds == 0
        assert "graph itself is wrong" in found.reason + getattr(found, "why", "")
    assert find_auto(Question(rewritten, original=model)).suspect is Suspect.GRAPH


def test_a_build_that_hangs_is_no_verdict(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "10.16")
    play(monkeypatch, tmp_path, KERNEL, Fault("build_hang", Where(node="matmul_8", rank=1)))
    found = find_tactic(Question(model, timeout=3))
    assert [m.nodes[0] for m in found.culprits[0].members] == ["matmul_4"]
    assert len(found.culprits) == 1


@pytest.mark.parametrize("version", ["10.16", "11.4"])
@pytest.mark.parametrize("effect", ["deserialize_none", "build_none"])
def test_a_tactic_with_which_there_is_no_engine_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, effect: str
) -> None:
    installed(monkeypatch, version)
    play(monkeypatch, tmp_path, Fault(effect, Where(node="matmul_4", rank=0)))
    found = find_tactic(Question(model), output=tmp_path / "good.cache", builder=here)
    (one,) = found.culprits
    assert [m.nodes[0] for m in one.members] == ["matmul_4"]
    assert one.kind is FailureKind.REFUSED
    assert (one.alone, one.cured) == (True, True)
    assert (tmp_path / "good.cache").stat().st_size > 0
    assert found.builds <= 2 + 8 + 2 + 2


@pytest.mark.parametrize("version", ["10.16", "11.4"])
def test_another_way_not_to_be_built_is_no_verdict(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    installed(monkeypatch, version)
    other = Fault("build_none", Where(node="matmul_8", rank=1))
    play(monkeypatch, tmp_path, Fault("deserialize_none", Where(node="matmul_4", rank=0)), other)
    found = find_tactic(Question(model), builder=here)
    assert [[m.nodes[0] for m in one.members] for one in found.culprits] == [["matmul_4"]]
    assert [op for op, _, _ in found.unusable] == ["matmul_8"]


@pytest.mark.parametrize("version", ["10.16", "11.4"])
@pytest.mark.parametrize(("effect", "word"), [("build_crash", "crashed"), ("build_hang", "hung")])
def test_a_build_that_ends_its_process_says_what_it_did_last(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, effect: str, word: str
) -> None:
    installed(monkeypatch, version)
    play(monkeypatch, tmp_path, Fault(effect, Where(node="matmul_4", rank=0)))
    found = find_tactic(Question(model, timeout=3))
    assert found.outcome is FindOutcome.UNDECIDED
    assert not found.culprits
    assert f"the build {word}" in found.reason
    assert "the last op in its log is 'matmul_8" in found.reason
    assert "which had got tactic 0x" in found.reason
    assert "find nodes" in found.advice
    assert found.builds == 1


def test_a_log_that_ends_in_a_table_says_what_was_timed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "10.16")
    play(monkeypatch, tmp_path, Fault("build_crash", Where(node="matmul_4", rank=0)), Fault("log_truncated"))
    found = find_tactic(Question(model, timeout=20))
    assert "its log ends while op 'matmul_4' (nodes matmul_4, add_5, tanh_6) was being timed" in found.reason


def test_what_is_remembered_is_not_built_again(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "10.16")
    play(monkeypatch, tmp_path, KERNEL)
    how = HowToSearch(resume=tmp_path / "trials")
    first = find_tactic(Question(model), how=how, output=tmp_path / "a.cache", builder=here)
    again = find_tactic(Question(model), how=how, output=tmp_path / "b.cache", builder=here)
    assert first.culprits == again.culprits
    assert again.builds == 0
    assert (tmp_path / "a.cache").read_bytes() == (tmp_path / "b.cache").read_bytes()


@pytest.fixture
def dynamic(tmp_path: Path) -> Path:
    onnx.save(network("dynamic", 1, 3), tmp_path / "dynamic.onnx")
    return tmp_path / "dynamic.onnx"


@pytest.mark.parametrize("version", ["10.16", "11.4"])
def test_a_kernel_that_is_wrong_beside_its_best_sizes_is_found_with_several(
    dynamic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    installed(monkeypatch, version)
    play(monkeypatch, tmp_path, dataclasses.replace(KERNEL, non_opt_shape=True))
    for find in (find_tactic, find_fusion, find_auto):
        found = find(Question(dynamic, dims={"N": 4}), builder=here)  # type: ignore[operator]
        assert found.outcome is FindOutcome.NOTHING
        assert "one size of x only" in found.advice
        assert "--dims N=1..4..8" in found.advice
    draw = np.random.default_rng(0)
    feeds = [{"x": draw.standard_normal((size, 16)).astype(np.float32)} for size in (4, 2, 8)]
    for question in (Question(dynamic, spans={"N": (1, 4, 8)}), Question(dynamic, feeds=feeds)):
        found = find_tactic(question, builder=here)
        assert [m.nodes[0] for m in found.culprits[0].members] == ["matmul_4"]
        assert found.samples == 3


def test_a_second_profile_is_not_in_the_engine_and_its_sizes_are_asked_for(
    dynamic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "11.4")
    play(monkeypatch, tmp_path, dataclasses.replace(KERNEL, profile=1))
    found = find_tactic(Question(dynamic, dims={"N": 4}), builder=here)
    assert found.outcome is FindOutcome.NOTHING
    assert "sizes of another profile are given in the same way" in found.advice


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt:cache=a.cache", "tensorrt:record=here"])
def test_targets_that_cannot_be_searched(model: Path, target: str) -> None:
    with pytest.raises(BadOptionError):
        find_tactic(Question(model, target=target))


def test_what_changes_least_is_believed_first() -> None:
    every = dict.fromkeys(Lever, True)
    assert suspect_of(every)[0] is Suspect.TACTIC
    assert suspect_of({Lever.TF32: True, Lever.TACTICS: False})[0] is Suspect.PRECISION
    assert suspect_of({Lever.OUTPUTS: True, Lever.TACTICS: False})[0] is Suspect.FUSION
    assert suspect_of({Lever.ANEW: True, Lever.TACTICS: False})[0] is Suspect.TACTIC
    assert suspect_of({})[0] is Suspect.NODES
