"""convert-precision: what becomes low, where the Casts are, what stays float32 and why."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator

from surgeon_passes import graph
from surgeon_passes.contract import ChangeLog, PassResult
from surgeon_passes.convert_precision import ConvertPrecision
from surgeon_passes.errors import BadModelError, BadOptionError, RefusalError
from surgeon_passes.spec import build, spec_of
from tests.numeric import assert_same_values, feeds_of, model_of, run
from tests.random_models import models

HALF, BF16, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT


def convert(model: ir.Model, limit: int | None = None, **options: object) -> PassResult:
    return ConvertPrecision(**options).run(model, ChangeLog(limit=limit))  # type: ignore[arg-type]


def graphs_of(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    bodies = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [graph, *(inner for body in bodies for inner in graphs_of(body))]


def casts(model: ir.Model) -> list[str]:
    return [n.name for g in graphs_of(ir.to_proto(model).graph) for n in g.node if n.op_type == "Cast"]


def types_of(model: ir.Model) -> dict[str, int]:
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True, check_type=True)
    infos = [i for g in graphs_of(proto.graph) for i in [*g.input, *g.value_info, *g.output]]
    stored = {t.name: t.data_type for g in graphs_of(proto.graph) for t in g.initializer}
    return {i.name: i.type.tensor_type.elem_type for i in infos} | stored


def assert_close(before: onnx.ModelProto, after: ir.Model, rtol: float = 5e-3, **more: object) -> None:
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    assert_same_values(before, after, rtol=rtol, **more)  # type: ignore[arg-type]


CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[N, 4] x) => (float[N, 3] y)
<float[4, 3] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2}, float[3] b = {1, 2, 3}> {
  [mm] m = MatMul(x, w)
  [add] a = Add(m, b)
  [relu] r = Relu(a)
  [mul] y = Mul(r, r)
}
"""


def test_a_whole_chain_has_one_cast_at_each_border_and_keeps_names():
    model = model_of(CHAIN)
    before = ir.to_proto(model)
    result = convert(model)
    assert casts(model) == ["x_to_float16", "y_to_float32"]
    assert [change.before for change in result.changes] == [("mm",), ("add",), ("relu",), ("mul",)]
    assert {change.kind for change in result.changes} == {"to-float16"}
    kinds = types_of(model)
    assert kinds["x"] == kinds["y"] == FLOAT
    assert all(kinds[name] == HALF for name in ("m", "a", "r", "w", "b", "y_float16", "x_to_float16"))
    assert_close(before, model)


def test_a_hundred_nodes_need_two_casts():
    lines = "\n".join(f"[n{i}] v{i + 1} = {op}(v{i})" for i in range(100) for op in [("Relu", "Neg")[i % 2]])
    text = f'<ir_version: 8, opset_import: ["" : 17]> long (float[N] v0) => (float[N] v100) {{ {lines} }}'
    model = model_of(text)
    convert(model)
    assert len(casts(model)) == 2
    model = model_of(text)
    convert(model, keep=("n50",))
    assert casts(model) == ["v0_to_float16", "v50_to_float32", "v51_to_float16", "v100_to_float32"]


def test_one_cast_serves_all_readers_and_both_types_of_a_constant_exist_once():
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        shared (float[N] x) => (float[N] p, float[N] q) <float[1] w = {3}> {
          [a] a = Mul(x, w)
          [b] b = Add(x, w)
          [c] c = Sub(x, w)
          [d] d = Mul(a, b)
          [e] p = Add(d, c)
          [f] q = Mul(a, w)
        }""")
    before = ir.to_proto(model)
    convert(model, keep=("c", "f"))
    assert sorted(casts(model)) == ["a_to_float32", "c_to_float16", "p_to_float32", "x_to_float16"]
    stored = {t.name: t.data_type for t in ir.to_proto(model).graph.initializer}
    assert stored == {"w": FLOAT, "w_fp16": HALF}
    assert_close(before, model)


def test_constant_nodes_are_converted_like_initializers():
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        constants (float[2] x) => (float[2] y) {
          c = Constant<value_floats = [1.5, 2.5]>()
          k = Constant<value_float = 0.5>()
          [a] a = Add(x, c)
          [b] b = Mul(a, k)
          [c] y = Sub(b, c)
        }""")
    before = ir.to_proto(model)
    convert(model, keep=("c",))
    kinds = types_of(model)
    assert (kinds["c"], kinds["c_fp16"], kinds["k"]) == (FLOAT, HALF, HALF)
    assert_close(before, model)


