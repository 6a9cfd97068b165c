"""Looking into an engine, step by step, on the simulated TensorRT with planted faults: where it goes and what heals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from surgeon_debug.comparison import Cause
from surgeon_debug.ladder import LadderVerdict, Step
from surgeon_debug.ladder_runs import Ran, Runs
from surgeon_debug.verdict import Verdict
from tests.debug.ladder_places import C_IS_WRONG, climbed, played_by_step, rung_of, steps
from tests.simulated_tensorrt.plan import Fault, Where


def test_of_a_healthy_engine_every_tensor_is_seen_and_right(
    any_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, found = climbed(monkeypatch, tmp_path)
    assert done.verdict == "agree" and found.verdict is LadderVerdict.RIGHT and done.cause is Cause.NONE
    assert steps(found) == [(Step.WHOLE, False), (Step.UNFUSED, False)]  # no more disturbance than needed
    assert {row.verdict for row in found.rows} <= {Verdict.AGREE, Verdict.SKIPPED}
    assert "y" in [row.title for row in found.rows] and all(row.error is not None for row in found.rows if row.tensors)


def test_rows_say_layer_and_nodes(each_simulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = climbed(monkeypatch, tmp_path)
    assert [(row.title, row.nodes, row.sure) for row in found.rows] == [
        ("b", ("/a", "/b"), True),
        ("d", ("/c", "/d"), True),
        ("y", ("/y",), True),
    ]
    assert all(row.layer for row in found.rows) and found.ambiguous == 0


def test_a_wrong_node_is_located_inside_its_layer(
    each_simulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, found = climbed(monkeypatch, tmp_path, C_IS_WRONG)
    assert found.verdict is LadderVerdict.LOCATED and found.nodes == ("/c",) and found.alone
    assert found.group is not None and found.group.nodes == ("/c", "/d") and found.group.reads == ("b",)
    assert [row.verdict for row in found.rows] == [Verdict.AGREE, Verdict.WRONG, Verdict.INHERITS]
    unfused = rung_of(found, Step.UNFUSED)
    assert unfused.fails and not unfused.split and not unfused.kernels  # the engine is the same
    assert done.verdict == "differ" and done.cause is Cause.LAYER
    assert done.first is not None and (done.first.tensor, done.first.node) == ("d", "/d")
    told = done.to_json()["ladder"]
    assert told["steps"][1]["step"] == "unfused tensors" and told["tensors"][1]["verdict"] == "wrong"


def test_what_marking_heals_is_fusion_dependent(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault("wrong_values", Where(node="/c"), fused_with=("/d",), amount=0.2)
    done, found = climbed(monkeypatch, tmp_path, fault)
    assert found.verdict is LadderVerdict.FUSION and found.nodes == ("/c", "/d") and done.cause is Cause.FUSION
    assert steps(found)[2:] == [(Step.MARKED, False), (Step.PIECE, True)]  # with its fusion it is wrong alone, too
    assert rung_of(found, Step.MARKED).split == (("/c", "/d"),)


def test_healed_without_a_reason_is_no_finding(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = played_by_step(monkeypatch, tmp_path, (C_IS_WRONG,), {Step.UNFUSED: ()})
    assert found.verdict is LadderVerdict.UNKNOWN and not found.nodes
    assert "right with unfused tensors shown" in found.words and "by the same kernels" in found.words


def test_what_unfused_tensors_heal_is_fusion_dependent_too(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that fuses less as soon as unfused tensors are wanted."""
    make, text = Runs.make, Runs.text

    def fuses_less(self: Runs, step: Step, shown: Sequence[str] = ()) -> Ran:
        return make(self, step, ["c"] if step is Step.UNFUSED else shown)

    def marks(self: Runs, step: Step) -> str:
        return text(self, Step.MARKED).replace("/marked", "/unfused") if step is Step.UNFUSED else text(self, step)

    monkeypatch.setattr(Runs, "make", fuses_less)
    monkeypatch.setattr(Runs, "text", marks)
    fault = Fault("wrong_values", Where(node="/c"), fused_with=("/d",), amount=0.2)
    done, found = climbed(monkeypatch, tmp_path, fault)
    assert found.verdict is LadderVerdict.FUSION and found.nodes == ("/c", "/d") and done.verdict == "differ"
    assert steps(found) == [(Step.WHOLE, True), (Step.UNFUSED, False)]


def test_what_only_outputs_heal_is_fusion_dependent_too(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A builder that dies of marked tensors: the step is left out, the next ones are made."""
    fault = Fault("wrong_values", Where(node="/c"), fused_with=("/d",), amount=0.2)
    found = played_by_step(monkeypatch, tmp_path, (fault,), {Step.MARKED: (Fault("build_crash"),)})
    assert found.verdict is LadderVerdict.FUSION and found.nodes == ("/c", "/d")
    assert steps(found)[2:] == [(Step.MARKED, None), (Step.PIECE, True), (Step.OUTPUTS, False)]
    words = rung_of(found, Step.MARKED).words
    assert words.startswith("tensorrt:tf32=false crashed while preparing net.onnx, ended by SIGABRT")


def test_a_builder_that_dies_of_looking_leaves_no_table(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = played_by_step(monkeypatch, tmp_path, (C_IS_WRONG,), {Step.UNFUSED: (Fault("build_none"),)})
    assert found.verdict is LadderVerdict.UNKNOWN and not found.rows
    assert steps(found) == [(Step.WHOLE, True), (Step.UNFUSED, None)] and "could not be looked at" in found.words


def test_a_group_that_is_right_alone(new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault needs another layer in the engine."""
    fault = Fault("wrong_values", Where(node="/c"), also=Where(node="/a"), amount=0.2)
    _, found = climbed(monkeypatch, tmp_path, fault)
    assert found.verdict is LadderVerdict.LOCATED and found.nodes == ("/c",) and found.alone is False
    assert "not when it runs alone" in found.words and steps(found)[-1] == (Step.OUTPUTS, True)
