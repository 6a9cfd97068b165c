"""A branch or a loop that is known beforehand is written out, and the model computes the same."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from surgeon_passes.walk import scopes
from tests.numeric import assert_same_values, model_of
from tests.passes.test_fold_constants import HEAD, check_every_prefix, fold, folded, ops


def names_in(model: ir.Model) -> list[str]:
    return [value.name or "" for scope in scopes(model) for node in scope.graph for value in node.outputs]


BRANCHES = """agraph (float[2] x, bool c) => (float[2] y, float[2] z)
<bool yes = {1}, bool no = {0}, float[2] k = {1, 2}> {
  a = Neg(x)
  y = If(yes) <then_branch = t1 () => (float[2] p) <float[2] w = {3, 4}> { b = Add(a, w) p = Mul(b, k) },
               else_branch = e1 () => (float[2] q) { b = Exp(a) q = Neg(b) }>
  r = If(no) <then_branch = t2 () => (float[2] p) { b = Add(a, a) p = Mul(b, k) },
              else_branch = e2 () => (float[2] q) { q = Sub(x, k) }>
  z = If(c) <then_branch = t3 () => (float[2] p) { b = Add(a, r) p = Mul(b, k) },
             else_branch = e3 () => (float[2] q) { q = Sub(r, k) }>
}"""


def test_the_branch_taken_stands_in_the_place_of_the_if() -> None:
    model, result = folded(HEAD + BRANCHES)
    assert sorted(ops(model)) == ["Add", "Add", "If", "Mul", "Mul", "Neg", "Sub", "Sub"]
    assert [change.kind for change in result.changes] == ["inline-if", "inline-if"]
    assert result.changes[0].boundary == ("y",)
    names = names_in(model)
    assert len(set(names)) == len(names)
    assert "w" in model.graph.initializers


def test_every_prefix_of_inlined_branches_is_valid_and_equal() -> None:
    assert check_every_prefix(HEAD + BRANCHES) == 2


def test_branches_stay_if_asked() -> None:
    model, result = folded(HEAD + BRANCHES, fold_if=False)
    assert not result.changes
    assert ops(model).count("If") == 3


def test_a_branch_in_a_branch_in_a_branch() -> None:
    text = "h = Neg(x) r = Add(h, k)"
    for depth in range(30):
        last = "r" if depth == 0 else f"r{depth - 1}"
        text = (
            f"r{depth} = If(yes) <then_branch = t{depth} () => (float[2] {last}) {{ {text} }},"
            f" else_branch = e{depth} () => (float[2] o{depth}) {{ o{depth} = Identity(x) }}>"
        )
    model, result = folded(
        HEAD
        + f"agraph (float[2] x) => (float[2] y) <bool yes = {{1}}, float[2] k = {{1, 2}}> {{ {text} y = Neg(r29) }}"
    )
    assert ops(model) == ["Neg", "Add", "Neg"]
    assert len(result.changes) == 30


def test_a_condition_that_follows_from_sizes() -> None:
    model, _ = folded(
        HEAD
        + """agraph (float[N, 1, 4] x) => (float[a, b] y) <int64[1] one = {1}, int64[1] axis = {1}> {
  s = Shape<start=1, end=2>(x)
  c1 = Equal(s, one)
  c = Squeeze(c1)
  y = If(c) <then_branch = t () => (float[p, q] u) { u = Squeeze(x, axis) },
             else_branch = e () => (float[p2, q2, r2] v) { v = Identity(x) }>
}""",
        dims={"N": 3},
    )
    assert ops(model) == ["Squeeze"]


def test_results_that_are_constants_outer_values_or_used_twice_keep_the_interface() -> None:
    text = (
        HEAD
        + """agraph (float[2] x) => (float[2] y, float[2] z, float[2] v, float[2] u)
<bool yes = {1}, float[2] k = {1, 2}> {
  h = Exp(x)
  y, z, v, u = If(yes) <
    then_branch = t () => (float[2] p, float[2] w, float[2] p2, float[2] q) <float[2] w = {3, 4}> {
      p = Neg(h) p2 = Identity(p) q = Identity(h) },
    else_branch = e () => (float[2] a, float[2] b, float[2] c, float[2] d) {
      a = Neg(x) b = Neg(a) c = Neg(b) d = Neg(c) }>
}"""
    )
    model, _ = folded(text)
    assert "If" not in ops(model)
    check_every_prefix(text)


def test_one_value_for_two_outputs() -> None:
    model = model_of(
        HEAD
        + """agraph (float[2] x) => (float[2] y, float[2] z) <bool yes = {1}> {
  y, z = If(yes) <then_branch = t () => (float[2] p, float[2] q) { p = Neg(x) q = Exp(x) },
                  else_branch = e () => (float[2] a, float[2] b) { a = Neg(x) b = Neg(x) }>
}"""
    )
    branch = model.graph[0].attributes["then_branch"].as_graph()
    branch.outputs[1] = branch.outputs[0]
    fold(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after)
    assert sorted(ops(model)) == ["Exp", "Identity", "Neg"]


def test_an_outer_value_given_by_name_alone_is_left_alone() -> None:
    proto = onnx.parser.parse_model(
        HEAD
        + """agraph (float[2] x) => (float[2] y) <bool yes = {1}> {
  h = Neg(x)
  y = If(yes) <then_branch = t () => (float[2] p) { p = Neg(x) }, else_branch = e () => (float[2] a) { a = Neg(x) }>
}"""
    )
    branch = proto.graph.node[1].attribute[0].g
    del branch.node[:]
    branch.output[0].name = "h"
    model = ir.from_proto(proto)
    result = fold(model)
    assert ops(model) == ["Neg", "If", "Neg"]
    assert "outer graph" in result.declined[0].reason


def test_branches_inside_functions() -> None:
    model, _ = folded("""<ir_version: 10, opset_import: ["": 21, "own": 1]>
