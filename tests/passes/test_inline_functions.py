"""A model with its functions inlined computes the same to the bit, and has readable unique names."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from surgeon_passes.conditions import broken_conditions
from surgeon_passes.contract import ChangeLog
from surgeon_passes.errors import BadModelError, BadOptionError
from surgeon_passes.inline_functions import InlineFunctions
from surgeon_passes.spec import build
from tests.numeric import assert_same_values, feeds_of, model_of, run

MODEL = """<ir_version: 9, opset_import: ["": 18, "pkg": 1]>
net (bool flag, float[N,4] x, float[4] g) => (float[N,4] y, float[N,4] z)
{
    [one] h = pkg.Outer <k = 2.0> (x, g)
    [two] y = pkg.Outer (h)
    [pick] z = If (flag) <
        then_branch = yes () => (float[N,4] a) { [three] m = pkg.Inner <s = -1> (h, g) a = Neg(m) },
        else_branch = no () => (float[N,4] b) { [four] b = pkg.Twins (h) }
    >
}
<domain: "pkg", opset_import: ["": 18, "pkg": 1]>
Outer <k: float = 0.5> (a, b) => (c)
{
    [kk] m = Constant <value_float: float = @k> ()
    [mul] n = Mul(a, m)
    [in] c = pkg.Inner <s = 3> (n, b)
}
<domain: "pkg", opset_import: ["": 18]>
Inner <s> (p, q) => (r)
{
    [cast] t = Constant <value_int: int = @s> ()
    [like] u = CastLike(t, p)
    [sum] r = Add(p, u)
}
<domain: "pkg", opset_import: ["": 18]>
Twins (v) => (w) {
    zero = Constant<value = float {0}>()
    size = ReduceSum<keepdims = 0>(v)
    [up] up = Greater(size, zero)
    [inner_if] w = If (up) <
        then_branch = t () => (tw) { [x1] tw = Relu(v) }, else_branch = e () => (ew) { [x2] ew = Neg(v) }
    >
}"""


def assert_sound(model: ir.Model) -> None:
    assert broken_conditions(model) == []
    nodes = collections.Counter(node.name for graph in model.graphs() for node in graph if node.name)
    values = collections.Counter(v.name for graph in model.graphs() for node in graph for v in node.outputs if v.name)
    clashes = [name for names in (nodes, values) for name, count in names.items() if count > 1]
    assert not clashes


def test_calls_in_the_graph_in_bodies_and_in_functions() -> None:
    model = model_of(MODEL)
    before = ir.to_proto(model)
    result = InlineFunctions().run(model, ChangeLog())
    assert not model.functions
    assert_same_values(before, model, dims={"N": 3})
    assert_sound(model)
    assert "one/in/like" in [node.name for node in model.graph]
    assert "one/in/u" in [value.name for node in model.graph for value in node.outputs]
    inlined = [(change.before, change.where) for change in result.changes if change.kind == "inline"]
    assert inlined == [
        (("function:pkg::Outer/in",), "function:pkg::Outer"),
        (("one",), ""),
        (("two",), ""),
        (("pick/then_branch/three",), "pick/then_branch"),
        (("pick/else_branch/four",), "pick/else_branch"),
    ]
    assert result.changes[1].boundary == ("x", "g", "h")
    assert "one/mul" in result.changes[1].after


def test_each_prefix_of_the_changes_is_a_valid_equal_model() -> None:
    total = len(InlineFunctions().run(model_of(MODEL), ChangeLog()).changes)
    assert total == 8
    for limit in range(total + 1):
        model = model_of(MODEL)
        before = ir.to_proto(model)
        assert len(InlineFunctions().run(model, ChangeLog(limit=limit)).changes) == limit
        assert_same_values(before, model, dims={"N": 2}, seeds=range(1))


def test_some_functions_only() -> None:
    model = model_of(MODEL)
    before = ir.to_proto(model)
    build(InlineFunctions, {"functions": "Inner"}).run(model, ChangeLog())
    assert sorted(key[1] for key in model.functions) == ["Outer", "Twins"]
    assert "in/like" in [node.name for node in model.functions[("pkg", "Outer", "")]]
    assert_same_values(before, model, dims={"N": 2})
    InlineFunctions(functions=("pkg::*",)).run(model, ChangeLog())
    assert not model.functions
    assert_same_values(before, model, dims={"N": 2})
    with pytest.raises(BadOptionError, match="no local function matches 'Outr'"):
        InlineFunctions(functions=("Outr",)).run(model_of(MODEL), ChangeLog())


def test_outputs_that_are_inputs_or_the_same_value_keep_their_names() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18, "pkg": 1]>
        net (float[2] x) => (float[2] same, float[2] n1, float[2] n2, float[2] y)
        { same, n1, n2, drop = pkg.F(x) y = Abs(n1) }
        <domain: "pkg", opset_import: ["": 18]> F (a) => (a, n, m, d) { n = Neg(a) m = Identity(n) d = Exp(a) }"""
    )
    before = ir.to_proto(model)
    InlineFunctions().run(model, ChangeLog())
    assert [value.name for value in model.graph.outputs] == ["same", "n1", "n2", "y"]
    assert_sound(model)
    feeds = feeds_of(before)
    # onnxruntime does not take a function that returns its input.
    expected = ReferenceEvaluator(before).run(None, feeds)
    for value, seen in zip(expected, run(ir.to_proto(model), feeds).values(), strict=True):
        np.testing.assert_array_equal(value, seen)