OVERFLOW = """
<ir_version: 8, opset_import: ["" : 17]>
overflow (float[2, 2] x) => (float[2, 2] y) <float[1] big = {300}, float[1] small = {0.00001}, int64[2] to = {2, 2}> {
  [one] a = Mul(x, big)
  [square] b = Mul(a, a)
  [shape] c = Reshape(b, to)
  [turn] d = Transpose(c)
  [back] e = Mul(d, small)
  [last] y = Relu(e)
}
"""
"""onnxruntime computes float16 in float32 where it has no kernel, and rounds only between nodes that have one: two
that move data, one behind the other, let the overflow happen there as it does elsewhere."""


def test_an_activation_overflows_where_it_must_and_keeping_its_nodes_heals_it():
    feeds = {"x": np.array([[1, 2], [1, 2]], np.float32)}
    model = model_of(OVERFLOW)
    right = run(ir.to_proto(model), feeds)["y"]
    convert(model)
    assert np.isinf(run(ir.to_proto(model), feeds)["y"]).all()
    with np.errstate(over="ignore"):
        assert np.isinf(ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)[0]).all()
    model = model_of(OVERFLOW)
    convert(model, keep=("square", "shape", "turn", "back"))
    np.testing.assert_allclose(run(ir.to_proto(model), feeds)["y"], right, rtol=5e-3)
    model = model_of(OVERFLOW)
    convert(model, keep=("square",))
    assert np.isinf(run(ir.to_proto(model), feeds)["y"]).all()  # the product itself does not fit


