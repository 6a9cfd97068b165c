# ruff: noqa: E501  (one case, one line)
"""remove-dead: what must go, what must stay, and that no bit of an output changes either way."""

from __future__ import annotations

import collections
import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from onnx import numpy_helper

from surgeon_passes.conditions import broken_conditions, clashing_names, interface_changes, interface_of
from surgeon_passes.contract import ChangeLog
from surgeon_passes.graph import from_proto, to_proto
from surgeon_passes.remove_dead import RemoveDead
from surgeon_passes.walk import scopes
from tests.numeric import assert_same_values
from tests.random_models import models


def rewritten(proto, limit=None):
    model = from_proto(proto)
    log = ChangeLog(limit=limit)
    before, broken = interface_of(model), broken_conditions(model) + clashing_names(model)
    RemoveDead().run(model, log)
    assert interface_changes(before, interface_of(model)) == []
    assert [s for s in broken_conditions(model) + clashing_names(model) if s not in broken] == []
    return model, log


def parsed(body, opset=17, head="float[N,3] x", tail="float[N,3] y", constants="", ir_version=8):
    constants = f"<{constants}>" if constants else ""
    return onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "pkg" : 1]> main ({head}) => ({tail}) {constants} {{ {body} }}'
    )


def ops(model):
    return sorted(node.op_type for scope in scopes(model) for node in scope.graph)


