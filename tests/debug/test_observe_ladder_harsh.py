"""Looking into an engine where faults are several, hidden, explained, flaky or unseen: exact culprits, no others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest

from surgeon_debug.comparison import Cause
from surgeon_debug.ladder import LadderVerdict, Step
from surgeon_debug.ladder_runs import Ran, Runs
from surgeon_debug.observe_ladder import climb
from surgeon_debug.verdict import Verdict
from surgeon_passes.errors import BadOptionError
from tests.debug.deep_net import deep_net
from tests.debug.ladder_places import C_IS_WRONG, climb_here, climbed, played_by_step, rung_of, steps
from tests.debug.tensorrt_places import net, play
from tests.simulated_tensorrt import models
from tests.simulated_tensorrt.plan import Fault, Where

BRANCHES = """<ir_version: 9, opset_import: ["" : 17]>
    net (float[2, 8] x) => (float[2, 8] y, float[2, 8] z) {
        a = MatMul (x, w)
        b = Softmax (a)
        y = MatMul (b, v)
        c = MatMul (x, v)
        d = Softmax (c)
        z = MatMul (d, w)
    }"""


def test_an_error_that_grows_from_layer_to_layer_accuses_nobody(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, hidden_share=0.0)
    done = climb_here(deep_net(tmp_path), "tensorrt")  # TF32, as TensorRT has it
    assert done.ladder is not None and done.cause is Cause.PRECISION
    assert done.ladder.verdict is LadderVerdict.PRECISION and "the error grows from layer to layer" in done.ladder.words
    assert {row.verdict for row in done.ladder.rows} == {Verdict.AGREE, Verdict.INHERITS}
    assert steps(done.ladder) == [(Step.WHOLE, True), (Step.UNFUSED, True)]


def test_a_fault_among_errors_that_grow_is_named(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node="/m5"), amount=0.3), hidden_share=0.0)
    done = climb_here(deep_net(tmp_path), "tensorrt")
    assert done.ladder is not None and done.ladder.verdict is LadderVerdict.LOCATED
    assert done.ladder.nodes == ("/m5",) and done.ladder.others == ()


@pytest.mark.parametrize("trip", [0, 2])
def test_a_fault_inside_a_loop_is_told_with_its_iteration(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trip: int
) -> None:
    fault = Fault("wrong_values", Where(node="halve"), trip=trip, amount=0.3)
    model = tmp_path / "looped.onnx"
    onnx.save(models.looped(4), str(model))
    done, found = climbed(monkeypatch, tmp_path, fault, model=model)
    assert done.verdict != "agree" and found.verdict is LadderVerdict.LOCATED and found.nodes == ("loop",)
    assert found.group is not None and found.group.inside == ("loop/body/halved", str(trip))
    rows = {row.title: row for row in found.rows if row.iteration is not None}
    assert rows["loop/body/halved"].nodes == ("loop/body/halve",) and rows["loop/body/halved"].iteration == trip
    assert rows["loop/body/next"].iteration == trip  # what follows, in the same iteration


def test_an_engine_that_shows_nothing(new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outputs still tell, once tensors are outputs."""
    mute = Fault("listener_never_called")
    done, found = climbed(monkeypatch, tmp_path, mute)
    assert found.verdict is LadderVerdict.RIGHT and "no tensor inside was shown" in found.words
    assert done.notes == ("the engine showed none of its inner tensors",)
    _, found = climbed(monkeypatch, tmp_path, mute, C_IS_WRONG)
    assert found.verdict is LadderVerdict.LOCATED and found.nodes == ("/c",)
    assert steps(found)[-1] == (Step.OUTPUTS, True)


def test_tensors_that_are_never_shown_are_marked(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, found = climbed(monkeypatch, tmp_path, C_IS_WRONG, hidden_share=1.0)
    assert [row.title for row in found.rows] == ["y"]  # an output is seen in any case
    assert found.verdict is LadderVerdict.LOCATED and found.nodes == ("/c",) and found.alone


def test_a_failure_that_comes_and_goes(new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault("wrong_values", Where(node="/c"), amount=0.2, every=2)
    done, found = climbed(monkeypatch, tmp_path, fault)
    assert done.flaky and done.verdict == "differ"
    assert found.verdict is LadderVerdict.LOCATED and found.nodes == ("/c",)
    assert "(in 2 of 4 rounds)" in rung_of(found, Step.UNFUSED).words
    found = played_by_step(monkeypatch, tmp_path, (fault,), {Step.MARKED: ()})
    assert found.verdict is LadderVerdict.UNKNOWN and "comes and goes" in found.words


def test_what_is_computed_together_is_computed_by_the_same_kernels(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every build times anew, and would choose others."""
    _, found = climbed(monkeypatch, tmp_path, C_IS_WRONG, timing_seed=None, timing_noise=1.0)
    assert [rung.kernels for rung in found.rungs] == [()] * 4


def test_another_kernel_is_told(new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Fault("wrong_values", Where(node="/c", rank=0), amount=0.2)
    ignored = Fault("cache_ignored")
    make = Runs.make

    def noisy(self: Runs, step: Step, shown: Sequence[str] = ()) -> Ran:
        play(monkeypatch, tmp_path, wrong, ignored, hidden_share=0.0, timing_noise=0.0 if step is Step.WHOLE else 3.0)
        return make(self, step, shown)

    monkeypatch.setattr(Runs, "make", noisy)
    found = climb_here(net(tmp_path)).ladder
    assert found is not None and found.verdict is LadderVerdict.UNKNOWN
    assert rung_of(found, Step.UNFUSED).kernels and "another kernel than before" in found.words


def test_only_tensorrt_can_be_looked_into(tmp_path: Path) -> None:
    with pytest.raises(BadOptionError, match="without disturbing"):
        climb(net(tmp_path), target="onnxruntime")
