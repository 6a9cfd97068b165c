"""The noise floor against real low-precision arithmetic, and what it lets the verdict say."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from surgeon_debug.comparison import Cause, Comparison, TensorResult
from surgeon_debug.layers import as_engine, compare_models
from surgeon_debug.noise_floor import Floor, amplitude, floor_of, perturb, rounding_of, worst_stripe
from surgeon_debug.precision import precision_of
from surgeon_debug.runners.contract import Engine
from surgeon_debug.verdict import Verdict

Array = np.ndarray[Any, Any]

ORT = "onnxruntime:optimize=none,threads=1"


@functools.cache
def engine() -> Engine:
    return as_engine(ORT)


@functools.cache
def evaluator() -> Engine:
    return as_engine("reference")


LOW = ("float16", "bfloat16", "tf32", "float8_e4m3fn")
WIDE = (np.dtype(np.float64), np.dtype(np.float32))
TYPES = (*WIDE, np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def floats(dtype: np.dtype[Any]) -> st.SearchStrategy[Array]:
    """Arrays of arbitrary bits, so that every NaN, infinity and subnormal occurs."""

    def made(shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
        size = int(np.prod(shape)) * dtype.itemsize
        bits = st.binary(min_size=size, max_size=size)
        return bits.map(lambda raw: np.frombuffer(raw, np.uint8).copy().view(dtype).reshape(shape))

    return shapes().flatmap(made)


@pytest.mark.filterwarnings("error:::surgeon_debug")
@settings(max_examples=200, deadline=None)
@given(data=st.data(), name=st.sampled_from(["float64", "float32", *LOW]), seed=st.integers(0, 2**32 - 1))
def test_perturbing_moves_every_float_by_the_amplitude_and_nothing_else(data: Any, name: str, seed: int) -> None:
    value = data.draw(st.sampled_from(TYPES).flatmap(floats))
    before = value.tobytes()
    precision = precision_of(name)
    moved = perturb(value, precision, np.random.default_rng(seed))
    assert (moved.dtype, moved.shape, value.tobytes()) == (value.dtype, value.shape, before)
    with np.errstate(all="ignore"):
        wide, after = np.atleast_1d(value.astype(np.float64)), np.atleast_1d(moved.astype(np.float64))
    finite = np.isfinite(wide)
    np.testing.assert_array_equal(after[~finite], wide[~finite])
    numbers = ml_dtypes.finfo(value.dtype)
    here, there = wide[finite], after[finite]
    wanted = np.abs(here) * amplitude(precision) + precision.smallest
    # The float type itself may be too coarse to hold the step, by one gap where it is widest.
    widest = np.maximum(np.abs(here), np.abs(here) + wanted)
    gap = np.maximum(widest * max(float(numbers.eps), 2.0**-23), float(numbers.smallest_subnormal))
    step = np.abs(there - here)
    assert np.isfinite(there).all()
    fits = widest < float(numbers.max) / 2
    assert (np.abs(step - wanted)[fits] <= 1.01 * gap[fits]).all()


@given(value=st.sampled_from(["int64", "bool", "uint8"]).flatmap(lambda name: arrays.arrays(name, shapes())))
def test_integers_are_left_alone(value: Array) -> None:
    assert perturb(value, precision_of("float16"), np.random.default_rng(0)) is value


def test_perturbing_goes_either_way() -> None:
    moved = perturb(np.ones(10_000, np.float32), precision_of("float16"), np.random.default_rng(3)) - 1
    assert set(np.round(np.abs(moved), 7)) == {np.float32(2**-11).round(7)}
    assert 0.47 < np.mean(moved > 0) < 0.53


Emulated = Callable[..., Array]


def _matmul(a: Array, b: Array) -> Array:
    return a @ b


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _layer_norm(x: Array) -> Array:
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)


def _matmul_half(a: Array, b: Array) -> Array:
    return a.astype(np.float32) @ b.astype(np.float32)


def _softmax_half(x: Array) -> Array:
    e = np.exp((x - x.max(-1, keepdims=True)).astype(np.float16))
    return e / e.sum(-1, keepdims=True, dtype=np.float32).astype(np.float16)


def _layer_norm_half(x: Array) -> Array:
    d = x - x.mean(-1, keepdims=True, dtype=np.float32).astype(np.float16)
    variance = np.mean(d.astype(np.float32) ** 2, -1, keepdims=True) + 1e-5
    return d * (1 / np.sqrt(variance)).astype(np.float16)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


OPERATORS: dict[str, tuple[str, Emulated, Emulated, Callable[[np.random.Generator], list[Array]], int]] = {
    "MatMul": ("MatMul", _matmul, _matmul_half, lambda g: [_normal(g, 8, 256), _normal(g, 256, 64)], 256),
    "MatMul of positives": (
        "MatMul", _matmul, _matmul_half, lambda g: [np.abs(_normal(g, 8, 256)), np.abs(_normal(g, 256, 64))], 256,
    ),
    "Softmax": ("Softmax", _softmax, _softmax_half, lambda g: [3 * _normal(g, 32, 64)], 64),
    "LayerNormalization": ("LayerNormalization", _layer_norm, _layer_norm_half, lambda g: [_normal(g, 32, 64)], 64),
    "LayerNormalization far from zero": (
        "LayerNormalization", _layer_norm, _layer_norm_half, lambda g: [20 + _normal(g, 32, 64)], 64,
    ),
    "Sub": ("Sub", np.subtract, np.subtract, lambda g: [_normal(g, 32, 64), _normal(g, 32, 64)], 1),
    "Sub that cancels": (
        "Sub", np.subtract, np.subtract, lambda g: [x := 50 + _normal(g, 32, 64), x + 0.1 * _normal(g, 32, 64)], 1,
    ),
    "Exp": ("Exp", np.exp, np.exp, lambda g: [np.minimum(2 * _normal(g, 32, 64), 6)], 1),
    "Relu": ("Relu", lambda x: np.maximum(x, 0), lambda x: np.maximum(x, 0), lambda g: [_normal(g, 32, 64)], 1),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", OPERATORS)
def test_the_floor_is_what_float16_really_loses(name: str, seed: int) -> None:
    op, exact, half, inputs, terms = OPERATORS[name]
    rng = np.random.default_rng(seed)
    given_inputs = inputs(rng)
    precision = precision_of("float16")
    reference = exact(*given_inputs)
    emulated = [exact(*(perturb(x, precision, rng) for x in given_inputs)) for _ in range(2)]
    floor = floor_of(reference, emulated, precision, op, rounding_of(precision, op, terms, weighted=False), terms)
    target = half(*(x.astype(np.float16) for x in given_inputs)).astype(np.float16).astype(np.float64)
    error = float(np.linalg.norm(target - reference) / np.linalg.norm(reference.astype(np.float64)))
    assert error / 4 < floor.relative < error * 4, (error, floor.relative)
    if "cancels" in name or "far" in name:
        assert floor.conditioning > 10
    stripe = worst_stripe(reference, target, floor)
    assert stripe is not None and stripe.ratio < 4


def test_floors_of_odd_values() -> None:
    precision = precision_of("float16")
    zero = floor_of(np.zeros((2, 3), np.float32), [np.zeros((2, 3), np.float32)], precision, "Mul", 1e-3, 1)
    assert zero == Floor(np.inf, 1.0, 0.0, {})
    empty = floor_of(np.zeros((0, 3), np.float32), [np.zeros((0, 3), np.float32)], precision, "Mul", 1e-3, 1)
    assert empty.relative == 0.0 and worst_stripe(np.zeros((0, 3)), np.zeros((0, 3)), empty) is None
    ints = floor_of(np.arange(8), [np.array([0, 1, 2, 3, 4, 5, 7, 7])], precision, "ArgMax", 1e-3, 1)
    assert ints.flips == 0.125 and ints.relative == 0.0
    other_shape = floor_of(np.arange(3), [np.arange(4)], precision, "NonZero", 1e-3, 1)
    assert other_shape.flips == 1.0
    scalar = floor_of(np.float32(2.0).reshape(()), [np.float32(2.001).reshape(())], precision, "Mul", 1e-3, 1)
    assert 0 < scalar.relative < 1e-2
    holes = np.array([[1, np.nan, np.inf, 2]] * 8, np.float32)
    seen = floor_of(holes, [holes * np.float32(1.0005)], precision, "Mul", 1e-3, 1)
    assert 0 < seen.relative < 1e-2 and np.isfinite(seen.by_index[1]).all()


def model_of(body: str, weights: dict[str, Array], ends: tuple[str, str], opset: int = 17) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g ({ends[0]}) => ({ends[1]}) {{ {body} }}'
    )
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    return proto


def halved(proto: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    for info in (*result.graph.input, *result.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for tensor in result.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), tensor.name))
    return result


def in_float16(proto: onnx.ModelProto, feeds: Sequence[dict[str, Array]], other: Any = None) -> Comparison:
    target = halved(proto) if other is None else other
    return compare_models(proto, target, reference=engine(), target=evaluator(), feeds=feeds, layers=True)


def by_name(found: Comparison) -> dict[str, TensorResult]:
    return {result.tensor: result for result in found.layers}


def test_an_ill_conditioned_subtraction_is_no_fault() -> None:
    proto = model_of(
        "a = Add (x, near)  b = Add (x, far)  difference = Sub (a, b)  y = Tanh (difference)",
        {"near": np.full(8, 20.01, np.float32), "far": np.full(8, 20.0, np.float32)},
        ("float[16, 8] x", "float[16, 8] y"),
    )
    found = in_float16(proto, [{"x": _normal(np.random.default_rng(0), 16, 8)}])
    layers = by_name(found)
    lossy = layers["difference"]
    assert lossy.verdict is Verdict.ILL_CONDITIONED and "keep in float32" in lossy.judgement.reason
    assert lossy.attribution is not None and lossy.ratio is not None and lossy.ratio < 4
    assert lossy.attribution.conditioning is not None and lossy.attribution.conditioning > 100
    assert not found.wrong and layers["a"].verdict is layers["b"].verdict is Verdict.AGREE
    assert found.cause is Cause.PRECISION and found.first is lossy


def test_what_leaves_the_range_of_float16_is_named_where_it_does() -> None:
    proto = model_of(
        "a = Mul (x, big)  b = Mul (a, big)  c = Mul (b, small)  y = Mul (c, small)",
        {"big": np.array([300], np.float32), "small": np.array([0.001], np.float32)},
        ("float[16, 8] x", "float[16, 8] y"),
    )
    found = in_float16(proto, [{"x": 1 + np.abs(_normal(np.random.default_rng(0), 16, 8))}])
    layers = by_name(found)
    assert layers["b"].verdict is Verdict.OVERFLOW and "65504" in layers["b"].judgement.reason
    assert layers["a"].verdict is Verdict.AGREE
    # The reference's values of b do not fit float16 either, so nothing is known against what follows.
    assert layers["c"].verdict is layers["y"].verdict is Verdict.INHERITS
    assert found.first is layers["b"] and not found.wrong and found.verdict == "differ"


@pytest.mark.parametrize(("seed", "places"), [(0, range(77, 78)), (1, range(252, 256))])
def test_a_fault_that_the_norm_of_the_tensor_hides_is_found_in_its_stripe(seed: int, places: range) -> None:
    """One channel, or the tail of a tile, of a float16 network is off by a few percent."""
    rng = np.random.default_rng(seed)
    weight = _normal(rng, 128, 256) / np.float32(11)
    body, ends = "a = Relu (x)  m = MatMul (a, w)  y = Relu (m)", ("float[64, 128] x", "float[64, 256] y")
    proto = model_of(body, {"w": weight}, ends)
    gain = np.ones(256, np.float32)
    gain[places.start : places.stop] += 0.02
    faulty = model_of(body.replace("m = MatMul (a, w)", "p = MatMul (a, w)  m = Mul (p, gain)"),
                      {"w": weight, "gain": gain}, ends)  # fmt: skip
    feeds = [{"x": _normal(rng, 64, 128)} for _ in range(2)]
    healthy = by_name(in_float16(proto, feeds))
    assert {r.verdict for r in healthy.values()} == {Verdict.AGREE}
    found = in_float16(proto, feeds, halved(faulty))
    wrong = by_name(found)["m"]
    assert wrong.verdict is Verdict.WRONG and found.wrong == [wrong]
    assert wrong.introduced is not None and wrong.floor is not None
    assert wrong.introduced / wrong.floor < 10
    assert wrong.attribution is not None and wrong.attribution.stripe is not None
    assert wrong.attribution.stripe.axis == 1 and wrong.attribution.stripe.index in places
    assert "of axis 1" in wrong.judgement.reason


def test_every_sample_has_its_own_floor() -> None:
    """A loud sample whose rounding is small beside it is not held against the floor of a quiet one."""
    rng = np.random.default_rng(0)
    proto = model_of(
        "m = MatMul (x, w)  s = Sub (m, shift)  y = Relu (s)",
        {"w": _normal(rng, 32, 16), "shift": np.full(16, 0.7, np.float32)},
        ("float[N, 32] x", "float[N, 16] y"),
    )
    feeds = [{"x": size * _normal(rng, rows, 32)} for size, rows in ((np.float32(0.01), 9), (np.float32(50), 12))]
    for samples in (feeds, feeds[::-1]):
        found = in_float16(proto, samples)
        assert {r.verdict for r in found.layers} == {Verdict.AGREE}, [r.judgement.reason for r in found.layers]
        assert all(r.ratio is not None and r.ratio < 4 for r in found.layers)


def quantised(scale_of_weights: float, rng: np.random.Generator) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A network in float32, and with its weights and activations in int8."""
    weight = _normal(rng, 32, 16)
    step = float(np.abs(weight).max()) / 127
    ends = ("float[8, 32] x", "float[8, 16] y")
    plain = model_of("m = MatMul (x, w)  y = Relu (m)", {"w": weight}, ends)
    rounded = np.clip(np.round(weight / step), -127, 127).astype(np.int8)
    weights = {
        "q": rounded, "ws": np.array(step * scale_of_weights, np.float32), "wz": np.array(0, np.int8),
        "xs": np.array(4 / 127, np.float32), "xz": np.array(0, np.int8),
    }  # fmt: skip
    body = """xq = QuantizeLinear (x, xs, xz)  xd = DequantizeLinear (xq, xs, xz)
        wd = DequantizeLinear (q, ws, wz)  m = MatMul (xd, wd)  y = Relu (m)"""
    return plain, model_of(body, weights, ends)


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, Verdict.AGREE), (1.3, Verdict.WRONG)])
def test_rounding_to_int8_is_explained_and_a_wrong_scale_is_not(scale: float, verdict: Verdict) -> None:
    rng = np.random.default_rng(5)
    plain, narrow = quantised(scale, rng)
    feeds = [{"x": np.clip(_normal(rng, 8, 32), -4, 4)}]
    found = compare_models(plain, narrow, reference=engine(), target=ORT, feeds=feeds, layers=True)
    layer = by_name(found)["m"]
    assert layer.attribution is not None and layer.attribution.precision == "quantisation"
    assert layer.introduced is not None and layer.introduced > 1e-3
    assert layer.verdict is verdict, layer.judgement.reason
    assert "quantisation explains" in layer.judgement.reason or "explained by quantisation" in layer.judgement.reason