GOES = [
    ("identity", "a = Identity(x) b = Identity(a) y = Relu(b)", {}),
    ("output-name-is-kept", "a = Relu(x) y = Identity(a)", {}),
    ("dropout", "a = Dropout(x) y = Relu(a)", {}),
    ("dropout-training-false", "a = Dropout(x, r, t) y = Relu(a)", {"constants": "float r = {0.5}, bool t = {0}"}),
    ("dropout-10", "a, m = Dropout(x) y = Relu(a)", {"opset": 10}),
    ("cast", "a = Cast<to = 1>(x) y = Relu(a)", {}),
    ("castlike", "a = CastLike(x, x) y = Relu(a)", {}),
    ("reshape-zeros", "a = Reshape(x, s) y = Relu(a)", {"constants": "int64[2] s = {0, -1}"}),
    ("reshape-inferred", "a = Reshape(x, s) y = Relu(a)", {"constants": "int64[2] s = {-1, 3}"}),
    ("reshape-same-symbols", "s = Shape(x) a = Flatten<axis = 1>(x) y = Relu(a)", {}),
    ("transpose", "a = Transpose<perm = [0, 1]>(x) y = Relu(a)", {}),
    ("transpose-of-ones", "a = Transpose<perm=[1,0,2]>(x) y = Relu(a)", {"head": "float[1,1,3] x", "tail": "float[1,1,3] y"}),
    ("transpose-rank-1", "a = Transpose(x) y = Relu(a)", {"head": "float[3] x", "tail": "float[3] y"}),
    ("slice-to-max", "a = Slice(x, s, e) y = Relu(a)", {"constants": "int64[1] s = {0}, int64[1] e = {9223372036854775807}"}),
    (
        "slice-known",
        "a = Slice(x, s, e, d, t) y = Relu(a)",
        {"constants": "int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {-1}, int64[1] t = {1}"},
    ),
    ("slice-9", "a = Slice<starts = [0], ends = [99], axes = [1]>(x) y = Relu(a)", {"opset": 9}),
    ("pad", "a = Pad(x, p) y = Relu(a)", {"constants": "int64[4] p = {0, 0, 0, 0}"}),
    ("pad-10", "a = Pad<pads = [0, 0, 0, 0]>(x) y = Relu(a)", {"opset": 10}),
    ("concat", "a = Concat<axis = 0>(x) y = Relu(a)", {}),
    ("sum-max-min-mean", "a = Sum(x) b = Max(a) c = Min(b) d = Mean(c) y = Relu(d)", {}),
    ("expand-ones", "a = Expand(x, s) y = Relu(a)", {"constants": "int64[2] s = {1, 1}"}),
    ("expand-known", "a = Expand(x, s) y = Relu(a)", {"constants": "int64[1] s = {3}"}),
    ("tile", "a = Tile(x, s) y = Relu(a)", {"constants": "int64[2] s = {1, 1}"}),
    ("split", "a = Split<num_outputs = 1>(x) y = Relu(a)", {"opset": 18}),
    ("clip", "a = Clip(x) y = Relu(a)", {}),
    ("mul-one", "a = Mul(o, x) y = Relu(a)", {"constants": "float o = {1}"}),
    ("div-ones-per-channel", "a = Div(x, o) y = Relu(a)", {"constants": "float[3] o = {1, 1, 1}"}),
    ("sub-zero", "a = Sub(x, o) y = Relu(a)", {"constants": "float[1,1] o = {0}"}),
    ("add-minus-zero", "a = Add(o, x) y = Relu(a)", {"constants": "float o = {-0.0}"}),
    ("pow-one", "a = Pow(x, o) y = Relu(a)", {"constants": "int64 o = {1}"}),
    ("add-zero-int", "a = Add(x, o) y = Abs(a)", {"head": "int64[N] x", "tail": "int64[N] y", "constants": "int64 o = {0}"}),
    ("and-true", "a = And(x, o) y = Not(a)", {"head": "bool[N] x", "tail": "bool[N] y", "constants": "bool o = {1}"}),
    ("reduce-max-ones", "a = ReduceMax<axes = [1]>(x) y = Relu(a)", {"head": "float[N,1] x", "tail": "float[N,1] y"}),
    ("transposes", "a = Transpose<perm=[1,0]>(x) b = Transpose<perm=[1,0]>(a) y = Relu(b)", {}),
    ("transposes-default", "a = Transpose(x) b = Transpose(a) y = Relu(b)", {}),
    ("unsqueeze-squeeze", "a = Unsqueeze(x, d) b = Squeeze(a, d) y = Relu(b)", {"constants": "int64[2] d = {0, -1}"}),
    ("squeeze-unsqueeze-11", "a = Squeeze<axes=[0]>(x) b = Unsqueeze<axes=[0]>(a) y = Relu(b)", {"opset": 11, "head": "float[1,N] x", "tail": "float[1,N] y"}),
    ("reshapes", "a = Reshape(x, f) b = Reshape(a, s) y = Relu(b)", {"constants": "int64[1] f = {-1}, int64[2] s = {-1, 3}"}),
    ("casts", "a = Cast<to = 1>(x) b = Cast<to = 10>(a) y = Cast<to = 11>(b)", {"head": "float16[N] x", "tail": "double[N] y"}),
    ("casts-bool", "a = Cast<to = 10>(x) b = Cast<to = 9>(a) y = Not(b)", {"head": "bool[N] x", "tail": "bool[N] y"}),
    ("negs", "a = Neg(x) b = Neg(a) y = Relu(b)", {}),
    ("dead-branch", "a = Neg(x) b = Exp(a) c = Add(a, b) y = Relu(x)", {}),
    ("mask", "a, m = MaxPool<kernel_shape = [1]>(x) y = Relu(a)", {"head": "float[1,1,4] x", "tail": "float[1,1,4] y"}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "more"), [g[1:] for g in GOES], ids=[g[0] for g in GOES])
def test_what_does_nothing_goes(body, more):
    proto = parsed(body, **more)
    model, log = rewritten(proto)
    last = {"Relu", "Abs", "Not", "Cast"} | ({"MaxPool"} if "MaxPool" in body else set())
    assert set(ops(model)) <= last
    assert sum(op != "MaxPool" for op in ops(model)) == 1
    assert not model.graph.initializers
    assert all(len(node.outputs) == 1 for node in model.graph)
    assert_same_values(proto, to_proto(model))
    for limit in range(len(log.changes)):
        partly, short = rewritten(proto, limit)
        assert len(short.changes) == limit
        assert_same_values(proto, to_proto(partly), seeds=range(1))


