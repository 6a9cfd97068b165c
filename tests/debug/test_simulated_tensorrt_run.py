"""The simulator computes what the model says, in the types that it states, for every kind of input and output."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.simulated_tensorrt import PROFILES, assemble, drive, models
from tests.simulated_tensorrt.device_memory import CudaError, device
from tests.simulated_tensorrt.plan import Plan

EXACT = Plan(rounding=False)
SHAPES = [{"x": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}]


@pytest.fixture(params=PROFILES)
def trt(request: pytest.FixtureRequest) -> Any:
    return assemble.module(request.param, EXACT)


def session(trt: Any, model: onnx.ModelProto, **settings: Any) -> drive.Session:
    built = drive.build(trt, model, **settings)
    assert built.blob is not None, built.errors
    return drive.Session(trt, built.blob)


def expected(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    runtime = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return dict(zip([o.name for o in runtime.get_outputs()], runtime.run(None, feeds), strict=True))


def noise(*shape: int, kind: Any = np.float32) -> Any:
    return np.random.default_rng(1).standard_normal(shape).astype(kind)


def test_floats(trt: Any) -> None:
    for model, x, profiles in (
        (models.conv_net(), noise(3, 3, 8, 8), SHAPES),
        (models.mlp(), noise(4, 16), ()),
        (models.looped(), noise(2, 3), ()),
    ):
        got = session(trt, model, profiles=profiles).run({"x": x})
        for name, value in expected(model, {"x": x}).items():
            np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6)


def test_tf32_rounds_the_operands_of_products_unless_cleared(trt: Any) -> None:
    model, x = models.mlp(1), noise(4, 16)
    exact = expected(model, {"x": x})["t0"]
    coarse = session(trt, model, tf32=True).run({"x": x})["t0"]
    fine = session(trt, model, tf32=False).run({"x": x})["t0"]
    assert 1e-5 < np.abs(coarse - exact).max() < 1e-2
    assert np.abs(fine - exact).max() < 1e-6


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_precision_is_rounded_where_a_layer_ends(trt: Any, kind: int) -> None:
    model = models.mlp(2, kind=kind)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    x = noise(4, 16).astype(dtype)
    fused = session(trt, model).run({"x": x})["t1"]
    assert fused.dtype == dtype
    split = session(trt, model, builder_optimization_level=0).run({"x": x})["t1"]
    wide = models.mlp(2)
    for tensor, rounded in zip(wide.graph.initializer, model.graph.initializer, strict=True):
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(rounded).astype(np.float32), tensor.name))
    exact = expected(wide, {"x": x.astype(np.float32)})["t1"]
    unit = float(ml_dtypes.finfo(dtype).eps)
    assert np.abs(fused.astype(np.float32) - exact).max() < 8 * unit
    assert (
        fused.astype(np.float32) != split.astype(np.float32)
    ).any()  # the run of four rounds once, apart they round four times


def test_double_becomes_float(trt: Any) -> None:
    nodes = [helper.make_node("Mul", ["x", "x"], ["y"], name="square")]
    model = models.model(nodes, [("x", TensorProto.DOUBLE, [3])], [("y", TensorProto.DOUBLE, [3])])
    engine = session(trt, model)
    assert engine.engine.get_tensor_dtype("x") == trt.DataType.FLOAT
    got = engine.run({"x": np.array([1, 2, 3], np.float32)})["y"]
    assert got.dtype == np.float32 and got.tolist() == [1, 4, 9]


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.FLOAT8E4M3FN])
def test_quantised_types_cross_layers(trt: Any, kind: int) -> None:
    zero = onnx.helper.make_tensor("zero", kind, [], [0])
    scale = numpy_helper.from_array(np.array(0.05, np.float32), "scale")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="dequantise"),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="product"),
        helper.make_node("Relu", ["d"], ["z"], name="relu"),
    ]
    outputs: list[Any] = [("y", TensorProto.FLOAT, [4, 5]), ("z", TensorProto.FLOAT, [4, 6])]
    parts = [zero, scale, models.weights("w", 6, 5)]
    model = models.model(nodes, [("x", TensorProto.FLOAT, [4, 6])], outputs, parts, opset=19)
    x = noise(4, 6)
    got = session(trt, model).run({"x": x})
    for name, value in expected(model, {"x": x}).items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.bool_, np.uint8])
def test_other_types_go_through(trt: Any, kind: Any) -> None:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model = models.model(
        [helper.make_node("Identity", ["x"], ["y"], name="same")], [("x", element, [4])], [("y", element, [4])]
    )
    x = np.array([0, 1, 1, 0]).astype(kind)
    got = session(trt, model).run({"x": x})["y"]
    assert got.dtype == kind and got.tolist() == x.tolist()


def test_sizes_that_depend_on_values_are_told_by_the_allocator(trt: Any) -> None:
    model = models.nonzero()
    engine = session(trt, model)
    assert tuple(engine.context.get_tensor_shape("y")) == (2, -1)
    for x in (noise(3, 4), -np.ones((3, 4), np.float32)):
        got = engine.run({"x": x})["y"]
        np.testing.assert_array_equal(got, expected(model, {"x": x})["y"])
    assert engine.context.get_max_output_size("y") >= 2 * 12 * 8


def test_shape_inputs_are_read_from_the_host(trt: Any) -> None:
    model = models.reshaped()
    built = drive.build(trt, model, values=[{"shape": ([1, 1], [3, 4], [12, 12])}])
    assert built.blob is not None, built.errors
    engine = drive.Session(trt, built.blob)
    assert engine.engine.is_shape_inference_io("shape") and not engine.engine.is_shape_inference_io("x")
    assert engine.engine.get_tensor_location("shape") == trt.TensorLocation.HOST
    assert engine.engine.get_tensor_profile_values(0, "shape") == [[1, 1], [3, 4], [12, 12]]
    assert engine.context.infer_shapes() == ["shape"]
    x = noise(2, 6)
    for shape in ((3, 4), (12, 1)):
        got = engine.run({"x": x, "shape": np.array(shape, np.int64)})["y"]
        np.testing.assert_array_equal(got, -x.reshape(shape))
        assert tuple(engine.context.get_tensor_shape("y")) == shape


def test_shapes_outside_the_profile_and_missing_addresses_are_refused(trt: Any) -> None:
    engine = session(trt, models.conv_net(), profiles=SHAPES)
    context = engine.context
    assert context.infer_shapes() == ["x"]
    assert not context.execute_async_v3(engine.stream)
    assert not context.set_input_shape("x", (5, 3, 8, 8))
    assert not context.set_input_shape("x", (2, 3, 8))
    assert not context.set_input_shape("no", (2, 3, 8, 8))
    assert context.set_input_shape("x", (2, 3, 8, 8))
    assert tuple(context.get_tensor_shape("y")) == (2, 5)
    assert not context.execute_async_v3(engine.stream)  # no address
    assert not context.set_tensor_address("no", 0)


def test_two_profiles(trt: Any) -> None:
    profiles = [{"x": ((1, 3, 8, 8),) * 3}, {"x": ((2, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))}]
    built = drive.build(trt, models.conv_net(), profiles=profiles)
    assert built.blob is not None and len(built.tactics) == 6
    assert any(line.startswith("Autotuning op conv1 + relu1 [profile 1](key: 0x") for line in built.lines)
    x = noise(8, 3, 8, 8)
    second = drive.Session(trt, built.blob, profile=1)
    np.testing.assert_allclose(second.run({"x": x})["y"], expected(models.conv_net(), {"x": x})["y"], rtol=1e-5)
    with pytest.raises(RuntimeError, match="shape of x"):
        drive.Session(trt, built.blob).run({"x": x})
    with pytest.raises(RuntimeError, match="profile"):
        second.context.set_optimization_profile_async(2, second.stream)


def test_results_are_there_only_after_the_stream_was_waited_for(trt: Any) -> None:
    engine = session(trt, models.mlp())
    x = noise(4, 16)
    inputs, output = device().malloc(x.nbytes), device().malloc(x.nbytes)
    device().copy(inputs, x.ctypes.data, x.nbytes, 1)
    engine.context.set_tensor_address("x", inputs)
    engine.context.set_tensor_address("t2", output)
    assert engine.context.execute_async_v3(engine.stream)
    early = device().view(output, x.nbytes).tobytes()
    device().drain(engine.stream)
    late = device().view(output, x.nbytes).tobytes()
    assert early != late
    np.testing.assert_allclose(
        np.frombuffer(late, np.float32).reshape(4, 16), expected(models.mlp(), {"x": x})["t2"], rtol=1e-5, atol=1e-6
    )


def test_aliased_outputs_must_have_the_address_of_their_input() -> None:
    trt = assemble.module("11.4", Plan(aliased=(("t2", "x"),)))
    engine = session(trt, models.mlp())
    assert engine.engine.get_aliased_input_tensor("t2") == "x"
    here, there = device().malloc(256), device().malloc(256)
    engine.context.set_tensor_address("x", here)
    engine.context.set_tensor_address("t2", there)
    assert not engine.context.execute_async_v3(engine.stream)
    engine.context.set_tensor_address("t2", here)
    assert engine.context.execute_async_v3(engine.stream)


def test_too_small_a_buffer_breaks_the_context_of_the_process(trt: Any) -> None:
    engine = session(trt, models.mlp())
    inputs, output = device().malloc(4 * 16 * 4), device().malloc(8)
    engine.context.set_tensor_address("x", inputs)
    engine.context.set_tensor_address("t2", output)
    try:
        assert not engine.context.execute_async_v3(engine.stream)
        with pytest.raises(CudaError):
            device().malloc(1)
    finally:
        device().sticky = 0


def test_an_engine_of_another_version_is_refused() -> None:
    old, new = (assemble.module(profile, EXACT) for profile in PROFILES)
    blob = drive.build(old, models.mlp()).blob
    with pytest.raises(ValueError, match="refused"):
        drive.Session(new, blob)
    with pytest.raises(ValueError, match="refused"):
        drive.Session(old, blob[:-1])
    with pytest.raises(ValueError, match="refused"):
        drive.Session(old, b"rubbish")


def test_user_managed_memory_must_be_given(trt: Any) -> None:
    engine = session(trt, models.mlp())
    context = engine.engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    buffer = device().malloc(256)
    context.set_tensor_address("x", buffer)
    context.set_tensor_address("t2", buffer)
    assert not context.execute_async_v3(engine.stream)
    context.set_device_memory(device().malloc(context.update_device_memory_size_for_shapes()), 1 << 20)
    assert context.execute_async_v3(engine.stream)


def test_callbacks_that_were_dropped_are_used_after_free(trt: Any) -> None:
    engine = session(trt, models.nonzero())
    x = noise(3, 4)
    engine.run({"x": x})
    engine._hold = []
    import gc

    gc.collect()
    with pytest.raises(RuntimeError, match="use after free"):
        engine.context.execute_async_v3(engine.stream)


def test_times_of_layers_are_reported(trt: Any) -> None:
    class Times(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.rows: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.rows.append((layer_name, ms))

    engine = session(trt, models.mlp())
    times = Times()
    engine.context.profiler = times
    engine.run({"x": noise(4, 16)})
    assert times.rows[0][0] == "matmul0_myl0_0"
    assert all(ms > 0 for _, ms in times.rows) and len(times.rows) == engine.engine.num_layers
    assert re.fullmatch(r"__myl_SigmMulTanh_myl0_1", times.rows[1][0])
