"""What infer-shapes writes down is what a run shows, and nothing but types and shapes changes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_passes.conditions import interface_changes, interface_of
from surgeon_passes.contract import ChangeLog
from surgeon_passes.errors import RefusalError
from surgeon_passes.infer_shapes import InferShapes, best_types
from surgeon_passes.infer_types import infer_types
from surgeon_passes.spec import build
from tests.numeric import assert_same_values, feeds_of, model_of, run

ATTENTION = """<ir_version: 9, opset_import: ["": 18]>
net (float[batch,seq,12] x, float[batch,past,12] old, float[12,24] w) => (float[B,K] out)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] four = {4}, int64[1] three = {3},
 int64[1] minus = {-1}, int64[1] eight = {8}>
{
    h = MatMul(x, w)
    size = Shape(h)
    b = Gather<axis = 0>(size, zero)
    s = Gather<axis = 0>(size, one)
    bs = Mul(b, s)
    flat_shape = Concat<axis = 0>(bs, minus)
    flat = Reshape(h, flat_shape)
    act = Relu(flat)
    twice = Concat<axis = 0>(act, act)
    both = Concat<axis = 1>(old, x)
    halves = Slice(both, zero, minus, one)
    heads_shape = Concat<axis = 0>(b, s, eight, three)
    heads = Reshape(h, heads_shape)
    turned = Transpose<perm = [0, 2, 1, 3]>(heads)
    joined_shape = Concat<axis = 0>(zero, minus)
    out = Reshape(turned, joined_shape)
}"""


def shapes_of(model: ir.Model) -> dict[str, str]:
    found = {}
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                found[value.name or ""] = str(value.shape)
    return found


def assert_shapes_hold(model: ir.Model, dims: dict[str, int]) -> None:
    """Compare every written dimension with a run."""
    proto = ir.to_proto(model)
    full = onnx.ModelProto()
    full.CopyFrom(proto)
    have = {o.name for o in full.graph.output}
    full.graph.output.extend(
        onnx.ValueInfoProto(name=n) for v in full.graph.node for n in v.output if n and n not in have
    )
    seen = run(full, feeds_of(proto, dims))
    for node in model.graph:
        for value in node.outputs:
            if value.shape is None or value.name not in seen:
                continue
            assert len(value.shape) == seen[value.name].ndim, value
            for dim, size in zip(value.shape, seen[value.name].shape, strict=True):
                if isinstance(dim, int):
                    assert dim == size, value
                elif dim.value is not None and dim.free_symbols() <= set(dims):
                    assert dim.evaluate(dims) == size, value


def test_sums_of_symbols_are_followed() -> None:
    model = model_of(ATTENTION)
    result = InferShapes().run(model, ChangeLog())
    shapes = shapes_of(model)
    assert shapes["flat"] == "[batch*seq,24]" and shapes["twice"] == "[2*batch*seq,24]"
    assert shapes["both"] in ("[batch,past + seq,12]", "[batch,seq + past,12]")
    assert shapes["turned"] == "[batch,8,seq,3]"
    assert {change.kind for change in result.changes} == {"infer"}
    assert all(change.before == change.after == change.boundary for change in result.changes)
    assert_shapes_hold(model, {"batch": 3, "seq": 5, "past": 2})
    assert not InferShapes().run(model, ChangeLog()).changes


def test_without_expressions_the_ranks_and_numbers_are_still_there() -> None:
    model = model_of(ATTENTION)
    build(InferShapes, {"symbolic": "false"}).run(model, ChangeLog())
    assert shapes_of(model)["flat"] in ("[None,24]", "[None,None]")


def test_interface_is_completed_but_never_altered() -> None:
    model = model_of(ATTENTION)
    before = interface_of(model)
    proto = ir.to_proto(model)
    InferShapes().run(model, ChangeLog())
    assert interface_changes(before, interface_of(model)) == []
    assert str(model.graph.outputs[0].shape) == "[B,K]"
    assert_same_values(proto, model, dims={"batch": 2, "seq": 3, "past": 1})
    model.graph.outputs[0].shape = None
    InferShapes().run(model, ChangeLog())
    assert str(model.graph.outputs[0].shape) in ("[batch,24*seq]", "[batch,None]")


def test_a_wrong_value_info_gives_way_and_a_wrong_output_is_reported() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18]>
        net (float[N,4] x) => (float[7,4] y) <float[1,4] a, float[2,3,4] b> { a = Relu(x) b = Neg(a) y = Abs(b) }"""
    )
    result = InferShapes().run(model, ChangeLog())
    assert shapes_of(model) == {"a": "[N,4]", "b": "[N,4]", "y": "[7,4]"}
    assert [change.kind for change in result.changes] == ["correct", "correct"]
    reasons = {declined.node: declined.reason for declined in result.declined}
    assert reasons["a"] == "the value info was wrong: declared FLOAT[1,4], computed FLOAT[N,4]"
    assert reasons["y"] == "an output of the model: declared FLOAT[7,4], computed FLOAT[N,4]"