STAYS = [
    ("add-zero", "a = Add(x, o) y = Relu(a)", {"constants": "float o = {0}"}),
    ("sub-minus-zero", "a = Sub(x, o) y = Relu(a)", {"constants": "float o = {-0.0}"}),
    ("zero-sub-x", "a = Sub(o, x) y = Relu(a)", {"constants": "float o = {0}"}),
    ("one-div-x", "a = Div(o, x) y = Relu(a)", {"constants": "float o = {1}"}),
    ("mul-one-widens-rank", "a = Mul(x, o) y = Relu(a)", {"constants": "float[1,1,1] o = {1}", "tail": "float[1,N,3] y"}),
    ("mul-ones-widen", "a = Mul(x, o) y = Relu(a)", {"head": "float[1,3] x", "constants": "float[2,1] o = {1, 1}", "tail": "float[2,3] y"}),
    ("mul-ones-of-unknown", "a = Mul(x, o) y = Relu(a)", {"head": "float[N] x", "constants": "float[2] o = {1, 1}", "tail": "float[2] y"}),
    ("mul-overridable-one", "a = Mul(x, o) y = Relu(a)", {"head": "float[N,3] x, float o", "constants": "float o = {1}"}),
    ("pow-of-ints", "a = Pow(x, o) y = Abs(a)", {"head": "int64[N] x", "tail": "int64[N] y", "constants": "float o = {1}"}),
    ("reduce-sum-one", "a = ReduceMean<axes = [1]>(x) y = Relu(a)", {"head": "float[N,1] x", "tail": "float[N,1] y"}),
    ("slice-minus-one", "a = Slice(x, s, e, d) y = Relu(a)", {"constants": "int64[1] s = {0}, int64[1] e = {-1}, int64[1] d = {1}", "tail": "float[N,2] y"}),
    ("slice-unknown-size", "a = Slice(x, s, e) y = Relu(a)", {"constants": "int64[1] s = {0}, int64[1] e = {2}"}),
    ("slice-reversed", "a = Slice(x, s, e, d, t) y = Relu(a)", {"constants": "int64[1] s = {-1}, int64[1] e = {-9223372036854775807}, int64[1] d = {1}, int64[1] t = {-1}"}),
    ("pad-both-signs", "a = Pad(x, p) y = Relu(a)", {"constants": "int64[4] p = {0, 1, 0, -1}"}),
    ("expand-may-widen", "a = Expand(x, s) y = Relu(a)", {"head": "float[M,3] x", "constants": "int64[2] s = {2, 3}", "tail": "float[2,3] y"}),
    ("reshape-moves", "a = Reshape(x, s) y = Relu(a)", {"constants": "int64[2] s = {3, -1}", "tail": "float[3,N] y"}),
    ("reshape-zeros-meant", "a = Reshape<allowzero = 1>(x, s) y = Relu(a)", {"head": "float[0,3] x", "constants": "int64[2] s = {3, 0}", "tail": "float[3,0] y"}),
    ("reshapes-with-zero", "a = Reshape(x, f) b = Reshape(a, s) y = Relu(b)", {"constants": "int64[2] f = {3, -1}, int64[3] s = {0, 1, -1}", "tail": "float[3,1,N] y"}),
    ("transpose-of-n", "a = Transpose<perm=[1,0]>(x) y = Relu(a)", {"head": "float[N,1] x", "tail": "float[1,N] y"}),
    ("dropout-trains", "a, m = Dropout<seed = 1>(x, r, t) y = Relu(a) n = Not(m)", {"constants": "float r = {0.0}, bool t = {1}", "tail": "float[N,3] y, bool[N,3] n"}),
    ("mask-in-use", "a, m = Dropout(x) y = Relu(a) n = Not(m)", {"tail": "float[N,3] y, bool[N,3] n"}),
    ("casts-lossy", "a = Cast<to = 10>(x) b = Cast<to = 1>(a) y = Relu(b)", {}),
    ("casts-int64-double", "a = Cast<to = 11>(x) b = Cast<to = 7>(a) y = Abs(b)", {"head": "int64[N] x", "tail": "int64[N] y"}),
    ("squeeze-other-axes", "a = Unsqueeze(x, d) b = Squeeze(a, e) y = Relu(b)", {"head": "float[1] x", "constants": "int64[1] d = {0}, int64[1] e = {1}", "tail": "float[1] y"}),
    ("clip-6", "a = Clip(x) y = Relu(a)", {"opset": 6}),
    ("split-in-use", "a, b = Split(x, s) y = Relu(a)", {"head": "float[4] x", "constants": "int64[2] s = {1, 3}", "tail": "float[1] y"}),
    ("both-fixed", "y = Identity(x)", {}),
    ("qdq", "q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) y = Relu(d)", {"constants": "float s = {0.5}"}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "more"), [s[1:] for s in STAYS], ids=[s[0] for s in STAYS])
