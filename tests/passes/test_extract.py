"""A piece computes, from the tensors the whole model computed, what the whole model computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_passes.contract import ChangeLog
from surgeon_passes.errors import BadModelError, BadOptionError, RefusalError
from surgeon_passes.extract import Extract, extract
from surgeon_passes.fidelity import SPARSE
from surgeon_passes.spec import build, spec_of
from tests.numeric import feeds_of, model_of, run
from tests.passes.test_inline_functions import FORWARDED

BRANCHES = """<ir_version: 9, opset_import: ["": 18]>
net (bool flag, float[N,4] x, float[N,4] y) => (float[N,4] out, float[N,4] side)
<float[4,4] w = {1,2,3,4, 5,6,7,8, 9,1,2,3, 4,5,6,7}, float[4] bias = {0.5, -1, 2, 0.25}>
{
    [mul] h = MatMul(x, w)
    two = Constant<value = float {2.0}>()
    [scale] s = Mul(h, two)
    [add] a = Add(s, y)
    [pick] p = If (flag) <
        then_branch = yes () => (float[N,4] t) { [inner] t0 = Add(a, bias) [act] t = Relu(t0) },
        else_branch = no () => (float[N,4] e) { [neg] e = Neg(s) }
    >
    [last] out = Sub(p, h)
    [aside] side = Abs(a)
}"""


def extract_piece(model: ir.Model, **options: Any) -> ir.Model:
    return extract(model, **options).model


def with_all_outputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every tensor of its main graph as an output."""
    full = onnx.ModelProto()
    full.CopyFrom(proto)
    typed = onnx.shape_inference.infer_shapes(full)
    have = {o.name for o in full.graph.output}
    full.graph.output.extend(i for i in typed.graph.value_info if i.name not in have)
    return full


def assert_piece_agrees(model: ir.Model, piece: ir.Model, dims: dict[str, int] | None = None) -> onnx.ModelProto:
    """Feed the piece what the whole computed; every output must be equal to the bit."""
    whole, part = ir.to_proto(model), ir.to_proto(piece)
    onnx.checker.check_model(part, full_check=True)
    feeds = feeds_of(whole, dims)
    seen = {**feeds, **run(with_all_outputs(whole), feeds)}
    defaults = {t.name for t in part.graph.initializer}
    given_to = {i.name: seen[i.name] for i in part.graph.input if i.name not in defaults}
    for name, value in run(part, given_to).items():
        np.testing.assert_array_equal(value, seen[name], err_msg=name)
    return part


def names(values: list[ir.Value]) -> list[str | None]:
    return [value.name for value in values]


def test_only_outputs_given_finds_the_inputs() -> None:
    model = model_of(BRANCHES)
    part = assert_piece_agrees(model, extract_piece(model, outputs=["a"]))
    assert [i.name for i in part.graph.input] == ["x", "y"]
    assert [n.name for n in part.graph.node] == ["mul", "", "scale", "add"]
    assert [t.name for t in part.graph.initializer] == ["w"]


def test_cut_between_tensors() -> None:
    model = model_of(BRANCHES)
    part = assert_piece_agrees(model, extract_piece(model, inputs=["s", "y"], outputs=["a"]))
    assert [n.name for n in part.graph.node] == ["add"]
    assert not part.graph.initializer


def test_a_node_with_bodies_comes_with_what_they_capture() -> None:
    model = model_of(BRANCHES)
    piece = extract_piece(model, inputs=["a"], outputs=["p"])
    assert names(piece.graph.inputs) == ["a", "flag", "x"]
    assert_piece_agrees(model, piece)
    assert set(piece.graph.initializers) == {"w", "bias"}


def test_model_inputs_still_needed_are_added_and_reported() -> None:
    model = model_of(BRANCHES)
    done = extract(model, inputs=["s"], outputs=["a"])
    assert done.added_inputs == ("y",)
    assert names(done.model.graph.inputs) == ["s", "y"]


def test_only_inputs_given_takes_the_outputs_that_depend_on_them() -> None:
    model = model_of(BRANCHES)
    assert names(extract_piece(model, inputs=["p"]).graph.outputs) == ["out"]
    assert names(extract_piece(model, inputs=["a"]).graph.outputs) == ["out", "side"]


