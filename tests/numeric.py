"""Run a model before and after a rewrite on the same seeded inputs and compare every output."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort


def model_of(text: str) -> ir.Model:
    """A model from ONNX's text format, checked."""
    proto = onnx.parser.parse_model(text)
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def random_array(rng: np.random.Generator, elem_type: int, shape: list[int]) -> np.ndarray:
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    if dtype == np.bool_:
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.kind in "iu":
        return np.asarray(rng.integers(0, 4, shape), dtype)
    return np.asarray(rng.standard_normal(shape), np.float32).astype(dtype)


def feeds_of(proto: onnx.ModelProto, dims: dict[str, int] | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded inputs; symbolic dimensions take the size in ``dims``, else 2."""
    rng = np.random.default_rng(seed)
    initializers = {t.name for t in proto.graph.initializer}
    feeds = {}
    for info in proto.graph.input:
        if info.name in initializers:
            continue
        tensor = info.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else (dims or {}).get(d.dim_param, 2) for d in tensor.shape.dim]
        feeds[info.name] = random_array(rng, tensor.elem_type, shape)
    return feeds


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs under onnxruntime without any optimisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_same_values(
    before: onnx.ModelProto,
    after: ir.Model | onnx.ModelProto,
    *,
    dims: dict[str, int] | None = None,
    rtol: float = 0.0,
    seeds: range = range(3),
) -> onnx.ModelProto:
    """Interface equal, checker content, every output equal (to the bit unless ``rtol``). Returns the later proto."""
    later = after if isinstance(after, onnx.ModelProto) else ir.to_proto(after)
    onnx.checker.check_model(later)
    assert [i.name for i in before.graph.input] == [i.name for i in later.graph.input]
    assert [(o.name, o.type.tensor_type.elem_type) for o in before.graph.output] == [
        (o.name, o.type.tensor_type.elem_type) for o in later.graph.output
    ]
    for seed in seeds:
        feeds = feeds_of(before, dims, seed)
        expected, seen = run(before, feeds), run(later, feeds)
        for name, value in expected.items():
            assert value.dtype == seen[name].dtype, name
            assert value.shape == seen[name].shape, name
            if rtol and value.dtype.kind == "f":
                scale = float(np.abs(value[np.isfinite(value)]).max(initial=1e-30))
                np.testing.assert_allclose(seen[name], value, rtol=rtol, atol=rtol * scale, err_msg=name)
            else:
                np.testing.assert_array_equal(seen[name], value, err_msg=name)
    return later
