"""What is claimed about sizes and elements before a model runs is what comes out when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_passes.known_facts import KnownFacts
from surgeon_passes.symbolic_ints import Form, Int
from surgeon_passes.walk import scopes
from tests.models import FOLDER, index, sample
from tests.numeric import feeds_of, model_of, run
from tests.passes.test_symbolic_ints import value_of

SAMPLE = sample(index(), 60)
ROWS = [row for row in index() if row["file"] in SAMPLE and row["ort"] == "loads" and not row.get("external")]


def facts_of(text: str) -> tuple[KnownFacts, dict[str, ir.Value]]:
    model = model_of(text)
    values = {v.name: v for scope in scopes(model) for node in scope.graph for v in node.outputs if v.name}
    return KnownFacts(model), values


def check_against_run(proto: onnx.ModelProto, dims: dict[str, int]) -> int:
    """Run with every tensor of the main graph as an output, and compare; how many sizes and elements were compared."""
    facts = KnownFacts(model := ir.from_proto(proto))
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    del shown.graph.output[:]
    shown.graph.output.extend(
        onnx.ValueInfoProto(name=name) for node in shown.graph.node for name in node.output if name
    )
    actual = run(shown, feeds_of(proto, dims))
    seen: dict[object, int] = {}
    compared = 0
    for value in (v for node in model.graph for v in node.outputs):
        if value.name not in actual or not isinstance(actual[value.name], np.ndarray):
            continue
        fact, array = facts[value], actual[value.name]
        assert fact.dtype is None or array.dtype == object or fact.dtype.numpy() == array.dtype, value.name
        pairs: list[tuple[Int, int]] = []
        if fact.dims is not None:
            assert len(fact.dims) == array.ndim, value.name
            pairs += list(zip(fact.dims, array.shape, strict=True))
        if fact.ints is not None:
            pairs += list(zip(fact.ints.reshape(-1).tolist(), array.reshape(-1).astype(int).tolist(), strict=True))
        for claim, number in pairs:
            compared += _agrees(claim, number, dims, seen, value.name)
    return compared


def _agrees(claim: Int, number: int, dims: dict[str, int], seen: dict[object, int], where: str) -> int:
    try:
        assert value_of(claim, dims) == number, (where, claim, number)
    except KeyError:
        # An unknown that nothing defines is the same number wherever it occurs, and in its bounds.
        symbol = claim.symbol if isinstance(claim, Form) else None
        if symbol is None:
            return 0
        assert seen.setdefault(symbol, number) == number, where
        assert symbol.low is None or symbol.low <= number, where
        assert symbol.high is None or symbol.high >= number, where
        return 0
    return 1


OPERATORS = """<ir_version: 10, opset_import: ["": 21]>
agraph (float[N, 3, H, 20] x, float[N, S] y, int64[2] free) => (float[a, b] out)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] far = {9223372036854775807},
 int64[1] back = {-1}, int64[1] least = {-9223372036854775808}, int64 scalar0 = {0}, int64 scalar1 = {1}> {
  conv = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)
  pool = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(conv)
  same = AveragePool<kernel_shape=[2,2], auto_pad="SAME_UPPER">(pool)
  added = Add(same, pool)
  flat = Flatten(added)
  shape = Shape(y)
  part = Shape<start=-1>(y)
  count = Size(y)
  n = Gather(shape, scalar0)
  s = Gather(shape, back)
  halved = Div(s, two)
  rest = Mod(s, two)
  row = Concat<axis=0>(part, halved, free, rest)
  backwards = Slice(row, back, least, zero, back)
  first = Slice(y, zero, two, one)
  tail = Slice(y, back, far, one)
  upto = Slice(y, zero, halved, one)
  turned = Transpose<perm=[1,0]>(y)
  square = MatMul(y, turned)
  rows = Unsqueeze(y, two)
  wide = Expand(rows, part)
  joined = Concat<axis=1>(y, first, tail)
  left, right = Split<axis=1, num_outputs=2>(joined)
  range = Range(scalar0, n, scalar1)
  tiles = Tile(range, two)
  total = ReduceSum<keepdims=0>(y, one)
  best = ArgMax<axis=1>(y)
  where_nonzero = NonZero(y)
  back_shape = Concat<axis=0>(s, back)
  again = Reshape(turned, back_shape)
  row_pads = Concat<axis=0>(zero, one, two, zero)
  padded = Pad(y, row_pads)
  filled = ConstantOfShape<value = int64[1] {7}>(part)
  more = Greater(shape, zero)
  cast = Cast<to=6>(shape)
  narrow = Cast<to=7>(cast)
  taken = Where(more, narrow, free)
  product = ReduceProd<keepdims=0>(shape)
  small = Min(s, two)
  out = Identity(again)
}"""


@pytest.mark.parametrize("dims", [{"N": 2, "S": 5, "H": 16}, {"N": 1, "S": 1, "H": 9}, {"N": 3, "S": 8, "H": 32}])
def test_claims_hold_for_every_operator_with_a_rule(dims: dict[str, int]) -> None:
    proto = onnx.parser.parse_model(OPERATORS)
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    assert check_against_run(proto, dims) > 60


@pytest.mark.parametrize("size", range(5, 14))
@pytest.mark.parametrize("pads", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_pooling_that_rounds_up(size: int, pads: tuple[int, int]) -> None:
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 21]>
agraph (float[1, 1, {size}] x) => (float[a, b, c] y) {{
  p2 = MaxPool<kernel_shape=[2], strides=[3], pads=[{pads[0]}, {pads[1]}], ceil_mode=1>(x)
  p3 = MaxPool<kernel_shape=[3], strides=[2], pads=[{pads[0]}, {pads[1]}], ceil_mode=1>(x)
  y = AveragePool<kernel_shape=[3], strides=[2], pads=[{pads[0]}, {pads[1]}], ceil_mode=1>(x)
}}""")
    assert check_against_run(proto, {}) >= 6


