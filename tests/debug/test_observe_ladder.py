"""Looking into an engine, step by step, on the simulated TensorRT with planted faults: every ending, exact culprits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from surgeon_debug.comparison import Cause, Comparison
from surgeon_debug.ladder import Ladder, LadderVerdict, Rung, Step
from surgeon_debug.ladder_runs import Ran, Runs
from surgeon_debug.observe_ladder import climb
from surgeon_debug.verdict import Verdict
from surgeon_passes.errors import BadOptionError
from tests.debug.tensorrt_places import net, play
from tests.simulated_tensorrt.plan import Fault, Where

C_IS_WRONG = Fault("wrong_values", Where(node="/c"), amount=0.2)

BRANCHES = """<ir_version: 9, opset_import: ["" : 17]>
    net (float[2, 8] x) => (float[2, 8] y, float[2, 8] z) {
        a = MatMul (x, w)
        b = Softmax (a)
        y = MatMul (b, v)
        c = MatMul (x, v)
        d = Softmax (c)
        z = MatMul (d, w)
    }"""


def saved(folder: Path, text: str, **shapes: tuple[int, ...]) -> Path:
    """A model with seeded weights, whose nodes are called by their outputs."""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        weight = (rng.standard_normal(shape) / 3).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}"
    onnx.save(proto, str(folder / "net.onnx"))
    return folder / "net.onnx"


def climbed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *faults: Fault, model: Path | None = None, **traits: object
) -> tuple[Comparison, Ladder]:
    play(monkeypatch, folder, *faults, **{"hidden_share": 0.0, **traits})
    done = climb(model or net(folder), target="tensorrt:tf32=false", timeout=60)
    assert done.ladder is not None
    return done, done.ladder


def steps(found: Ladder) -> list[tuple[Step, bool | None]]:
    return [(rung.step, rung.fails) for rung in found.rungs]


def rung_of(found: Ladder, step: Step) -> Rung:
    rung = found.rung(step)
    assert rung is not None
    return rung


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


def played_by_step(
    monkeypatch: pytest.MonkeyPatch, folder: Path, always: tuple[Fault, ...], at: dict[Step, tuple[Fault, ...]]
) -> Ladder:
    """Climb where the library is another in some steps."""
    make, piece = Runs.make, Runs.piece

    def make_so(self: Runs, step: Step, shown: Sequence[str] = ()) -> Ran:
        play(monkeypatch, folder, *at.get(step, always), hidden_share=0.0)
        return make(self, step, shown)

    def piece_so(self: Runs, *given: Any) -> Any:
        play(monkeypatch, folder, *at.get(Step.PIECE, always), hidden_share=0.0)
        return piece(self, *given)

    monkeypatch.setattr(Runs, "make", make_so)
    monkeypatch.setattr(Runs, "piece", piece_so)
    found = climb(net(folder), target="tensorrt:tf32=false", timeout=60).ladder
    assert found is not None
    return found


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


def test_two_branches_that_go_wrong_are_both_named(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path, BRANCHES, w=(8, 8), v=(8, 8))
    faults = [Fault("wrong_values", Where(node=node), amount=0.3, mode="tile") for node in ("/a", "/c")]
    _, found = climbed(monkeypatch, tmp_path, *faults, model=model)
    assert found.verdict is LadderVerdict.LOCATED and found.nodes == ("/a",)
    assert [group.nodes for group in found.others] == [("/c",)]
    assert "Independently of it one other group goes wrong: /c" in found.words
    assert [row.title for row in found.rows if row.verdict is Verdict.WRONG] == ["a", "c"]


def test_what_the_outputs_hide_is_told(new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is the sign of a large number, which the fault does not change."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
        net (float[2, 8] x) => (float[2, 8] y) { a = MatMul (x, w) b = Softmax (a) c = MatMul (b, v) y = Sign (c) }"""
    model = saved(tmp_path, text, w=(8, 8), v=(8, 8))
    fault = Fault("wrong_values", Where(node="/a"), amount=0.1)
    done, found = climbed(monkeypatch, tmp_path, fault, model=model)
    assert all(result.verdict is Verdict.AGREE for result in done.outputs)
    assert found.verdict is LadderVerdict.HIDDEN and found.nodes == ("/a",) and found.alone
    assert done.verdict == "differ" and done.cause is Cause.LAYER