FORWARDED = """<ir_version: 9, opset_import: ["": 18, "p": 1]>
net (float[N,4] x, bool c) => (float[N,4] y) { [c1] y = p.Outer<k = 2.0>(x, c) }
<domain: "p", opset_import: ["": 18, "p": 1]>
Outer <k> (a, c) => (b) {
    [in] h = p.Inner<s: float = @k>(a)
    [pick] b = If (c) <
        then_branch = t () => (u) { [deep] u = Mul(h, a) }, else_branch = e () => (v) { v = p.Inner<s: float = @k>(h) }
    >
}
<domain: "p", opset_import: ["": 18]> Inner <s> (a) => (b) { k = Constant<value_float: float = @s>() b = Mul(a, k) }"""


@pytest.mark.parametrize("limit", [None, 0, 1, 2, 3, 4])
def test_attributes_that_functions_hand_on(limit: int | None) -> None:
    model = model_of(FORWARDED)
    before = ir.to_proto(model)
    InlineFunctions().run(model, ChangeLog(limit=limit))
    assert_same_values(before, model, dims={"N": 2})
    assert broken_conditions(model) == []


def test_metadata_of_call_and_node_are_kept() -> None:
    model = model_of(MODEL)
    model.graph.node("two").metadata_props.update(scope="model.layer", trace="call")
    next(iter(model.functions[("pkg", "Outer", "")])).metadata_props["trace"] = "body"
    InlineFunctions().run(model, ChangeLog())
    props = model.graph.node("two/kk").metadata_props
    assert props["scope"] == "model.layer" and props["trace"] == "body"
    assert model.graph.node("two/mul").metadata_props["trace"] == "call"


def test_unnamed_calls_and_equal_names() -> None:
    model = model_of(MODEL)
    model.graph.node("one").name = model.graph.node("two").name = None
    model.graph.node("pick").name = "Outer/mul"
    before = ir.to_proto(model)
    InlineFunctions().run(model, ChangeLog())
    assert_sound(model)
    assert_same_values(before, model, dims={"N": 2})


def versions(function: int, text: str) -> ir.Model:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 18, "pkg": 1]>
        net (float[N,4] x) => (float[N,M] y) {{ [call] y = pkg.F(x) }}
        <domain: "pkg", opset_import: ["": {function}]> F (a) => (b) {{ {text} }}"""
    )
    return ir.from_proto(proto)


def test_another_opset_version_is_fine_if_the_operators_are_the_same() -> None:
    model = versions(17, "n = Neg(a) b = Softmax<axis = 1>(n)")
    InlineFunctions().run(model, ChangeLog())
    assert not model.functions and model.opset_imports[""] == 18
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_another_meaning_in_another_version_is_left_alone() -> None:
    model = versions(12, "[soft] b = Softmax(a)")
    result = InlineFunctions().run(model, ChangeLog())
    assert len(model.functions) == 1 and not result.changes
    assert "version 12 of ai.onnx::Softmax" in result.declined[0].reason


def test_what_the_body_imports_is_imported() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18, "pkg": 1]>
        net (float[2,8] x) => (float[2,8] y) { y = pkg.F(x) }
        <domain: "pkg", opset_import: ["com.microsoft": 1]> F (a) => (b) { b = com.microsoft.Gelu(a) }"""
    )
    before = ir.to_proto(model)
    InlineFunctions().run(model, ChangeLog())
    assert model.opset_imports["com.microsoft"] == 1
    assert_same_values(before, model)