def test_constants_out_of_range_follow_the_policy():
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        ranges (float[2] x) => (float[2] y, float[2] z, float[2] c)
        <float big = {1e6}, float eps = {1e-12}, float lo = {-3.4e38}, float hi = {3.4e38}> {
          [add_big] a = Mul(x, big)
          [add_eps] b = Add(x, eps)
          [scale] d = Relu(x)
          [y] y = Neg(a)
          [z] z = Add(b, d)
          [clip] c = Clip(x, lo, hi)
        }"""
    model = model_of(text)
    result = convert(model)
    assert {(d.node, d.reason) for d in result.declined} == {
        ("add_big", "constant 'big' is out of the range of float16"),
        ("add_eps", "constant 'eps' becomes zero in float16"),
    }
    # A bound outside the range is the end of the range, so Clip loses nothing.
    bounds = {t.name: float(onnx.numpy_helper.to_array(t)) for t in ir.to_proto(model).graph.initializer}
    assert (bounds["lo"], bounds["hi"]) == (-65504.0, 65504.0)
    assert types_of(model)["big"] == FLOAT
    model = model_of(text)
    assert not convert(model, overflow="saturate").declined
    stored = {t.name: float(onnx.numpy_helper.to_array(t)) for t in ir.to_proto(model).graph.initializer}
    assert stored["big"] == 65504.0
    assert stored["eps"] == 2.0**-24
    model = model_of(text)
    untouched = ir.to_proto(model).SerializeToString()
    with pytest.raises(RefusalError, match="out of the range"):
        convert(model, overflow="refuse")
    assert ir.to_proto(model).SerializeToString() == untouched


BODIES = """
<ir_version: 8, opset_import: ["" : 17]>
bodies (float[2, N] x, bool flag) => (float[2, N] y, float[3, 2, N] stacked)
<float[1] k = {0.5}, int64 trips = {3}, bool yes = {1}, float[1] c = {2}> {
  [outer] o = Mul(x, k)
  [choose] chosen = If(flag) <
    then_branch = then_graph () => (float[2, N] t) { [in_then] t = Add(o, x) },
    else_branch = else_graph () => (float[2, N] e) { [pre] p = Neg(o)  [in_else] e = Mul(p, c) }
  >
  [repeat] last, stacked = Loop(trips, yes, chosen) <
    body = loop_body (int64 i, bool go, float[2, N] state) => (bool again, float[2, N] next, float[2, N] out) {
      [keep_going] again = Identity(go)
      [step] next = Mul(state, k)
      [count] n = Cast<to = 1>(i)
      [record] out = Add(next, n)
    }
  >
  [end] y = Relu(last)
}
"""


@pytest.mark.parametrize("keep", [(), ("choose",), ("repeat",), ("in_then",), ("step",), ("outer", "pre"), ("count",)])
def test_bodies_are_converted_and_stay_consistent(keep):
    model = model_of(BODIES)
    before = ir.to_proto(model)
    convert(model, keep=keep)
    assert_close(before, model, dims={"N": 3})


def test_values_go_through_converted_bodies_without_casts():
    model = model_of(BODIES)
    convert(model)
    # The Cast of the loop counter was there before; the rest stands at the model's own borders.
    assert sorted(casts(model)) == ["count", "stacked_to_float32", "x_to_float16", "y_to_float32"]
    kinds = types_of(model)
    assert all(kinds[name] == HALF for name in ("t", "e", "chosen", "state", "next", "out", "n", "last"))


def test_a_loop_that_is_kept_has_casts_inside_its_body():
    model = model_of(BODIES)
    convert(model, keep=("repeat",))
    kinds = types_of(model)
    assert kinds["state"] == kinds["last"] == FLOAT
    assert kinds["next"] == HALF
    assert "state_to_float16" in casts(model)


def test_scan_carries_the_low_type():
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        scanning (float[2] start, float[4, 2] items) => (float[2] total, float[4, 2] sums) {
          [scan] total, sums = Scan<num_scan_inputs = 1, body = add (float[2] acc, float[2] item)
            => (float[2] acc_out, float[2] sum) { [plus] acc_out = Add(acc, item)  [copy] sum = Identity(acc_out) }
          >(start, items)
        }""")
    before = ir.to_proto(model)
    convert(model)
    assert sorted(casts(model)) == [
        "items_to_float16",
        "start_to_float16",
        "sums_to_float32",
        "total_to_float32",
    ]
    assert_close(before, model)


@pytest.mark.parametrize("text", [CHAIN, BODIES, OVERFLOW])
@pytest.mark.parametrize("keep_io", [True, False])
def test_every_prefix_of_changes_is_valid_and_runs(text, keep_io):
    total = len(convert(model_of(text), keep_io=keep_io).changes)
    base = ir.to_proto(model_of(text))
    for limit in range(total + 1):
        model = model_of(text)
        result = convert(model, limit=limit, keep_io=keep_io)
        assert len(result.changes) == limit
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        feeds = feeds_of(base)
        wanted = feeds_of(proto)
        run(proto, {name: value.astype(wanted[name].dtype) for name, value in feeds.items()})
        if limit == 0:
            assert proto == base


def test_the_interface_can_change_too():
    step = ConvertPrecision(keep_io=False)
    assert step.changes_interface
    assert not ConvertPrecision().changes_interface
    assert not ConvertPrecision.changes_interface
    model = model_of(CHAIN)
    result = step.run(model, ChangeLog())
    assert casts(model) == []
    assert [c.kind for c in result.changes[-2:]] == ["input-to-float16", "output-to-float16"]
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert {i.type.tensor_type.elem_type for i in [*proto.graph.input, *proto.graph.output]} == {HALF}
    run(proto, feeds_of(proto))


