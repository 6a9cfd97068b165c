from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_debug.verification import Allowance, Outcome
from surgeon_debug.verify import Verifier
from surgeon_passes.errors import BadOptionError, RefusalError
from surgeon_passes.graph import load
from tests.numeric import model_of

CHAIN = 20
HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
MAY_ROUND, MAY_RESHAPE = Allowance(reassociates=True), Allowance(changes_interface=True)


def chain(wrong: set[int] = frozenset(), fused: int = 0) -> ir.Model:  # type: ignore[assignment]
    """y = (((x + 1) + 1) ...); the first ``fused`` additions are written as Sub(-1), wrong ones as Mul."""
    lines, before = [], "x"
    for i in range(CHAIN):
        after = "y" if i == CHAIN - 1 else f"t{i}"
        op, constant = ("Mul", "two") if i in wrong else ("Sub", "minus") if i < fused else ("Add", "one")
        lines.append(f"[n{i}] {after} = {op} ({before}, {constant})")
        before = after
    return model_of(f"""{HEAD} g (float[N, 3] x) => (float[N, 3] y)
        <float one = {{1.0}}, float minus = {{-1.0}}, float two = {{2.0}}> {{ {" ".join(lines)} }}""")


def prefixes(wrong: int, unclear: set[int] = frozenset()) -> Callable[[int], ir.Model]:  # type: ignore[assignment]
    """Change number i rewrites node i-1; change ``wrong`` does it wrongly."""

    def run_prefix(count: int) -> ir.Model:
        if count in unclear:
            raise RefusalError("cannot stop here")
        return chain({wrong - 1} if count >= wrong else set(), fused=count)

    return run_prefix


def test_a_rewrite_that_keeps_the_values_is_equal() -> None:
    with Verifier(chain()) as verifier:
        found = verifier.check(chain(fused=7))
    assert found.outcome is Outcome.EQUAL and found.reason == "every output is equal"
    assert found.samples == 2 and not found.altered and not found.undecided


def test_the_model_may_be_rewritten_in_place_afterwards(tmp_path: Path) -> None:
    model = chain()
    with Verifier(model) as verifier:
        model.graph.node(3).op_type = "Mul"
        assert verifier.check(model).altered
        assert not verifier.check(chain()).altered


@pytest.mark.parametrize("wrong", [1, 2, 11, CHAIN])
def test_the_first_wrong_change_is_named_in_few_trials(wrong: int) -> None:
    with Verifier(chain()) as verifier:
        blame = verifier.first_wrong_change(prefixes(wrong), CHAIN)
    assert (blame.first, blame.last, blame.reason) == (wrong, wrong, "")
    assert blame.verification.altered and blame.trials <= 2 + 5


def test_prefixes_that_cannot_be_made_never_move_a_boundary() -> None:
    with Verifier(chain()) as verifier:
        found = verifier.first_wrong_change(prefixes(7, unclear={5, 10, 15}), CHAIN)
        assert (found.first, found.last) == (7, 7)
        found = verifier.first_wrong_change(prefixes(7, unclear={6, 7, 8}), CHAIN)
        assert (found.first, found.last) == (6, 9) and "could not be verified" in found.reason


def test_nothing_to_find_is_said() -> None:
    with Verifier(chain()) as verifier:
        with pytest.raises(BadOptionError, match="after all 20 changes the values are equal"):
            verifier.first_wrong_change(lambda count: chain(fused=count), CHAIN)
        blame = verifier.first_wrong_change(lambda _: chain({3}), CHAIN)
    assert blame.first == 0 and "before any change" in blame.reason


def test_rounding_is_allowed_only_where_arithmetic_was_regrouped() -> None:
    before = model_of(
        f"""{HEAD} g (float[N, 3] x) => (float[N, 3] y) <float c = {{0.1}}, float d = {{0.3}}> {{
            a = Mul (x, c) y = Mul (a, d) }}"""
    )
    after = model_of(f"{HEAD} g (float[N, 3] x) => (float[N, 3] y) <float cd = {{0.03}}> {{ y = Mul (x, cd) }}")
    wrong = model_of(f"{HEAD} g (float[N, 3] x) => (float[N, 3] y) <float cd = {{0.031}}> {{ y = Mul (x, cd) }}")
    with Verifier(before) as verifier:
        strict = verifier.check(after)
        assert strict.altered and "no pass that ran may round" in strict.reason
        assert verifier.check(after, allowance=MAY_ROUND).outcome is Outcome.ROUNDED
        assert verifier.check(wrong, allowance=MAY_ROUND).outcome is Outcome.DIFFERS


def test_a_model_that_no_longer_runs_was_altered() -> None:
    broken = chain()
    broken.graph.initializers["one"].const_value = ir.tensor(np.ones((5, 5), np.float32), name="one")
    broken.graph.initializers["one"].shape = ir.Shape((5, 5))
    with Verifier(chain()) as verifier:
        found = verifier.check(broken)
    assert found.altered and "can no longer be run" in found.reason


def test_outputs_that_come_or_go() -> None:
    more = chain()
    more.graph.outputs.append(more.graph.node(2).outputs[0])
    with Verifier(chain()) as verifier:
        assert verifier.check(more).altered
        found = verifier.check(more, allowance=MAY_RESHAPE)
        assert found.outcome is Outcome.EQUAL and "are not compared: t2" in found.notes[0]
    with Verifier(more) as verifier:
        found = verifier.check(chain())
        assert found.altered and "outputs came or went: t2" in found.reason


