"""A converted model computes the same, passes the checker in its new version, or is refused and untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_passes.conditions import broken_conditions
from surgeon_passes.contract import ChangeLog
from surgeon_passes.convert_opset import ConvertOpset
from surgeon_passes.errors import BadOptionError, RefusalError
from surgeon_passes.inline_functions import InlineFunctions
from surgeon_passes.spec import build
from tests.numeric import assert_same_values


def parse(opset: int, text: str, ir_version: int = 7) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}]> {text}'))


def convert(model: ir.Model, to: int) -> onnx.ModelProto:
    """Convert and compare with what was there before."""
    before = ir.to_proto(model)
    onnx.checker.check_model(before, full_check=True)
    result = ConvertOpset(to=to).run(model, ChangeLog())
    assert [change.kind for change in result.changes] == ["convert-opset"]
    assert model.opset_imports[""] == to
    assert broken_conditions(model) == []
    # Kernels of different versions may round in different places.
    after = assert_same_values(before, model, rtol=1e-6)
    onnx.checker.check_model(after, full_check=True)
    return after


def cases(text: str) -> list[Any]:
    """Blocks of three lines: versions (and message), head of the graph, its nodes."""
    lines = text.strip().splitlines()
    found = []
    for first, head, body in zip(lines[0::3], lines[1::3], lines[2::3], strict=True):
        versions, _, message = first.partition(" | ")
        old, new = map(int, versions.split())
        name = f"{body.split('= ')[-1].split('(')[0].split('<')[0]}-{old}-{new}"
        found.append(pytest.param(old, new, f"{head} {body}", message, id=name))
    return found


CASES = """
11 13
  n (float[2,3,4] x) => (float[2,3,4] y)
    { y = Softmax(x) }
11 13
  n (float[2,3,4] x) => (float[2,3,4] y)
    { [s] h = Softmax<axis = 0>(x) y = Neg(h) }
11 21
  n (float[2,3,4] x) => (float[2,3,4] y)
    { y = LogSoftmax<axis = -1>(x) }
12 18
  n (float[2,3,4] x) => (float[2,3,4] y)
    { y = Hardmax<axis = 1>(x) }
13 12
  n (float[2,3,4] x) => (float[2,3,4] y)
    { y = Softmax<axis = 2>(x) }
13 11
  n (float[2,3] x) => (float[2,3] y)
    { y = Softmax(x) }
7 11
  n (float[2,3] x) => (float[2,3] y)
    { y = Clip<min = -0.5, max = 0.25>(x) }
10 22
  n (float[2,3] x) => (float[2,3] y)
    { y = Clip<max = 0.25>(x) }
12 10
  n (float[2,3] x) => (float[2,3] y) <float hi = {0.5}>
    { y = Clip(x, , hi) }
11 9
  n (float[2,3] x) => (float[2,3] y)
    { y = Clip(x, "", "") }
10 18
  n (float[2,3] x) => (float[4,6] y)
    { y = Pad<pads = [1, 1, 1, 2], value = 0.5>(x) }
9 11
  n (float[2,3] x) => (float[4,4] y)
    { y = Pad<pads = [1, 1, 1, 0], mode = "reflect">(x) }
13 10
  n (float[2,3] x) => (float[2,4] y) <int64[4] p = {0,1,0,0}, float v = {2}>
    { y = Pad(x, p, v) }
10 13
  n (float[2,3] x) => (float[2,3] y)
    { y, m = Dropout<ratio = 0.3>(x) }
7 22
  n (float[2,3] x) => (float[2,3] y)
    { y = Dropout(x) }
13 10
  n (float[2,3] x) => (float[2,3] y) <float r = {0.3}>
    { y = Dropout<seed = 3>(x, r) }
11 18
  n (float[2,3,4] x) => (float[2,1,4] y)
    { y = ReduceMean<axes = [1]>(x) }
11 21
  n (float[2,3,4] x) => (float y)
    { y = ReduceMax<keepdims = 0>(x) }
