"""Constant subgraphs evaluate to what an engine computes, to the bit, in every type, or say why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from surgeon_passes import evaluate as evaluate_module
from surgeon_passes.constant_model import run_onnxruntime
from surgeon_passes.direct_values import direct_value, is_layout
from surgeon_passes.evaluate import Evaluation, evaluate


def constant(data: np.ndarray, dtype: ir.DataType | None = None) -> tuple[ir.Value, ir.TensorProtocol]:
    tensor = ir.Tensor(data, dtype=dtype)
    return ir.Value(name="c", type=ir.TensorType(tensor.dtype), shape=tensor.shape), tensor


def one(op: str, *data: np.ndarray, opset: int = 21, **attributes: object) -> ir.TensorProtocol | str:
    """The value of a single node, or why there is none."""
    constants = dict(constant(array) for array in data)
    node = ir.node(op, list(constants), attributes=attributes)  # type: ignore[arg-type]
    found = evaluate([node], constants, node.outputs, {"": opset})
    return found.values.get(node.outputs[0]) or found.failures[node]


def chain(steps: Sequence[str], data: np.ndarray) -> tuple[list[ir.Node], Evaluation]:
    value, tensor = constant(data)
    nodes, last = [], value
    for op in steps:
        nodes.append(ir.node(op, [last]))
        last = nodes[-1].outputs[0]
    return nodes, evaluate(nodes, {value: tensor}, [last], {"": 21})


def test_a_whole_batch_takes_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = []
    monkeypatch.setattr(evaluate_module, "run_onnxruntime", lambda m: sessions.append(m) or run_onnxruntime(m))
    nodes, found = chain(["Neg", "Abs", "Exp"] * 50, np.array([-1.0, 0.0], np.float32))
    assert len(sessions) == 1
    assert set(found.values) == {nodes[-1].outputs[0]}


def test_one_bad_node_does_not_spoil_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = []
    monkeypatch.setattr(evaluate_module, "run_onnxruntime", lambda m: sessions.append(m) or run_onnxruntime(m))
    value, tensor = constant(np.arange(4, dtype=np.float32))
    shape, target = constant(np.array([3, 3], np.int64))
    good = [ir.node("Neg", [value]) for _ in range(40)]
    bad = ir.node("Reshape", [good[20].outputs[0], shape])
    after = ir.node("Neg", [bad.outputs[0]])
    nodes = [*good[:25], bad, *good[25:], after]
    wanted = [node.outputs[0] for node in nodes]
    found = evaluate(nodes, {value: tensor, shape: target}, wanted, {"": 21})
    assert set(found.failures) == {bad}
    assert "Reshape" in found.failures[bad]
    assert set(found.values) == {node.outputs[0] for node in good}
    assert len(sessions) <= 5


def test_copies_keep_every_bit() -> None:
    odd = np.array([0x7FC01234, 0xFF812345, 0x80000000, 1], np.uint32).view(np.float32)
    found = one("Identity", odd)
    assert isinstance(found, ir.TensorProtocol)
    assert found.numpy().tobytes() == odd.tobytes()


@pytest.mark.parametrize(
    "dtype",
    ["BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT8E4M3FNUZ", "FLOAT8E5M2FNUZ", "INT4", "UINT4"],
)
@pytest.mark.parametrize("count", [6, 6000])
def test_types_that_numpy_lacks_come_out_bit_by_bit(dtype: str, count: int) -> None:
    kind = ir.DataType[dtype]
    raw = np.random.default_rng(0).integers(0, 256, count * kind.bitwidth // 8, np.uint8)
    if kind.bitwidth < 8:
        tensor: ir.TensorProtocol = ir.PackedTensor(raw, kind, shape=ir.Shape([count]))
    else:
        tensor = ir.Tensor(raw.view(kind.numpy()), dtype=kind)
    value = ir.Value(name="w", type=ir.TensorType(kind), shape=tensor.shape)
    shape, target = constant(np.array([2, count // 2], np.int64))
    node = ir.node("Reshape", [value, shape])
    found = evaluate([node], {value: tensor, shape: target}, node.outputs, {"": 23})
    result = found.values[node.outputs[0]]
    assert result.dtype == kind
    assert result.shape.numpy() == (2, count // 2)
    assert result.tobytes() == tensor.tobytes()


def test_the_reference_takes_over_where_onnxruntime_has_no_kernel() -> None:
    data = np.array([1.5, -0.25], ml_dtypes.bfloat16)
    found = one("Mul", data, np.array([3.0, 2.0], ml_dtypes.bfloat16))
    assert isinstance(found, ir.TensorProtocol)
    assert found.dtype == ir.DataType.BFLOAT16
    assert found.numpy().astype(np.float32).tolist() == [4.5, -0.5]


def test_the_reference_is_not_trusted_with_sums() -> None:
    data = np.ones((8, 8), ml_dtypes.bfloat16)
    found = one("MatMul", data, data)
    assert found == one("MatMul", data, data)
    assert isinstance(found, str)
    assert "MatMul" in found


def test_float16_is_rounded_after_every_operator() -> None:
    value, tensor = constant(np.float16([7.7, 0.3333]))
    square = ir.node("Mul", [value, value])
    total = ir.node("Add", [square.outputs[0], value])
    last = ir.node("Mul", [total.outputs[0], value])
    found = evaluate([square, total, last], {value: tensor}, last.outputs, {"": 21}, lambda _: ir.DataType.FLOAT16)
    x = tensor.numpy()
    assert found.values[last.outputs[0]].numpy().tolist() == ((x * x + x) * x).tolist()


def test_an_opset_that_onnxruntime_does_not_know_is_left_to_the_reference() -> None:
    found = one("Add", np.float32([1, 2]), np.float32([3, 4]), opset=28)
    assert isinstance(found, ir.TensorProtocol)
    assert found.numpy().tolist() == [4, 6]


def test_texts_of_any_script() -> None:
    tensor = ir.StringTensor(["héllo".encode(), b"", "日本".encode()], shape=ir.Shape([3]))
    value = ir.Value(name="s", type=ir.TensorType(ir.DataType.STRING), shape=tensor.shape)
    index, at = constant(np.array([2, 0], np.int64))
    node = ir.node("Gather", [value, index])
    found = evaluate([node], {value: tensor, index: at}, node.outputs, {"": 21}).values[node.outputs[0]]
    assert list(found.string_data()) == ["日本".encode(), "héllo".encode()]  # type: ignore[attr-defined]


def test_a_sequence_may_stand_between_constants_and_a_tensor_but_is_no_result() -> None:
    value, tensor = constant(np.float32([1, 2]))
    pair = ir.node("SequenceConstruct", [value, value])
    joined = ir.node("ConcatFromSequence", [pair.outputs[0]], attributes={"axis": 0})
    found = evaluate([pair, joined], {value: tensor}, joined.outputs, {"": 21})
    assert found.values[joined.outputs[0]].numpy().tolist() == [1, 2, 1, 2]
    found = evaluate([pair], {value: tensor}, pair.outputs, {"": 21})
    assert "not a tensor" in found.failures[pair]


def test_integer_division_truncates() -> None:
    found = one("Div", np.array([-7, 7, -8], np.int64), np.array([2, -2, 3], np.int64))
    assert isinstance(found, ir.TensorProtocol)
    assert found.numpy().tolist() == [-3, -3, -2]


def _casts() -> list[tuple[np.ndarray, ir.DataType]]:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, 20000, np.uint32).view(np.float32)
    halves = rng.integers(0, 2**16, 4000, np.uint16).view(np.float16).astype(np.float32)
    near_half = halves[np.isfinite(halves)] * np.float32(1 + 2**-12)
    single = np.concatenate([bits, near_half, np.float32([65504, 65519, 65520, 65536, 1e-8, 5.9e-8, 2.98e-8, -0.0])])
    double = rng.standard_normal(5000) * 10.0 ** rng.integers(-50, 50, 5000)
    half = np.arange(2**16, dtype=np.uint16).view(np.float16)
    brain = np.arange(2**16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    return [
        (single, ir.DataType.FLOAT16),
        (single, ir.DataType.DOUBLE),
        (double, ir.DataType.FLOAT),
        (half, ir.DataType.FLOAT),
        (brain, ir.DataType.FLOAT),
    ]


@pytest.mark.parametrize(("data", "to"), _casts(), ids=lambda x: str(x.dtype) if isinstance(x, np.ndarray) else x.name)
def test_direct_casts_round_as_the_engine_does(data: np.ndarray, to: ir.DataType) -> None:
    value, tensor = constant(data)
    node = ir.node("Cast", [value], attributes={"to": int(to)})
    assert is_layout(node, tensor.dtype, to)
    engine = evaluate([node], {value: tensor}, node.outputs, {"": 21}).values[node.outputs[0]].numpy()
    ours = direct_value(node, tensor, data.shape, to).numpy()
    is_nan = engine != engine
    assert ((ours != ours) == is_nan).all()
    assert ours[~is_nan].tobytes() == engine[~is_nan].tobytes()


def test_large_results_of_layout_are_computed_when_read_and_external_data_stays_where_it_is(tmp_path: Path) -> None:
    data = np.arange(3 * 2**20, dtype=np.float32).reshape(3, 1024, 1024)
    data.tofile(tmp_path / "w.bin")
    tensor = ir.ExternalTensor(
        "w.bin", 0, data.nbytes, ir.DataType.FLOAT, shape=ir.Shape(data.shape), name="w", base_dir=tmp_path
    )
    value = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT), shape=tensor.shape)
    node = ir.node("Transpose", [value], attributes={"perm": [2, 0, 1]})
    turned = direct_value(node, tensor, (1024, 3, 1024), tensor.dtype)
    assert isinstance(turned, ir.LazyTensor)
    np.testing.assert_array_equal(turned.numpy(), data.transpose(2, 0, 1))
    flat = direct_value(ir.node("Reshape", [value, None]), tensor, (3, 2**20), tensor.dtype)
    assert isinstance(flat, ir.ExternalTensor)
    np.testing.assert_array_equal(flat.numpy(), data.reshape(3, -1))