def test_what_cannot_be_inlined_is_left_alone() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18, "pkg": 1]>
        net (float[2] x) => (float[2] y) { y = pkg.F(x) }
        <domain: "pkg", opset_import: ["": 18]> F (a) => (b) { b = Neg(a) }"""
    )
    call = next(iter(model.graph))
    call.resize_inputs(2)
    call.replace_input_with(1, model.graph.inputs[0])
    result = InlineFunctions().run(model, ChangeLog())
    assert "called with 2 inputs and takes 1" in result.declined[0].reason and model.functions


def test_functions_that_call_themselves_are_an_error() -> None:
    model = model_of(MODEL)
    inner = model.functions[("pkg", "Inner", "")]
    inner.append(ir.node("Outer", [inner.inputs[0]], domain="pkg", name="back"))
    with pytest.raises(BadModelError, match="in a circle: "):
        InlineFunctions().run(model, ChangeLog())


def test_functions_nobody_calls_are_dropped_with_the_rest() -> None:
    model = model_of(MODEL + '<domain: "pkg", opset_import: ["": 18]> Lonely (a) => (b) { b = Neg(a) }')
    result = InlineFunctions().run(model, ChangeLog())
    assert not model.functions
    assert "function:pkg::Lonely" in [change.before[0] for change in result.changes if change.kind == "drop-function"]


@pytest.mark.parametrize(
    ("opset", "text", "operator", "rtol"),
    [
        (21, "y = GroupNormalization<num_groups = 2>(x, g, g)", "GroupNormalization", 1e-5),
        (20, "y = Gelu<approximate = 'tanh'>(x)".replace("'", '"'), "Gelu", 1e-5),
        (18, "y = LayerNormalization<axis = 1>(x, g)", "LayerNormalization", 1e-5),
        (18, "y = Softplus(x)", "Softplus", 1e-6),
        (18, "y = HardSwish(x)", "HardSwish", 1e-6),
        (18, "y = Elu<alpha = 0.5>(x)", "Elu", 1e-6),
        (13, "y = Softmax(x)", "Softmax", 1e-6),
        (18, "y = Clip(x, , m)", "Clip", 0.0),
    ],
)
def test_operators_of_the_standard(opset: int, text: str, operator: str, rtol: float) -> None:
    model = model_of(
        f"""<ir_version: 9, opset_import: ["": {opset}]>
        net (float[2,4] x, float[4] g, float m) => (float[2,4] y) {{ [op] {text} }}"""
    )
    before = ir.to_proto(model)
    step = InlineFunctions(ops=(operator,))
    assert step.reassociates and not InlineFunctions.reassociates
    result = step.run(model, ChangeLog())
    assert len(result.changes) == 1 and operator not in [node.op_type for node in model.graph]
    assert all((node.name or "").startswith("op/") for node in model.graph)
    assert_same_values(before, model, rtol=rtol)


def test_operators_without_a_definition_are_an_error_or_left_alone() -> None:
    with pytest.raises(BadOptionError, match="no operator 'Conv' by a function"):
        InlineFunctions(ops=("Conv",)).run(model_of(MODEL), ChangeLog())
    model = model_of('<ir_version: 8, opset_import: ["": 12]> n (float[2] x) => (float[2] y) { [s] y = Softmax(x) }')
    result = InlineFunctions(ops=("Softmax",)).run(model, ChangeLog())
    assert not result.changes and "no definition for operator set 12" in result.declined[0].reason


@st.composite
def nested_calls(draw: st.DrawFn) -> str:
    """Functions that call earlier ones, some in branches, and a graph that calls them."""
    functions = []
    for i in range(draw(st.integers(1, 4))):
        lines, tensors = [], ["a", "b"]
        for j in range(draw(st.integers(1, 4))):
            left, right = draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors))
            kinds = ["Add", "Mul", "If"] + [f"pkg.F{k}" for k in range(i)]
            kind = draw(st.sampled_from(kinds))
            if kind == "If":
                lines.append(
                    f"c{j} = Constant<value = bool {{{draw(st.integers(0, 1))}}}>() t{j} = If (c{j}) "
                    f"<then_branch = p () => (u{j}) {{ u{j} = Add({left}, {right}) }}, "
                    f"else_branch = q () => (w{j}) {{ w{j} = Neg({left}) }}>"
                )
            else:
                lines.append(f"t{j} = {kind}({left}, {right})")
            tensors.append(f"t{j}")
        functions.append(
            f'<domain: "pkg", opset_import: ["": 18, "pkg": 1]> F{i} (a, b) => ({tensors[-1]}) {{ {" ".join(lines)} }}'
        )
    last = len(functions) - 1
    main = f"h = pkg.F{last}(x, x) [named] y = pkg.F{draw(st.integers(0, last))}(h, x)"
    head = '<ir_version: 9, opset_import: ["": 18, "pkg": 1]> net (float[2,2] x) => (float[2,2] y)'
    return f"{head} {{ {main} }} " + " ".join(functions)


@settings(max_examples=30, deadline=None)
@given(nested_calls(), st.one_of(st.none(), st.integers(0, 6)))
def test_any_nest_of_functions_keeps_its_values(text: str, limit: int | None) -> None:
    model = model_of(text)
    before = ir.to_proto(model)
    InlineFunctions().run(model, ChangeLog(limit=limit))
    assert limit is not None or not model.functions
    assert broken_conditions(model) == []
    assert_same_values(before, model, seeds=range(1))
