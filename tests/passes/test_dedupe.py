# ruff: noqa: E501  (one case, one line)
"""dedupe: equal weights and computations become one, different ones never."""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper

from surgeon_passes.conditions import broken_conditions, clashing_names, interface_changes, interface_of
from surgeon_passes.contract import ChangeLog
from surgeon_passes.dedupe import Dedupe
from surgeon_passes.graph import from_proto, load, to_proto
from surgeon_passes.remove_dead import RemoveDead
from surgeon_passes.tensor_content import ContentKeys, same_content
from surgeon_passes.walk import scopes
from tests.numeric import assert_same_values
from tests.random_models import models


def rewritten(proto, limit=None, **options):
    model = from_proto(proto)
    log = ChangeLog(limit=limit)
    before, broken = interface_of(model), broken_conditions(model) + clashing_names(model)
    Dedupe(**options).run(model, log)
    assert interface_changes(before, interface_of(model)) == []
    assert [s for s in broken_conditions(model) + clashing_names(model) if s not in broken] == []
    return model, log


def parsed(body, head="float[3] x", tail="float[3] y", constants="", opset=17, more=""):
    constants = f"<{constants}>" if constants else ""
    text = (
        f'<ir_version: 10, opset_import: ["" : {opset}, "pkg" : 1]> main ({head}) => ({tail}) {constants} {{ {body} }}'
    )
    return onnx.parser.parse_model(text + more)


def ops(model):
    return sorted(node.op_type for scope in scopes(model) for node in scope.graph)


def names(model):
    return {name for scope in scopes(model) for name in scope.graph.initializers}


def test_equal_initializers_become_the_first():
    proto = parsed(
        "p = Add(x, a) q = Mul(p, b) y = Sub(q, c)",
        constants="float[3] a = {1,2,3}, float[3] b = {1,2,3}, float[3] c = {1,2,4}",
    )
    model, log = rewritten(proto)
    assert names(model) == {"a", "c"}
    assert [(c.kind, c.before, c.after) for c in log.changes] == [("merge-initializer", ("a", "b"), ("a",))]
    assert_same_values(proto, to_proto(model))


def tensor_pairs():
    nan, other_nan = (np.array([bits], np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))
    f4 = TensorProto.FLOAT
    return [
        ("nan", numpy_helper.from_array(nan), numpy_helper.from_array(nan), True),
        ("nan-payload", numpy_helper.from_array(nan), numpy_helper.from_array(other_nan), False),
        ("zeros", numpy_helper.from_array(np.float32([0.0])), numpy_helper.from_array(np.float32([-0.0])), False),
        ("types", numpy_helper.from_array(np.int32([1])), numpy_helper.from_array(np.float32([1e-45])), False),
        ("shapes", helper.make_tensor("", f4, [2, 1], [1, 2]), helper.make_tensor("", f4, [1, 2], [1, 2]), False),
        ("raw-and-typed", helper.make_tensor("", f4, [2], [1, 2]), numpy_helper.from_array(np.float32([1, 2])), True),
        ("bf16", *(helper.make_tensor("", TensorProto.BFLOAT16, [2], [1.5, 2]) for _ in "ab"), True),
        ("int4", *(helper.make_tensor("", TensorProto.INT4, [3], [1, -2, 3]) for _ in "ab"), True),
        ("int4-differs", *(helper.make_tensor("", TensorProto.INT4, [3], [1, -2, n]) for n in (3, 4)), False),
        ("fp8", *(helper.make_tensor("", TensorProto.FLOAT8E4M3FN, [2], [1.5, 2]) for _ in "ab"), True),
        ("strings", *(helper.make_tensor("", TensorProto.STRING, [2], [b"ab", b"c"]) for _ in "ab"), True),
        (
            "strings-cut",
            *(helper.make_tensor("", TensorProto.STRING, [2], t) for t in ([b"ab", b"c"], [b"a", b"bc"])),
            False,
        ),
        ("empty", *(numpy_helper.from_array(np.zeros((0, 3), np.float32)) for _ in "ab"), True),
        ("scalars", *(numpy_helper.from_array(np.array(1, np.int64)) for _ in "ab"), True),
    ]