agraph (float[2] x) => (float[2] y) { y = own.pick(x) }
<domain: "own", opset_import: ["": 21]>
pick (a) => (b) {
  zero = Constant<value_int = 0>()
  yes = Cast<to=9>(zero)
  b = If(yes) <then_branch = t () => (float[2] p) { p = Neg(a) },
               else_branch = e () => (float[2] q) <float[2] w = {3, 4}> { q = Add(a, w) }>
}""")
    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Add"]
    assert not function.graph.initializers


LOOP = """agraph (float[2] x) => (float[2] y, float[a, b] rows, float[c] counts)
<int64 m = {3}, bool yes = {1}> {
  y, rows, counts = Loop(m, yes, x) <body = b (int64 i, bool ci, float[2] s)
      => (bool co, float[2] n, float[2] row, float count) <float[2] w = {1, 2}> {
    co = Identity(ci)
    f = Cast<to=1>(i)
    g = Mul(w, f)
    n = Add(s, g)
    row = Neg(n)
    count = Identity(f)
  }>
}"""


def test_a_short_loop_is_written_out() -> None:
    model, result = folded(HEAD + LOOP)
    assert "Loop" not in ops(model)
    assert "Cast" not in ops(model)  # the number of the trip is known
    assert "unroll-loop" in [change.kind for change in result.changes]
    names = names_in(model)
    assert len(set(names)) == len(names)


def test_the_number_of_the_trip_has_the_rank_that_the_body_declares() -> None:
    text = (
        HEAD
        + """agraph (float[4] x) => (float[a, b] rows) <int64 m = {3}, bool yes = {1}, int64[1] one = {1}> {
  rows = Loop(m, yes) <body = b (int64[1] i, bool ci) => (bool co, float[p] row) {
    co = Identity(ci)
    end = Add(i, one)
    row = Slice(x, i, end)
  }>
}"""
    )
    model, _ = folded(text)
    assert "Loop" not in ops(model)


def test_every_prefix_of_a_loop_written_out_is_valid_and_equal() -> None:
    assert check_every_prefix(HEAD + LOOP) > 3


def test_loops_before_opset_13() -> None:
    model, _ = folded(HEAD.replace("21", "11") + LOOP)
    assert "Loop" not in ops(model)


def test_long_loops_stay() -> None:
    model, result = folded(HEAD + LOOP, loop_limit=2)
    assert ops(model).count("Loop") == 1
    assert "3 trips exceed loop_limit" in [declined.reason for declined in result.declined]
    model, result = folded(HEAD + LOOP, loop_limit=0)
    assert ops(model).count("Loop") == 1
    assert not result.declined


@pytest.mark.parametrize(
    ("head", "left"),
    [
        ("<int64 m = {0}, bool yes = {1}>", []),
        ("<int64 m = {3}, bool yes = {0}>", []),
        ("<int64 m = {-1}, bool yes = {1}>", []),
        ("<int64 m = {2}, bool yes = {1}>", ["Neg", "Neg"]),
    ],
)
def test_numbers_of_trips(head: str, left: list[str]) -> None:
    model, _ = folded(
        HEAD
        + f"""agraph (float[2] x) => (float[2] y) {head} {{
  r = Loop(m, yes, x) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] n) {{
    co = Identity(ci) n = Neg(s) }}>
  y = Exp(r)
}}"""
    )
    assert ops(model) == [*left, "Exp"]


@pytest.mark.parametrize(
    ("condition", "trips"),
    [("k = Constant<value_int = 0>() co = Cast<to=9>(k)", 1), ("k = Constant<value_int = 1>() co = Cast<to=9>(k)", 3)],
)
def test_a_condition_that_is_constant_in_the_body(condition: str, trips: int) -> None:
    model, _ = folded(
        HEAD
        + f"""agraph (float[2] x) => (float[2] y) <int64 m = {{3}}, bool yes = {{1}}> {{
  y = Loop(m, yes, x) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] n) {{ {condition} n = Neg(s) }}>
}}"""
    )
    assert ops(model) == ["Neg"] * trips


def test_a_condition_that_is_computed_keeps_the_loop() -> None:
    model, result = folded(
        HEAD
        + """agraph (float x) => (float y) <int64 m = {9}, bool yes = {1}, float top = {5}> {
  y = Loop(m, yes, x) <body = b (int64 i, bool ci, float s) => (bool co, float n) { n = Add(s, s) co = Less(n, top) }>
}"""
    )
    assert "Loop" in ops(model)
    assert result.declined[0].reason == "the condition is computed in the body"


def test_an_empty_collection_has_no_known_shape() -> None:
    text = HEAD + LOOP.replace("int64 m = {3}", "int64 m = {0}")
    model, result = folded(text)
    assert "Loop" in ops(model)
    assert "no trip is made" in result.declined[0].reason


def test_loops_in_loops_and_what_they_capture() -> None:
    text = (
        HEAD
        + """agraph (float[2] x) => (float[2] y) <int64 m = {2}, bool yes = {1}, float[2] k = {1, 2}> {
  h = Neg(x)
  y = Loop(m, yes, x) <body = outer (int64 i, bool ci, float[2] s) => (bool co, float[2] n) {
    co = Identity(ci)
    o = Add(s, h)
    n = Loop(m, yes, o) <body = inner (int64 j, bool cj, float[2] t) => (bool cp, float[2] u) {
      cp = Identity(cj)
      v = Add(t, k)
      u = Mul(v, o)
    }>
  }>
}"""
    )
    model, result = folded(text)
    assert sorted(ops(model)) == ["Add"] * 6 + ["Mul"] * 4 + ["Neg"]
    assert [change.kind for change in result.changes] == ["unroll-loop", "unroll-loop"]
    check_every_prefix(text)


def test_a_loop_in_a_function_is_written_out_with_constant_nodes() -> None:
    model, _ = folded("""<ir_version: 10, opset_import: ["": 21, "own": 1]>
