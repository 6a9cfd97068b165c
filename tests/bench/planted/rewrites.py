"""Rewrites of a model, applied one after the other, of which one may be wrong.

As a command it makes the model after the first so many: ``python tests/bench/planted/rewrites.py MODEL --plan FILE
--limit N -o OUT``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

SWAP, MINUS, MAX, TWICE = "swap", "minus", "max", "twice"
"""Add or Mul with its inputs swapped; Sub as the sum with a negative; Relu as a maximum; a tensor negated twice."""

Application = Mapping[str, Any]


def applications_of(graph: onnx.GraphProto, floats: Sequence[str]) -> list[dict[str, Any]]:
    """Every application that a graph has a place for: ``tensor``, ``rewrite`` and ``wrong``, which is false.

    Args:
        graph: The graph.
        floats: Its float32 tensors.
    """
    there = set(floats)
    by_op = {"Add": SWAP, "Mul": SWAP, "Sub": MINUS, "Relu": MAX}
    return [
        {"tensor": node.output[0], "rewrite": by_op.get(node.op_type, TWICE), "wrong": False}
        for node in graph.node
        if len(node.output) == 1 and node.output[0] in there
    ]


def rewritten(model: onnx.ModelProto, applications: Sequence[Application]) -> onnx.ModelProto:
    """The model after some applications."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    by_tensor = {a["tensor"]: a for a in applications}
    made: list[onnx.NodeProto] = []
    for node in found.graph.node:
        application = by_tensor.get(node.output[0]) if node.output else None
        made += [node] if application is None else _applied(node, application["rewrite"], application["wrong"])
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made]
    del found.graph.node[:]
    found.graph.node.extend(kept)
    return found


def _applied(node: onnx.NodeProto, rewrite: str, wrong: bool) -> list[onnx.NodeProto]:
    tensor = node.output[0]
    first, second = f"{tensor}/first", f"{tensor}/second"
    if rewrite == SWAP:
        a, b = node.input
        node.input[0], node.input[1] = b, b if wrong else a
        return [node]
    if rewrite == MINUS:
        a, b = node.input
        negative = helper.make_node("Identity" if wrong else "Neg", [b], [first], name=first)
        return [negative, helper.make_node("Add", [a, first], [tensor], name=node.name)]
    if rewrite == MAX:
        floor = numpy_helper.from_array(np.float32(0.1 if wrong else 0.0))
        constant = helper.make_node("Constant", [], [first], name=first, value=floor)
        return [constant, helper.make_node("Max", [node.input[0], first], [tensor], name=node.name)]
    node.output[0] = first
    back = "Abs" if wrong else "Neg"
    return [
        node,
        helper.make_node("Neg", [first], [second], name=first),
        helper.make_node(back, [second], [tensor], name=second),
    ]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="how many applications; all without it")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    applications = json.loads(arguments.plan.read_text())["applications"][: arguments.limit]
    onnx.save_model(rewritten(onnx.load(str(arguments.model)), applications), str(arguments.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
