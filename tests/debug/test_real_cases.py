"""Three faults that people meet, end to end: TF32, int8 products that saturate, and a float16 that overflows."""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from rich.console import Console

from surgeon.demo_model import build_demo_model
from surgeon.report.compare_report import print_comparison
from surgeon_debug.comparison import Cause, Comparison
from surgeon_debug.layers import compare_models
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.verdict import Verdict
from surgeon_passes.contract import ChangeLog
from surgeon_passes.convert_precision import ConvertPrecision
from tests.debug.saturating_runner import saturating_product

SATURATING = f"{Path(__file__).with_name('saturating_runner.py')}:Saturating"
ONES = {"x": np.ones((4, 16), np.float32)}
_SCALES = (1.0, 0.1, 0.2, 0.02)  # of the values between the layers; those before the second come to 255


def _weights(layer: int) -> np.ndarray:
    """Small ones in the first and the third layer, 127 all over the second."""
    if layer == 1:
        return np.full((16, 16), 127, np.int8)
    return np.random.default_rng(layer).integers(0, 30, (16, 16)).astype(np.int8)


def quantised(*, fused: bool) -> onnx.ModelProto:
    """Three products of uint8 values and int8 weights, of which the second has sums of pairs above 32767.

    Args:
        fused: As QLinearMatMul; otherwise as DequantizeLinear, MatMul and QuantizeLinear, the way exporters write it.
    """
    weights = [onnx.numpy_helper.from_array(np.float32(s / 255), f"s{i}") for i, s in enumerate(_SCALES)]
    weights += [onnx.numpy_helper.from_array(_weights(i), f"w{i}") for i in range(3)]
    for name, value in (("z", np.uint8(0)), ("ws", np.float32(1 / 127 / 16)), ("wz", np.int8(0))):
        weights.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    nodes = [helper.make_node("QuantizeLinear", ["x", "s0", "z"], ["q0"], name="/quantise")]
    for i in range(3):
        scale, following = f"s{i}", f"s{i + 1}"
        if fused:
            given = [f"q{i}", scale, "z", f"w{i}", "ws", "wz", following, "z"]
            nodes.append(helper.make_node("QLinearMatMul", given, [f"q{i + 1}"], name=f"/{i}/product"))
            continue
        nodes += [
            helper.make_node("DequantizeLinear", [f"q{i}", scale, "z"], [f"d{i}"], name=f"/{i}/values"),
            helper.make_node("DequantizeLinear", [f"w{i}", "ws", "wz"], [f"dw{i}"], name=f"/{i}/weights"),
            helper.make_node("MatMul", [f"d{i}", f"dw{i}"], [f"m{i}"], name=f"/{i}/product"),
            helper.make_node("QuantizeLinear", [f"m{i}", following, "z"], [f"q{i + 1}"], name=f"/{i}/quantise"),
        ]
    nodes.append(helper.make_node("DequantizeLinear", ["q3", "s3", "z"], ["y"], name="/result"))
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 16]) for name in "xy"]
    graph = helper.make_graph(nodes, "quantised", info[:1], info[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.fixture(scope="module")
def old_processor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Options of the runner onnxruntime for a processor without VNNI: this one, or one that qemu plays."""
    try:
        flags = set(re.findall(r"avx\w*vnni", Path("/proc/cpuinfo").read_text()))
    except OSError:
        pytest.skip("what this processor can do is not known here")
    if not flags:
        return "threads=1"
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if qemu is None:
        pytest.skip(f"this processor has {', '.join(sorted(flags))}, whose sums are exact, and there is no qemu-x86_64")
    script = tmp_path_factory.mktemp("old") / "python"
    script.write_text(f'#!/bin/sh\nexec "{qemu}" -cpu Haswell-noTSX "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return f"threads=1,python={script}"


def compared(proto: onnx.ModelProto, target: str) -> Comparison:
    return compare_models(proto, target=target, feeds=[ONES], layers=True)


def assert_named(found: Comparison) -> None:
    """The second product is wrong, by what a sum of two 16-bit halves makes of it, and nobody else is."""
    assert [(r.node, r.op) for r in found.wrong] == [("/1/product", "QLinearMatMul")]
    assert found.first is found.wrong[0] and found.cause is Cause.LAYER and found.verdict == "differ"
    assert found.wrong[0].difference is not None
    assert found.wrong[0].difference.gain == pytest.approx(32767 / 64770 - 1, abs=0.01)
    assert {r.tensor: r.verdict for r in found.layers} == {
        "q0": Verdict.AGREE, "q1": Verdict.AGREE, "q2": Verdict.WRONG, "q3": Verdict.INHERITS, "y": Verdict.INHERITS,
    }  # fmt: skip


def assert_depends_on_fusion(found: Comparison) -> None:
    """Each layer alone is right, the model is not, and that is said."""
    assert found.verdict == "differ" and found.cause is Cause.FUSION
    assert not found.wrong
    assert all(r.introduced == 0.0 for r in found.layers)
    assert found.observations[0].verdict_changed == ("y",)


def test_onnxruntime_saturates_and_the_layer_is_named(old_processor: str) -> None:
    assert_named(compared(quantised(fused=True), f"onnxruntime:{old_processor}"))


def test_onnxruntime_saturates_where_it_fuses(old_processor: str) -> None:
    model = quantised(fused=False)
    assert_depends_on_fusion(compared(model, f"onnxruntime:{old_processor}"))
    exact = compared(model, f"onnxruntime:{old_processor},config.session.x64quantprecision=1")
    assert exact.verdict == "agree"


def test_the_saturating_kernel_played_names_the_layer_too() -> None:
    assert_named(compared(quantised(fused=True), SATURATING))


def test_the_saturating_kernel_played_depends_on_fusion_too() -> None:
    assert_depends_on_fusion(compared(quantised(fused=False), SATURATING))


def test_the_kernel_played_is_the_kernel(old_processor: str, tmp_path: Path) -> None:
    """To the last bit, for lengths of the sum that are no multiple of anything."""
    rng = np.random.default_rng(0)
    info, path = helper.make_tensor_value_info, tmp_path / "m.onnx"
    with make_engine(f"onnxruntime:{old_processor}", isolated=True) as engine:
        for rows, inner, columns in ((1, 1, 1), (4, 3, 5), (7, 16, 16), (1, 37, 19), (9, 50, 33)):
            a = rng.integers(200, 256, (rows, inner)).astype(np.uint8)
            b = rng.integers(-128, 128, (inner, columns)).astype(np.int8)
            graph = helper.make_graph(
                [helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "product",
                [info("a", TensorProto.UINT8, a.shape)], [info("y", TensorProto.INT32, [rows, columns])],
                [onnx.numpy_helper.from_array(b, "b")],
            )  # fmt: skip
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
            engine.prepare(path, ["y"])
            np.testing.assert_array_equal(engine.run({"a": a})["y"], saturating_product(a, b))


def test_without_saturation_nobody_is_accused() -> None:
    """The same two models where the sums are exact, or the kernel is told to be."""
    for model in (quantised(fused=True), quantised(fused=False)):
        found = compared(model, "onnxruntime:config.session.x64quantprecision=1,threads=1")
        assert found.verdict == "agree" and not found.wrong


NORM = """<ir_version: 8, opset_import: ["" : 17]>
    norm (float[N, 8] x) => (float[N, 8] y)
    <float two = {2.0}, float small = {0.00001}, int64[1] last = {-1}> {
        h = MatMul (x, w)
        mean = ReduceMean <axes = [-1]> (h)
        centred = Sub (h, mean)
        square = Pow (centred, two)
        variance = ReduceMean <axes = [-1]> (square)
        above = Add (variance, small)
        deviation = Sqrt (above)
        y = Div (centred, deviation)
    }"""


def norm() -> onnx.ModelProto:
    """A LayerNormalization as exporters spell it out, of values that differ by hundreds."""
    proto = onnx.parser.parse_model(NORM)
    for node in proto.graph.node:
        node.name = f"/norm/{node.output[0]}"
    w = 200 * np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    return proto


def halved(proto: onnx.ModelProto, keep: tuple[str, ...] = ()) -> onnx.ModelProto:
    """The model in float16, with some nodes kept."""
    model = ir.from_proto(proto)
    return ir.to_proto(ConvertPrecision(keep=keep).run(model, ChangeLog()).model)


@pytest.mark.parametrize(
    ("make", "culprit", "keep"),
    [
        (norm, "/norm/square", ()),
        (build_demo_model, "/blocks.2/mlp/fc1/MatMul", ("/blocks.2/mlp/*",)),
    ],
    ids=["norm", "mlp"],
)
def test_an_overflow_of_float16_is_named_and_the_advice_heals_it(
    make: Callable[[], onnx.ModelProto], culprit: str, keep: tuple[str, ...]
) -> None:
    proto = make()
    # onnx's evaluator computes every node in the type the model states, as accelerators do.
    found = compare_models(proto, halved(proto), target="reference", layers=True)
    assert found.verdict == "differ" and found.cause is Cause.PRECISION and not found.wrong
    over = [r for r in found.layers if r.verdict is Verdict.OVERFLOW]
    assert over and found.first is over[0] and over[0].node == culprit
    assert "float16" in over[0].judgement.reason and "keep in float32" in over[0].judgement.reason
    said = io.StringIO()
    print_comparison(Console(file=said, width=200), found)
    assert f"next: keep in float32: {culprit}" in said.getvalue()
    keep = keep or _followed(proto, tuple(r.node for r in over))
    assert compare_models(proto, halved(proto, keep), target="reference").verdict == "agree", keep


def _followed(proto: onnx.ModelProto, keep: tuple[str, ...]) -> tuple[str, ...]:
    """What is kept when the advice has been followed to its end: kept layers may hand on what does not fit."""
    for _ in range(5):
        found = compare_models(proto, halved(proto, keep), target="reference", layers=True)
        assert not found.wrong
        more = [r.node for r in found.layers if r.verdict is Verdict.OVERFLOW]
        if not more:
            return keep
        assert set(more).isdisjoint(keep)
        keep = (*keep, *more)
    raise AssertionError(f"the advice never ends: {keep}")