def test_claims_hold_where_a_size_is_zero() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
agraph (float[N, S] y) => (float[a, b] out) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] back = {-1},
        int64[1] far = {9223372036854775807}, int64 scalar0 = {0}, int64 scalar1 = {1}> {
  shape = Shape(y)
  n = Gather(shape, scalar0)
  range = Range(scalar0, n, scalar1)
  tail = Slice(y, back, far, zero)
  total = ReduceSum(y, zero)
  spread = Add(y, total)
  most = Max(shape, one)
  is_empty = Equal(shape, zero)
  out = Identity(y)
}""")
    assert check_against_run(proto, {"N": 0, "S": 3}) > 12


def test_false_value_infos_are_not_believed() -> None:
    facts, values = facts_of("""<ir_version: 10, opset_import: ["": 21]>
agraph (float[N, 4] x) => (int64[2] out) <float[7, 7] middle> {
  middle = Relu(x)
  out = Shape(middle)
}""")
    assert facts[values["middle"]].dims == (facts.algebra.named("N"), 4)


def test_inputs_of_loop_bodies_and_functions_are_unknown() -> None:
    facts, values = facts_of("""<ir_version: 10, opset_import: ["": 21, "own": 1]>
agraph (float[2, 2] x, int64 m, bool c) => (float[a, b] out) {
  grown = Loop(m, c, x) <body = b (int64 i, bool ci, float[2, 2] state) => (bool co, float[2, 2] next) {
    co = Identity(ci)
    shape_in_body = Shape(state)
    next = Concat<axis=0>(state, state)
  }>
  out = own.twice(grown)
}
<domain: "own", opset_import: ["": 21]>
twice (t) => (u) { shape_in_function = Shape(t) u = Add(t, t) }""")
    assert facts[values["shape_in_body"]].known_ints is None
    assert facts[values["shape_in_function"]].known_ints is None
    assert facts[values["grown"]].dims is None
    assert facts[values["out"]].dims is None


def test_branches_tell_what_they_agree_on() -> None:
    facts, values = facts_of("""<ir_version: 10, opset_import: ["": 21]>
agraph (float[N, 4] x, bool c) => (float[a, b] out) <int64[1] zero = {0}, int64[1] two = {2}> {
  out = If(c) <then_branch = t () => (float[p, q] yes) { yes = Relu(x) },
               else_branch = e () => (float[r, s] no) { no = Slice(x, zero, two, zero) }>
}""")
    dims = facts[values["out"]].dims
    assert dims is not None
    assert dims[1] == 4
    assert isinstance(dims[0], Form)
    assert dims[0] != facts.algebra.named("N")


def test_numbers_that_leave_their_type_are_not_followed() -> None:
    facts, values = facts_of("""<ir_version: 10, opset_import: ["": 21]>
agraph (float[N, 3000000] x) => (int32[2] out) {
  shape = Shape(x)
  narrow = Cast<to=6>(shape)
  square = Mul(narrow, narrow)
  byte = Cast<to=2>(shape)
  out = Identity(square)
}""")
    assert facts[values["narrow"]].ints is not None
    assert facts[values["square"]].ints is None
    assert facts[values["byte"]].ints is None


@pytest.mark.parametrize("row", [pytest.param(row, id=row["file"][-60:]) for row in ROWS])
def test_claims_hold_for_public_models(row: dict[str, Any]) -> None:
    proto = onnx.load(FOLDER / row["file"])
    try:
        check_against_run(proto, {})
    except AssertionError:
        raise
    except Exception as error:  # noqa: BLE001  (onnxruntime raises a dozen types)
        pytest.skip(f"it cannot be run on seeded inputs: {str(error)[:60]}")


def test_a_constant_whose_data_is_missing_is_unknown_not_an_error(tmp_path: Path) -> None:
    model = model_of("""<ir_version: 10, opset_import: ["": 21]>
agraph (float[4] x) => (float[a, b] out) <int64[2] target = {2, 2}> { out = Reshape(x, target) }""")
    missing = ir.ExternalTensor(
        "gone.bin", 0, 16, ir.DataType.INT64, shape=ir.Shape([2]), name="target", base_dir=tmp_path
    )
    model.graph.initializers["target"].const_value = missing
    assert KnownFacts(model)[model.graph.outputs[0]].dims is None