11 13
  n (float[2,3,4] x) => (float[3] y)
    { y = ReduceSum<axes = [0, -1], keepdims = 0>(x) }
18 13
  n (float[2,3,4] x) => (float[2,4] y) <int64[1] a = {1}>
    { y = ReduceL2<keepdims = 0>(x, a) }
18 11
  n (float[2,3,4] x) => (float[2,3,1] y)
    { a = Constant<value = int64[1] {-1}>() y = ReduceSum(x, a) }
18 17
  n (float[2,3] x) => (float[1,1] y)
    { y = ReduceMin<noop_with_empty_axes = 0>(x) }
11 13
  n (float[2,1,3] x) => (float[2,3] y)
    { y = Squeeze<axes = [1]>(x) }
12 25
  n (float[1,3] x) => (float[3] y)
    { y = Squeeze(x) }
11 21
  n (float[2,3] x) => (float[2,1,3,1] y)
    { y = Unsqueeze<axes = [1, 3]>(x) }
21 12
  n (float[2,3] x) => (float[2,1,3] y) <int64[1] a = {1}>
    { y = Unsqueeze(x, a) }
13 12
  n (float[2,1,3] x) => (float[2,3] y) <int64[1] a = {1}>
    { y = Squeeze(x, a) }
11 18
  n (float[6,2] x) => (float[2,2] a, float[2,2] b, float[2,2] c)
    { a, b, c = Split<axis = 0>(x) }
11 13
  n (float[5,2] x) => (float[2,2] a, float[3,2] b)
    { a, b = Split<axis = 0, split = [2, 3]>(x) }
12 19
  n (float[5,2] x) => (float[2,2] a, float[3,2] b)
    { a, b = Split<split = [2, 3]>(x) }
18 13
  n (float[6,2] x) => (float[3,2] a, float[3,2] b)
    { a, b = Split<num_outputs = 2>(x) }
18 11
  n (float[5,2] x) => (float[2,2] a, float[3,2] b) <int64[2] s = {2, 3}>
    { a, b = Split(x, s) }
9 11
  n (float[2,5] x) => (float[2,3] v, int64[2,3] i)
    { v, i = TopK<k = 3>(x) }
11 9
  n (float[2,5] x) => (float[2,2] v, int64[2,2] i) <int64[1] k = {2}>
    { v, i = TopK(x, k) }
9 13
  n (float[4,5] x) => (float[2,5] y)
    { y = Slice<starts = [1], ends = [3], axes = [0]>(x) }
9 11
  n (float[4,5] x) => (float[2,4] y)
    { y = Slice<starts = [1, 0], ends = [3, -1]>(x) }
11 9
  n (float[4,5] x) => (float[2,5] y) <int64[1] s = {1}, int64[1] e = {3}, int64[1] o = {1}>
    { y = Slice(x, s, e, , o) }
8 9
  n (float[1,1,2,3] x) => (float[1,1,4,6] y)
    { y = Upsample<scales = [1.0, 1.0, 2.0, 2.0]>(x) }
8 10
  n (float[1,1,2,3] x) => (float[1,1,4,6] y)
    { y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]>(x) }
9 11
  n (float[1,1,2,3] x) => (float[1,1,5,7] y) <float[4] s = {1, 1, 2.5, 2.5}>
    { y = Upsample(x, s) }
7 19
  n (float[1,1,2,3] x) => (float[1,1,5,7] y)
    { y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.5, 2.5]>(x) }
10 13
  n (float[1,1,4,4] x) => (float[1,1,2,2] y) <float[4] s = {1, 1, 0.5, 0.5}>
    { y = Resize<mode = "linear">(x, s) }
10 13
  n (float[1,1,4,4] x) => (float[1,1,6,6] y) <float[4] s = {1, 1, 1.5, 1.5}>
    { y = Resize(x, s) }
13 11
  n (float[1,1,2,2] x) => (float[1,1,4,4] y) <int64[4] z = {1,1,4,4}>
    { y = Resize(x, "", "", z) }
