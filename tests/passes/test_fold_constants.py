"""The pass ``fold-constants``: what it must fold, what it must not, and that nothing it does changes a value."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_passes.conditions import broken_conditions, interface_of
from surgeon_passes.contract import ChangeLog, PassResult
from surgeon_passes.fold_constants import FoldConstants
from surgeon_passes.walk import scopes
from tests.numeric import assert_same_values, model_of

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'


def fold(model: ir.Model, limit: int | None = None, **options: Any) -> PassResult:
    """Run the pass and check what holds after every pass."""
    interface = interface_of(model)
    result = FoldConstants(**options).run(model, ChangeLog(limit))
    assert broken_conditions(model) == []
    assert interface_of(model) == interface
    assert [change.number for change in result.changes] == list(range(1, len(result.changes) + 1))
    return result


def folded(text: str, *, dims: dict[str, int] | None = None, **options: Any) -> tuple[ir.Model, PassResult]:
    """Fold a model given as text; its values are the same."""
    model = model_of(text)
    before = ir.to_proto(model)
    result = fold(model, **options)
    assert_same_values(before, model, dims=dims)
    return model, result


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for scope in scopes(model) for node in scope.graph]


def check_every_prefix(text: str, *, dims: dict[str, int] | None = None, **options: Any) -> int:
    """Each number of changes leaves a valid model of the same values; how many changes there are."""
    before = ir.to_proto(model_of(text))
    total = len(fold(model_of(text), **options).changes)
    for limit in range(total + 1):
        model = model_of(text)
        assert len(fold(model, limit, **options).changes) == limit
        assert_same_values(before, model, dims=dims, seeds=range(1))
    return total


# -- what other tools get wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["Mul(f, half)", "Div(f, twohalf)", "Add(f, twohalf)"])
def test_a_float_constant_between_integer_casts_stays_a_float(step: str) -> None:
    model, _ = folded(
        HEAD
        + f"""agraph (int64[N] x) => (int64[N] y, float[N] other) {{
  half = Constant<value_float = 0.5>()
  twohalf = Constant<value_float = 2.5>()
  f = Cast<to=1>(x)
  r = {step}
  other = Mul(f, twohalf)
  y = Cast<to=7>(r)
}}"""
    )
    assert {str(v.const_value.dtype) for v in model.graph.initializers.values() if v.const_value} == {"FLOAT"}


def test_a_float_threshold_stays_a_float() -> None:
    model, _ = folded(
        HEAD
        + """agraph (int64[N] x) => (int64[N] y) <float limit = {1.5}> {
  f = Cast<to=1>(x)
  more = Greater(f, limit)
  y = Cast<to=7>(more)
}"""
    )
    assert ops(model) == ["Cast", "Greater", "Cast"]


def test_shape_heeds_start_and_end() -> None:
    model, _ = folded(
        HEAD + "agraph (float[N, 3, 5, 7] x) => (int64[2] y) { s = Shape<start=1, end=-1>(x) y = Neg(s) }"
    )
    assert ops(model) == ["Constant"]


def test_random_operators_are_never_frozen() -> None:
    text = (
        HEAD
        + """agraph (float[2] x) => (float[2] y) <float[2] p = {0.5, 0.5}, float ratio = {0.5}, bool on = {1}> {
  a = RandomNormal<shape = [2]>()
  b = RandomUniformLike(p)
  c = Bernoulli(p)
  d = Dropout(p, ratio, on)
  e = Add(a, b)
  f = Add(c, d)
  g = Add(e, f)
  y = Add(x, g)
}"""
    )
    model = model_of(text)
    result = fold(model)
    assert ops(model) == [
        "RandomNormal",
        "RandomUniformLike",
        "Bernoulli",
        "Dropout",
        "Add",
        "Add",
        "Add",
        "Add",
    ]
    assert sum("random" in declined.reason for declined in result.declined) == 4


def test_dropout_at_inference_is_folded() -> None:
    model, _ = folded(
        HEAD + "agraph (float[2] x) => (float[2] y) <float[2] p = {0.5, 0.25}> { d = Dropout(p) y = Add(x, d) }"
    )
    assert ops(model) == ["Add"]


@pytest.mark.parametrize(
    ("attribute", "dtype", "dims"),
    [
        ("value_float = 1.5", ir.DataType.FLOAT, ()),
        ("value_int = 3", ir.DataType.INT64, ()),
        ("value_floats = [1.5, 2.5]", ir.DataType.FLOAT, (2,)),
        ("value_ints = [1, 2, 3]", ir.DataType.INT64, (3,)),
    ],
)
def test_constant_attributes_have_their_own_types(attribute: str, dtype: ir.DataType, dims: tuple[int, ...]) -> None:
    kind = "float" if dtype == ir.DataType.FLOAT else "int64"
    model, result = folded(
        HEAD + f"agraph ({kind}[1] x) => ({kind}[n] y) {{ c = Constant<{attribute}>() y = Add(x, c) }}"
    )
    tensor = model.graph.initializers["c"].const_value
    assert tensor is not None
    assert (tensor.dtype, tensor.shape.numpy()) == (dtype, dims)
    assert [change.kind for change in result.changes] == ["lift-constant"]


def test_constant_texts_keep_every_character() -> None:
    model = model_of(
        HEAD
        + """agraph () => (string[3] y) {
  a = Constant<value_strings = ["日本", "x"]>()
  b = Constant<value_string = "é">()
  one = Constant<value_ints = [1]>()
  c = Reshape(b, one)
  y = Concat<axis=0>(a, c)
}"""
    )
    before = ir.to_proto(model)
    fold(model)
    assert_same_values(before, model)
    tensor = model.graph[0].attributes["value"].as_tensor()
    assert ops(model) == ["Constant"]
    assert list(tensor.string_data()) == ["日本".encode(), b"x", "é".encode()]  # type: ignore[attr-defined]


OVERRIDABLE = (
    HEAD + """agraph (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { n = Neg(w) y = Add(x, n) }"""
)


def test_an_initializer_that_is_an_input_is_no_constant() -> None:
    model = model_of(OVERRIDABLE)
    assert not fold(model).changes
    assert ops(model) == ["Neg", "Add"]


def test_an_initializer_that_is_an_input_is_one_if_asked() -> None:
    model, result = folded(OVERRIDABLE, fold_overridable=True)
    assert [change.kind for change in result.changes] == ["fold"]
    assert ops(model) == ["Add"]
    assert [value.name for value in model.graph.inputs] == ["x", "w"]
    assert "w" in model.graph.initializers


FUNCTION = """<ir_version: 10, opset_import: ["": 21, "own": 1]>
agraph (float[2] x) => (float[2] y) { y = own.scale<alpha = 3.0>(x) }
<domain: "own", opset_import: ["": 21]>
scale <alpha> (a) => (b) {
  given = Constant<value_float: float = @alpha>()
  two = Constant<value_float = 2.0>()
  six = Constant<value_floats = [6.0, 7.0]>()
  product = Mul(two, six)
  root = Sqrt(product)
  part = Mul(a, given)
  b = Add(part, root)
}"""


def test_the_constant_part_of_a_function_is_folded() -> None:
    model, result = folded(FUNCTION)
    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Constant", "Mul", "Add"]
    assert not function.graph.initializers
    assert {change.where for change in result.changes} == {"function:own::scale"}
    assert result.changes[0].after == ("root",)


def test_a_constant_sequence_is_folded_to_the_tensor_it_ends_in() -> None:
    model, _ = folded(
        HEAD
        + """agraph (float[4] x) => (float[4] y) <float[2] a = {1, 2}, float[2] b = {3, 4}> {
  empty = SequenceEmpty()
  one = SequenceInsert(empty, a)
  two = SequenceInsert(one, b)
  all = ConcatFromSequence<axis=0>(two)
  y = Add(x, all)
}"""
    )
    assert ops(model) == ["Add"]


def test_a_constant_sequence_that_is_read_stays() -> None:
    model, _ = folded(
        HEAD
        + """agraph (float[2] x, int64 i) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {3, 4}> {
  c = Neg(a)
  both = SequenceConstruct(c, b)
  at = SequenceAt(both, i)
  y = Add(x, at)
}""",
        dims={},
    )
    assert ops(model) == ["SequenceConstruct", "SequenceAt", "Add"]


# -- where results go ----------------------------------------------------------------------------------------------


def test_a_result_keeps_the_name_of_the_value_and_its_notes() -> None:
    model = model_of(
        HEAD + "agraph (float[2] x) => (float[2] y) <float[2] a = {1, 2}> { n = Neg(a) m = Exp(n) y = Add(x, m) }"
    )
    model.graph[1].outputs[0].metadata_props["origin"] = "line 7"
    (change,) = fold(model).changes
    assert change.kind == "fold"
    assert change.before == tuple(label for label in change.before)
    assert len(change.before) == 2
    assert change.after == change.boundary == ("m",)
    assert model.graph.initializers["m"].metadata_props == {"origin": "line 7"}
    assert list(model.graph.initializers) == ["m"]


def test_a_graph_output_is_made_by_one_constant_node() -> None:
    model, _ = folded(
        HEAD + "agraph (float[2] x) => (float[2] y, float[2] z) <float[2] a = {1, 2}> { z = Neg(a) y = Add(x, z) }"
    )
    assert sorted(ops(model)) == ["Add", "Constant"]


def test_a_constant_node_that_makes_a_graph_output_stays() -> None:
    model, result = folded(HEAD + "agraph () => (float[2] y) { y = Constant<value_floats = [1.0, 2.0]>() }")
    assert ops(model) == ["Constant"]
    assert not result.changes


def test_outputs_of_one_node_are_folded_together() -> None:
    model, result = folded(
        HEAD
        + """agraph (float[2] x) => (float[2] y, float[2] z) <float[6] a = {1, 2, 3, 4, 5, 6}> {
  p, q, r = Split<num_outputs=3>(a)
  n = Neg(q)
  z = Add(n, r)
  y = Add(x, p)
}"""
    )
    assert sorted(ops(model)) == ["Add", "Constant"]
    assert len(result.changes) == 2


def test_constants_of_outer_graphs_fold_inside_bodies() -> None:
    text = (
        HEAD
        + """agraph (bool c, float[2] x, int64 m) => (float[2] y, float[2] z) <float[2] a = {1, 2}, bool t = {1}> {
  y = If(c) <then_branch = b1 () => (float[2] p) { u = Neg(a) p = Add(x, u) },
             else_branch = b2 () => (float[2] q) <float[2] w = {3, 4}> { u = Exp(w) q = Mul(x, u) }>
  z = Loop(m, t, x) <body = b3 (int64 i, bool ci, float[2] s) => (bool co, float[2] n) {
        co = Identity(ci)
        k = Constant<value_floats = [5.0, 6.0]>()
        v = Sqrt(k)
        n = Add(s, v) }>
}"""
    )
    model, _ = folded(text)
    assert sorted(ops(model)) == ["Add", "Add", "Identity", "If", "Loop", "Mul"]
    check_every_prefix(text)


def test_constant_nodes_become_initializers_of_their_own_graph() -> None:
    model, result = folded(
        HEAD
        + """agraph (bool c, float[2] x) => (float[2] y) {
  k = Constant<value = float[2] {1, 2}>()
  m = Mul(x, k)
  y = If(c) <then_branch = b1 () => (float[2] p) { j = Constant<value_float = 3.0>() p = Add(m, j) },
             else_branch = b2 () => (float[2] q) { q = Constant<value_floats = [7.0, 8.0]>() }>
}"""
    )
    assert {change.kind for change in result.changes} == {"lift-constant"}
    assert sorted(ops(model)) == ["Add", "Constant", "If", "Mul"]
    assert {scope.path: list(scope.graph.initializers) for scope in scopes(model)}[""] == ["k"]


def test_models_older_than_ir_version_4_get_constant_nodes() -> None:
    model, _ = folded(
        """<ir_version: 3, opset_import: ["": 9]>
agraph (float[2] x) => (float[2] y) { k = Constant<value = float[2] {1, 2}>() e = Exp(k) n = Neg(e) y = Add(x, n) }"""
    )
    assert ops(model) == ["Constant", "Add"]


# -- what is left alone --------------------------------------------------------------------------------------------

QDQ = (
    HEAD
    + """agraph (float[2] x) => (float[2] y) <float[2] w = {1, 2}, float s = {0.5}, int8 z = {0}> {
  n = Neg(w)
  q = QuantizeLinear(n, s, z)
  d = DequantizeLinear(q, s, z)
  y = Add(x, d)
}"""
)


def test_quantisation_is_kept_unless_asked() -> None:
    model, _ = folded(QDQ)
    assert ops(model) == ["QuantizeLinear", "DequantizeLinear", "Add"]
    model, _ = folded(QDQ, fold_qdq=True)
    assert ops(model) == ["Add"]


def test_excluded_nodes_stay() -> None:
    model = model_of(
        HEAD + "agraph (float[2] x) => (float[2] y) <float[2] a = {1, 2}> { n = Neg(a) m = Exp(n) y = Add(x, m) }"
    )
    model.graph[0].name, model.graph[1].name = "/layer.1/neg", "/layer.2/exp"
    result = fold(model, exclude=("/layer.1/*",))
    assert ops(model) == ["Neg", "Exp", "Add"]
    assert result.declined[0].reason == "excluded by name"


def test_operators_of_other_domains_stay_and_so_does_what_needs_them() -> None:
    model = model_of(
        """<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
agraph (float[2] x) => (float[2] y) <float[2] a = {1, 2}> {
  n = Neg(a)
  g = com.microsoft.FastGelu(n)
  e = Exp(g)
  y = Add(x, e)
}"""
    )
    before = ir.to_proto(model)
    result = fold(model)
    assert_same_values(before, model)
    assert ops(model) == ["FastGelu", "Exp", "Add"]
    assert "com.microsoft" in result.declined[0].reason


def test_a_node_that_cannot_be_evaluated_stays_and_its_inputs_are_folded() -> None:
    model = model_of(
        HEAD
        + """agraph (float[2] x) => (float[a, b] y, float[2] z) <float[2] w = {1, 2}, int64[2] t = {3, 3}> {
  n = Neg(w)
  r = Reshape(n, t)
  y = Exp(r)
  m = Exp(n)
  z = Add(x, m)
}"""
    )
    result = fold(model)
    assert sorted(ops(model)) == ["Add", "Exp", "Reshape"]
    assert {"n", "m"} <= set(model.graph.initializers)
    assert any("cannot be evaluated" in declined.reason for declined in result.declined)


def test_bfloat16_and_eight_bit_floats_are_exact() -> None:
    values = np.array([1.5, -0.0, 3.0e38, np.nan], ml_dtypes.bfloat16)
    text = HEAD + "agraph (float[4] x) => (float[4] y) { m = Mul(w, w) n = Cast<to=1>(m) y = Add(x, n) }"
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(ir.serde.serialize_tensor(ir.Tensor(values, name="w")))
    model = ir.from_proto(proto)
    fold(model)
    assert ops(model) == ["Add"]
    tensor = model.graph.initializers["n"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), np.float32([2.25, 0, np.inf, np.nan]))


# -- size ----------------------------------------------------------------------------------------------------------

SPREAD = (
    HEAD
    + """agraph (float[N] x) => (float[N, m] y) <float[1] a = {2}, int64[2] t = {1000, 1000}> {
  e = Expand(a, t)
  s = ReduceSum<keepdims=0>(e)
  big = Exp(e)
  part = Mul(x, s)
  y = Add(part, big)
}"""
)


def test_a_result_much_larger_than_what_it_replaces_stays() -> None:
    model = model_of(SPREAD)
    result = fold(model)
    # The sum of the large tensor is small, so the large one is only computed on the way.
    assert ops(model) == ["Expand", "Exp", "Mul", "Add"]
    assert any("4.0 MB exceeds size_limit" in declined.reason for declined in result.declined)
    model = model_of(SPREAD)
    fold(model, size_limit=5 * 10**6)
    assert ops(model) == ["Mul", "Add"]


def with_weight(text: str, *shape: int, name: str = "w") -> ir.Model:
    proto = onnx.parser.parse_model(text)
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(data, name))
    return ir.from_proto(proto)


def test_a_result_may_be_as_large_as_the_weight_it_replaces() -> None:
    text = (
        HEAD
        + """agraph (float[N, 600] x) => (float[N, 700] y) {
  t = Transpose<perm=[1,0]>(w)
  n = Neg(t)
  y = MatMul(x, n)
}"""
    )
    model = with_weight(text, 700, 600)
    before = ir.to_proto(model)
    fold(model)
    assert ops(model) == ["MatMul"]
    assert list(model.graph.initializers) == ["n"]
    assert_same_values(before, model, rtol=1e-5)


def test_a_weight_that_somebody_else_reads_gives_no_room() -> None:
    text = (
        HEAD
        + """agraph (float[N, 600] x) => (float[N, 700] y, float[700, 600] z) {
  t = Transpose<perm=[1,0]>(w)
  y = MatMul(x, t)
  z = Exp(w)
}"""
    )
    model = with_weight(text, 700, 600)
    fold(model)
    # 1.7 MB more for each of the two results.
    assert sorted(ops(model)) == ["Exp", "MatMul", "Transpose"]


def test_large_weights_are_laid_out_without_reading_them(tmp_path: Path) -> None:
    data = np.arange(3 * 2**20, dtype=np.float32)
    data.tofile(tmp_path / "w.bin")
    model = model_of(
        HEAD
        + """agraph (float[1, 3] x) => (float[1, n] y) <int64[2] t = {1048576, 3}> {
  r = Reshape(w0, t)
  p = Transpose<perm=[1,0]>(r)
  y = MatMul(x, p)
}""".replace("w0", "x2").replace("(float[1, 3] x)", "(float[1, 3] x, float[3145728] x2)")
    )
    value = model.graph.inputs.pop()
    value.const_value = ir.ExternalTensor(
        "w.bin", 0, data.nbytes, ir.DataType.FLOAT, shape=ir.Shape(data.shape), name="x2", base_dir=tmp_path
    )
    model.graph.register_initializer(value)
    fold(model)
    tensor = model.graph.initializers["p"].const_value
    assert ops(model) == ["MatMul"]
    assert isinstance(tensor, ir.LazyTensor)
    np.testing.assert_array_equal(tensor.numpy(), data.reshape(-1, 3).T)


def test_batches_that_do_not_fit_in_memory_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        HEAD
        + """agraph (float[6] x) => (float[2] y, float[2] z, float[2] u) <float[6] a = {1, 2, 3, 4, 5, 6}> {
  n = Neg(a)
  p, q, r = Split<num_outputs=3>(n)
  e = Exp(q)
  f = Add(e, r)
  d, k, l = Split<num_outputs=3>(x)
  y = Add(d, p)
  z = Add(k, f)
  u = Add(l, e)
}"""
    )
    before = ir.to_proto(model_of(text))
    for memory in (1, 16, 60, 10**6):
        monkeypatch.setattr("surgeon_passes.run_folds.MEMORY", memory)
        model = model_of(text)
        fold(model)
        assert_same_values(before, model)
        assert sorted(ops(model)) == ["Add", "Add", "Add", "Split"], memory


# -- changes -------------------------------------------------------------------------------------------------------


def test_every_prefix_of_the_changes_is_valid_and_equal() -> None:
    text = (
        HEAD
        + """agraph (float[N, 12] x, bool c) => (float[n, m] y, float[3] z) <float[3] a = {1, 2, 3}> {
  k = Constant<value_ints = [0, 3, 4]>()
  h = Constant<value_float = 0.5>()
  s = Shape(x)
  zero = Constant<value_int = 0>()
  b = Gather(s, zero)
  ax = Constant<value_ints = [0]>()
  b1 = Unsqueeze(b, ax)
  three = Constant<value_ints = [3, 4]>()
  t = Concat<axis=0>(b1, three)
  r = Reshape(x, t)
  f, g = Split<axis=0, split_like = 1, num_outputs=2>(k2)
  k2 = Constant<value_floats = [1.0, 2.0]>()
  w = Mul(a, h)
  e = Exp(w)
  v = Add(e, a)
  z = If(c) <then_branch = b1 () => (float[3] p) { p = Add(v, e) }, else_branch = b2 () => (float[3] q) { q = Neg(e) }>
  u = Mul(r, f)
  y0 = Reshape(u, k)
  y1 = ReduceSum<keepdims=0>(y0, ax)
  y = Add(y1, g)
}"""
    )
    text = text.replace("  k2 = Constant<value_floats = [1.0, 2.0]>()\n", "").replace(
        "  f, g = Split<axis=0, split_like = 1,", "  k2 = Constant<value_floats = [1.0, 2.0]>()\n  f, g = Split<axis=0,"
    )
    assert check_every_prefix(text, dims={"N": 2}) >= 10


def test_withheld_changes_touch_nothing() -> None:
    model = model_of(FUNCTION)
    before = ir.to_proto(model).SerializeToString()
    fold(model, limit=0)
    assert ir.to_proto(model).SerializeToString() == before


def test_a_second_run_finds_nothing() -> None:
    for text in (FUNCTION, QDQ, SPREAD):
        model = model_of(text)
        fold(model)
        assert not fold(model).changes


def test_the_cost_grows_with_the_model() -> None:
    def seconds(count: int) -> float:
        nodes = "\n".join(f"  a{i + 1} = Add(a{i}, c{i})  c{i + 1} = Neg(c{i})" for i in range(count))
        text = HEAD + f"agraph (float[1] a0) => (float[1] a{count}) <float[1] c0 = {{1}}> {{\n{nodes}\n}}"
        model = ir.from_proto(onnx.parser.parse_model(text))
        start = time.perf_counter()
        result = fold(model)
        assert len(result.changes) == count - 1
        return time.perf_counter() - start

    seconds(10)
    assert seconds(5000) < 25 * max(seconds(500), 0.02)


# -- random graphs -------------------------------------------------------------------------------------------------

UNARY = ("Neg", "Abs", "Relu", "Identity", "Floor", "Sign")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_graphs_keep_their_values(data: st.DataObject) -> None:
    def body(names: list[str], depth: int, prefix: str) -> tuple[str, str]:
        lines, known = [], list(names)
        for i in range(data.draw(st.integers(1, 6))):
            name, pick = f"{prefix}{i}", lambda: data.draw(st.sampled_from(known))
            kind = data.draw(st.integers(0, 9 if depth < 2 else 8))
            if kind < 4:
                lines.append(f"{name} = {data.draw(st.sampled_from(UNARY))}({pick()})")
            elif kind < 7:
                lines.append(f"{name} = {data.draw(st.sampled_from(BINARY))}({pick()}, {pick()})")
            elif kind < 9:
                number = data.draw(st.integers(-3, 3))
                lines.append(f"{name} = Constant<value_floats = [{number}.5, {number}.0]>()")
            else:
                condition = data.draw(st.sampled_from(["c", "yes", "no"]))
                first, a = body(known, depth + 1, f"{name}t")
                second, b = body(known, depth + 1, f"{name}e")
                lines.append(
                    f"{name} = If({condition}) <then_branch = g1 () => (float[2] {a}) {{ {first} }},"
                    f" else_branch = g2 () => (float[2] {b}) {{ {second} }}>"
                )
            known.append(name)
        last = f"{prefix}out"
        lines.append(f"{last} = Add({known[-1]}, {data.draw(st.sampled_from(known))})")
        return "\n".join(lines), last

    lines, last = body(["x", "k"], 0, "v")
    text = HEAD + (
        f"agraph (float[2] x, bool c) => (float[2] {last})"
        f" <float[2] k = {{1, 2}}, bool yes = {{1}}, bool no = {{0}}> {{ {lines} }}"
    )
    model = model_of(text)
    before = ir.to_proto(model)
    total = len(fold(model).changes)
    assert_same_values(before, model, seeds=range(1))
    limit = data.draw(st.integers(0, total))
    model = model_of(text)
    fold(model, limit)
    assert_same_values(before, model, seeds=range(1))