def test_names_that_nothing_contradicts_are_kept() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18]>
        net (float[N,4] x) => (float[hits] y) <int64[2,hits] i, float[2,hits] f>
        { i = NonZero(x) f = Cast<to = 1>(i) y = ReduceMax<keepdims = 0, axes = [0]>(f) }""".replace("18", "13")
    )
    assert not InferShapes().run(model, ChangeLog()).changes
    assert shapes_of(model) == {"i": "[2,hits]", "f": "[2,hits]", "y": "[hits]"}


def test_what_is_declared_after_an_unknown_operator_is_used() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18, "my": 1]>
        net (float[N,4] x) => (float[N,5] y) <float[N,5] a> { a = my.Op(x) b = Relu(a) y = Abs(b) }"""
    )
    result = InferShapes().run(model, ChangeLog())
    assert [change.after for change in result.changes] == [("b",)] and shapes_of(model)["b"] == "[N,5]"


def test_onnxruntime_is_asked_about_its_own_operators() -> None:
    text = """<ir_version: 9, opset_import: ["": 18, "com.microsoft": 1]>
        net (float[batch,seq,8] x, float[8] bias) => (float[batch,seq,8] y)
        { g = com.microsoft.BiasGelu(x, bias) r = Relu(g) y = Abs(r) }"""
    model = model_of(text)
    InferShapes().run(model, ChangeLog())
    assert shapes_of(model)["r"] == "[batch,seq,8]"
    assert_shapes_hold(model, {"batch": 3, "seq": 5})
    model = model_of(text)
    InferShapes(onnxruntime=False).run(model, ChangeLog())
    assert shapes_of(model)["r"] == "None"


def test_onnxruntime_leaves_nothing_behind(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # type: ignore[arg-type]
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18, "my": 1]>
        net (float[N,4] x) => (float[N,5] y) { a = my.Op(x) y = Abs(a) }"""
    )
    InferShapes().run(model, ChangeLog())
    assert not list(tmp_path.iterdir())  # type: ignore[attr-defined]


BODIES = """<ir_version: 9, opset_import: ["": 18, "pkg": 1]>
net (bool flag, int64 trips, float[N,4] x) => (float[N,4] y, float[T,N,4] steps)
{
    a = pkg.Half(x)
    b = If (flag) <then_branch = yes () => (p) { q = Neg(a) p = Relu(q) }, else_branch = no () => (r) { r = Abs(a) }>
    go = Constant<value = bool {1}>()
    y, steps = Loop (trips, go, b) <body = one (i, c, s) => (d, t, u) { d = Identity(c) t = Add(s, a) u = Sub(s, x) }>
}
<domain: "pkg", opset_import: ["": 18]> Half (p) => (q) { two = Constant<value = float {2}>() q = Div(p, two) }"""


def untyped_bodies() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(BODIES))


def test_bodies_and_calls_of_functions_are_typed() -> None:
    model = untyped_bodies()
    InferShapes().run(model, ChangeLog())
    shapes = shapes_of(model)
    assert shapes["a"] == shapes["b"] == shapes["q"] == shapes["p"] == "[N,4]"
    body = next(n for n in model.graph if n.op_type == "Loop").attributes["body"].as_graph()
    assert [value.dtype for value in body.inputs] == [ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.FLOAT]
    assert all(v.type is None for n in model.functions[("pkg", "Half", "")] for v in n.outputs)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert not InferShapes().run(model, ChangeLog()).changes


def test_every_prefix_of_changes_is_a_valid_equal_model() -> None:
    reference = untyped_bodies()
    InferShapes().run(reference, ChangeLog())
    complete = ir.to_proto(reference)
    total = len(InferShapes().run(untyped_bodies(), ChangeLog()).changes)
    for limit in range(total + 1):
        model = untyped_bodies()
        result = InferShapes().run(model, ChangeLog(limit=limit))
        assert len(result.changes) == limit
    assert_same_values(complete, model, dims={"N": 3})


def test_a_shape_that_changes_in_a_loop_is_not_claimed() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18]>
        net (int64 trips, float[1,4] x) => (float[M,4] y) {
            go = Constant<value = bool {1}>()
            grown = Loop (trips, go, x) <body = one (int64 i, bool c, float[K,4] s) => (bool d, float[K2,4] t)
                { d = Identity(c) t = Concat<axis = 0>(s, s) }>
            y = Identity(grown)
        }"""
    )
    InferShapes().run(model, ChangeLog())
    proto = ir.to_proto(model)
    feeds = {"trips": np.array(2), "x": np.ones((1, 4), np.float32)}
    assert run(proto, feeds)["y"].shape == (4, 4)
    grown = next(v for n in model.graph for v in n.outputs if v.name == "grown")
    assert grown.shape is None or not isinstance(grown.shape[0], int)