def test_what_does_something_stays(body, more):
    proto = parsed(body, **more)
    model, _ = rewritten(proto)
    assert ops(model) == ops(from_proto(proto))
    if more.get("opset", 17) > 6:
        assert_same_values(proto, to_proto(model))


def test_a_wrong_value_info_is_not_believed():
    proto = parsed("a = Neg(x) b = Expand(a, s) y = Relu(b)", constants="int64[2] s = {2, 3}", head="float[M,3] x")
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("a", 1, [2, 3]))
    model, _ = rewritten(proto)
    assert "Expand" in ops(model)
    assert_same_values(proto, to_proto(model), dims={"M": 1})


BODIES = """
<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
main (float[N,3] x, bool c) => (float[N,3] y, float[S,N,3] s)
<int64 n = {2}>
{
  only = Exp(x)
  p, q, r = If (c) <
    then_branch = t () => (float[N,3] t1, float[N,3] t2, float[N,3] t3)
      <float w = {2}> { t1 = Mul(x, w) t2 = Neg(only) i = Identity(x) t3 = Relu(i) },
    else_branch = e () => (float[N,3] e1, float[N,3] e2, float[N,3] e3)
      { e1 = Relu(x) e2 = Identity(only) e3 = Abs(x) }
  >
  l, s0, s = Loop (n, , r) <body = b (int64 k, bool g, float[N,3] v) =>
    (bool g2, float[N,3] v2, float[N,3] o1, float[N,3] o2)
      { g2 = Identity(g) v2 = Tanh(v) o1 = Exp(v) m = Neg(v) mm = Neg(m) o2 = Sin(mm) }>
  y = pkg.F(l)
}
<domain: "pkg", opset_import: ["" : 17, "pkg" : 1]>
F (v) => (r) { a = Identity(v) d = Exp(a) h = pkg.G(a) r = Identity(h) }
<domain: "pkg", opset_import: ["" : 17]>
G (v) => (r) { u = Neg(v) w = Neg(u) r = Tanh(w) }
<domain: "pkg", opset_import: ["" : 17, "pkg" : 1]>
Unused (v) => (r) { a = pkg.AlsoUnused(v) r = pkg.G(a) }
<domain: "pkg", opset_import: ["" : 17]>
AlsoUnused (v) => (r) { r = Neg(v) }
"""


