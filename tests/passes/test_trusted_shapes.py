"""Shapes that may be relied on: computed from inputs and constants, never copied from what a file claims."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_passes.graph import from_proto
from surgeon_passes.trusted_shapes import trusted_shapes
from surgeon_passes.walk import scopes
from tests.numeric import model_of


def values_by_name(model):
    found = {v.name: v for v in model.graph.inputs}
    for scope in scopes(model):
        found.update({v.name: v for v in scope.graph.initializers.values()})
        found.update({v.name: v for node in scope.graph for v in node.outputs})
    return found


BODIES = """
<ir_version: 10, opset_import: ["" : 20, "pkg" : 1]>
main (float[N,3] x, bool c, float[M,3] z, int64 n) => (float[N,5] y, float[K,3] q, float l1,
    float[S,N,5] l2, float[3,N] f)
<float[3,5] w = {1,2,3,4,5,1,2,3,4,5,1,2,3,4,5}>
{
  b = If (c) <
    then_branch = then_graph () => (float[9,9] t) { u = MatMul(x, w) t = Relu(u) },
    else_branch = else_graph () => (float[9,9] e) { u2 = MatMul(x, w) e = Neg(u2) }
  >
  y = Identity(b)
  q = Add(x, z)
  l1, l2 = Loop(n, c, x) <body = body (int64 i, bool cc, float[N,3] a) => (bool co, float[N,3] a2, float[N,5] sc)
    { co = Identity(cc) a2 = Concat<axis=0>(a, x) sc = MatMul(x, w) }>
  f = pkg.Flip(x)
}
<domain: "pkg", opset_import: ["" : 20]>
Flip (v) => (r) { r = Transpose<perm = [1, 0]>(v) }
"""


def test_bodies_functions_symbols_and_loop_state():
    proto = onnx.parser.parse_model(BODIES)
    model = from_proto(proto)
    shapes, by_name = trusted_shapes(model), values_by_name(model)
    assert shapes.dims(by_name["u"]) == ("N", 5)
    assert shapes.dims(by_name["t"]) == ("N", 5)  # the declared [9, 9] is not believed
    assert shapes.dims(by_name["y"]) == ("N", 5)
    assert shapes.dims(by_name["sc"]) == ("N", 5)
    assert shapes.dims(by_name["a2"]) is None  # it grows from one iteration to the next
    assert shapes.dtype(by_name["a2"]) == ir.DataType.FLOAT
    assert shapes.dims(by_name["f"]) == (3, "N")
    assert shapes.dims(by_name["r"]) is None
    unknown, three = shapes.dims(by_name["q"])
    assert three == 3
    assert unknown not in ("N", "M", "K")
    assert shapes.same_dims(by_name["u"], by_name["t"])
    assert not shapes.same_dims(by_name["q"], by_name["x"])


def test_wrong_claims_of_the_file_are_not_believed():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[N,3] x) => (float[N,3] y) <float[1,3] a, int32[1,3] b> { a = Relu(x) b = Neg(a) y = Abs(b) }""")
    model = from_proto(proto)
    shapes, by_name = trusted_shapes(model), values_by_name(model)
    assert by_name["a"].shape[0] == 1
    assert shapes.dims(by_name["a"]) == ("N", 3)
    assert shapes.dtype(by_name["b"]) == ir.DataType.FLOAT


def test_overridable_shapes_are_not_constants():
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[6] x{}) => (float[R,S] y) <int64[2] s = {{2, 3}}> {{ y = Reshape(x, s) }}"""
    for extra, expected in (("", (2, 3)), (", int64[2] s", None)):
        model = from_proto(onnx.parser.parse_model(text.format(extra)))
        assert trusted_shapes(model).static(model.graph.outputs[0]) == expected


def test_weights_are_not_read_and_equal_names_in_branches_are_told_apart():
    model = model_of(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[4] x, bool c) => (float[K] y) {
          y = If (c) <
            then_branch = a () => (float[2] v) { s = Constant<value_ints = [2]>() v = Expand(o, s) },
            else_branch = b () => (float[3] v) { s = Constant<value_ints = [3]>() v = Expand(o, s) } >
        }""".replace("main (float[4] x, bool c)", "main (float[4] x, bool c, float[1] o)")
    )

    def never():
        raise AssertionError("a weight was read")

    huge = ir.LazyTensor(never, ir.DataType.FLOAT, ir.Shape([1 << 16, 1 << 16]), name="huge")
    model.graph.register_initializer(
        ir.Value(name="huge", const_value=huge, type=ir.TensorType(huge.dtype), shape=huge.shape)
    )
    node = ir.node("Shape", [model.graph.initializers["huge"]], outputs=[ir.Value(name="hs")])
    model.graph.append(node)
    shapes = trusted_shapes(model)
    assert shapes.static(node.outputs[0]) == (2,)
    assert shapes.static(model.graph.initializers["huge"]) == (1 << 16, 1 << 16)
    branch_outputs = [s.graph.outputs[0] for s in scopes(model) if s.owner is not None]
    assert [shapes.static(v) for v in branch_outputs] == [(2,), (3,)]


@pytest.mark.parametrize("propagate", [False, True])
def test_content_of_shape_tensors_only_on_request(propagate):
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[N,6] x) => (float[P,Q,R] y) <int64[1] zero = {0}, int64[2] tail = {2, 3}> {
          s = Shape(x) n = Gather(s, zero) t = Concat<axis = 0>(n, tail) y = Reshape(x, t) }""")
    dims = trusted_shapes(model, propagate_data=propagate).dims(model.graph.outputs[0])
    assert (dims == ("N", 2, 3)) is propagate


def test_custom_operators_unknown_versions_and_odd_types_only_make_things_unknown():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "my" : 1]>
        main (float[3] x) => (float[3] y) { a = my.Thing(x) b = Relu(x) y = Add(a, b) }""")
    model = from_proto(proto)
    shapes, by_name = trusted_shapes(model), values_by_name(model)
    assert shapes.dims(by_name["y"]) is None
    assert shapes.dims(by_name["b"]) == (3,)
    proto.opset_import[0].version = 9999
    model = from_proto(proto)
    assert trusted_shapes(model).dims(model.graph.inputs[0]) == (3,)


def test_strings_and_packed_constants_pass_through():
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        main (float[3] x) => (string[2] s, int64[1] n) { s = Identity(words) n = Shape(nibbles) }""")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(["a", "b"], object), "words"))
    proto.graph.initializer.append(onnx.helper.make_tensor("nibbles", onnx.TensorProto.INT4, [3], [1, 2, 3]))
    model = from_proto(proto)
    shapes = trusted_shapes(model)
    assert shapes.dtype(model.graph.outputs[0]) == ir.DataType.STRING
    assert shapes.static(model.graph.outputs[0]) == (2,)
    assert shapes.dtype(model.graph.initializers["nibbles"]) == ir.DataType.INT4