@pytest.mark.parametrize(("one", "other", "equal"), [p[1:] for p in tensor_pairs()], ids=[p[0] for p in tensor_pairs()])
def test_equal_means_every_bit(one, other, equal):
    a, b = (ir.from_proto(onnx.TensorProto.FromString(t.SerializeToString())) for t in (one, other))
    assert same_content(a, b) is equal
    keys = ContentKeys([a, b])
    assert (keys.key(a) == keys.key(b)) is equal


def test_only_the_middle_differs():
    first = np.zeros(100_000, np.float32)
    second = first.copy()
    second[50_000] = 1
    tensors = [ir.tensor(first), ir.tensor(second), ir.tensor(first.copy())]
    keys = ContentKeys(tensors)
    assert keys.key(tensors[0]) == keys.key(tensors[2]) != keys.key(tensors[1])


class Counted(ir.LazyTensor):
    """A tensor in a file that counts the bytes read of it."""

    def __init__(self, array, offset=0, path="weights"):
        super().__init__(lambda: ir.tensor(array), ir.DataType.FLOAT, ir.Shape(array.shape))
        self.array, self.offset, self.length, self.path, self.read, self.file = (
            array,
            offset,
            array.nbytes,
            path,
            0,
            self,
        )

    def chunks(self, offset=None, length=None):
        data = self.array.tobytes()
        start = 0 if offset is None else offset - self.offset
        data = data[start : start + (len(data) if length is None else length)]
        self.read += len(data)
        for i in range(0, len(data), 1000):
            yield data[i : i + 1000]


def test_nothing_is_read_without_need():
    rng = np.random.default_rng(0)
    alone = Counted(rng.random(5_000_000).astype(np.float32))
    pair = [Counted(rng.random(1_000_000).astype(np.float32), 10**9 * i) for i in range(2)]
    same = rng.random((1000, 1001)).astype(np.float32)
    shared = [Counted(same, 7) for _ in range(3)]
    keys = ContentKeys([alone, *pair, *shared])
    found = [keys.key(t) for t in (alone, *pair, *shared)]
    assert len(set(found)) == 4
    assert alone.read == 0
    assert all(t.read <= 8192 for t in pair)
    assert sum(t.read for t in shared) <= same.nbytes + 3 * 8192  # one region, read once


def test_external_weights_are_streamed(tmp_path):
    proto = parsed("p = MatMul(x, a) q = MatMul(p, b) y = MatMul(q, c)", head="float[1,700] x", tail="float[1,700] y")
    weight = np.random.default_rng(0).random((700, 700)).astype(np.float32) / 700
    for name, array in (("a", weight), ("b", weight), ("c", weight + 1)):
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    inline, external = tmp_path / "inline.onnx", tmp_path / "external.onnx"
    onnx.save(proto, inline)
    onnx.save(proto, external, save_as_external_data=True, location="w.bin")
    for path in (inline, external):
        model = load(path)
        log = ChangeLog()
        Dedupe().run(model, log)
        assert names(model) == {"a", "c"}
        assert_same_values(onnx.load(inline), to_proto(model), seeds=range(1))


BODIES = """
<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
main (float[3] x, bool c, float[3] over) => (float[3] y, float[3] z)
<float[3] w = {1, 2, 3}, float[3] over = {1, 2, 3}>
{
  a = Mul(x, w)
  y = If (c) <
    then_branch = t () => (float[3] t3) <float[3] w1 = {1, 2, 3}> { t1 = Mul(w1, x) t2 = Exp(t1) t3 = Exp(t1) },
    else_branch = e () => (float[3] e3) <float[3] w2 = {1, 2, 3}> { e1 = Mul(x, w2) e2 = Neg(e1) e3 = Exp(e2) }
  >
  b = Add(a, over)
  f = pkg.F(b)
  g = pkg.F(b)
  z = Add(f, g)
}
<domain: "pkg", opset_import: ["" : 17]>
F (v) => (r) {
  k1 = Constant<value_float = 2.0>() k2 = Constant<value_float = 2.0>() k3 = Constant<value = float {2.0}>()
  p = Mul(v, k1) q = Mul(k2, v) s = Mul(v, k3) u = Add(p, q) r = Add(u, s) }
"""


