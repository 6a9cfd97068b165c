"""Rounding to sixteen bits: once, to nearest even, in range, and piece by piece from files."""

from __future__ import annotations

import io
import tracemalloc

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon_passes import graph, save
from surgeon_passes.convert_precision import ConvertPrecision
from surgeon_passes.low_precision import LowType, loses_precision, lowered_tensor, pieces, range_loss
from tests.numeric import assert_same_values

BOTH = pytest.mark.parametrize("low", list(LowType))


def tensor(*values: float) -> ir.Tensor:
    return ir.Tensor(np.array(values, np.float32), name="t")


@given(st.lists(st.floats(width=32), min_size=1, max_size=40), st.sampled_from(list(LowType)))
def test_finite_stays_finite_and_the_rest_is_the_nearest(values, low):
    original = np.array(values, np.float32)
    result = lowered_tensor(ir.Tensor(original), low, "t").numpy()
    with np.errstate(over="ignore"):
        nearest = original.astype(low.numpy)
    kept = np.isfinite(nearest.astype(np.float32)) | ~np.isfinite(original)
    lifted = original.any() and not nearest.any()
    if not lifted:
        np.testing.assert_array_equal(result[kept].astype(np.float32), nearest[kept].astype(np.float32))
    assert np.isfinite(result[np.isfinite(original)].astype(np.float32)).all()
    assert (np.sign(result.astype(np.float32)) == np.sign(original))[np.isfinite(original) & (result != 0)].all()


def test_ties_go_to_even_straight_from_float32():
    # 1 + 2**-11 lies half-way between two float16 numbers; a hair more must not be lost on the way.
    values = np.array([1 + 2**-11, 1 + 2**-11 + 2**-23, 1 + 3 * 2**-11], np.float32)
    result = lowered_tensor(ir.Tensor(values), LowType.FLOAT16, "t").numpy()
    np.testing.assert_array_equal(result, np.array([1, 1 + 2**-10, 1 + 2**-9], np.float16))


@BOTH
def test_what_does_not_fit(low):
    inf, nan = float("inf"), float("nan")
    just_fits, too_large = (65519.0, 65520.0) if low is LowType.FLOAT16 else (3.389e38, 3.4028e38)
    assert not range_loss(tensor(just_fits, -just_fits, inf, -inf, nan, 0), low).above
    assert range_loss(tensor(1, too_large), low).above
    assert not range_loss(tensor(1, too_large), low).below
    assert range_loss(tensor(1, nan, -too_large), low).below
    assert not range_loss(tensor(), low).vanishes
    assert not range_loss(tensor(0, 0), low).vanishes
    tiny = 1e-12 if low is LowType.FLOAT16 else 1e-45
    assert range_loss(tensor(tiny, -tiny, 0), low).vanishes
    assert not range_loss(tensor(tiny, 1), low).vanishes
    assert not range_loss(tensor(tiny, inf), low).vanishes
    assert loses_precision(tensor(tiny, 1), low)
    assert not loses_precision(tensor(0, 1), low)
    lifted = lowered_tensor(tensor(tiny, -tiny, 0), low, "t").numpy().astype(np.float64)
    np.testing.assert_array_equal(lifted, [low.smallest, -low.smallest, 0])


def external(folder, elements: int) -> ir.ExternalTensor:
    values = np.random.default_rng(0).standard_normal(elements).astype(np.float32)
    (folder / "data").write_bytes(b"\0" * 12 + values.tobytes())
    return ir.ExternalTensor(
        "data", 12, 4 * elements, ir.DataType.FLOAT, shape=ir.Shape([elements]), name="t", base_dir=str(folder)
    )


def test_tensors_in_files_are_converted_piece_by_piece(tmp_path):
    elements = 6_000_000
    source = external(tmp_path, elements)
    lowered = lowered_tensor(source, LowType.FLOAT16, "t")
    whole = io.BytesIO()
    lowered.tofile(whole)
    assert whole.getvalue() == source.numpy().astype(np.float16).tobytes()
    assert lowered.tobytes() == whole.getvalue()
    with (tmp_path / "out").open("wb") as file:
        tracemalloc.start()
        lowered.tofile(file)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 20e6


def test_odd_pieces_are_put_together(tmp_path):
    source = external(tmp_path, (1 << 20) + 5)
    assert np.array_equal(np.concatenate(list(pieces(source))), source.numpy())


@pytest.mark.parametrize("layout", ["inline", "external"])
@pytest.mark.parametrize("low", ["float16", "bfloat16"])
def test_a_model_in_files_is_converted_and_saved(tmp_path, layout, low):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 64)).astype(np.float32)
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        stored (float[N, 64] x) => (float[N, 64] y) { m = MatMul(x, w)  y = MatMul(m, w) }""")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = tmp_path / "model.onnx"
    onnx.save_model(proto, path, save_as_external_data=layout == "external", location="model.data", size_threshold=0)
    model = graph.load(path)
    ConvertPrecision(to=low)(model)
    save.save(model, tmp_path / "low.onnx")
    later = onnx.load(tmp_path / "low.onnx")
    stored = onnx.numpy_helper.to_array(later.graph.initializer[0])
    dtype = np.dtype(low) if low == "float16" else np.dtype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(stored, weight.astype(dtype))
    if low == "float16":
        assert_same_values(onnx.load(path), later, rtol=5e-3)