15 16
  n (float[1,1,6,6] x, float[2,4] r) => (float[2,1,2,2] y) <int64[2] b = {0, 0}>
    { y = RoiAlign<output_height = 2, output_width = 2>(x, r, b) }
16 10
  n (float[1,1,6,6] x, float[2,4] r) => (float[2,1,2,2] y) <int64[2] b = {0, 0}>
    { y = RoiAlign<output_height = 2, output_width = 2, coordinate_transformation_mode = "output_half_pixel">(x, r, b) }
16 20
  n (float[1,1,4,4] x, float[1,3,3,2] g) => (float[1,1,3,3] y)
    { y = GridSample(x, g) }
20 16
  n (float[1,1,4,4] x, float[1,3,3,2] g) => (float[1,1,3,3] y)
    { y = GridSample<mode = "cubic">(x, g) }
9 11
  n (float[3,3] x) => (float[3,3] y) <int64[1,3] i = {0, 2, 1}, float[1,3] u = {1, 2, 3}>
    { y = Scatter<axis = 0>(x, i, u) }
17 20
  n (float[1,4,1] x) => (float[1,4,2] y)
    { y = DFT(x) }
20 17
  n (float[1,4,1] x) => (float[1,4,2] y) <int64 a = {1}>
    { y = DFT(x, , a) }
8 15
  n (float[1,2,3] x, float[2] s, float[2] v) => (float[1,2,3] y)
    { a = Abs(v) y = BatchNormalization<spatial = 1>(x, s, s, s, a) }
15 9
  n (float[1,2,3] x, float[2] s, float[2] v) => (float[1,2,3] y)
    { a = Abs(v) y = BatchNormalization<training_mode = 0>(x, s, s, s, a) }
13 14
  n (float[2,3] x) => (float[6] y)
    { m = Constant<value = int64[1] {-1}>() y = Reshape(x, m) }
14 13
  n (float[2,3] x) => (float[6] y)
    { m = Constant<value = int64[1] {-1}>() y = Reshape<allowzero = 0>(x, m) }
13 22
  n (float[1,1,4,4] x) => (float[1,1,2,2] y)
    { y = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(x) }
13 22
  n (float[1,1,4,4] x, float[1,1,3,3] w) => (float[1,1,2,2] y)
    { y = Conv(x, w) }
10 13
  n (uint8[4] x, float s, uint8 z) => (float[4] y)
    { y = DequantizeLinear(x, s, z) }
"""


@pytest.mark.parametrize(("old", "new", "text", "message"), cases(CASES))
def test_values_are_kept(old: int, new: int, text: str, message: str) -> None:
    assert not message
    convert(parse(old, text), new)


REFUSED = """
10 11 | count from the end
  n (int64[2] x, float[2] v) => (float[2,3] y) <int64 d = {3}>
    { y = OneHot(x, d, v) }
13 12 | not over the last axis
  n (float[2,3,4] x) => (float[2,3,4] y)
    { y = Softmax<axis = 1>(x) }
13 12 | not over the last axis
  n (float[N,3,4] x) => (float[N,3,4] y)
    { y = Softmax<axis = 0>(x) }
18 13 | 'a' is not constant
  n (float[2,3] x, int64[1] a) => (float[2,1] y)
    { y = ReduceMean(x, a) }
18 13 | no axes mean no reduction
  n (float[2,3] x) => (float[2,3] y)
    { y = ReduceMax<noop_with_empty_axes = 1>(x) }
15 13 | no attribute 'start'
  n (float[2,3] x) => (int64[1] y)
    { y = Shape<start = 1>(x) }
18 17 | no GroupNormalization
  n (float[1,4,2] x, float[2] s) => (float[1,4,2] y)
    { y = GroupNormalization<num_groups = 2>(x, s, s) }
18 21 | per group
  n (float[1,4,2] x, float[2] s) => (float[1,4,2] y)
    { y = GroupNormalization<num_groups = 2>(x, s, s) }