def test_bodies_and_functions_lose_what_nobody_reads():
    proto = onnx.parser.parse_model(BODIES)
    model, log = rewritten(proto)
    assert ops(model) == sorted(["If", "Relu", "Abs", "Loop", "Identity", "Tanh", "Sin", "F", "G", "Tanh"])
    assert {f.name for f in model.functions.values()} == {"F", "G"}
    removed = [c.before[0] for c in log.changes if c.kind == "remove-function"]
    assert removed == ["pkg::Unused", "pkg::AlsoUnused"]
    assert all(not scope.graph.initializers or scope.owner is None for scope in scopes(model))
    for limit in range(len(log.changes) + 1):
        assert_same_values(proto, to_proto(rewritten(proto, limit)[0]), seeds=range(1))


def test_scan_loses_outputs_with_their_axes():
    proto = parsed(
        """f, s1, s2 = Scan<num_scan_inputs = 1, scan_output_axes = [0, 1], scan_output_directions = [0, 1],
            body = b (float[3] v, float[3] row) => (float[3] v2, float[3] o1, float[3] o2)
            { v2 = Add(v, row) o1 = Neg(row) o2 = Exp(row) }>(z, x) y = Relu(s2)""",
        head="float[4,3] x",
        tail="float[3,4] y",
        constants="float[3] z = {0, 0, 0}",
    )
    model, _ = rewritten(proto)
    scan = model.graph[0]
    assert scan.attributes["scan_output_axes"].as_ints() == (1,)
    assert scan.attributes["scan_output_directions"].as_ints() == (1,)
    assert len(scan.outputs) == 2
    assert_same_values(proto, to_proto(model))


def test_interface_stays_even_where_it_is_not_used():
    proto = parsed("y = Relu(x)", head="float[N,3] x, float[2] unused, float[3] w", constants="float[3] w = {1, 2, 3}")
    model, log = rewritten(proto)
    assert [v.name for v in model.graph.inputs] == ["x", "unused", "w"]
    assert list(model.graph.initializers) == ["w"]
    assert not log.changes


def test_custom_operators_stay_also_inside_functions_and_bodies():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "pkg" : 1, "my" : 1]>
        main (float[3] x, bool c) => (float[3] y) {
          a = my.Print(x) b = pkg.Loud(x) d = pkg.Silent(x)
          e = If (c) < then_branch = t () => (float[3] u) { u = my.Print(x) },
                       else_branch = f () => (float[3] w) { w = Relu(x) } >
          y = Relu(x) }
        <domain: "pkg", opset_import: ["" : 17, "my" : 1]> Loud (v) => (r) { q = my.Print(v) r = Relu(v) }
        <domain: "pkg", opset_import: ["" : 17]> Silent (v) => (r) { r = Relu(v) }""")
    model, log = rewritten(proto)
    assert collections.Counter(ops(model))["Print"] == 3
    assert "Silent" not in ops(model)
    assert "Loud" in ops(model)
    assert {d.node for d in log.declined} == {"Print(a)", "Loud(b)", "If(e)", "Print(q)"}


def test_a_local_function_that_is_called_identity_is_no_identity():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[3] x) => (float[3] y) { a = Identity(x) y = Relu(a) }
        <domain: "", opset_import: ["" : 17]> Identity (v) => (r) { r = Neg(v) }""")
    model, _ = rewritten(proto)
    assert ops(model) == ["Identity", "Neg", "Relu"]


def test_values_used_by_name_alone_stay():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[3] x, bool c) => (float[3] y) {
          a = Neg(x) b = Identity(x)
          y = If (c) < then_branch = t () => (float[3] a) { }, else_branch = e () => (float[3] b) { } > }""")
    model, log = rewritten(proto)
    assert ops(model) == ["Identity", "If", "Neg"]
    assert [d.reason for d in log.declined] == ["gives back its input, but 'b' is used by its name"]


def test_initializers_of_a_model_with_training_information_stay():
    proto = parsed("y = Relu(x)", constants="float[1] w = {1}")
    record = proto.training_info.add()
    record.update_binding.add(key="w", value="new")
    model, log = rewritten(proto)
    assert list(model.graph.initializers) == ["w"]
    assert not log.changes


def test_a_name_that_a_body_uses_again_is_not_pulled_over_it():
    # The inner 'a' hides the outer one: were the Identity gone, the branch would read its own 'a'.
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[3] x, bool c) => (float[3] y) {
          a = Neg(x) z = Identity(a)
          y = If (c) <
            then_branch = t () => (float[3] o) { a = Exp(x) o = Add(a, z) },
            else_branch = e () => (float[3] u) { u = Relu(z) } > }""")
    model = from_proto(proto)
    RemoveDead().run(model, ChangeLog())
    add = next(n for s in scopes(model) for n in s.graph if n.op_type == "Add")
    assert {v.name for v in add.inputs} == {"a", "z"}