def test_a_weight_can_be_cut_off() -> None:
    model = model_of(BRANCHES)
    piece = extract_piece(model, inputs=["w"], outputs=["h"])
    assert names(piece.graph.inputs) == ["w", "x"] and not piece.graph.initializers
    onnx.checker.check_model(ir.to_proto(piece))


def test_by_nodes_the_border_becomes_the_interface() -> None:
    model = model_of(BRANCHES)
    part = assert_piece_agrees(model, extract_piece(model, nodes=["s*e", "add"]))
    assert [i.name for i in part.graph.input] == ["h", "y"]
    assert [o.name for o in part.graph.output] == ["s", "a"]
    assert "two" in {name for n in part.graph.node for name in n.output}


def test_by_regular_expression_and_by_label() -> None:
    model = model_of(BRANCHES)
    assert extract_piece(model, nodes=["re:^(mul|add)$"]).graph.num_nodes() == 2
    model.graph.node("aside").name = None
    assert names(extract_piece(model, nodes=["Abs(side)"]).graph.outputs) == ["side"]


def test_brackets_in_names_are_names_first() -> None:
    model = model_of(BRANCHES)
    model.graph.node("mul").name, model.graph.node("add").name = "/layer[0]/mul", "/layer0/mul"
    assert [n.name for n in extract_piece(model, nodes=["/layer[0]/mul"]).graph] == ["/layer[0]/mul"]


def test_inside_a_branch_captured_values_become_inputs_and_constants_come_along() -> None:
    model = model_of(BRANCHES)
    piece = extract_piece(model, inside="pick/then_branch")
    assert names(piece.graph.inputs) == ["a"]
    assert set(piece.graph.initializers) == {"bias"}
    assert [n.name for n in piece.graph] == ["inner", "act"]
    part = ir.to_proto(piece)
    onnx.checker.check_model(part, full_check=True)
    value = np.linspace(-8, 8, 8, dtype=np.float32).reshape(2, 4)
    bias = np.array([0.5, -1, 2, 0.25], np.float32)
    np.testing.assert_array_equal(run(part, {"a": value})["t"], np.maximum(value + bias, 0))


SEEN = ir.TypeAndShape(ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 3]))

LOOP = """<ir_version: 9, opset_import: ["": 18]>
net (int64 trips, float[2,3] x) => (float[2,3] last, float[T,2,3] all)
{
    yes = Constant<value = bool {1}>()
    step = Constant<value = float {0.5}>()
    [turn] last, all = Loop (trips, yes, x) <
        body = one (int64 i, bool go, float[2,3] state) => (bool again, float[2,3] next, float[2,3] shown) {
            again = Identity(go)
            [inc] grown = Add(state, step)
            [off] next = Sub(grown, x)
            [show] shown = Relu(next)
        }
    >
}"""


def test_inside_a_loop_body() -> None:
    model = model_of(LOOP)
    piece = extract_piece(model, inside="turn/body", outputs=["next"])
    assert names(piece.graph.inputs) == ["state", "x"]
    part = ir.to_proto(piece)
    onnx.checker.check_model(part, full_check=True)
    state, x = np.ones((2, 3), np.float32), np.full((2, 3), 0.25, np.float32)
    np.testing.assert_array_equal(run(part, {"state": state, "x": x})["next"], state + 0.5 - x)
    assert names(extract_piece(model, inside="turn/body").graph.inputs) == ["i", "go", "state", "x"][1:]


def test_untyped_loop_body_gets_its_types_from_the_loop() -> None:
    model = model_of(LOOP)
    body = model.graph.node("turn").attributes["body"].as_graph()
    for value in (*body.inputs, *body.outputs):
        value.type, value.shape = None, None
    piece = extract_piece(model, inside="turn/body", nodes=["show"], shapes={"next": SEEN, "shown": SEEN})
    assert [value.dtype for value in piece.graph.inputs] == [ir.DataType.FLOAT]
    onnx.checker.check_model(ir.to_proto(piece))
    with pytest.raises(BadOptionError, match="number of dimensions of tensor 'next' is not known"):
        extract_piece(model, inside="turn/body", nodes=["show"])


