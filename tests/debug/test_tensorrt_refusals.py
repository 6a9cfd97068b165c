"""A model that TensorRT refuses: all nodes that are to blame are named, and what it would take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from surgeon_debug.endings import EngineFailure
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.nodes import find_nodes
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.tensorrt.model_source import node_titles
from surgeon_debug.runners.tensorrt.parse import ParseIssue, Part
from surgeon_debug.runners.tensorrt.partition import Partition
from tests.simulated_tensorrt.models import model, weights
from tests.simulated_tensorrt.plan import Fault, Plan, Where, write


def partly_refused(*, names: bool = True) -> onnx.ModelProto:
    """Eight nodes; Det and BitwiseNot are not among what TensorRT takes."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="product"),
        node("Relu", ["a"], ["r"], name="relu"),
        node("Det", ["r"], ["d"], name="det" if names else ""),
        node("Unsqueeze", ["d", "axis"], ["u"], name="unsqueeze"),
        node("Tanh", ["u"], ["t"], name="tanh"),
        node("BitwiseNot", ["i"], ["inverse"], name="bits" if names else ""),
        node("Cast", ["inverse"], ["c"], name="cast", to=TensorProto.FLOAT),
        node("Add", ["t", "c"], ["y"], name="add"),
    ]
    inputs = [("x", TensorProto.FLOAT, [2, 4, 4]), ("i", TensorProto.INT32, [2, 1])]
    constants = [weights("w", 4, 4), numpy_helper.from_array(np.array([1], np.int64), "axis")]
    return model(nodes, inputs, [("y", TensorProto.FLOAT, [2, 1])], constants, opset=18)


def in_function() -> onnx.ModelProto:
    """A refused node in a local function within another."""
    node = helper.make_node
    inner = helper.make_function(
        "mine", "Inner", ["a"], ["b"], [node("Det", ["a"], ["b"], name="deep")], [helper.make_opsetid("", 18)]
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    outer = helper.make_function("mine", "Outer", ["a"], ["b"], [node("Inner", ["a"], ["b"], domain="mine")], opsets)
    nodes = [node("Relu", ["x"], ["r"], name="relu"), node("Outer", ["r"], ["y"], name="call", domain="mine")]
    made = model(nodes, [("x", TensorProto.FLOAT, [2, 4, 4])], [("y", TensorProto.FLOAT, [2])], opset=18)
    made.opset_import.append(helper.make_opsetid("mine", 1))
    made.functions.extend([inner, outer])
    return made


def refusal(proto: onnx.ModelProto, folder: Path) -> EngineFailure:
    path = folder / "model.onnx"
    onnx.save(proto, str(path))
    with make_engine("tensorrt", isolated=True, timeout=60) as engine, pytest.raises(EngineFailure) as caught:
        engine.prepare(path, [value.name for value in proto.graph.output])
    return caught.value


def test_all_refused_nodes_are_named_in_another_process_too(each_tensorrt: str, tmp_path: Path) -> None:
    error = refusal(partly_refused(), tmp_path)
    assert error.nodes == ("det", "bits")
    assert "node det (Det) is refused with UNSUPPORTED_NODE" in error.what
    assert "it refuses 2 of 8 nodes, det (Det), bits (BitwiseNot)" in error.hint
    assert "product to relu (2 nodes), unsqueeze to tanh (2 nodes), cast to add (2 nodes)" in error.hint


def test_nodes_without_names_are_called_what_messages_call_them(each_tensorrt: str, tmp_path: Path) -> None:
    assert refusal(partly_refused(names=False), tmp_path).nodes == ("Det(d)", "BitwiseNot(inverse)")


def test_the_call_of_a_function_is_named_and_the_way_into_it(each_tensorrt: str, tmp_path: Path) -> None:
    error = refusal(in_function(), tmp_path)
    assert error.nodes == ("call",)
    assert "node deep (Det) in function Outer > Inner" in error.what


@pytest.mark.parametrize("names", [True, False])
def test_find_nodes_asks_the_engine_instead_of_cutting(each_tensorrt: str, names: bool) -> None:
    found = find_nodes(partly_refused(names=names), target="tensorrt")
    assert found.outcome is FindOutcome.FOUND
    wanted = ["det", "bits"] if names else ["Det(d)", "BitwiseNot(inverse)"]
    assert [culprit.nodes for culprit in found.culprits] == [(name,) for name in wanted]
    assert all(one.found_by == "report" and one.alone and one.cured for one in found.culprits)
    assert [step.name for step in found.steps] == ["probe", "report", "verify", "verify"]
    assert "surgeon extract" in found.advice


def test_one_refused_node_takes_one_look_and_one_proof(each_tensorrt: str) -> None:
    proto = partly_refused()
    del proto.graph.node[5:]
    del proto.graph.input[1:]
    proto.graph.output[0].name = "t"
    found = find_nodes(proto, target="tensorrt")
    assert [culprit.nodes for culprit in found.culprits] == [("det",)]
    assert [(step.name, step.builds) for step in found.steps] == [("probe", 2), ("report", 1), ("verify", 1)]


def test_a_refusal_by_the_builder_names_the_nodes_of_the_layer(
    each_simulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(faults=(Fault("build_none", where=Where(node="product")),))
    for name, value in write(plan, tmp_path / "plan.json").items():
        monkeypatch.setenv(name, value)
    proto = partly_refused()
    del proto.graph.node[2:]
    del proto.graph.input[1:]
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("r", TensorProto.FLOAT, [2, 4, 4]))
    error = refusal(proto, tmp_path)
    assert "tensorrt cannot build" in error.what
    assert "product" in error.nodes


def test_what_is_not_divided_is_not_guessed_at() -> None:
    titles = (("a", "Relu"), ("b", "Det"))
    issue = ParseIssue("UNSUPPORTED_NODE", "no", "b", "Det", 1, (), "")
    whole = Partition(titles, (Part((0, 1), False),), ())
    assert whole.refused == () and whole.hint == "" and whole.words == ""
    assert Partition(titles, (Part((0, 1), False),), (issue,)).refused == ("b",)
    inside = ParseIssue("UNSUPPORTED_NODE", "no", "b", "Det", 1, ("F",), "")
    assert Partition(titles, (), (inside,)).refused == ()


def test_titles_are_read_without_onnx() -> None:
    proto = partly_refused()
    assert node_titles(proto.SerializeToString()) == [(node.name, node.op_type) for node in proto.graph.node]


def test_a_model_of_too_new_an_opset_is_told_how_to_go_back(each_simulated: str, tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("Neg", ["x"], ["y"], name="neg")],
        [("x", TensorProto.FLOAT, [2])],
        [("y", TensorProto.FLOAT, [2])],
        opset=25,
    )
    error = refusal(proto, tmp_path)
    assert error.nodes == () and "opset 25" in error.what and "convert-opset" in error.hint