11 19 | the meaning of ceil_mode changed
  n (float[1,1,5] x) => (float[1,1,3] y)
    { y = AveragePool<kernel_shape = [2], strides = [2], ceil_mode = 1>(x) }
10 13 | shrinks
  n (float[1,1,4,4] x) => (float[1,1,2,2] y) <float[4] s = {1, 1, 0.5, 0.5}>
    { y = Resize(x, s) }
10 13 | outputs after the first
  n (float[2,3] x) => (float[2,3] y, bool[2,3] m)
    { y, m = Dropout(x) }
15 12 | does not take tensor
  n (bfloat16[2] x) => (bfloat16[2] y)
    { y = Abs(x) }
18 13 | not known to be equal
  n (float[5,2] x) => (float[3,2] a, float[2,2] b)
    { a, b = Split<num_outputs = 2>(x) }
11 9 | has steps
  n (float[4] x) => (float[2] y) <int64[1] s = {0}, int64[1] e = {4}, int64[1] t = {2}>
    { y = Slice(x, s, e, s, t) }
"""


@pytest.mark.parametrize(("old", "new", "text", "message"), cases(REFUSED))
def test_what_cannot_be_shown_is_refused_and_nothing_changes(old: int, new: int, text: str, message: str) -> None:
    model = parse(old, text)
    before = ir.to_proto(model)
    log = ChangeLog()
    with pytest.raises(RefusalError, match=message):
        ConvertOpset(to=new).run(model, log)
    assert ir.to_proto(model) == before and not log.changes


BODIES = """<ir_version: 7, opset_import: ["": 11]>
net (bool flag, int64 trips, float[2,3] x) => (float[2,3] y, float[2,3] z)
{
    z = If (flag) <
        then_branch = yes () => (float[2,3] a) { [in] a = Softmax<axis = 0>(x) },
        else_branch = no () => (float[2,3] b) { b = Clip(x) }
    >
    go = Constant<value = bool {1}>()
    y = Loop (trips, go, x) <body = one (int64 i, bool c, float[2,3] s) => (bool d, float[2,3] t) {
        d = Identity(c) sum = ReduceSum<axes = [1]>(s) t = Sub(s, sum)
    }>
}"""


def test_bodies_are_converted_with_the_model() -> None:
    model = ir.from_proto(onnx.parser.parse_model(BODIES))
    convert(model, 18)
    branch = next(graph for graph in model.graphs() if graph.name == "yes")
    assert [node.op_type for node in branch] == ["Shape", "Flatten", "Softmax", "Reshape"]
    assert branch[2].name == "in"


def test_nothing_else_is_touched() -> None:
    model = parse(11, "n (float[2,3] x) => (float[2,3] y) { [a] h = Abs(x) [s] y = Softmax<axis = 0>(h) }")
    model.metadata_props["author"] = "someone"
    model.graph.node("a").metadata_props["trace"] = "here"
    model.graph.node("s").metadata_props["trace"] = "there"
    model.graph.node("s").doc_string = "why"
    convert(model, 17)
    assert model.metadata_props["author"] == "someone"
    assert model.graph.node("a").metadata_props["trace"] == "here"
    assert model.graph.node("s").doc_string == "why"
    assert {node.metadata_props.get("trace") for node in list(model.graph)[1:]} == {"there"}
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_equal_definitions_only_change_the_import() -> None:
    text = "n (float[2,3] x) => (float[2,3] y) { h = Sigmoid(x) y = Gemm(x, h) }".replace("Gemm", "Mul")
    for new in (14, 15, 17, 21, 13):
        model = parse(16, text)
        before = [node.name for node in model.graph]
        result = ConvertOpset(to=new).run(model, ChangeLog())
        assert result.changes[0].before == () and [node.name for node in model.graph] == before


def test_the_ir_version_rises_only_as_far_as_needed() -> None:
    for start, new, expected in ((3, 8, 3), (3, 11, 6), (7, 12, 7), (7, 21, 10), (8, 13, 8), (10, 9, 10)):
        model = parse(10, "n (float[2] x) => (float[2] y) { y = Abs(x) }", start)
        ConvertOpset(to=new).run(model, ChangeLog())
        assert model.ir_version == expected, (start, new)


def test_functions() -> None:
    text = """<ir_version: 8, opset_import: ["": 13, "pkg": 1]>
        net (float[2,3] x) => (float[2,3] y) {{ y = pkg.F(x) }}
        <domain: "pkg", opset_import: ["": {}]> F (a) => (b) {{ {} }}"""
    model = ir.from_proto(onnx.parser.parse_model(text.format(13, "h = Relu(a) b = Neg(h)")))
    convert(model, 17)
    assert model.functions[("pkg", "F", "")].opset_imports[""] == 17
    model = ir.from_proto(onnx.parser.parse_model(text.format(13, "b = Relu(a)")))
    with pytest.raises(RefusalError, match="inline functions first"):
        ConvertOpset(to=12).run(model, ChangeLog())
    InlineFunctions().run(model, ChangeLog())
    convert(model, 12)


def test_unknown_operators_are_refused() -> None:
    model = parse(13, "n (float[2] x) => (float[2] y) { y = Abs(x) }")
    next(iter(model.graph)).op_type = "Abz"
    with pytest.raises(RefusalError, match=r"Abz .*is not an operator of version 13"):
        ConvertOpset(to=17).run(model, ChangeLog())


def test_options() -> None:
    model = parse(13, "n (float[2] x) => (float[2] y) { y = Abs(x) }")
    assert not build(ConvertOpset, {"to": "13"}).run(model, ChangeLog()).changes
    assert not ConvertOpset(to=14).run(model, ChangeLog(limit=0)).changes and model.opset_imports[""] == 13
    for to in (0, 6, 99):
        with pytest.raises(BadOptionError, match="give a version from 7 to"):
            ConvertOpset(to=to).run(model, ChangeLog())
    old = parse(6, "n (float[2] x) => (float[2] y) { y = Abs(x) }")
    with pytest.raises(RefusalError, match="before version 7"):
        ConvertOpset(to=13).run(old, ChangeLog())


def test_other_domains_are_left_alone() -> None:
    model = ir.from_proto(
        onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["": 12, "com.microsoft": 1]>
            n (float[2,8] x) => (float[2,8] y) { h = com.microsoft.Gelu(x) y = Softmax(h) }"""
        )
    )
    before = ir.to_proto(model)
    ConvertOpset(to=17).run(model, ChangeLog())
    assert model.opset_imports == {"": 17, "com.microsoft": 1}
    assert_same_values(before, model)


_PIECES = [
    "{o} = Relu({i})", "{o} = Softmax<axis = -1>({i})", "{o} = Add({i}, {i})", "{o} = ReduceMax<axes = [1]>({i})",
    "{o} = Transpose({i})", "{o} = Identity({i})", "{o} = Unsqueeze<axes = [0]>({i})", "{o} = Clip({i})",
]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(_PIECES[:4] + _PIECES[5:6] + _PIECES[7:]), min_size=1, max_size=5), st.integers(9, 23))
def test_up_and_down_again_keeps_the_values(pieces: list[str], to: int) -> None:
    lines = [piece.format(i=f"t{n}", o=f"t{n + 1}") for n, piece in enumerate(pieces)]
    text = f"n (float[3,4] t0) => (float[P,Q] t{len(lines)}) {{ {' '.join(lines)} }}"
    model = parse(12, text, 8)
    before = ir.to_proto(model)
    ConvertOpset(to=to).run(model, ChangeLog())
    np.testing.assert_equal(model.opset_imports[""], to)
    assert_same_values(before, model, seeds=range(1))
    ConvertOpset(to=12).run(model, ChangeLog())
    assert_same_values(before, model, seeds=range(1))