FUNCTIONS = """<ir_version: 9, opset_import: ["": 18, "pkg": 1]>
net (float[N,4] x) => (float[N,4] y)
<float[4] g = {1, 2, 3, 4}>
{
    [call] h = pkg.Outer <k = 2.0> (x, g)
    y = Identity(h)
}
<domain: "pkg", opset_import: ["": 18, "pkg": 1]>
Outer <k: float = 1.0> (a, b) => (c)
{
    kk = Constant <value_float: float = @k> ()
    [o1] m = Mul(a, kk)
    [o2] c = pkg.Inner (m, b)
}
<domain: "pkg", opset_import: ["": 18]>
Inner (p, q, r) => (s) { [i1] n = Neg(p) [i2] s = Add(n, q) }
"""


def test_a_piece_brings_the_functions_it_calls_and_no_others() -> None:
    text = FUNCTIONS + '<domain: "pkg", opset_import: ["": 18]> Other (p) => (s) { s = Neg(p) }'
    model = model_of(text)
    piece = extract_piece(model, nodes=["call"])
    assert sorted(key[1] for key in piece.functions) == ["Inner", "Outer"]
    assert_piece_agrees(model, piece)
    assert piece.functions[("pkg", "Inner", "")] is not model.functions[("pkg", "Inner", "")]


def test_inside_a_function_types_and_attributes_come_from_the_call() -> None:
    model = model_of(FUNCTIONS)
    piece = extract_piece(model, inside="function:pkg::Outer")
    assert names(piece.graph.inputs) == ["a", "b"]
    assert [str(v.shape) for v in piece.graph.inputs] == ["[N,4]", "[4]"]
    part = ir.to_proto(piece)
    onnx.checker.check_model(part, full_check=True)
    a, b = np.ones((2, 4), np.float32), np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(run(part, {"a": a, "b": b})["c"], b - 2 * a)


def test_inside_a_function_that_only_another_function_calls() -> None:
    model = model_of(FUNCTIONS)
    piece = extract_piece(model, inside="function:pkg::Inner", outputs=["n"])
    assert names(piece.graph.inputs) == ["p"]
    assert str(piece.graph.inputs[0].shape) == "[N,4]"
    assert names(extract_piece(model, inside="function:pkg::Inner").graph.inputs) == ["p", "q"]


def test_inside_a_branch_of_a_function() -> None:
    model = model_of(FORWARDED)
    piece = extract_piece(model, inside="function:p::Outer/pick/then_branch")
    assert [(v.name, str(v.shape)) for v in piece.graph.inputs] == [("h", "[N,4]"), ("a", "[N,4]")]
    piece = extract_piece(model, inside="function:p::Outer/pick/else_branch")
    part = ir.to_proto(piece)
    onnx.checker.check_model(part, full_check=True)
    h = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(run(part, {"h": h})["v"], 2 * h)


def test_inputs_and_constants_can_be_outputs() -> None:
    model = model_of(BRANCHES)
    for outputs in (["w"], ["x"], ["flag", "h"]):
        piece = extract_piece(model, outputs=outputs)
        assert names(piece.graph.outputs) == outputs
        onnx.checker.check_model(ir.to_proto(piece), full_check=True)


def test_calls_that_differ_are_reported() -> None:
    model = model_of(FUNCTIONS.replace("y = Identity(h)", "[two] y = pkg.Outer <k = 3.0> (h, g)"))
    done = extract(model, inside="function:pkg::Outer")
    assert len(done.notes) == 1 and "'call'" in done.notes[0]


def test_a_function_never_called_needs_observed_types() -> None:
    model = model_of(FUNCTIONS)
    model.graph.node("call").op_type = "Missing"
    with pytest.raises(BadOptionError, match=r"type of tensor 'a' is not known.*--feeds"):
        extract_piece(model, inside="function:pkg::Outer", outputs=["m"])
    seen = ir.TypeAndShape(ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 4]))
    piece = extract_piece(model, inside="function:pkg::Outer", outputs=["m"], shapes={"a": seen, "m": seen})
    onnx.checker.check_model(ir.to_proto(piece))


