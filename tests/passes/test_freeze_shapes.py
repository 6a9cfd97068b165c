"""A frozen model computes what the dynamic one computes at those sizes, and says so in its shapes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_passes.contract import ChangeLog
from surgeon_passes.errors import BadOptionError, RefusalError
from surgeon_passes.freeze_shapes import FreezeShapes
from surgeon_passes.pipeline import run_pipeline
from surgeon_passes.recipe import Recipe
from surgeon_passes.spec import build, spec_of, split_spec
from tests.numeric import feeds_of, model_of, run

MODEL = """<ir_version: 9, opset_import: ["": 18]>
net (float[batch,seq,4] x, float[batch,past,4] old, bool flag) => (float[batch,total,4] y, float[flat,4] z)
<float[batch,seq,4] a, float[batch,sum,4] both, float[double,seq,4] twice>
{
    a = Relu(x)
    both = Concat<axis = 1>(old, a)
    twice = Concat<axis = 0>(a, x)
    rows = Constant<value = int64[2] {-1, 4}>()
    z = Reshape(twice, rows)
    y = If (flag) <
        then_branch = yes () => (float[batch,n,4] p) { p = Neg(both) },
        else_branch = no () => (float[batch,m,4] q) <float[batch,past,4] r> { r = Abs(old) q = Concat<axis = 1>(r, x) }
    >
}"""


def dynamic_model(text: str = MODEL) -> ir.Model:
    """The model with expressions in its value infos, which the text format cannot hold."""
    model = model_of(text)
    for node in model.graph:
        for value in node.outputs:
            if value.name == "both":
                value.shape = ir.Shape(["batch", "past + seq", 4])
            if value.name == "twice":
                value.shape = ir.Shape(["2*batch", "seq", 4])
    return model


def freeze(text: str) -> FreezeShapes:
    step = build(FreezeShapes, split_spec("freeze-shapes:" + text)[1])
    assert isinstance(step, FreezeShapes)
    return step


def shapes_of(model: ir.Model) -> dict[str, str]:
    return {
        value.name or "": str(value.shape)
        for graph in model.graphs()
        for value in (*graph.inputs, *(v for node in graph for v in node.outputs))
    }


def assert_agrees(before: onnx.ModelProto, model: ir.Model, dims: dict[str, int]) -> None:
    later = ir.to_proto(model)
    onnx.checker.check_model(later, full_check=True)
    feeds = feeds_of(before, dims)
    for name, value in run(before, feeds).items():
        np.testing.assert_array_equal(run(later, feeds)[name], value, err_msg=name)


def test_symbols_are_replaced_everywhere_and_expressions_worked_out() -> None:
    model = dynamic_model()
    before = ir.to_proto(model)
    result = freeze("batch=2,seq=3,past=5").run(model, ChangeLog())
    shapes = shapes_of(model)
    assert shapes["x"] == "[2,3,4]" and shapes["old"] == "[2,5,4]"
    assert shapes["both"] == "[2,8,4]" and shapes["twice"] == "[4,3,4]" and shapes["z"] == "[12,4]"
    assert shapes["r"] == "[2,5,4]" and shapes["y"] == "[2,8,4]" and shapes["q"] == "[2,8,4]"
    assert [change.before for change in result.changes] == [("batch=2",), ("seq=3",), ("past=5",)]
    assert result.changes[0].boundary == ("x", "old")
    assert_agrees(before, model, {"batch": 2, "seq": 3, "past": 5})


def test_some_symbols_stay() -> None:
    model = dynamic_model()
    before = ir.to_proto(model)
    freeze("batch=2").run(model, ChangeLog())
    shapes = shapes_of(model)
    assert shapes["x"] == "[2,seq,4]" and shapes["twice"] == "[4,seq,4]" and shapes["both"] == "[2,past + seq,4]"
    assert_agrees(before, model, {"batch": 2, "seq": 3, "past": 1})


def test_by_input_binds_the_symbols_of_its_dimensions() -> None:
    model = dynamic_model()
    before = ir.to_proto(model)
    freeze("x=2x3x4,old=?x1x?").run(model, ChangeLog())
    assert shapes_of(model)["old"] == "[2,1,4]"
    assert_agrees(before, model, {"batch": 2, "seq": 3, "past": 1})


def test_dimensions_without_names_and_inputs_without_rank() -> None:
    model = model_of(
        '<ir_version: 9, opset_import: ["": 18]> net (float[N,4] x, float[2] b) => (float[N,4] y) { y = Abs(x) }'
    )
    model.graph.inputs[0].shape, model.graph.inputs[1].shape = ir.Shape([None, 4]), None
    freeze("x=3x?,b=7").run(model, ChangeLog())
    assert [str(value.shape) for value in model.graph.inputs] == ["[3,4]", "[7]"]
    assert str(model.graph.outputs[0].shape) == "[3,4]"


def test_stale_value_infos_do_not_stand_in_the_way() -> None:
    model = dynamic_model(MODEL.replace("float[batch,seq,4] a,", "float[1,7,4] a,"))
    before = ir.to_proto(model)
    freeze("batch=2,seq=3").run(model, ChangeLog())
    assert shapes_of(model)["a"] == "[2,3,4]"
    assert_agrees(before, model, {"batch": 2, "seq": 3, "past": 2})


def test_symbols_of_functions_are_others() -> None:
    model = model_of(
        """<ir_version: 10, opset_import: ["": 18, "pkg": 1]>
        net (float[N] x, float[M] z) => (float[N] y, float[M] w) { y = pkg.F(x) w = pkg.F(z) }
        <domain: "pkg", opset_import: ["": 18]> F (p) => (q) { r = Neg(p) q = Abs(r) }"""
    )
    inner = next(iter(model.functions[("pkg", "F", "")])).outputs[0]
    inner.type, inner.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N"])
    freeze("N=3").run(model, ChangeLog())
    assert str(inner.shape) == "[None]" and shapes_of(model)["w"] == "[M]"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("bach=1", BadOptionError, "no symbol 'bach'; did you mean 'batch'"),
        ("images=1x3", BadOptionError, "no input 'images'"),
        ("x=2x3", BadOptionError, "has 3 dimensions, not 2"),
        ("x=2x3x5", BadOptionError, "dimension 2 is fixed at 4"),
        ("batch=2,x=3x?x?", BadOptionError, "symbol 'batch' would be 2 and 3"),
        ("batch=2x2", BadOptionError, "batch=2x2 is not a size"),
        ("x=2xax4", BadOptionError, "'a' is not a size"),
        ("batch=-1", BadOptionError, "is not a size"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(text: str, error: type[Exception], message: str) -> None:
    model = dynamic_model()
    before = ir.to_proto(model)
    with pytest.raises(error, match=message):
        freeze(text).run(model, ChangeLog())
    assert ir.to_proto(model) == before


def test_one_symbol_twice_in_an_input_must_agree() -> None:
    model = model_of('<ir_version: 9, opset_import: ["": 18]> net (float[N,N] x) => (float[N,N] y) { y = Abs(x) }')
    with pytest.raises(BadOptionError, match="symbol 'N' would be 2 and 3"):
        freeze("x=2x3").run(model, ChangeLog())


def test_sizes_that_the_operators_do_not_take_are_refused() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18]>
        net (float[N,4] x) => (float[M,4] y) <float[3,4] c> { [sum] y = Add(x, c) }""".replace(
            "<float[3,4] c>", "<float[3,4] c = {1,2,3,4,5,6,7,8,9,1,2,3}>"
        )
    )
    before = ir.to_proto(model)
    log = ChangeLog()
    with pytest.raises(RefusalError, match=r"with N=2 the operators do not fit together.*sum"):
        freeze("N=2").run(model, log)
    assert ir.to_proto(model) == before and not log.changes
    freeze("N=3").run(model, ChangeLog())


