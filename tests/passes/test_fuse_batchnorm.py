"""fuse-batchnorm: what is folded agrees with float64 as well as before; what is not safe is left, with a reason."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from surgeon_passes.conditions import broken_conditions, clashing_names, interface_changes, interface_of
from surgeon_passes.contract import ChangeLog
from surgeon_passes.fuse_batchnorm import FuseBatchnorm
from surgeon_passes.graph import from_proto, to_proto
from surgeon_passes.walk import scopes
from tests.numeric import assert_same_values, feeds_of, run
from tests.random_models import models


def fused(proto, limit=None, **options):
    model = from_proto(proto)
    log = ChangeLog(limit=limit)
    before = interface_of(model)
    FuseBatchnorm(**options).run(model, log)
    assert interface_changes(before, interface_of(model)) == []
    assert broken_conditions(model) == clashing_names(model) == []
    return model, log


def ops(model):
    return [node.op_type for scope in scopes(model) for node in scope.graph]


def built(body, head, tail, arrays, opset=17, more=""):
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "pkg" : 1]> main ({head}) => ({tail}) {{ {body} }} {more}'
    )
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return proto


def as_double(proto):
    """The same model in float64, for onnx's reference evaluator."""
    double = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in list(double.graph.initializer):
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for info in (*double.graph.input, *double.graph.output):
        info.type.tensor_type.elem_type = TensorProto.DOUBLE
    return double


def assert_as_exact_as_before(proto, model, exact_of):
    """Against float64 the fused model may err a few roundings more than the original did."""
    later = to_proto(model)
    for seed in range(3):
        feeds = feeds_of(proto, seed=seed)
        exact = exact_of({name: value.astype(np.float64) for name, value in feeds.items()})
        old, new = run(proto, feeds)["y"], run(later, feeds)["y"]
        unit = np.finfo(old.dtype).eps * np.abs(exact).max()
        assert np.abs(new - exact).max() <= 4 * np.abs(old - exact).max() + 4 * unit


