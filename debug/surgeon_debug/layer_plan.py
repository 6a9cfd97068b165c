"""Which tensors inside a model are compared, in which order, and how exact each may be expected."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from surgeon_debug.values import Value, numpy_dtype
from surgeon_debug.verdict import coarsest
from surgeon_passes.errors import BadModelError
from surgeon_passes.order import dependencies, find_cycle, nodes_inside, sorted_nodes
from surgeon_passes.trusted_shapes import TrustedShapes, trusted_shapes
from surgeon_passes.walk import main_scope

_QUANTISING = ("Quantize", "QLinear", "Integer", "QAttention", "QGemm")
_UNKNOWN_BYTES = 1 << 20
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A tensor computed in the main graph."""

    tensor: str
    """Its name."""
    node: str
    """The node that computes it, as messages call it."""
    op: str
    """The node's operator."""
    nbytes: int
    """Its size in memory, estimated where its shape is not known beforehand."""
    precision: str
    """The coarsest precision that it or anything it depends on is computed in; ``quantised`` for integers that stand
    for numbers."""
    rounds_to_integers: bool
    """Whether the node turns numbers into integers by rounding."""


def plan_layers(model: ir.Model, feeds: Mapping[str, Value], shown: Collection[str] = ()) -> list[Layer]:
    """Every tensor that the main graph computes and something reads, in topological order, constants left out.

    Args:
        model: The model; it is not changed.
        feeds: One sample, for the sizes.
        shown: Tensors that count although nothing reads them.

    Raises:
        BadModelError: The graph has a cycle.
    """
    scope = main_scope(model)
    waits = dependencies(model.graph)
    order = sorted_nodes(waits)
    if len(order) < len(waits):
        names = ", ".join(scope.label(node) for node in find_cycle(waits)[:4])
        raise BadModelError(f"the graph has a cycle through {names}")
    shapes = _shapes_when_fed(model, feeds)
    precisions = _Precisions(shapes)
    layers = []
    for node in order:
        precision = precisions.of(node, waits[node])
        if node.op_type == "Constant" and not node.domain:
            continue
        label = scope.label(node)
        fallback = max((_nbytes(shapes, value, 0) for value in node.inputs if value is not None), default=0)
        for value in node.outputs:
            # What nobody reads (a mask of Dropout) engines need not compute.
            read = bool(value.uses()) or value.is_graph_output() or value.name in shown
            if value.name and read and not isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
                size = _nbytes(shapes, value, fallback or _UNKNOWN_BYTES)
                rounds = _quantises(node) or _casts_to_integer(node, shapes)
                layers.append(Layer(value.name, label, node.op_type, size, precision, rounds))
    return layers


def _shapes_when_fed(model: ir.Model, feeds: Mapping[str, Value]) -> TrustedShapes:
    """Shapes inferred from those of the values that are fed."""
    declared = [(value, value.shape) for value in model.graph.inputs]
    try:
        for value, _ in declared:
            if isinstance(fed := feeds.get(value.name or ""), np.ndarray):
                value.shape = ir.Shape(fed.shape)
        return trusted_shapes(model, propagate_data=True)
    finally:
        for value, shape in declared:
            value.shape = shape


class _Precisions:
    """The working precision of each node: its own, and that of all it depends on but constants."""

    def __init__(self, shapes: TrustedShapes) -> None:
        self._shapes = shapes
        self._known: dict[ir.Node, str | None] = {}  # None: depends on constants alone

    def of(self, node: ir.Node, waits: Sequence[ir.Node]) -> str:
        inner = list(nodes_inside(node)) if node.attributes else []
        before = [known for other in waits if (known := self._known.get(other)) is not None]
        fed = [value for n in (node, *inner) for value in n.inputs if value is not None and value.is_graph_input()]
        own = [name for n in (node, *inner) for value in n.outputs if (name := self._float_name(value))]
        if any(_quantises(n) for n in (node, *inner)):
            own.append("quantised")
        own += [name for value in fed if (name := self._float_name(value))]
        # What depends on constants alone is the same on both sides, however coarse it is.
        self._known[node] = coarsest(*own, *before) if before or fed else None
        return coarsest(*own, *before)

    def _float_name(self, value: ir.Value) -> str | None:
        dtype = self._shapes.dtype(value) or value.dtype
        if dtype is None or not dtype.is_floating_point():
            return None
        return numpy_dtype(dtype.value).name


def _quantises(node: ir.Node) -> bool:
    return any(part in node.op_type for part in _QUANTISING) and node.op_type != "DequantizeLinear"


def _casts_to_integer(node: ir.Node, shapes: TrustedShapes) -> bool:
    if node.op_type in ("Round", "Floor", "Ceil"):
        return True
    if node.op_type not in ("Cast", "CastLike") or not node.inputs or node.inputs[0] is None:
        return False
    source, target = (shapes.dtype(v) or v.dtype for v in (node.inputs[0], node.outputs[0]))
    return bool(source and target and source.is_floating_point() and target.is_integer())


def _nbytes(shapes: TrustedShapes, value: ir.Value, unknown: int) -> int:
    dims = shapes.static(value)
    if dims is None and value.shape is not None and value.shape.is_static():
        dims = tuple(value.shape.numpy())
    if dims is None:
        return unknown
    dtype = shapes.dtype(value) or value.dtype
    width = 4 if dtype is None or dtype == ir.DataType.STRING else max(1, dtype.bitwidth // 8)
    return math.prod(dims) * width


def random_nodes(model: ir.Model) -> list[str]:
    """Nodes, in any graph, that draw random numbers or drop elements at random."""
    nodes = [*model.graph.all_nodes(), *(n for f in model.functions.values() for n in f.all_nodes())]
    return [n.name or f"{n.op_type}({n.outputs[0].name})" for n in nodes if n.op_type in _RANDOM or _drops(n)]


def random_notes(*models: ir.Model) -> list[str]:
    """A note that models draw random numbers, if any does."""
    names = list(dict.fromkeys(name for model in models for name in random_nodes(model)))
    if not names:
        return []
    return [f"the model draws random numbers (in {', '.join(names[:3])}); what follows from them cannot agree"]


def _drops(node: ir.Node) -> bool:
    """Whether a node is a Dropout in training mode, as far as that can be told."""
    if node.op_type != "Dropout" or len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    mode: Any = ir.convenience.get_const_tensor(node.inputs[2])
    return mode is None or bool(mode.numpy().any())