def test_observed_shapes_fill_unknown_dimensions_only() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18]>
        net (float[N,4] x) => (float y) {
            [mask] i = NonZero(x)
            [cast] f = Cast<to = 1>(i)
            [red] y = ReduceMax<keepdims = 0>(f)
        }"""
    )
    seen = ir.TypeAndShape(ir.TensorType(ir.DataType.INT64), ir.Shape([2, 7]))
    piece = extract_piece(model, inputs=["i"], shapes={"i": seen})
    assert str(piece.graph.inputs[0].shape) == "[2,7]"
    seen = ir.TypeAndShape(ir.TensorType(ir.DataType.FLOAT), ir.Shape([3, 4]))
    assert str(extract_piece(model, outputs=["i"], shapes={"x": seen}).graph.inputs[0].shape) == "[N,4]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": ["aa"]}, "no tensor 'aa'.*did you mean"),
        ({"nodes": ["/encoder/*"]}, "no node matches '/encoder/\\*'.*did you mean"),
        ({"nodes": ["re:["]}, "not a regular expression"),
        ({"inputs": ["out"], "outputs": ["h"]}, "'out' comes after the outputs"),
        ({"inputs": ["y"], "outputs": ["h"]}, "'y' is not needed to compute 'h'"),
        ({"inputs": ["x", "h"], "outputs": ["s"]}, "'x' is not needed: the other inputs cut"),
        ({"outputs": ["t0"]}, "inside 'pick/then_branch': say inside=pick/then_branch"),
        ({"inside": "pick/then"}, "no graph 'pick/then'.*'pick/then_branch'"),
        ({"inside": "function:a::b"}, "no graph 'function:a::b'.*no local functions"),
        ({"nodes": ["mul"], "outputs": ["h"]}, "given together"),
        ({}, "nothing says what to extract"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments: dict[str, list[str]], message: str) -> None:
    with pytest.raises(BadOptionError, match=message):
        extract_piece(model_of(BRANCHES), **arguments)  # type: ignore[arg-type]


def test_no_output_depends_on_the_inputs() -> None:
    model = model_of(
        '<ir_version: 9, opset_import: ["": 18]> g (float[2] x, float[2] z) => (float[2] y) { y = Abs(x) }'
    )
    with pytest.raises(BadOptionError, match="no output of the graph depends on 'z'"):
        extract_piece(model, inputs=["z"])


def test_unknown_operator_at_the_border_asks_for_feeds() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18, "my": 1]>
        net (float[2] x) => (float[2] y) { u = my.Thing(x) y = Abs(u) }"""
    )
    with pytest.raises(BadOptionError, match="type of tensor 'u' is not known"):
        extract_piece(model, inputs=["u"])


def test_the_model_is_left_as_it_was() -> None:
    model = model_of(BRANCHES)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    uses = {v.name: len(v.uses()) for n in model.graph for v in n.outputs}
    for arguments in ({"outputs": ["p"]}, {"nodes": ["pick"]}, {"inside": "pick/else_branch"}, {"inputs": ["h"]}):
        extract_piece(model, **arguments)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert {v.name: len(v.uses()) for n in model.graph for v in n.outputs} == uses


def test_a_wrong_value_info_does_not_become_an_input_type() -> None:
    model = model_of(BRANCHES)
    for name, dims in (("h", [1, 4]), ("s", [7])):
        value = next(v for n in model.graph for v in n.outputs if v.name == name)
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(dims)
    piece = extract_piece(model, inputs=["h", "s"], outputs=["out"])
    assert [str(v.shape) for v in piece.graph.inputs[:2]] == ["[N,4]", "[N,4]"]


def test_names_metadata_and_tensors_are_kept() -> None:
    model = model_of(BRANCHES)
    model.metadata_props["author"] = "someone"
    model.graph.node("mul").metadata_props["trace"] = "layer.py:3"
    model.graph.node("mul").doc_string = "why"
    piece = extract_piece(model, outputs=["h"])
    node = piece.graph.node("mul")
    assert (node.metadata_props["trace"], node.doc_string, piece.metadata_props["author"]) == (
        "layer.py:3",
        "why",
        "someone",
    )
    assert piece.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
    assert (piece.ir_version, piece.opset_imports) == (9, {"": 18})