def test_a_type_or_shape_that_changed_is_a_difference() -> None:
    plain = f"{HEAD} g (float[2, 3] x) => (float[2, 3] y) {{ y = Neg (x) }}"
    wide = f"{HEAD} g (float[2, 3] x) => (double[2, 3] y) {{ a = Neg (x) y = Cast <to = 11> (a) }}"
    flat = f"{HEAD} g (float[2, 3] x) => (float[6] y) <int64[1] s = {{6}}> {{ a = Neg (x) y = Reshape (a, s) }}"
    with Verifier(model_of(plain)) as verifier:
        assert "type changed from float32 to float64" in verifier.check(model_of(wide)).reason
        assert "shape 2x3 against 6" in verifier.check(model_of(flat)).reason


def test_sizes_that_a_pass_fixed_are_tried() -> None:
    frozen = chain()
    frozen.graph.inputs[0].shape = ir.Shape((4, 3))
    with Verifier(chain()) as verifier:
        assert verifier.check(frozen).altered
        found = verifier.check(frozen, allowance=MAY_RESHAPE)
        assert found.outcome is Outcome.EQUAL and found.outputs[0].difference is not None
        assert found.outputs[0].difference.shape == (4, 3)
        wrong = chain({4})
        wrong.graph.inputs[0].shape = ir.Shape((4, 3))
        assert verifier.check(wrong, allowance=MAY_RESHAPE).altered


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("r = RandomNormalLike (x) y = Add (x, r)", "draws random numbers"),
        ("y = Nothing.of.that.name (x)", "the model was not run"),
    ],
)
def test_what_cannot_be_verified_is_never_a_pass(body: str, reason: str) -> None:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17, "Nothing.of.that" : 1]> g (float[2] x) => (float[2] y) {{ {body} }}'
    )
    with Verifier(proto) as verifier:
        found = verifier.check(proto)
    assert found.outcome is Outcome.UNVERIFIED and found.undecided and not found.altered
    assert reason in found.reason


def test_an_engine_without_a_kernel_says_nothing_about_the_rewrite() -> None:
    plain = model_of('<ir_version: 10, opset_import: ["" : 21]> g (float[2, 2] x) => (float[2, 2] y) { y = Sin (x) }')
    brain = model_of("""<ir_version: 10, opset_import: ["" : 22]> g (float[2, 2] x) => (float[2, 2] y) {
        b = Cast <to = 16> (x) s = Sin (b) y = Cast <to = 1> (s) }""")
    with Verifier(plain) as verifier:
        found = verifier.check(brain, allowance=MAY_ROUND)
    assert found.undecided or found.outcome is Outcome.ROUNDED, found.reason


def test_samples_that_do_not_run_are_mentioned() -> None:
    fussy = f"""{HEAD} g (float[N, 3] x) => (float[M, 3] y) <int64[2] s = {{2, -1}}> {{
        a = Reshape (x, s) t = Transpose (a) b = MatMul (t, a) y = Reshape (b, w) }}""".replace(
        "int64[2] s", "int64[2] w = {-1, 3}, int64[2] s"
    )
    with Verifier(model_of(fussy)) as verifier:
        found = verifier.check(model_of(fussy))
    assert found.outcome is Outcome.EQUAL and found.samples == 1
    assert "1 of 2 inputs did not run" in found.notes[0]


def test_own_inputs_and_sizes() -> None:
    x = np.full((7, 3), 2, np.float32)
    with Verifier(chain(), feeds=[{"x": x}]) as verifier:
        found = verifier.check(chain(fused=3))
        assert found.samples == 1 and found.outputs[0].difference is not None
        assert found.outputs[0].difference.shape == (7, 3)
    with Verifier(chain(), dims={"N": 6}, samples=1) as verifier:
        difference = verifier.check(chain()).outputs[0].difference
        assert difference is not None and difference.shape == (6, 3)
    with pytest.raises(BadOptionError, match="no input has a dimension 'M'"):
        Verifier(chain(), dims={"M": 6})
    with pytest.raises(BadOptionError, match="no input 'z'"):
        Verifier(chain(), feeds=[{"z": x}])


def test_weights_in_data_files_before_and_after(tmp_path: Path) -> None:
    w = onnx.numpy_helper.from_array(np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32), "w")
    proto = onnx.parser.parse_model(f"{HEAD} g (float[N, 64] x) => (float[N, 64] y) {{ y = MatMul (x, w) }}")
    proto.graph.initializer.append(w)
    path = tmp_path / "m.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    after = load(path)
    with Verifier(path) as verifier:
        assert verifier.check(after).outcome is Outcome.EQUAL
        after.graph.initializers["w"].const_value = ir.tensor(np.zeros((64, 64), np.float32), name="w")
        assert verifier.check(after).altered
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.data", "m.onnx"]


def test_emulated_float16_is_equal_within_rounding_not_altered(tmp_path: Path) -> None:
    """Without the Identity onnxruntime keeps the product in float32 up to the Cast: another last bit, same graph."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float16[4, 64] a, float16[64, 4] b) => (float[4, 4] y, float16[4, 4] z) {
        p = MatMul (a, b)
        c = Cast <to = 1> (p)
        y = Identity (c)
        z = Identity (p)
    }
    """
    before = onnx.parser.parse_model(text)
    after = onnx.ModelProto()
    after.CopyFrom(before)
    del after.graph.node[:]
    after.graph.node.extend(
        [onnx.helper.make_node("MatMul", ["a", "b"], ["z"]), onnx.helper.make_node("Cast", ["z"], ["y"], to=1)]
    )
    with Verifier(before, samples=1) as verifier:
        done = verifier.check(after)
        assert not done.altered
        after.graph.node[1].op_type = "Neg"
        after.graph.node[1].ClearField("attribute")
        after.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        assert verifier.check(after).altered