def test_sequences_and_odd_types_pass():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[3] x) => (float[3] y) {
          s = SequenceConstruct(x, x) t = Identity(s) n = Constant<value_int = 0>() u = SequenceAt(t, n) y = Relu(u) }""")
    model, _ = rewritten(proto)
    assert "Identity" not in ops(model)
    assert_same_values(proto, to_proto(model))


def test_references_to_function_attributes_are_unknown():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
        main (float[2,3] x) => (float[3,2] y) { y = pkg.T<perm = [1, 0]>(x) }
        <domain: "pkg", opset_import: ["" : 17]>
        T <perm> (v) => (r) { a = Transpose<perm : ints = @perm>(v) b = Transpose<perm = [0, 1]>(a) r = Neg(b) }""")
    model, _ = rewritten(proto)
    assert ops(model) == ["Neg", "T", "Transpose"]
    assert_same_values(proto, to_proto(model))


def test_zero_size_and_rank_zero():
    for dims in ("0,3", ""):
        text = "a = Transpose(x) b = Transpose(a) c = Identity(b) y = Relu(c)"
        proto = parsed(
            text, head=f"float[{dims}] x" if dims else "float x", tail=f"float[{dims}] y" if dims else "float y"
        )
        model, _ = rewritten(proto)
        assert ops(model) == ["Relu"]
        assert_same_values(proto, to_proto(model))


def test_packed_and_string_initializers_that_nobody_reads_go():
    proto = parsed("y = Relu(x)", ir_version=10, opset=21)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(["a"], object), "s"))
    proto.graph.initializer.append(onnx.helper.make_tensor("i4", onnx.TensorProto.INT4, [3], [1, 2, 3]))
    model, log = rewritten(proto)
    assert not model.graph.initializers
    assert [c.kind for c in log.changes] == ["remove-initializer"] * 2


def chain(count):
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 3]))
    nodes, last = [], x
    for i in range(count):
        op = ("Relu", "Identity", "Transpose", "Transpose", "Neg")[i % 5]
        source = x if op == "Neg" else last
        node = ir.node(op, [source], outputs=[ir.Value(name=f"v{i}")], name=f"n{i}")
        nodes.append(node)
        last = last if op == "Neg" else node.outputs[0]
    last.type, last.shape = x.type, ir.Shape([1, 3])
    return ir.Model(ir.Graph([x], [last], nodes=nodes, opset_imports={"": 17}), ir_version=8)


def test_time_is_linear():
    times = []
    for count in (2_000, 20_000):
        model = chain(count)
        started = time.process_time()
        RemoveDead().run(model, ChangeLog())
        times.append(time.process_time() - started)
        assert len(model.graph) == count // 5
    assert times[1] < 25 * times[0] + 0.5


@settings(max_examples=40, deadline=None)
@given(models(25))
def test_random_models_keep_every_bit(proto):
    model, log = rewritten(proto)
    assert_same_values(proto, to_proto(model), seeds=range(2))
    _, more = rewritten(to_proto(model))
    assert not more.changes, more.changes
    half, _ = rewritten(proto, len(log.changes) // 2)
    assert_same_values(proto, to_proto(half), seeds=range(1))