def test_default_inputs_stay_defaults() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18]>
        net (float[2] x, float[2] d) => (float[2] y) <float[2] d = {1, 2}> { h = Add(x, d) y = Abs(h) }"""
    )
    for arguments in ({"outputs": ["h"]}, {"inputs": ["d"], "outputs": ["h"]}):
        piece = extract_piece(model, **arguments)
        assert sorted(names(piece.graph.inputs)) == ["d", "x"] and "d" in piece.graph.initializers


def test_old_models_keep_initializers_among_the_inputs() -> None:
    model = model_of(BRANCHES)
    model.ir_version = 3
    for value in model.graph.initializers.values():
        model.graph.inputs.append(value)
    for arguments in ({"outputs": ["h"]}, {"inside": "pick/then_branch"}):
        piece = extract_piece(model, **arguments)
        assert {*piece.graph.initializers} <= {*names(piece.graph.inputs)}
        onnx.checker.check_model(ir.to_proto(piece))


def test_unsorted_graph_and_dead_ends() -> None:
    model = model_of(BRANCHES)
    nodes = list(model.graph)
    model.graph.remove(nodes)
    model.graph.extend(reversed(nodes))
    piece = extract_piece(model, outputs=["p"])
    onnx.checker.check_model(ir.to_proto(piece))
    assert str(piece.graph.outputs[0].shape) == "[N,4]"
    model.graph.sort()
    assert_piece_agrees(model, piece)


def test_cycle_and_missing_producer() -> None:
    model = model_of(BRANCHES)
    model.graph.node("scale").replace_input_with(1, model.graph.node("add").outputs[0])
    with pytest.raises(BadModelError, match="cycle"):
        extract_piece(model, outputs=["a"])
    model = model_of(BRANCHES)
    model.graph.node("scale").replace_input_with(1, ir.Value(name="ghost"))
    with pytest.raises(BadModelError, match="'ghost' is read but nothing produces it"):
        extract_piece(model, outputs=["a"])
    seen = ir.TypeAndShape(ir.TensorType(ir.DataType.FLOAT), ir.Shape([]))
    piece = extract_piece(model, inputs=["ghost"], outputs=["s"], shapes={"ghost": seen, "s": seen})
    assert names(piece.graph.inputs) == ["ghost", "x"]


def test_names_that_would_meet_are_refused() -> None:
    model = model_of(BRANCHES)
    branch = model.graph.node("pick").attributes["then_branch"].as_graph()
    branch.node("inner").outputs[0].name = "a"  # hides the outer 'a', which it reads
    with pytest.raises(RefusalError, match="two tensors called 'a'"):
        extract_piece(model, inside="pick/then_branch")


def test_sparse_initializers_come_along() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[3] x) => (float[3] y) { h = Add(x, sp) y = Abs(h) }'
    )
    values = onnx.helper.make_tensor("sp", 1, [1], [5.0])
    indices = onnx.helper.make_tensor("sp_i", 7, [1], [1])
    sparse = onnx.helper.make_sparse_tensor(values, indices, [3])
    model = ir.from_proto(proto)
    model.graph.meta[SPARSE] = [sparse]
    piece = extract_piece(model, outputs=["h"])
    assert [tensor.values.name for tensor in piece.graph.meta[SPARSE]] == ["sp"]
    assert names(piece.graph.inputs) == ["x"] and str(piece.graph.outputs[0].shape) == "[3]"
    assert SPARSE not in extract_piece(model, inputs=["h"]).graph.meta


def test_body_that_returns_an_outer_tensor_by_name() -> None:
    model = model_of(BRANCHES)
    branch = model.graph.node("pick").attributes["else_branch"].as_graph()
    branch.outputs[0] = ir.Value(name="s", type=branch.outputs[0].type, shape=branch.outputs[0].shape)
    assert "s" in names(extract_piece(model, nodes=["scale"]).graph.outputs)
    with pytest.raises(BadModelError, match="output 's' is not an output of any node"):
        extract_piece(model, inputs=["a"], outputs=["p"])


def test_sequences_and_omitted_inputs() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18]>
        net (float[2,3] x) => (float[2,3] y) {
            [seq] s = SequenceConstruct(x, x)
            zero = Constant<value = int64 {0}>()
            [at] z = SequenceAt(s, zero)
            top = Constant<value = float {1}>()
            [clip] y = Clip(z, , top)
        }"""
    )
    piece = extract_piece(model, inputs=["s"])
    assert isinstance(piece.graph.inputs[0].type, ir.SequenceType)
    onnx.checker.check_model(ir.to_proto(piece))
    assert_piece_agrees(model, extract_piece(model, nodes=["clip"]))