def test_operators_that_draw_the_type_from_an_attribute():
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        attributes (int64[2] dims, int64[3] ids, float[2] x) => (float[A, B] y, float[3] z, int64[2] w) {
          [fill] f = ConstantOfShape<value = float[1] {1.5}>(dims)
          [empty] e = ConstantOfShape(dims)
          [sum] y = Sub(f, e)
          [cast] i = Cast<to = 1>(ids)
          [half] z = Mul(i, i)
          [r] r = Mul(x, x)
          [down] w = Cast<to = 7>(r)
        }""")
    before = ir.to_proto(model)
    result = convert(model)
    assert "down" not in [c.before[0] for c in result.changes]
    # The Cast to integers reads the low value as it is: there is no Cast before it.
    assert sorted(casts(model)) == ["cast", "down", "x_to_float16", "y_to_float32", "z_to_float32"]
    feeds = {"dims": np.array([2, 3]), "ids": np.array([1, 2, 3]), "x": np.array([1, 2], np.float32)}
    expected, seen = run(before, feeds), run(ir.to_proto(model), feeds)
    for name in expected:
        np.testing.assert_array_equal(seen[name], expected[name])


def test_slots_that_must_stay_float32():
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        slots (float[1, 2, 4, 4] x) => (float[1, 2, 8, 8] y, float[1, 2, 4, 1] mean, float[5] noise)
        <float[4] scales = {1, 1, 2, 2}, float[4] gain = {1, 2, 3, 4}> {
          [resize] r = Resize(x, , scales)
          [norm] n, mean = LayerNormalization<axis = -1>(x, gain)
          [resize2] y = Resize(n, , scales)
          [random] noise = RandomNormal<shape = [5], seed = 1.0>()
        }""")
    before = ir.to_proto(model)
    result = convert(model)
    kinds = types_of(model)
    assert (kinds["scales"], kinds["gain"], kinds["n"], kinds["mean"]) == (FLOAT, HALF, HALF, FLOAT)
    assert ("random", "it would draw other numbers in float16") in {(d.node, d.reason) for d in result.declined}
    assert_close(before, model)


def test_scales_of_quantisation_keep_their_bits_where_they_can():
    text = """
        <ir_version: 11, opset_import: ["" : {opset}]>
        qdq (float[4] x) => (float[4] y) <float s = {{0.0123}}, int8 z = {{3}}> {{
          [a] a = Neg(x)
          [q] q = QuantizeLinear(a, s, z)
          [dq] d = DequantizeLinear(q, s, z)
          [b] y = Neg(d)
        }}"""
    model = model_of(text.format(opset=17))
    before = ir.to_proto(model)
    result = convert(model)
    assert {d.node for d in result.declined} == {"q", "dq"}
    assert "from opset 19" in result.declined[0].reason
    assert_close(before, model, rtol=2e-2)
    model = model_of(text.format(opset=21))
    assert not convert(model).declined
    assert types_of(model)["s"] == HALF
    assert_close(before, model, rtol=2e-2)
    model = model_of(text.format(opset=23))
    assert not convert(model).declined
    kinds = types_of(model)
    assert (kinds["s"], kinds["d"]) == (FLOAT, HALF)
    small = model_of(text.format(opset=21).replace("0.0123", "0.00001"))
    assert {d.reason for d in convert(small).declined} == {"constant 's' loses its precision in float16"}