def test_what_the_rounding_of_inputs_explains_is_no_fault(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference of two numbers that are nearly equal keeps few of their digits, in any engine."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
        net (float[64, 8] x) => (float[64, 8] y) { a = MatMul (x, w) y = Sub (a, near) }"""
    model = saved(tmp_path, text, w=(8, 8))
    proto = onnx.load(str(model))
    x = np.random.default_rng(1).standard_normal((64, 8)).astype(np.float32)
    near = x @ onnx.numpy_helper.to_array(proto.graph.initializer[0]) * np.float32(1 + 1e-5)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(near, "near"))
    onnx.save(proto, str(model))
    play(monkeypatch, tmp_path, hidden_share=0.0)
    done = climb(model, target="tensorrt:tf32=false", feeds=[{"x": x}], timeout=60)
    found = done.ladder
    assert found is not None and found.verdict is LadderVerdict.PRECISION and done.cause is Cause.PRECISION
    assert [row.verdict for row in found.rows] == [Verdict.AGREE, Verdict.ILL_CONDITIONED]
    assert done.verdict == "differ" and steps(found) == [(Step.WHOLE, True), (Step.UNFUSED, True)]
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node="/y"), amount=20.0), hidden_share=0.0)
    found = climb(model, target="tensorrt:tf32=false", feeds=[{"x": x}], timeout=60).ladder
    assert found is not None and found.verdict is LadderVerdict.LOCATED and found.nodes == ("/y",)


def deep(folder: Path, layers: int = 12) -> Path:
    """A long chain of products, each of which adds to the error and lets what it was handed nearly double."""
    steps = " ".join(f"m{i} = MatMul ({f'h{i - 1}' if i else 'x'}, w{i}) h{i} = Sin (m{i})" for i in range(layers))
    text = (
        f'<ir_version: 9, opset_import: ["" : 17]> net (float[4, 64] x) => (float[4, 64] y) '
        f"{{ {steps} y = Relu (h{layers - 1}) }}"
    )
    return saved(folder, text, **{f"w{i}": (64, 64) for i in range(layers)})


def test_an_error_that_grows_from_layer_to_layer_accuses_nobody(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, hidden_share=0.0)
    done = climb(deep(tmp_path), target="tensorrt", timeout=60)  # TF32, as TensorRT has it
    assert done.ladder is not None and done.cause is Cause.PRECISION
    assert done.ladder.verdict is LadderVerdict.PRECISION and "the error grows from layer to layer" in done.ladder.words
    assert {row.verdict for row in done.ladder.rows} == {Verdict.AGREE, Verdict.INHERITS}
    assert steps(done.ladder) == [(Step.WHOLE, True), (Step.UNFUSED, True)]


def test_a_fault_among_errors_that_grow_is_named(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node="/m5"), amount=0.3), hidden_share=0.0)
    done = climb(deep(tmp_path), target="tensorrt", timeout=60)
    assert done.ladder is not None and done.ladder.verdict is LadderVerdict.LOCATED
    assert done.ladder.nodes == ("/m5",) and done.ladder.others == ()


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
    found = climb(net(tmp_path), target="tensorrt:tf32=false", timeout=60).ladder
    assert found is not None and found.verdict is LadderVerdict.UNKNOWN
    assert rung_of(found, Step.UNFUSED).kernels and "another kernel than before" in found.words


def test_only_tensorrt_can_be_looked_into(tmp_path: Path) -> None:
    with pytest.raises(BadOptionError, match="without disturbing"):
        climb(net(tmp_path), target="onnxruntime")