def test_bodies_read_what_the_outer_graph_has_and_functions_are_cleaned_too():
    proto = onnx.parser.parse_model(BODIES)
    model, log = rewritten(proto)
    assert names(model) == {"w", "over"}
    assert ops(model).count("Mul") == 3  # one outside, two in the function: k3 is written in another way
    assert ops(model).count("F") == 1
    assert ops(model).count("Exp") == 2  # t2 becomes t3, the output of its branch
    for limit in range(len(log.changes) + 1):
        assert_same_values(proto, to_proto(rewritten(proto, limit)[0]), seeds=range(2))


def test_outputs_keep_their_names():
    proto = parsed("a = Neg(x) y = Neg(x) z = Neg(x) b = Relu(a)", tail="float[3] y, float[3] z, float[3] b")
    model, log = rewritten(proto)
    assert ops(model) == ["Neg", "Neg", "Relu"]
    assert [d.reason for d in log.declined] == ["computes what Neg(y) does, but each is an output of its own graph"]
    assert_same_values(proto, to_proto(model))


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Add(x, x2) b = Add(x2, x) y = Sub(a, b)", 2),
        ("a = Sub(x, x2) b = Sub(x2, x) y = Add(a, b)", 3),
        ("a = Max(x, x2) b = Max(x2, x) y = Add(a, b)", 3),
        ("a = LeakyRelu<alpha = 0.0>(x) b = LeakyRelu<alpha = -0.0>(x) y = Add(a, b)", 3),
        ("a = LeakyRelu<alpha = 0.1>(x) b = LeakyRelu<alpha = 0.1>(x) y = Add(a, b)", 2),
        ("a = RandomUniformLike<seed = 1.0>(x) b = RandomUniformLike<seed = 1.0>(x) y = Add(a, b)", 3),
        ("a = Clip(x, , x3) b = Clip(x, x3) y = Add(a, b)", 3),
        ("a = Clip(x, , x3) b = Clip(x, , x3) y = Add(a, b)", 2),
        ("a, m = Dropout(x) b, n = Dropout(x) y = Add(a, b)", 3),
        ("a, m = TopK<axis = 0>(x, k) b, n = TopK<axis = 0>(x, k) o = Add(m, n) p = Cast<to = 1>(o) q = Add(a, b) y = Add(p, q)", 5),
        ("a, a2 = Split(x4) b, b2, b3, b4 = Split(x4) c = Add(a, a2) d = Concat<axis = 0>(b, b2) y = Add(c, d)", 5),
        ("a = my.Op(x) b = my.Op(x) y = Add(a, b)", 3),
        ("a = com.microsoft.Gelu(x) b = com.microsoft.Gelu(x) y = Add(a, b)", 3),
    ],
)  # fmt: skip
def test_nodes_that_are_equal_and_nodes_that_are_not(body, left):
    head = "float[3] x, float[3] x2, float x3, int64[1] k, float[4] x4"
    proto = parsed(body, head=head)
    proto.opset_import.append(helper.make_opsetid("my", 1))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model, _ = rewritten(proto)
    assert len(model.graph) == left


def test_functions_that_hold_random_or_custom_operators_are_called_as_often_as_before():
    more = """
        <domain: "pkg", opset_import: ["" : 17]> Noise (v) => (r) { n = RandomNormalLike(v) r = Add(v, n) }
        <domain: "pkg", opset_import: ["" : 17, "pkg" : 1]> Outer (v) => (r) { r = pkg.Noise(v) }"""
    proto = parsed("a = pkg.Outer(x) b = pkg.Outer(x) y = Add(a, b)", more=more)
    assert ops(rewritten(proto)[0]).count("Outer") == 2