def test_an_overridable_initializer_is_an_input_and_gets_a_cast():
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        default (float[2] x, float[2] w) => (float[2] y) { [a] y = Mul(x, w) }""")
    proto = ir.to_proto(model)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3], np.float32), "w"))
    model = ir.from_proto(proto)
    convert(model)
    after = ir.to_proto(model)
    assert "w_to_float16" in casts(model)
    feeds = {"x": np.array([1, 1], np.float32), "w": np.array([5, 7], np.float32)}
    np.testing.assert_array_equal(run(after, feeds)["y"], [5, 7])
    np.testing.assert_array_equal(run(after, {"x": feeds["x"]})["y"], [2, 3])
    model = ir.from_proto(proto)
    convert(model, keep_io=False)
    after = ir.to_proto(model)
    np.testing.assert_array_equal(run(after, {"x": feeds["x"].astype(np.float16)})["y"], [2, 3])


def test_what_cannot_be_known_is_left_alone_with_a_reason():
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17, "pkg" : 1, "other" : 1]>
        unknown (float[2] x) => (float[2] y, float[2] s) {
          [call] c = pkg.Twice(x)
          [custom] k = other.Thing(c)
          [after] y = Relu(k)
          [make] q = SequenceConstruct(x)
          zero = Constant<value_int = 0>()
          [take] s = SequenceAt(q, zero)
        }
        <domain: "pkg", opset_import: ["" : 17]>
        Twice (a) => (b) { b = Add(a, a) }""")
    before = ir.to_proto(model)
    result = convert(model)
    reasons = {d.node: d.reason for d in result.declined}
    assert "inline-functions" in reasons["call"]
    assert "'other'" in reasons["custom"]
    assert reasons["after"] == "the type of 'k' is not known"
    assert "sequence" in reasons["make"] or "not known" in reasons["make"]
    assert not result.changes
    assert ir.to_proto(model) == before


def test_bfloat16_asks_for_the_opset_that_has_it():
    text = """
        <ir_version: 8, opset_import: ["" : {opset}]>
        conv (float[1, 2, 5, 5] x) => (float[1, 2, 5, 5] y) <float[2, 2, 1, 1] w = {{1, 2, 3, 4}}> {{
          [conv] c = Conv(x, w)
          [relu] y = Relu(c)
        }}"""
    model = model_of(text.format(opset=17))
    result = convert(model, to="bfloat16")
    assert [(d.node, d.reason) for d in result.declined] == [
        ("conv", "Conv has no bfloat16 form at opset 17, but has one from opset 22 (convert-opset)")
    ]
    assert casts(model) == ["c_to_bfloat16", "y_to_float32"]
    model = model_of(text.format(opset=22))
    assert not convert(model, to="bfloat16").declined
    assert types_of(model)["w"] == BF16
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    with pytest.raises(RefusalError, match="opset 12 has no Cast to bfloat16"):
        convert(model_of(text.format(opset=12)), to="bfloat16")


def test_nodes_and_keep_choose_by_name_pattern_and_path():
    model = model_of(BODIES)
    result = convert(model, nodes=("in_*", "repeat/body/step"), keep=("in_else",))
    assert [c.before[0] for c in result.changes] == ["in_then", "step"]
    assert [c.where for c in result.changes] == ["choose/then_branch", "repeat/body"]
    assert_close(ir.to_proto(model_of(BODIES)), model)
    model = model_of(BODIES)
    result = convert(model, keep_ops=("Mul", "Loop"))
    assert not {"outer", "in_else", "step", "repeat"} & {c.before[0] for c in result.changes}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "float8"}, "no type to convert to"),
        ({"overflow": "ignore"}, "does not exist"),
        ({"nodes": ("mull",)}, "mull"),
        ({"keep": ("nothing/*",)}, "nothing"),
        ({"keep_ops": ("Softmaxx",)}, "Softmaxx"),
    ],
)
def test_misspelt_options_are_errors(options, message):
    with pytest.raises(BadOptionError, match=message):
        convert(model_of(CHAIN), **options)


def test_the_options_are_text_and_back():
    step = build(ConvertPrecision, {"to": "bfloat16", "keep": "a;/b/*", "keep_ops": "Softmax", "keep_io": "false"})
    assert step == ConvertPrecision(to="bfloat16", keep=("a", "/b/*"), keep_ops=("Softmax",), keep_io=False)
    assert spec_of(step) == "convert-precision:to=bfloat16,keep=a;/b/*,keep_ops=Softmax,keep_io=false"


