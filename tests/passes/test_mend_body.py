"""The mended definition of AffineGrid computes what its kernel does, and loads with all optimisations of an engine."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from surgeon_passes.contract import ChangeLog
from surgeon_passes.inline_functions import InlineFunctions
from surgeon_passes.mend_body import mend_body
from tests.numeric import run


def grid(batch: int, sizes: tuple[int, ...], align: int, *, fixed: bool) -> onnx.ModelProto:
    """A grid for images of some sizes, which are a constant or an input."""
    size = ", ".join(map(str, (batch, 3, *sizes)))
    rank = len(sizes)
    theta, out = f"float[{batch},{rank},{rank + 1}] theta", f"float[{', '.join('abcde'[: rank + 2])}] y"
    inputs = theta if fixed else f"{theta}, int64[{rank + 2}] size"
    constant = f"<int64[{rank + 2}] size = {{{size}}}>" if fixed else ""
    text = f'<ir_version: 9, opset_import: ["" : 20]> net ({inputs}) => ({out}) {constant} '
    return onnx.parser.parse_model(f"{text} {{ [grid] y = AffineGrid <align_corners = {align}> (theta, size) }}")


def inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = ir.from_proto(proto)
    done = InlineFunctions(ops=("AffineGrid",)).run(model, ChangeLog())
    assert len(done.changes) == 1
    flat = ir.to_proto(model)
    onnx.checker.check_model(flat, full_check=True)
    assert not [node for node in flat.graph.node if node.op_type == "AffineGrid"]
    return flat


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("sizes", [(4, 5), (3, 4, 5), (2, 2)])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_values_are_the_kernels(batch: int, sizes: tuple[int, ...], align: int, fixed: bool) -> None:
    proto = grid(batch, sizes, align, fixed=fixed)
    theta = np.random.default_rng(0).standard_normal((batch, len(sizes), len(sizes) + 1)).astype(np.float32)
    feeds = {"theta": theta} if fixed else {"theta": theta, "size": np.array([batch, 3, *sizes])}
    flat = inlined(proto)
    expected = run(proto, feeds)["y"]
    assert expected.shape == (batch, *sizes, len(sizes))
    np.testing.assert_allclose(run(flat, feeds)["y"], expected, rtol=1e-5, atol=1e-6)
    optimised = ort.InferenceSession(flat.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(optimised.run(["y"], feeds)[0], expected, rtol=1e-5, atol=1e-6)


def test_other_definitions_are_left_as_they_are() -> None:
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.has_function or schema.name == "AffineGrid":
            continue
        function = onnx.FunctionProto.FromString(schema.function_body.SerializeToString())
        before = function.SerializeToString()
        mend_body(function)
        assert function.SerializeToString() == before
