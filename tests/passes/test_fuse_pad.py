"""Zeros around an image become the padding of what reads it, and only zeros, and only there."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_passes.contract import ChangeLog
from surgeon_passes.fuse_pad import FusePad
from tests.numeric import assert_same_values


def padded(
    amounts: list[int],
    reader: onnx.NodeProto | None = None,
    *,
    opset: int = 17,
    value: float | None = None,
    more_readers: bool = False,
    **attributes: object,
) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    tensors = [onnx.numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w")]
    inputs = ["x"]
    if opset >= 11:
        tensors.append(onnx.numpy_helper.from_array(np.array(amounts), "amounts"))
        inputs.append("amounts")
        if value is not None:
            tensors.append(onnx.numpy_helper.from_array(np.float32(value), "zero"))
            inputs.append("zero")
    else:
        attributes |= {"pads": amounts} | ({} if value is None else {"value": value})
    reader = reader or onnx.helper.make_node("Conv", ["p", "w"], ["y"], name="conv", pads=[1, 0, 0, 1], strides=[2, 2])
    nodes = [onnx.helper.make_node("Pad", inputs, ["p"], name="pad", **attributes), reader]
    outputs = [onnx.helper.make_tensor_value_info("y", 1, None)]
    if more_readers:
        nodes.append(onnx.helper.make_node("Relu", ["p"], ["z"], name="relu"))
        outputs.append(onnx.helper.make_tensor_value_info("z", 1, None))
    image = onnx.helper.make_tensor_value_info("x", 1, ["N", 3, 9, 8])
    graph = onnx.helper.make_graph(nodes, "g", [image], outputs, tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def fuse(proto: onnx.ModelProto, limit: int | None = None) -> tuple[ir.Model, ChangeLog]:
    model, log = ir.from_proto(proto), ChangeLog(limit, "fuse-pad")
    FusePad().run(model, log)
    return model, log


@pytest.mark.parametrize("opset", [8, 10, 11, 13, 17, 21])
@pytest.mark.parametrize("value", [None, 0.0])
def test_zeros_become_padding(opset: int, value: float | None) -> None:
    proto = padded([0, 0, 1, 2, 0, 0, 0, 3], opset=opset, value=value)
    model, log = fuse(proto)
    assert [node.op_type for node in model.graph] == ["Conv"]
    assert model.graph[0].attributes["pads"].as_ints() == (2, 2, 0, 4)
    assert [(c.kind, c.before) for c in log.changes] == [("fuse-pad", ("pad", "conv"))]
    assert_same_values(proto, model, rtol=1e-6)


def test_pooling_that_counts_its_padding() -> None:
    pool = onnx.helper.make_node("AveragePool", ["p"], ["y"], kernel_shape=[3, 3], count_include_pad=1)
    proto = padded([0, 0, 1, 0, 0, 0, 1, 2], pool)
    model, _ = fuse(proto)
    assert [node.op_type for node in model.graph] == ["AveragePool"]
    assert_same_values(proto, model, rtol=1e-6)


NODE = onnx.helper.make_node


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (padded([0, 0, 1, 1, 0, 0, 1, 1], mode="reflect"), "mode reflect"),
        (padded([0, 0, 1, 1, 0, 0, 1, 1], value=1.0), "another value than zero"),
        (padded([0, 0, 1, 1, 0, 0, 1, 1], value=-1.0, opset=10), "another value than zero"),
        (padded([0, 0, -1, 1, 0, 0, 1, 1]), "crops"),
        (padded([1, 0, 1, 1, 0, 0, 1, 1]), "batch or channels"),
        (padded([0, 0, 1, 1, 0, 0, 1, 1], NODE("Conv", ["p", "w"], ["y"], auto_pad="SAME_UPPER")), "automatically"),
        (padded([0, 0, 1, 1, 0, 0, 1, 1], NODE("AveragePool", ["p"], ["y"], kernel_shape=[3, 3])), "does not count"),
        (
            padded(
                [0, 0, 2, 2, 0, 0, 2, 2], NODE("AveragePool", ["p"], ["y"], kernel_shape=[2, 2], count_include_pad=1)
            ),
            "as much as its window",
        ),
    ],
)
def test_what_is_not_the_same_is_left_alone_with_the_reason(proto: onnx.ModelProto, reason: str) -> None:
    model, log = fuse(proto)
    assert log.changes == []
    assert reason in log.declined[0].reason
    assert_same_values(proto, model)


def test_other_readers_and_max_pooling_are_not_touched() -> None:
    for proto in (
        padded([0, 0, 1, 1, 0, 0, 1, 1], more_readers=True),
        padded([0, 0, 1, 1, 0, 0, 1, 1], NODE("MaxPool", ["p"], ["y"], kernel_shape=[3, 3])),
    ):
        model, log = fuse(proto)
        assert log.changes == []
        assert len(model.graph) == len(proto.graph.node)


def test_two_convolutions_share_a_pad() -> None:
    proto = padded([0, 0, 1, 1, 0, 0, 1, 1])
    proto.graph.node.append(NODE("Conv", ["p", "w"], ["y2"], name="conv2"))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("y2", 1, None))
    proto = onnx.shape_inference.infer_shapes(proto)
    model, log = fuse(proto)
    assert len(log.changes) == 1
    assert_same_values(proto, model, rtol=1e-6)
    model, log = fuse(proto, limit=0)
    assert len(model.graph) == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=4), st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_any_amounts(zeros: list[int], own: list[int]) -> None:
    reader = NODE("Conv", ["p", "w"], ["y"], name="conv", pads=own, dilations=[2, 1])
    proto = padded([0, 0, *zeros[:2], 0, 0, *zeros[2:]], reader)
    model, log = fuse(proto)
    assert len(log.changes) == 1
    assert_same_values(proto, model, rtol=1e-6, seeds=range(1))