def test_a_body_that_names_an_outer_value_as_its_output_pins_it():
    # The checker does not like it, but files do it and onnxruntime runs some of them.
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        pinned (float[2] x, bool flag) => (float[2] y) {
          [a] a = Neg(x)
          [choose] c = If(flag) <
            then_branch = t () => (float[2] a) {},
            else_branch = e () => (float[2] b) { [b] b = Relu(a) }
          >
          [end] y = Neg(c)
        }""")
    model = ir.from_proto(proto)
    result = convert(model)
    assert "a" not in {c.before[0] for c in result.changes}
    kinds = types_of(model)
    assert kinds["a"] == FLOAT


def test_bodies_of_foreign_operators_keep_the_names_of_their_outputs():
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17, "other" : 1]>
        foreign (float[2] x) => (float[2] y) {
          [search] y = other.Search<decoder = body (float[2] a) => (float[2] b) { [n] b = Neg(a) }>(x)
        }""")
    result = convert(model)
    assert [c.before for c in result.changes] == [("n",)]
    body = ir.to_proto(model).graph.node[0].attribute[0].g
    assert [(o.name, o.type.tensor_type.elem_type) for o in body.output] == [("b", FLOAT)]
    assert [node.op_type for node in body.node] == ["Cast", "Neg", "Cast"]


def test_value_infos_of_outer_values_in_a_body_do_not_stay_behind():
    proto = ir.to_proto(model_of(BODIES))
    body = proto.graph.node[1].attribute[0].g
    body.value_info.append(onnx.helper.make_tensor_value_info("o", FLOAT, [2, "N"]))
    model = graph.from_proto(proto)
    convert(model)
    onnx.checker.check_model(graph.to_proto(model), full_check=True)


def test_a_weight_without_data_is_an_error():
    proto = ir.to_proto(model_of(CHAIN))
    proto.graph.initializer[0].ClearField("float_data")
    proto.graph.initializer[0].raw_data = b""
    with pytest.raises(BadModelError, match="weight 'w' cannot be read"):
        convert(ir.from_proto(proto))


def _operator_cases():
    """One test model of the ONNX project for each operator that has float32 inputs."""
    chosen = {}
    with np.errstate(all="ignore"):
        for case in collect_testcases(None):
            nodes = case.model.graph.node if case.model is not None else ()
            if len(nodes) == 1 and any(i.type.tensor_type.elem_type == FLOAT for i in case.model.graph.input):
                chosen.setdefault(nodes[0].op_type, case.model)
    return chosen


@pytest.mark.filterwarnings("ignore")
def test_every_operator_is_converted_to_something_that_loads_and_agrees():
    counts: collections.Counter[str] = collections.Counter()
    for op_type, proto in _operator_cases().items():
        try:
            feeds = feeds_of(proto)
            expected = run(proto, feeds)
        except Exception:  # noqa: BLE001  (whatever it says, there is nothing to compare with)
            counts["onnxruntime cannot run the original"] += 1
            continue
        model = ir.from_proto(proto)
        try:
            result = convert(model)
        except RefusalError:
            continue
        assert result.changes or result.declined or op_type in ("Shape", "Size", "Cast", "CastLike"), op_type
        if op_type != "MeanVarianceNormalization":  # its own function does not pass
            onnx.checker.check_model(ir.to_proto(model), full_check=True)
        seen = run(ir.to_proto(model), feeds)
        counts["ran"] += 1
        for name, value in expected.items():
            if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not np.isfinite(value).all():
                continue
            scale = np.abs(value).max(initial=1e-3)
            np.testing.assert_allclose(seen[name], value, atol=5e-3 * scale, rtol=5e-3, err_msg=f"{op_type} {name}")
    assert counts["ran"] > 110, counts


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(models(25))
def test_random_models_stay_valid_and_run(proto):
    model = ir.from_proto(proto)
    total = len(convert(model).changes)
    for limit in {total, total // 2}:
        model = ir.from_proto(proto)
        convert(model, limit=limit)
        later = ir.to_proto(model)
        onnx.checker.check_model(later, full_check=True)
        seen = run(later, feeds_of(proto))
        assert {name: value.dtype for name, value in seen.items()} == {
            name: value.dtype for name, value in run(proto, feeds_of(proto)).items()
        }