def test_equal_names_in_two_scopes_are_kept_apart() -> None:
    model = untyped_bodies()
    for graph in model.graphs():
        if graph.name in ("yes", "no"):
            for i, node in enumerate(graph):
                node.outputs[0].name = f"same{i}"
    branch = next(g for g in model.graphs() if g.name == "yes")
    branch.insert_after(branch[0], ir.node("Flatten", [branch[0].outputs[0]], attributes={"axis": 0}))
    branch[1].outputs[0].name = "same9"
    InferShapes().run(model, ChangeLog())
    assert str(branch[1].outputs[0].shape) in ("[1,4*N]", "[1,None]")
    assert str(branch[0].outputs[0].shape) == "[N,4]"


def test_strict_refuses_a_contradiction_and_names_the_node() -> None:
    model = model_of(
        """<ir_version: 9, opset_import: ["": 18]>
        net (float[2,3] x, float[2,4] z) => (float[A,B] y) { [sum] y = Add(x, z) }"""
    )
    with pytest.raises(RefusalError, match="sum"):
        InferShapes(strict=True).run(model, ChangeLog())
    InferShapes().run(model, ChangeLog())


def test_weights_are_not_read_and_the_model_not_touched() -> None:
    class Unreadable(ir.LazyTensor):
        def __init__(self) -> None:
            super().__init__(self._fail, dtype=ir.DataType.FLOAT, shape=ir.Shape([40000, 40000]), name="w")

        def _fail(self) -> ir.TensorProtocol:
            raise AssertionError("a weight was read")

    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 40000]))
    w = ir.Value(name="w", const_value=Unreadable())
    node = ir.node("MatMul", [x, w], name="n")
    node.outputs[0].name = "y"
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 18}, name="g")
    model = ir.Model(graph, ir_version=9)
    assert str(best_types(model)[node.outputs[0]].shape) == "[N,40000]"
    assert node.outputs[0].type is None


def test_defaults_that_callers_may_override_are_not_taken_for_constants() -> None:
    text = """<ir_version: 9, opset_import: ["": 18]>
        net (float[6] x, int64[2] target) => (float[A,B] y) <int64[2] target = {2, 3}> { y = Reshape(x, target) }"""
    facts = infer_types(model_of(text))
    assert all(not isinstance(d, int) for v, f in facts.items() if v.name == "y" for d in f.shape or ())
    old = model_of(text)
    old.ir_version = 3
    old.graph.outputs[0].shape = None
    assert [str(f.shape) for v, f in infer_types(old).items() if v.name == "y"] == ["[2,3]"]
