from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_debug.values import decode, digest, dtype_name, element_type_of, encode, kind_of, normalise, same
from surgeon_passes.errors import BadOptionError

NARROW = [
    kind
    for kind in ir.DataType
    if kind not in (ir.DataType.UNDEFINED, ir.DataType.STRING) and not kind.name.startswith("COMPLEX")
]


def codes(kind: ir.DataType, count: int) -> np.ndarray:
    """Every value of a small type, or a spread of a large one."""
    dtype = np.dtype(kind.numpy())
    if kind.bitwidth > 8:
        return np.arange(-count // 2, count // 2).astype(dtype)
    return decode(encode_codes(kind, count), kind.value, (count,))


def encode_codes(kind: ir.DataType, count: int) -> bytes:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (count, kind.bitwidth)).astype(np.uint8)
    if kind == ir.DataType.BOOL:
        bits[:, 1:] = 0
    return np.packbits(bits.reshape(-1), bitorder="little").tobytes()


@pytest.mark.parametrize("kind", NARROW, ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 3), (3, 1, 5)])
def test_a_buffer_survives_decoding_and_encoding(kind: ir.DataType, shape: tuple[int, ...]) -> None:
    array = codes(kind, int(np.prod(shape))).reshape(shape)
    assert decode(encode(array, kind.value), kind.value, shape).tobytes() == array.tobytes()
    assert array.dtype == np.dtype(kind.numpy())
    assert element_type_of(array) == kind.value


@pytest.mark.parametrize("kind", [k for k in NARROW if not k.name.startswith("FLOAT6")], ids=lambda kind: kind.name)
def test_a_buffer_means_what_onnx_says_it_means(kind: ir.DataType) -> None:
    proto = onnx.TensorProto(data_type=kind.value, dims=[5], raw_data=encode(codes(kind, 5), kind.value))
    expected = onnx.numpy_helper.to_array(proto)
    seen = decode(proto.raw_data, kind.value, (5,))
    np.testing.assert_array_equal(seen.astype(np.float64), expected.astype(np.float64))


def test_four_bit_integers_are_signed() -> None:
    assert decode(b"\xef\x08", ir.DataType.INT4.value, (3,)).tolist() == [-1, -2, -8]
    assert decode(b"\xef\x08", ir.DataType.UINT4.value, (3,)).tolist() == [15, 14, 8]


def test_kinds_and_names() -> None:
    assert [kind_of(np.zeros(1, d)) for d in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2)] == ["float"] * 3
    assert [kind_of(np.zeros(1, d)) for d in (np.uint8, ml_dtypes.int4, np.dtype("<i4").newbyteorder("<"))] == [
        "int"
    ] * 3
    assert kind_of(np.zeros(1, np.dtype(bool).newbyteorder("<"))) == "bool"
    assert [kind_of(v) for v in (None, [], {}, np.array(["a"]), np.zeros(1, complex))] == [
        "none", "sequence", "map", "text", "complex",
    ]  # fmt: skip
    assert [dtype_name(v) for v in (None, np.array(["a"], object), np.zeros(1, ml_dtypes.float8_e4m3fn))] == [
        "none", "string", "float8_e4m3fn",
    ]  # fmt: skip
    with pytest.raises(BadOptionError, match="no element type"):
        element_type_of(np.zeros(1, "V3"))


def test_text_has_one_form_whatever_the_engine_returns() -> None:
    forms = [np.array(["a", "é"]), np.array(["a", "é"], object), np.array([b"a", "é".encode()]), ["a", "é"]]
    first = normalise(forms[0])
    assert first.dtype == object
    assert same(first, normalise(forms[1])) and same(first, normalise(forms[2]))
    assert [item.item() for item in normalise(forms[3])] == ["a", "é"]  # a list is a sequence, of text here


def test_same_and_digest_tell_values_apart() -> None:
    a = np.array([1.0, np.nan], np.float32)
    other_nan = np.array([1.0, 0], np.float32)
    other_nan.view(np.uint32)[1] = 0x7FC00123
    assert same(a, other_nan) and digest(a) == digest(other_nan)
    assert same(np.array([0.0]), np.array([-0.0])) and digest(np.array([0.0])) != digest(np.array([-0.0]))
    assert not same(a, a.astype(np.float64)) and digest(a) != digest(a.astype(np.float64))
    assert not same(a, a.reshape(1, 2)) and digest(a) != digest(a.reshape(1, 2))
    assert not same([a], [a, a]) and not same([a], a) and same(None, None)
    assert same({"x": a}, {"x": a}) and not same({"x": a}, {"y": a})
    texts = [np.array(["ab", "c"], object), np.array(["a", "bc"], object)]
    assert not same(*texts) and digest(texts[0]) != digest(texts[1])
    assert digest(np.float32(1)) != digest(np.ones(1, np.float32))


@given(st.binary(min_size=6, max_size=6), st.sampled_from(NARROW))
@settings(max_examples=60, deadline=None)
def test_digest_is_equality_to_the_bit(raw: bytes, kind: ir.DataType) -> None:
    if kind == ir.DataType.BOOL:
        raw = bytes(b & 1 for b in raw)
    count = len(raw) * 8 // kind.bitwidth
    if kind.bitwidth > 8 * len(raw):
        return
    array = decode(raw[: count * kind.bitwidth // 8] if kind.bitwidth >= 8 else raw, kind.value, (count,))
    assert digest(array) == digest(array.copy())
    assert same(array, array.copy())
