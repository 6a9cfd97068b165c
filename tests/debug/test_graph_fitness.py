"""Graph or engine: what a graph's own types make wrong is not laid at TensorRT's door, and nothing else is excused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from surgeon_debug.find.auto import find_auto
from surgeon_debug.find.engine_ground import Question
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.fusion import find_fusion
from surgeon_debug.find.tactic import find_tactic
from surgeon_debug.find.triage import Suspect
from surgeon_debug.widened_model import widen_model
from surgeon_passes.graph import from_proto, to_proto
from tests.bench.planted_tactics.networks import network
from tests.debug.library_in_process import forgotten, here
from tests.debug.tensorrt_places import INSTALLED, play
from tests.simulated_tensorrt.plan import Fault, Where

__all__ = ["forgotten"]
pytestmark = pytest.mark.usefixtures("forgotten")

KERNEL = Fault("wrong_values", Where(node="matmul_1", rank=0), amount=1.0)


def scaled(scale: float, kind: int = TensorProto.FLOAT16, width: int = 32) -> onnx.ModelProto:
    """Blocks that multiply by a number and divide by it: in float16 a large one overflows on the way."""
    draw, nodes, weights, x = np.random.default_rng(0), [], [], "x"
    dtype = helper.tensor_dtype_to_np_dtype(kind)

    def weight(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value.astype(dtype), name))
        return name

    up, down = weight("up", np.array(scale)), weight("down", np.array(1 / scale))
    for i in range(2):
        w = weight(f"w{i}", draw.standard_normal((width, width)) * width**-0.5)
        nodes += [
            helper.make_node("Mul", [x, up], [f"l{i}"], name=f"up_{i}"),
            helper.make_node("MatMul", [f"l{i}", w], [f"m{i}"], name=f"matmul_{i}"),
            helper.make_node("Mul", [f"m{i}", down], [f"s{i}"], name=f"down_{i}"),
            helper.make_node("Tanh", [f"s{i}"], [f"t{i}"], name=f"tanh_{i}"),
        ]
        x = f"t{i}"
    shape = [4, width]
    inputs, outputs = (
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(x, kind, shape)],
    )
    graph = helper.make_graph(nodes, "scaled", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def ready(monkeypatch: pytest.MonkeyPatch, folder: Path, proto: onnx.ModelProto, *faults: Fault) -> Path:
    monkeypatch.syspath_prepend(str(INSTALLED / "11.4"))
    play(monkeypatch, folder, *faults)
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


def test_an_overflow_is_the_graphs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ready(monkeypatch, tmp_path, scaled(60000.0))
    for find in (find_tactic, find_fusion):
        found = find(Question(path), builder=here)  # type: ignore[operator]
        assert found.outcome is FindOutcome.NOTHING
        assert "numerically unfit for its types" in found.reason
        assert "tensor 'l0' of up_0 reaches" in found.reason
        assert "TensorRT is not to blame" in found.reason
        assert found.builds == 1
        assert not found.culprits
    triage = find_auto(Question(path), builder=here)
    assert triage.suspect is Suspect.GRAPH
    assert not triage.command


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_a_bad_kernel_in_a_fit_graph_is_a_tactic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    found = find_tactic(Question(ready(monkeypatch, tmp_path, scaled(2.0, kind), KERNEL)), builder=here)
    assert [m.nodes[0] for m in found.culprits[0].members] == ["matmul_1"]


def test_cancellation_beyond_float32_is_the_graphs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large number added and taken away again: what is left is rounding, whoever computes it."""
    proto = scaled(1.0, TensorProto.FLOAT)
    large = numpy_helper.from_array(np.float32(3e7), "large")
    proto.graph.initializer.append(large)
    proto.graph.node[3].input[0] = "less"
    more = helper.make_node("Add", ["s0", "large"], ["more"], name="more")
    less = helper.make_node("Sub", ["more", "large"], ["less"], name="less")
    proto.graph.node.insert(3, more)
    proto.graph.node.insert(4, less)
    path = ready(monkeypatch, tmp_path, proto, Fault("wrong_values", Where(node="tanh_1"), mode="bias", amount=0.3))
    found = find_tactic(Question(path), builder=here)
    assert "in float32 it differs from itself in float64" in found.reason


def test_a_large_number_that_does_no_harm_excuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An overflow that a saturating function hides: with a bad kernel elsewhere the kernel is to blame."""
    proto = scaled(1.0)
    proto.graph.initializer.append(numpy_helper.from_array(np.float16(60000.0), "huge"))
    proto.graph.output[0].name = "y"
    proto.graph.node.extend(
        [
            helper.make_node("Abs", ["x"], ["ax"], name="abs"),
            helper.make_node("Add", ["ax", "one"], ["bx"], name="plus"),
            helper.make_node("Mul", ["bx", "huge"], ["big"], name="big"),
            helper.make_node("Sigmoid", ["big"], ["flat"], name="flat"),
            helper.make_node("Add", ["t1", "flat"], ["y"], name="sum"),
        ]
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.float16(1.0), "one"))
    found = find_tactic(Question(ready(monkeypatch, tmp_path, proto, KERNEL)), builder=here)
    assert [m.nodes[0] for m in found.culprits[0].members] == ["matmul_1"]


def test_models_are_made_wider_in_bodies_too() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["" : 17]>
        g (float16[2] x, bool c) => (float16[2] y)
        <float16[2] w = {1, 2}>
        {
            f = Cast <to = 1> (x)
            h = Cast <to = 10> (f)
            y = If (c) <then_branch = t () => (float16[2] a) { a = Add (h, w) },
                        else_branch = e () => (float16[2] b) { b = Constant <value = float16[2] {3, 4}> () }>
        }""")
    model = from_proto(proto)
    done = widen_model(model)
    assert done is not None
    assert (done.own, done.wide, done.largest) == ("float16", "float32", 65504.0)
    wide = to_proto(model)
    onnx.checker.check_model(wide, full_check=True)
    assert b"FLOAT16" not in onnx.printer.to_text(wide).upper().encode()
    again = widen_model(model)
    assert again is not None
    assert (again.own, again.wide) == ("float32", "float64")
    onnx.checker.check_model(to_proto(model), full_check=True)


def test_a_network_of_float32_is_unchanged_in_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault("wrong_values", Where(node="matmul_4", rank=0), amount=1.0)
    path = ready(monkeypatch, tmp_path, network("residual", 1, 3), fault)
    assert find_tactic(Question(path), builder=here).culprits