def convolved(x, w, group, transposed):
    """A convolution without padding or strides, in the precision of its operands, one kernel position at a time."""
    n, channels, height, width = x.shape
    kh, kw = w.shape[2:]
    out = w.shape[1] * group if transposed else w.shape[0]
    grow = 1 if transposed else -1
    y = np.zeros((n, out, height + grow * (kh - 1), width + grow * (kw - 1)))
    for g in range(group):
        source = x[:, g * channels // group : (g + 1) * channels // group]
        rows = slice(g * w.shape[0] // group, (g + 1) * w.shape[0] // group)
        to = y[:, g * out // group : (g + 1) * out // group]
        for i in range(kh):
            for j in range(kw):
                if transposed:
                    to[:, :, i : i + height, j : j + width] += np.einsum("nchw,cm->nmhw", source, w[rows, :, i, j])
                else:
                    part = source[:, :, i : i + to.shape[2], j : j + to.shape[3]]
                    to += np.einsum("nchw,mc->nmhw", part, w[rows, :, i, j])
    return y


RNG = np.random.default_rng(7)


def noise(*dims, low=None):
    return (RNG.standard_normal(dims) if low is None else RNG.uniform(low, low + 2, dims)).astype(np.float32)


def norm(channels, names=("s", "b", "m", "v")):
    return dict(zip(names, (noise(channels), noise(channels), noise(channels), noise(channels, low=0.1)), strict=True))


IMAGE = ("float[N,4,5,5] x", "float[N,C,H,W] y")
ROWS = ("float[N,4] x", "float[N,6] y")
BN = "y = BatchNormalization<epsilon = 0.01>(c, s, b, m, v)"
FOLDS = [
    ("conv", f"c = Conv(x, w) {BN}", IMAGE, {"w": noise(6, 4, 3, 3), **norm(6)}, "Conv"),
    ("conv-bias", f"c = Conv(x, w, k) {BN}", IMAGE, {"w": noise(6, 4, 3, 3), "k": noise(6), **norm(6)}, "Conv"),
    ("conv-groups", f"c = Conv<group = 2>(x, w) {BN}", IMAGE, {"w": noise(6, 2, 3, 3), **norm(6)}, "Conv"),
    (
        "conv-depthwise-pads",
        f"c = Conv<group = 4, pads = [1, 1, 1, 1]>(x, w) {BN}",
        IMAGE,
        {"w": noise(4, 1, 3, 3), **norm(4)},
        "Conv",
    ),
    ("conv-1d", f"c = Conv(x, w) {BN}", ("float[N,4,5] x", "float[N,C,L] y"), {"w": noise(6, 4, 3), **norm(6)}, "Conv"),
    (
        "transpose",
        f"c = ConvTranspose<strides = [2, 2]>(x, w) {BN}",
        IMAGE,
        {"w": noise(4, 6, 3, 3), **norm(6)},
        "ConvTranspose",
    ),
    (
        "transpose-groups",
        f"c = ConvTranspose<group = 2>(x, w, k) {BN}",
        IMAGE,
        {"w": noise(4, 3, 3, 3), "k": noise(6), **norm(6)},
        "ConvTranspose",
    ),
    (
        "transpose-gaps",
        f"c = ConvTranspose<strides = [3, 3], output_padding = [1, 1]>(x, w) {BN}",
        IMAGE,
        {"w": noise(4, 6, 1, 1), **norm(6)},
        "ConvTranspose",
    ),
    ("gemm", f"c = Gemm(x, w) {BN}", ROWS, {"w": noise(4, 6), **norm(6)}, "Gemm"),
    (
        "gemm-scaled",
        f"c = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(x, w, k) {BN}",
        ROWS,
        {"w": noise(6, 4), "k": noise(1, 6), **norm(6)},
        "Gemm",
    ),
    (
        "gemm-scalar-bias",
        f"c = Gemm<beta = 3.0>(x, w, k) {BN}",
        ROWS,
        {"w": noise(4, 6), "k": noise(), **norm(6)},
        "Gemm",
    ),
    ("gemm-beta-0", f"c = Gemm<beta = 0.0>(x, w, k) {BN}", ROWS, {"w": noise(4, 6), "k": noise(6), **norm(6)}, "Gemm"),
    (
        "norm",
        f"c = BatchNormalization(x, s2, b2, m2, v2) {BN}",
        IMAGE,
        {**norm(4, ("s2", "b2", "m2", "v2")), **norm(4)},
        "BatchNormalization",
    ),
    ("mul", "c = Conv(x, w) y = Mul(c, k)", IMAGE, {"w": noise(6, 4, 3, 3), "k": noise(6, 1, 1)}, "Conv"),
    (
        "mul-left-scalar",
        "c = Conv(x, w, b) y = Mul(k, c)",
        IMAGE,
        {"w": noise(6, 4, 3, 3), "b": noise(6), "k": noise()},
        "Conv",
    ),
    ("add", "c = Conv(x, w) y = Add(k, c)", IMAGE, {"w": noise(6, 4, 3, 3), "k": noise(1, 6, 1, 1)}, "Conv"),
    (
        "sub-div",
        "c = Conv(x, w) d = Sub(c, k) y = Div(d, l)",
        IMAGE,
        {"w": noise(6, 4, 3, 3), "k": noise(6, 1, 1), "l": noise(1, low=1)},
        "Conv",
    ),
    ("gemm-mul", "c = Gemm(x, w) y = Mul(c, k)", ROWS, {"w": noise(4, 6), "k": noise(1, 6)}, "Gemm"),
    (
        "norm-mul",
        "c = BatchNormalization(x, s, b, m, v) y = Mul(c, k)",
        IMAGE,
        {**norm(4), "k": noise(4, 1, 1)},
        "BatchNormalization",
    ),
    (
        "chain",
        "d = Conv(x, w) e = Mul(d, k) f = Add(e, k) c = BatchNormalization(f, s, b, m, v) g = Mul(c, k) y = Add(g, l)",
        IMAGE,
        {"w": noise(6, 4, 3, 3), "k": noise(6, 1, 1), "l": noise(), **norm(6)},
        "Conv",
    ),
    (
        "zero-scale",
        "c = Conv(x, w) y = Mul(c, k)",
        IMAGE,
        {"w": noise(6, 4, 3, 3), "k": np.zeros((6, 1, 1), np.float32)},
        "Conv",
    ),
    ("one-channel", f"c = Conv(x, w) {BN}", IMAGE, {"w": noise(1, 4, 3, 3), **norm(1)}, "Conv"),
]


@pytest.mark.parametrize(("body", "ports", "arrays", "left"), [f[1:] for f in FOLDS], ids=[f[0] for f in FOLDS])
def test_folds_are_as_exact_as_the_original(body, ports, arrays, left):
    proto = built(body, *ports, arrays)
    model, log = fused(proto)
    assert ops(model) == [left], log.declined
    used = {value.name for node in model.graph for value in node.inputs}
    assert set(model.graph.initializers) <= used
    assert_same_values(proto, to_proto(model), rtol=2e-5)
    if "ConvTranspose<group" not in body:  # which the evaluator gets wrong; see the property test below
        evaluator = ReferenceEvaluator(as_double(proto))
        assert_as_exact_as_before(proto, model, lambda feeds: evaluator.run(None, feeds)[0])
    for limit in range(len(log.changes)):
        assert_same_values(proto, to_proto(fused(proto, limit)[0]), rtol=2e-5, seeds=range(1))


@pytest.mark.parametrize("opset", [7, 9, 13, 15])
def test_versions_of_batch_normalization(opset):
    proto = built(f"c = Conv(x, w) {BN}", *IMAGE, {"w": noise(6, 4, 3, 3), **norm(6)}, opset=opset)
    model, _ = fused(proto)
    assert ops(model) == ["Conv"]
    assert_same_values(proto, to_proto(model), rtol=2e-5)


def test_names_and_boundary():
    proto = built(f"c = Conv(x, w) {BN}", *IMAGE, {"w": noise(6, 4, 3, 3), **norm(6)})
    model, log = fused(proto)
    (change,) = log.changes
    assert (change.kind, change.boundary) == ("fuse", ("x", "y"))
    assert set(model.graph.initializers) == {"w_fused", "b_fused"}
    proto = built(
        "c = Conv(x, w, k) d = Mul(c, l) y = Relu(d)", *IMAGE, {"w": noise(6, 4, 3, 3), "k": noise(6), "l": noise()}
    )
    model, _ = fused(proto)
    assert model.graph[0].outputs[0].name == "d"  # what 'c' held is gone; what 'd' held is here
    assert set(model.graph.initializers) == {"w_fused", "k_fused"}


W = {"w": noise(6, 4, 3, 3)}
STAYS = [
    ("two-readers", f"c = Conv(x, w) {BN} z = Relu(c)", {**W, **norm(6)}, "used elsewhere too"),
    ("output", f"c = Conv(x, w) {BN} z = Identity(x)", {**W, **norm(6)}, "used elsewhere too"),
    (
        "training",
        "c = Conv(x, w) y, p, q = BatchNormalization<training_mode = 1>(c, s, b, m, v) z = Relu(x)",
        {**W, **norm(6)},
        "further outputs",
    ),
    (
        "training-alone",
        "c = Conv(x, w) y = BatchNormalization<training_mode = 1>(c, s, b, m, v) z = Relu(x)",
        {**W, **norm(6)},
        "it trains",
    ),
    (
        "negative-variance",
        f"c = Conv(x, w) {BN} z = Relu(x)",
        {**W, **norm(6), "v": np.full(6, -0.01, np.float32)},
        "variance is not positive",
    ),
    (
        "nan-variance",
        f"c = Conv(x, w) {BN} z = Relu(x)",
        {**W, **norm(6), "v": np.full(6, np.nan, np.float32)},
        "variance is not positive",
    ),
    ("inf", "c = Conv(x, w) y = Mul(c, k) z = Relu(x)", {**W, "k": np.full((6, 1, 1), np.inf, np.float32)}, "infinite"),
    ("div-zero", "c = Conv(x, w) y = Div(c, k) z = Relu(x)", {**W, "k": np.zeros((6, 1, 1), np.float32)}, "infinite"),
    (
        "inf-weights",
        "c = Conv(x, w) y = Mul(c, k) z = Relu(x)",
        {"w": np.full((6, 4, 3, 3), np.inf, np.float32), "k": np.zeros(1, np.float32)},
        "range of FLOAT",
    ),
    (
        "along-width",
        "c = Conv(x, w) y = Mul(c, k) z = Relu(x)",
        {**W, "k": noise(1, 1, 3)},
        "not one number for each of 6",
    ),
    (
        "aligned-to-width",
        "c = Conv(x, w) y = Mul(c, k) z = Relu(x)",
        {"w": noise(3, 4, 3, 3), "k": noise(3)},
        "not one number for each of 3",
    ),
    (
        "widens-rank",
        "c = Conv(x, w) y = Mul(c, k) z = Relu(x)",
        {**W, "k": noise(1, 1, 6, 1, 1)},
        "not one number for each of 6",
    ),
    (
        "widens-channels",
        "c = Conv(x, w) y = Mul(c, k) z = Relu(x)",
        {"w": noise(1, 4, 3, 3), "k": noise(6, 1, 1)},
        "not one number for each of 1 ",
    ),
    (
        "widens-batch",
        "c = Conv(x, w) y = Mul(c, k) z = Relu(x)",
        {**W, "k": noise(2, 6, 1, 1)},
        "not one number for each of 6",
    ),
    ("computed-weights", f"u = Relu(w) c = Conv(x, u) {BN} z = Relu(x)", {**W, **norm(6)}, "not constants"),
    (
        "computed-mean",
        "u = Relu(m) c = Conv(x, w) y = BatchNormalization(c, s, b, u, v) z = Relu(x)",
        {**W, **norm(6)},
        "not constants of 6",
    ),
    ("tiny", "c = Conv(x, w) y = Mul(c, k) z = Relu(x)", {**W, "k": np.full(1, 2e-39, np.float32)}, "too small"),
]


@pytest.mark.parametrize(("body", "arrays", "reason"), [s[1:] for s in STAYS], ids=[s[0] for s in STAYS])
def test_what_is_not_safe_stays_and_says_why(body, arrays, reason):
    tail = "float[N,C,H,W] y, float[N,A,B,D] z" + (", float[N,C,H,W] c" if "Identity" in body else "")
    proto = built(body, "float[N,4,5,5] x", tail, arrays)
    _, log = fused(proto)
    assert not log.changes
    assert any(reason in d.reason for d in log.declined), log.declined


def test_weights_that_a_caller_may_override_stay():
    for port in ("float[6,4,3,3] w", "float[6] s", "float[6] m"):
        proto = built(f"c = Conv(x, w) {BN}", f"float[N,4,5,5] x, {port}", IMAGE[1], {**W, **norm(6)})
        _, log = fused(proto)
        assert not log.changes
        assert "not constants" in log.declined[0].reason


def test_operators_before_a_convolution_and_matmul_stay():
    proto = built("u = Mul(x, k) c = Conv(u, w) y = Relu(c)", *IMAGE, {**W, "k": noise(4, 1, 1)})
    assert not fused(proto)[1].changes
    proto = built("c = MatMul(x, w) y = Add(c, k)", *ROWS, {"w": noise(4, 6), "k": noise(6)})
    assert not fused(proto)[1].changes


def test_shared_weights_are_copied_up_to_a_limit():
    proto = built(
        "c = Conv(x, w) d = Conv(x, w) e = BatchNormalization(c, s, b, m, v) y = Add(d, e)", *IMAGE, {**W, **norm(6)}
    )
    model, _ = fused(proto)
    assert set(model.graph.initializers) == {"w", "w_fused", "b_fused"}
    assert_same_values(proto, to_proto(model), rtol=2e-5)
    model, log = fused(proto, size_limit=100)
    assert not log.changes
    assert "size_limit" in log.declined[0].reason
    add = built("c = Conv(x, w) d = Conv(x, w) e = Add(c, k) y = Add(d, e)", *IMAGE, {**W, "k": noise(6, 1, 1)})
    assert ops(fused(add, size_limit=100)[0]) == ["Conv", "Conv", "Add"]  # an offset alone copies no weights


@pytest.mark.parametrize(("scale", "folds"), [(1.5, True), (6e4, False), (1e-6, False)])
def test_half_precision_stays_in_range(scale, folds):
    arrays = {"w": noise(6, 4, 1, 1).astype(np.float16), "k": np.array(scale, np.float16)}
    proto = built("c = Conv(x, w) y = Mul(c, k)", "float16[N,4,5,5] x", "float16[N,C,H,W] y", arrays)
    model, log = fused(proto)
    assert bool(log.changes) is folds
    if folds:
        assert_same_values(proto, to_proto(model), rtol=3e-3)
        assert model.graph.initializers["w_fused"].dtype == ir.DataType.FLOAT16


def test_bfloat16_is_rounded_once():
    weights = noise(6, 4, 1, 1).astype(ml_dtypes.bfloat16)
    proto = built("c = Conv(x, w) y = Mul(c, k)", "bfloat16[N,4,5,5] x", "bfloat16[N,C,H,W] y", {}, opset=22)
    for name, array in (("w", weights), ("k", np.array(1.7, ml_dtypes.bfloat16))):
        raw = helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, array.tobytes(), raw=True)
        proto.graph.initializer.append(raw)
    model, _ = fused(proto)
    expected = (weights.astype(np.float64) * float(ml_dtypes.bfloat16(1.7))).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(model.graph.initializers["w_fused"].const_value.numpy(), expected)


def test_large_weights_are_computed_when_they_are_read():
    proto = built(f"c = Conv(x, w) {BN}", "float[N,512,1,1] x", IMAGE[1], {"w": noise(600, 512, 1, 1), **norm(600)})
    model, _ = fused(proto)
    assert isinstance(model.graph.initializers["w_fused"].const_value, ir.LazyTensor)
    assert_same_values(proto, to_proto(model), rtol=2e-5, seeds=range(1))


def test_bodies_and_functions():
    more = """
        <domain: "pkg", opset_import: ["" : 17]> F (v) => (r) {
          w = Constant<value = float[2,4,1,1] {1.5,2,3,4,5,6,7,8}>() k = Constant<value_float = 2.5>()
          c = Conv(v, w) r = Mul(c, k) }"""
    body = """z = If (q) <
        then_branch = t () => (float[N,6,H,W] t1) { c = Conv(x, w) t1 = BatchNormalization(c, s, b, m, v) },
        else_branch = e () => (float[N,6,H,W] e1) { d = Conv(x, w) e1 = Add(d, k) }>
        c2 = Conv(x, w) f = pkg.F(x) g = ReduceSum(f) y = Add(z, g)"""
    arrays = {**W, **norm(6), "k": noise(6, 1, 1)}
    proto = built(body, "float[N,4,5,5] x, bool q", "float[N,C,H,W] y", arrays, more=more)
    model, log = fused(proto)
    assert [c.where for c in log.changes] == ["If(z)/then_branch", "If(z)/else_branch", "function:pkg::F"]
    assert "Mul" not in ops(model)
    assert "BatchNormalization" not in ops(model)
    assert_same_values(proto, to_proto(model), rtol=2e-5)


def test_a_convolution_outside_is_not_changed_for_a_body():
    body = """c = Conv(x, w) y = If (q) <
        then_branch = t () => (float[N,6,H,W] t1) { t1 = Mul(c, k) },
        else_branch = e () => (float[N,6,H,W] e1) { e1 = Expand(k, h) }>"""
    proto = built(
        body, "float[N,4,5,5] x, bool q", "float[N,C,H,W] y", {**W, "k": noise(6, 1, 1), "h": np.array([2, 6, 3, 3])}
    )
    _, log = fused(proto)
    assert not log.changes
    assert log.declined[0].reason.endswith("it is in another graph")


def test_references_to_function_attributes_stay():
    more = """<domain: "pkg", opset_import: ["" : 17]> F <group> (v) => (r) {
          w = Constant<value = float[2,2,1,1] {1.5,2,3,4}>() k = Constant<value_float = 2.5>()
          c = Conv<group : int = @group>(v, w) r = Mul(c, k) }"""
    proto = built("y = pkg.F<group = 2>(x)", *IMAGE, {}, more=more)
    _, log = fused(proto)
    assert not log.changes
    assert "attribute" in log.declined[0].reason


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]), st.booleans(), st.booleans())
def test_random_convolutions_agree_with_float64(seed, group, transposed, biased):
    rng = np.random.default_rng(seed)
    channels, each = 2 * group, int(rng.integers(1, 4))
    out = each * group
    dims = (channels, each, 2, 2) if transposed else (out, 2, 2, 2)
    arrays = {"w": rng.standard_normal(dims), "s": rng.uniform(-3, 3, out), "b": rng.standard_normal(out) * 10}
    arrays |= {"m": rng.standard_normal(out) * 3, "v": rng.uniform(0, 4, out)}
    arrays["k"] = rng.standard_normal(out) * biased
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    op = "ConvTranspose" if transposed else "Conv"
    proto = built(f"c = {op}<group = {group}>(x, w, k) {BN}", f"float[N,{channels},4,4] x", IMAGE[1], arrays)
    w, s, b, m, v, k = (arrays[name].astype(np.float64)[(...,) + (None, None) * (name != "w")] for name in "wsbmvk")

    def exact(feeds):
        return (convolved(feeds["x"], w, group, transposed) + k - m) / np.sqrt(v + float(np.float32(0.01))) * s + b

    model, _ = fused(proto)
    assert ops(model) == [op]
    assert_as_exact_as_before(proto, model, exact)


@settings(max_examples=20, deadline=None)
@given(models(25))
def test_random_models_agree_within_rounding(proto):
    model, _ = fused(proto)
    assert_same_values(proto, to_proto(model), rtol=1e-5, seeds=range(2))