def test_a_default_value_has_the_size_it_has() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18]>
        net (float[N] x, float[M] d) => (float[N] y, float[M] e) <float[3] d = {1, 2, 3}> { y = Abs(x) e = Neg(d) }"""
    )
    with pytest.raises(BadOptionError, match=r"default value of input 'd' has shape \[3\]"):
        freeze("M=4").run(model, ChangeLog())
    freeze("M=3,N=2").run(model, ChangeLog())
    assert str(model.graph.inputs[1].shape) == "[3]"


def test_each_prefix_of_the_changes_is_a_valid_model() -> None:
    dims = {"batch": 2, "seq": 3, "past": 1}
    for limit in range(4):
        model = dynamic_model()
        before = ir.to_proto(model)
        result = freeze("batch=2,seq=3,past=1").run(model, ChangeLog(limit=limit))
        assert len(result.changes) == limit
        assert_agrees(before, model, dims)
        if limit == 0:
            assert ir.to_proto(model) == before


def test_text_round_trip() -> None:
    assert spec_of(freeze("batch=2,x=?x3x4")) == "freeze-shapes:batch=2,x=?x3x4"


def test_names_with_a_hyphen_are_names() -> None:
    model = model_of('<ir_version: 9, opset_import: ["": 18]> net (float[N,M] x) => (float[N,M] y) { y = Abs(x) }')
    model.graph.inputs[0].shape = ir.Shape(["batch-size", "size"])
    freeze("size=3").run(model, ChangeLog())
    assert str(model.graph.inputs[0].shape) == "[batch-size,3]"
    build(FreezeShapes, {"batch-size": "1"}).run(model, ChangeLog())
    assert str(model.graph.inputs[0].shape) == "[1,3]"


def test_in_a_pipeline_the_interface_may_change() -> None:
    model = dynamic_model()
    run_pipeline(model, Recipe((freeze("batch=1"),)))
    assert str(model.graph.inputs[0].shape) == "[1,seq,4]"


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), st.sets(st.sampled_from(["batch", "seq", "past"])))
def test_any_sizes_agree_with_the_dynamic_model(batch: int, seq: int, past: int, chosen: set[str]) -> None:
    dims = {"batch": batch, "seq": seq, "past": past}
    model = dynamic_model()
    before = ir.to_proto(model)
    if chosen:
        freeze(",".join(f"{name}={dims[name]}" for name in sorted(chosen))).run(model, ChangeLog())
    assert_agrees(before, model, dims)