def test_references_to_attributes_are_equal_if_they_name_the_same():
    more = """
        <domain: "pkg", opset_import: ["" : 17]> F <alpha, beta> (v) => (r) {
          a = LeakyRelu<alpha : float = @alpha>(v) b = LeakyRelu<alpha : float = @alpha>(v)
          c = LeakyRelu<alpha : float = @beta>(v) d = Add(a, b) r = Add(c, d) }"""
    proto = parsed("y = pkg.F<alpha = 0.1, beta = 0.2>(x)", more=more)
    model, _ = rewritten(proto)
    assert ops(model).count("LeakyRelu") == 2
    assert_same_values(proto, to_proto(model))


def test_initializers_that_are_inputs_or_outputs_stay():
    proto = parsed(
        "p = Add(x, a) q = Add(p, b) y = Add(q, o)",
        head="float[3] x, float[3] a, float[3] b",
        tail="float[3] y, float[3] o",
        constants="float[3] a = {1,2,3}, float[3] b = {1,2,3}, float[3] o = {1,2,3}, float[3] k = {1,2,3}",
    )
    model, _ = rewritten(proto)
    assert names(model) == {"a", "b", "o"}
    assert_same_values(proto, to_proto(model))


def test_a_name_that_a_branch_uses_for_itself_is_not_read_there():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[3] x, bool c) => (float[3] y) <float[3] w = {1, 2, 3}> {
          k = Add(x, w)
          y = If (c) <
            then_branch = t () => (float[3] o) <float[3] w1 = {1, 2, 3}> { w = Exp(k) o = Add(w, w1) },
            else_branch = e () => (float[3] u) { u = Relu(k) } > }""")
    model = from_proto(proto)
    log = ChangeLog()
    Dedupe().run(model, log)
    assert names(model) == {"w", "w1"}
    assert "several graphs have a value called 'w'" in log.declined[0].reason


def test_bodies_of_custom_operators_share_nothing_with_the_graph_around_them():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "my" : 1]>
        main (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> {
          a = Add(x, w)
          y = my.Search <body = b (float[3] v) => (float[3] r) <float[3] w1 = {1, 2, 3}> { p = Add(x, w1) q = Add(x, w1) r = Add(p, q) }> (a) }""")
    model, _ = rewritten(proto)
    assert names(model) == {"w", "w1"}
    assert ops(model).count("Add") == 3


def test_options_switch_each_half_off():
    proto = onnx.parser.parse_model(BODIES)
    kinds = {c.kind for c in rewritten(proto, nodes=False)[1].changes}
    assert kinds == {"merge-initializer"}
    kinds = {c.kind for c in rewritten(proto, initializers=False)[1].changes}
    assert kinds == {"merge-node"}


def test_twenty_thousand_equal_pairs_take_linear_time():
    times = []
    for count in (2_000, 20_000):
        x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
        nodes, last = [], x
        for i in range(0, count, 2):
            pair = [ir.node("Neg", [last], outputs=[ir.Value(name=f"v{j}")], name=f"n{j}") for j in (i, i + 1)]
            nodes += pair
            last = pair[1].outputs[0]
        last.type, last.shape = x.type, ir.Shape([1])
        model = ir.Model(ir.Graph([x], [last], nodes=nodes, opset_imports={"": 17}), ir_version=8)
        started = time.process_time()
        Dedupe().run(model, ChangeLog())
        times.append(time.process_time() - started)
        assert len(model.graph) == count // 2
    assert times[1] < 25 * times[0] + 0.5


@settings(max_examples=30, deadline=None)
@given(models(25))
def test_random_models_keep_every_bit(proto):
    model, log = rewritten(proto)
    assert_same_values(proto, to_proto(model), seeds=range(2))
    assert not rewritten(to_proto(model))[1].changes
    half, _ = rewritten(proto, len(log.changes) // 2)
    assert_same_values(proto, to_proto(half), seeds=range(1))


@settings(max_examples=20, deadline=None)
@given(models(30))
def test_random_models_keep_every_bit_with_remove_dead_before_and_after(proto):
    model, log = from_proto(proto), ChangeLog()
    for step in (RemoveDead(), Dedupe(), RemoveDead()):
        step.run(model, log)
    assert broken_conditions(model) == []
    assert_same_values(proto, to_proto(model), seeds=range(2))