def test_the_pass_replaces_the_content_of_the_model() -> None:
    model = model_of(FUNCTIONS)
    step = build(Extract, {"outputs": "h"})
    assert spec_of(step) == "extract:outputs=h"
    log = ChangeLog(limit=0)
    assert not step.run(model, log).modified and names(model.graph.outputs) == ["y"]
    result = step.run(model, ChangeLog())
    assert result.modified and names(model.graph.outputs) == ["h"]
    assert [change.kind for change in result.changes] == ["extract"]
    onnx.checker.check_model(ir.to_proto(model))
    Extract(inside="function:pkg::Inner").run(model, ChangeLog())
    assert not model.functions and names(model.graph.outputs) == ["s"]


def test_the_pass_reports_inputs_it_added() -> None:
    result = Extract(inputs=("s",), outputs=("a",)).run(model_of(BRANCHES), ChangeLog())
    assert [declined.node for declined in result.declined] == ["y"]


@st.composite
def layered(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A random graph of elementwise nodes, some in branches, and the names of its tensors."""
    tensors, lines = ["x", "c"], []
    for i in range(draw(st.integers(2, 9))):
        a, b = draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors))
        if draw(st.booleans()):
            lines.append(f"[n{i}] t{i} = {draw(st.sampled_from(['Add', 'Mul', 'Sub']))}({a}, {b})")
        else:
            then = f"then_branch = g{i} () => (float[2,2] q{i}) {{ q{i} = Add({a}, {b}) }}"
            other = f"else_branch = h{i} () => (float[2,2] r{i}) {{ r{i} = Neg({b}) }}"
            lines.append(f"[n{i}] t{i} = If (flag) <{then}, {other}>")
        tensors.append(f"t{i}")
    head = f"net (bool flag, float[2,2] x) => (float[2,2] {tensors[-1]}) <float[2,2] c = {{1, 2, 3, 4}}>"
    return '<ir_version: 9, opset_import: ["": 18]> ' + head + " { " + " ".join(lines) + " }", tensors[2:]


@settings(max_examples=30, deadline=None)
@given(layered(), st.data())
def test_any_cut_of_any_graph_agrees_or_says_why(graph: tuple[str, list[str]], data: st.DataObject) -> None:
    text, tensors = graph
    model = model_of(text)
    if data.draw(st.booleans()):
        count = len(tensors)
        nodes = data.draw(st.lists(st.sampled_from([f"n{i}" for i in range(count)]), min_size=1, unique=True))
        piece = extract_piece(model, nodes=nodes)
        assert {n.name for n in piece.graph} >= set(nodes)
    else:
        outputs = data.draw(st.lists(st.sampled_from(tensors), min_size=1, unique=True))
        inputs = data.draw(st.lists(st.sampled_from(tensors), unique=True))
        try:
            piece = extract_piece(model, inputs=inputs, outputs=outputs)
        except BadOptionError as error:
            assert "not needed" in str(error) or "comes after" in str(error)
            return
        assert names(piece.graph.outputs) == outputs
        assert names(piece.graph.inputs)[: len(inputs)] == inputs
    whole = ir.to_proto(model)
    feeds = {**feeds_of(whole)}
    seen = {**feeds, **run(with_all_outputs(whole), feeds)}
    part = ir.to_proto(piece)
    onnx.checker.check_model(part, full_check=True)
    for name, value in run(part, {i.name: seen[i.name] for i in part.graph.input}).items():
        np.testing.assert_array_equal(value, seen[name], err_msg=name)