def test_clipping_is_not_rounding() -> None:
    plain, narrow = quantised(1.0, np.random.default_rng(5))
    feeds = [{"x": 20 * _normal(np.random.default_rng(6), 8, 32)}]
    found = compare_models(plain, narrow, reference=engine(), target=ORT, feeds=feeds, layers=True)
    assert by_name(found)["m"].verdict is Verdict.WRONG


def test_integers_that_follow_from_float16_may_flip() -> None:
    """ArgMax of nearly equal numbers: some elements differ, as many as the precision explains."""
    body = "a = MatMul (x, w)  k = ArgMax <axis = 1, keepdims = 0> (a)  y = Cast <to = 1> (k)"
    weights = {"w": _normal(np.random.default_rng(1), 16, 64)}
    proto = model_of(body, weights, ("float[2000, 16] x", "float[2000] y"))
    other = halved(proto)
    other.graph.node[2].attribute[0].i = onnx.TensorProto.FLOAT16
    found = in_float16(proto, [{"x": _normal(np.random.default_rng(2), 2000, 16)}], other)
    layer = by_name(found)["k"]
    assert layer.introduced is not None and layer.verdict in (Verdict.AGREE, Verdict.INHERITS)
    assert layer.screen is not None and layer.screen.exact and layer.screen.unequal > 0
    assert not found.wrong
