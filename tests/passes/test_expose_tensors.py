"""New outputs show what the model computed all along; the old ones stay where they were."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_passes.contract import ChangeLog
from surgeon_passes.errors import BadOptionError
from surgeon_passes.expose_tensors import ExposeTensors
from surgeon_passes.spec import build
from tests.numeric import feeds_of, model_of, run

MODEL = """<ir_version: 9, opset_import: ["": 18, "pkg": 1]>
net (float[N,4] x, bool flag) => (float[N,4] y)
<float[4,4] w = {1,2,3,4, 5,6,7,8, 9,1,2,3, 4,5,6,7}>
{
    [mul] h = MatMul(x, w)
    two = Constant<value = float {2}>()
    [scale] s = Mul(h, two)
    [soft] p = Softmax(s)
    [pick] c = If (flag) <then_branch = yes () => (t) { t = Neg(p) }, else_branch = no () => (e) { e = Abs(s) }>
    [call] f = pkg.F(c)
    [last] y = Softmax<axis = 0>(f)
}
<domain: "pkg", opset_import: ["": 18]> F (a) => (b) { i = Neg(a) b = Exp(i) }"""


def load() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(MODEL))


def outputs(model: ir.Model) -> list[str | None]:
    return [value.name for value in model.graph.outputs]


def assert_same_first_output(model: ir.Model) -> onnx.ModelProto:
    before, after = ir.to_proto(load()), ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    for seed in range(2):
        feeds = feeds_of(before, {"N": 3}, seed)
        np.testing.assert_array_equal(run(after, feeds)["y"], run(before, feeds)["y"])
    return after


def test_by_name_and_pattern_in_the_order_of_computation() -> None:
    model = load()
    result = build(ExposeTensors, {"names": "p;h"}).run(model, ChangeLog())
    assert outputs(model) == ["y", "h", "p"]
    after = assert_same_first_output(model)
    feeds = feeds_of(after, {"N": 3})
    w = model.graph.initializers["w"].const_value.numpy()
    np.testing.assert_allclose(run(after, feeds)["h"], feeds["x"] @ w, rtol=1e-6)
    assert [change.before for change in result.changes] == [("h",), ("p",)]
    assert [str(value.shape) for value in model.graph.outputs] == ["[N,4]"] * 3


def test_all_but_constants() -> None:
    model = load()
    ExposeTensors(all=True).run(model, ChangeLog())
    assert outputs(model) == ["y", "h", "s", "p", "c", "f"]
    assert_same_first_output(model)
    assert not ExposeTensors(all=True).run(model, ChangeLog()).changes


def test_a_constant_that_is_named_is_exposed() -> None:
    model = load()
    ExposeTensors(names=("two",)).run(model, ChangeLog())
    assert outputs(model) == ["y", "two"]
    assert_same_first_output(model)


def test_by_operator() -> None:
    model = load()
    ExposeTensors(ops=("Softmax", "pkg::F")).run(model, ChangeLog())
    assert outputs(model) == ["y", "p", "f"]
    assert_same_first_output(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("pp",)}, r"no tensor matches 'pp'; did you mean"),
        ({"names": ("t",)}, r"'t' is only inside 'pick/then_branch'.*extract:inside=pick/then_branch"),
        ({"names": ("i",)}, r"inside 'function:pkg::F'.*inline-functions"),
        ({"names": ("w",)}, r"'w' is an input or a constant"),
        ({"ops": ("Exp",)}, r"'Exp' occurs only inside 'function:pkg::F'"),
        ({"ops": ("Softmx",)}, r"no operator 'Softmx'; did you mean 'Softmax'"),
        ({}, r"needs to know which"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(options: dict[str, tuple[str, ...]], message: str) -> None:
    model = load()
    with pytest.raises(BadOptionError, match=message):
        ExposeTensors(**options).run(model, ChangeLog())  # type: ignore[arg-type]
    assert outputs(model) == ["y"]


def test_untyped_tensors_are_left_out_and_named() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18, "my": 1]>
        net (float[2] x) => (float[2] y) { a = Neg(x) u = my.Thing(a) v = Abs(u) y = Relu(v) }"""
    )
    result = ExposeTensors(all=True).run(model, ChangeLog())
    assert outputs(model) == ["y", "a"]
    assert [declined.node for declined in result.declined] == ["u", "v"]


def test_a_wrong_value_info_does_not_become_an_output_type() -> None:
    model = load()
    value = model.graph.node("scale").outputs[0]
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, 4])
    ExposeTensors(names=("s",)).run(model, ChangeLog())
    assert str(model.graph.outputs[1].shape) == "[N,4]"


def test_each_prefix_of_the_changes_is_a_valid_model() -> None:
    for limit in range(6):
        model = load()
        ExposeTensors(all=True).run(model, ChangeLog(limit=limit))
        assert outputs(model) == ["y", "h", "s", "p", "c", "f"][: limit + 1]
        assert_same_first_output(model)


def test_sequences_can_be_exposed() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18]>
        net (float[2,3] x) => (float[2,3] y) {
            s = SequenceConstruct(x, x)
            zero = Constant<value = int64 {0}>()
            y = SequenceAt(s, zero)
        }"""
    )
    ExposeTensors(names=("s",)).run(model, ChangeLog())
    assert isinstance(model.graph.outputs[1].type, ir.SequenceType)
    onnx.checker.check_model(ir.to_proto(model))