agraph (float[2] x) => (float[2] y, float[p, q] z) { y, z = own.repeat(x) }
<domain: "own", opset_import: ["": 21]>
repeat (a) => (b, r) {
  m = Constant<value_int = 2>()
  b, r = Loop(m, , a) <body = l (int64 i, bool ci, float[2] s) => (bool co, float[2] n, float[2] row)
    <float[2] w = {3, 4}> { co = Identity(ci) n = Add(s, w) row = Neg(n) }>
}""")
    (function,) = model.functions.values()
    kinds = sorted(node.op_type for node in function if node.op_type != "Constant")
    assert kinds == ["Add", "Add", "Concat", "Neg", "Neg", "Unsqueeze", "Unsqueeze"]
    assert not function.graph.initializers


def test_a_whole_constant_loop_is_evaluated() -> None:
    model, _ = folded(
        HEAD
        + """agraph (float[2] x) => (float[2] y) <int64 m = {100}, bool yes = {1}, float[2] k = {1, 2}> {
  r = Loop(m, yes, k) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] n) {
    co = Identity(ci) n = Add(s, k) }>
  y = Add(x, r)
}"""
    )
    assert ops(model) == ["Add"]
    tensor = model.graph.initializers["r"].const_value
    assert tensor is not None
    assert tensor.numpy().tolist() == [101, 202]


def test_a_constant_loop_that_may_not_end_is_left_alone() -> None:
    model = model_of(
        HEAD
        + """agraph (float[2] x) => (float[2] y) <bool yes = {1}, float[2] k = {1, 2}> {
  r = Loop(, yes, k) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] n) {
    co = Identity(ci) n = Add(s, k) }>
  y = Add(x, r)
}"""
    )
    result = fold(model)
    assert "Loop" in ops(model)
    assert "the loop may run for long" in {declined.reason for declined in result.declined}


def test_random_numbers_in_a_constant_loop_are_not_frozen() -> None:
    model = model_of(
        HEAD
        + """agraph (float[2] x) => (float[2] y) <int64 m = {50}, bool yes = {1}, float[2] k = {1, 2}> {
  r = Loop(m, yes, k) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] n) {
    co = Identity(ci) d = RandomNormalLike(s) n = Add(s, d) }>
  y = Add(x, r)
}"""
    )
    result = fold(model)
    assert "Loop" in ops(model)
    assert any("random" in declined.reason for declined in result.declined)


def test_a_chain_of_ifs_takes_linear_time() -> None:
    count = 400
    lines = "\n".join(
        f"v{i + 1} = If(yes) <then_branch = t () => (float[2] p) {{ b = Neg(v{i}) p = Neg(b) }},"
        f" else_branch = e () => (float[2] q) {{ q = Exp(v{i}) }}>"
        for i in range(count)
    )
    model = ir.from_proto(
        onnx.parser.parse_model(HEAD + f"agraph (float[2] v0) => (float[2] v{count}) <bool yes = {{1}}> {{ {lines} }}")
    )
    before = ir.to_proto(model)
    fold(model)
    assert ops(model) == ["Neg"] * (2 * count)
    after = assert_same_values(before, model, seeds=range(1))
    assert len({node.output[0] for node in after.graph.node}) == 2 * count
