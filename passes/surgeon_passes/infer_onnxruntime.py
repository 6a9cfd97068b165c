"""Ask onnxruntime's symbolic shape inference, which knows contrib operators and shape arithmetic of its own.

It is a script that runs node by node in Python, stops at the first node it cannot finish and takes some things for
granted (that a slice stays within its bounds, that a scale is a whole number). So it is asked last, on request, and
only for dimensions about which nothing else is known.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

import onnx
import onnx_ir as ir

from surgeon_passes.infer_types import Facts, read_type
from surgeon_passes.weightless import Weightless

_log = logging.getLogger(__name__)

MOST_NODES = 5_000
"""Graphs with more nodes are not given to it: its time grows faster than the graph."""

_WORD = re.compile(r"[A-Za-z_][\w.]*")
_FUNCTIONS = ("floor", "Max", "Min", "Mod")


def infer_with_onnxruntime(model: ir.Model) -> Facts:
    """What onnxruntime's symbolic inference says about the values of the main graph.

    Dimensions are numbers, or expressions in the symbols of the model's inputs; all else is left unknown. Nothing at
    all is known where it fails, beyond the nodes before the failure.

    Args:
        model: The model; it is not changed.
    """
    if sum(1 for _ in model.graph.all_nodes()) > MOST_NODES:
        return {}
    weightless = Weightless(model)
    _give_as_inputs(weightless.proto.graph)
    try:
        inferred = _run(weightless.proto)
    except Exception as error:  # noqa: BLE001  (it fails by assertions, key errors and exceptions of every kind)
        _log.debug("onnxruntime's symbolic inference cannot be used: %s", error)
        return {}
    symbols = {d.value for v in model.graph.inputs for d in v.shape or () if not isinstance(d, int) and d.value}
    facts: Facts = {}
    for info in inferred.value_info:
        value = weightless.value_of(info.name)
        found = read_type(info.type)
        if value is not None and found is not None and found.shape is not None:
            facts[value] = ir.TypeAndShape(found.type, ir.Shape([_known(d, symbols) for d in found.shape]))
    return facts


def _run(proto: onnx.ModelProto) -> onnx.GraphProto:
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    # Its public entry writes a file into the working directory when it cannot finish; the parts do not.
    inference = SymbolicShapeInference(int_max=2**31 - 1, auto_merge=False, guess_output_rank=False, verbose=0)
    inference._preprocess(proto)
    try:
        while inference.run_:
            inference._infer_impl()
    except Exception as error:  # noqa: BLE001  (see above; what it found before stands)
        _log.debug("onnxruntime's symbolic inference stopped: %s", error)
    graph: onnx.GraphProto = inference.out_mp_.graph
    return graph


def _known(dim: int | ir.SymbolicDim, symbols: Collection[str]) -> int | ir.SymbolicDim | None:
    if isinstance(dim, int):
        return dim
    words = _WORD.findall(dim.value or "")
    return dim if words and all(word in symbols or word in _FUNCTIONS for word in words) else None


def _give_as_inputs(main: onnx.GraphProto) -> None:
    """Make constants that have lost their data inputs of the main graph: it would fail on reading them."""
    stack = [main]
    while stack:
        graph = stack.pop()
        kept = []
        for tensor in graph.initializer:
            if _has_data(tensor):
                kept.append(tensor)
            else:
                _add_input(main, tensor.name, tensor)
        if len(kept) < len(graph.initializer):
            del graph.initializer[:]
            graph.initializer.extend(kept)
        nodes = []
        for node in graph.node:
            value = next((a for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
            if value is not None and not _has_data(value.t):
                _add_input(main, node.output[0], value.t)
            else:
                nodes.append(node)
        if len(nodes) < len(graph.node):
            copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)
        for node in graph.node:
            stack.extend(attr.g for attr in node.attribute if attr.type == onnx.AttributeProto.GRAPH)


def _add_input(main: onnx.GraphProto, name: str, tensor: onnx.TensorProto) -> None:
    main.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))


def _has_data(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.raw_data) or 0 in tensor.dims
