"""Which ONNX the parser takes: the table of operators, types and opsets of each version."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from tests.simulated_tensorrt import HOME
from tests.simulated_tensorrt.graph import TYPES, bodies, opset_of


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that the parser refuses."""

    code: str
    """Member of ErrorCode."""
    words: str
    """What is wrong."""
    index: int
    """The node's index in the graph or function that is being parsed; -1 for none."""
    node: str
    """Its name."""
    operator: str
    """Its operator."""
    stack: tuple[str, ...]
    """Names of the functions that lead to it, from the top level down."""
    main: int
    """The node of the main graph that it is or belongs to; -1 for none."""


@functools.cache
def _table() -> dict[str, dict[str, bool]]:
    data = json.loads((HOME / "manifests" / "operator_support.json").read_text())
    return {name: row["supported"] for name, row in data["ops"].items()}


def supported(operator: str, profile: str) -> bool:
    """Whether the parser of a version has an importer for an operator."""
    row = _table().get(operator)
    if row is None:
        return operator.startswith("TRT_")
    asked = tuple(map(int, profile.split(".")))
    known = [v for v in row if tuple(map(int, v.split("."))) <= asked]
    return bool(known) and row[max(known, key=lambda v: tuple(map(int, v.split("."))))]


def problems(model: onnx.ModelProto, profile: str) -> list[Problem]:
    """All that the parser of a version refuses in a model."""
    found: list[Problem] = []
    opset = opset_of(model)
    if not 9 <= opset <= 24:
        words = f"the model's opset {opset} is not between 9 and 24"
        found.append(Problem("UNSUPPORTED_GRAPH", words, -1, "", "", (), -1))
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type
        if kind not in TYPES:
            words = f"input {value.name} has type {TensorProto.DataType.Name(kind)}"
            found.append(Problem("UNSUPPORTED_NODE_DATATYPE", words, -1, value.name, "", (), -1))
    functions = {(f.domain, f.name): f for f in model.functions}
    for index, node in enumerate(model.graph.node):
        found += _in_node(node, index, index, (), functions, profile)
    return found


def _in_node(
    node: onnx.NodeProto,
    index: int,
    main: int,
    stack: tuple[str, ...],
    functions: dict[tuple[str, str], onnx.FunctionProto],
    profile: str,
) -> Iterator[Problem]:
    function = functions.get((node.domain, node.op_type))
    if function is not None:
        for inner, child in enumerate(function.node):
            yield from _in_node(child, inner, main, (*stack, function.name), functions, profile)
        return
    if node.domain not in ("", "ai.onnx", "trt.plugins") or not supported(node.op_type, profile):
        words = (
            "Assertion failed: isNodeInPluginRegistry(...) : No importer registered for op: "
            f"{node.op_type}. Please check that the node is supported in the ONNX parser, or that a plugin is loaded"
        )
        yield Problem("UNSUPPORTED_NODE", words, index, node.name, node.op_type, stack, main)
        return
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i not in TYPES:
            words = f"attribute {attribute.name} asks for the type {TensorProto.DataType.Name(attribute.i)}"
            yield Problem("UNSUPPORTED_NODE_DATATYPE", words, index, node.name, node.op_type, stack, main)
        for body in bodies(attribute):
            for inner, child in enumerate(body.node):
                yield from _in_node(child, inner, main, stack, functions, profile)
