"""Ways in which a node can be off by one: another axis, pads on the other side, another rounding, another order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Edit = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


def edits_of(node: onnx.NodeProto, shapes: Shapes, constants: Mapping[str, onnx.TensorProto]) -> Iterator[Edit]:
    """Every such change of a node that leaves the shapes of its results as they are.

    Args:
        node: The node.
        shapes: Shapes of tensors by name.
        constants: The initializers by name.
    """
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    yield from _by_attribute(node, attributes, shapes)
    yield from _by_order(node, shapes)
    yield from _by_constant(node, constants)


def _by_attribute(node: onnx.NodeProto, attributes: dict[str, Any], shapes: Shapes) -> Iterator[Edit]:
    def setting(**values: Any) -> Edit:
        return {"attributes": values}

    pads = list(attributes.get("pads", []))
    if node.op_type in ("Conv", "MaxPool", "AveragePool") and pads:
        half = len(pads) // 2
        for axis in range(half):
            if pads[axis] > 0:
                moved = list(pads)
                moved[axis], moved[axis + half] = moved[axis] - 1, moved[axis + half] + 1
                yield setting(pads=moved)
    if node.op_type == "AveragePool" and any(pads):
        yield setting(count_include_pad=1 - attributes.get("count_include_pad", 0))
    shape = shapes.get(node.input[0] if node.input else "", ())
    if node.op_type in ("Softmax", "LogSoftmax") and len(shape) > 1:
        axis = attributes.get("axis", -1) % len(shape)
        other = axis - 1
        if other >= 0 and shape[other] > 1:
            yield setting(axis=other)
    if node.op_type == "Transpose" and "perm" in attributes:
        perm = list(attributes["perm"])
        for i, j in itertools.combinations(range(len(perm)), 2):
            if len(shape) == len(perm) and shape[perm[i]] == shape[perm[j]] > 1:
                swapped = list(perm)
                swapped[i], swapped[j] = perm[j], perm[i]
                yield setting(perm=swapped)
    plain: dict[str, list[Edit]] = {
        "Resize": [setting(nearest_mode="ceil"), setting(coordinate_transformation_mode="half_pixel")],
        "ArgMax": [setting(select_last_index=1)],
        "GRU": [setting(linear_before_reset=1 - attributes.get("linear_before_reset", 0))],
        "Scan": [setting(scan_output_directions=[1 - d for d in attributes.get("scan_output_directions", [])])],
    }
    yield from (edit for edit in plain.get(node.op_type, []) if next(iter(edit["attributes"].values())) != [])


def _by_order(node: onnx.NodeProto, shapes: Shapes) -> Iterator[Edit]:
    """Two things of one shape in each other's place."""
    if node.op_type in ("Concat", "Sub", "Div", "MatMul"):
        for i, j in itertools.combinations(range(len(node.input)), 2):
            a, b = shapes.get(node.input[i]), shapes.get(node.input[j])
            if a is not None and a == b and node.input[i] != node.input[j]:
                order = list(range(len(node.input)))
                order[i], order[j] = j, i
                yield {"inputs": order}
    if node.op_type == "Split" and len(node.output) > 1:
        a, b = shapes.get(node.output[0]), shapes.get(node.output[1])
        if a is not None and a == b:
            yield {"outputs": [1, 0, *range(2, len(node.output))]}


def _by_constant(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Iterator[Edit]:
    def constant(i: int) -> np.ndarray | None:
        there = i < len(node.input) and node.input[i] in constants
        return numpy_helper.to_array(constants[node.input[i]]) if there else None

    def setting(**values: tuple[str, Any]) -> Edit:
        return {"constants": {key.removeprefix("_"): list(value) for key, value in values.items()}}

    if node.op_type == "Slice":
        starts, ends = constant(1), constant(2)
        if (
            starts is not None
            and ends is not None
            and (starts >= 1).all()
            and (ends < 2**31).all()
            and (ends > 0).all()
        ):
            yield setting(_1=("int64", (starts - 1).tolist()), _2=("int64", (ends - 1).tolist()))
    if node.op_type == "Pad":
        pads = constant(1)
        if pads is not None:
            half = len(pads) // 2
            for axis in range(half):
                if pads[axis] > 0:
                    moved = pads.copy()
                    moved[axis], moved[axis + half] = moved[axis] - 1, moved[axis + half] + 1
                    yield setting(_1=("int64", moved.tolist()))
    if node.op_type == "Gather":
        rows = constant(1)
        if rows is not None and rows.ndim == 1 and len(rows) > 1:
            yield setting(_1=(rows.dtype.name, np.roll(rows, 1).tolist()))
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        zero = constant(2)
        if zero is not None and zero.ndim == 0 and zero.dtype.name == "uint8":
            step = 1 if zero < 255 else -1
            yield setting(_2=("uint8", int(zero) + step))
    if node.op_type == "Clip":
        top = constant(2)
        if top is not None and top.ndim == 0 and top.dtype.name == "float32":
            yield setting(_2=("float32", float(top) / 2))
