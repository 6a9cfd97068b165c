"""The generator of random models keeps its promise, so that a failing property test is about the pass."""

from __future__ import annotations

import collections

import onnx
import pytest

from tests.numeric import assert_same_values
from tests.random_models import random_model


@pytest.mark.parametrize("block", range(5))
def test_random_models_are_valid_run_and_repeat(block):
    for seed in range(block * 8, block * 8 + 8):
        model = random_model(seed, 20)
        assert_same_values(model, model, seeds=range(1))
        assert random_model(seed, 20) == model


def test_random_models_hold_what_they_promise():
    ops: collections.Counter[str] = collections.Counter()
    types = set()
    for seed in range(80):
        graphs = [random_model(seed, 25).graph]
        while graphs:
            graph = graphs.pop()
            types.update(t.data_type for t in graph.initializer)
            ops.update(node.op_type for node in graph.node)
            graphs += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    assert {"If", "Loop", "Scale", "Outer", "Split", "Dropout", "Clip", "Conv", "BatchNormalization"} <= set(ops)
    assert {onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64} <= types
