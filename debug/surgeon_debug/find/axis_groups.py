"""Which axes of a piece's inputs and weights belong together: those that can only be cropped in the same way.

For operators whose shapes are plain the rule is written down: MatMul ties a row's length to a column's, Conv the
channels of its input to those of its weights. For any other operator axes of equal length count as tied. A wrong guess
costs a trial, for the reference refuses what does not fit or another failure shows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from surgeon_debug.find.culprit_piece import CulpritPiece

Axis = tuple[str, int]
"""A tensor's name and one of its axes, from 0."""

Shapes = Mapping[str, tuple[int, ...]]

_MOST_KNOWN = 1024  # elements of weights whose values shape inference may need

_ELEMENTWISE = {
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean", "Equal", "Less", "LessOrEqual", "Greater",
    "GreaterOrEqual", "And", "Or", "Xor", "Where", "PRelu", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos",
    "Cosh", "CumSum", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Hardmax",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "Mish", "Neg", "Not",
    "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus",
    "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu", "BitwiseNot", "FastGelu", "QuickGelu",
}  # fmt: skip
_CHANNELS_SECOND = {"BatchNormalization", "InstanceNormalization", "GroupNormalization"}


@dataclasses.dataclass(frozen=True)
class AxisGroup:
    """Axes that are cropped together."""

    members: tuple[Axis, ...]
    """Axes of inputs and weights."""
    size: int
    """Their length."""
    outputs: tuple[Axis, ...]
    """Axes of the piece's outputs that are cropped by it."""
    batch: bool
    """Whether it holds the first axis of an input."""


def axis_groups(piece: CulpritPiece, settings: Iterable[str]) -> list[AxisGroup]:
    """Groups of axes longer than 1, the batch first, then by the elements they carry.

    Args:
        piece: The piece.
        settings: Weights that say how to compute rather than what; they are never cropped.
    """
    shapes = _shapes(piece)
    ties = _Ties(shapes)
    for node in piece.model.graph.node:
        _tie(node, ties)
    fixed = set(settings)
    fed = {name for sample in piece.feeds for name, value in sample.items() if isinstance(value, np.ndarray)}
    own = [name for name in (*sorted(fed), *piece.weights) if name not in fixed and name in shapes]
    members: dict[Axis, list[Axis]] = {}
    for name in own:
        for axis, size in enumerate(shapes[name]):
            if size > 1:
                members.setdefault(ties.root((name, axis)), []).append((name, axis))
    groups = []
    for root, axes in members.items():
        shown = tuple(
            (name, axis)
            for name in piece.outputs
            for axis in range(len(shapes.get(name, ())))
            if ties.root((name, axis)) == root
        )
        name, axis = axes[0]
        batch = any(place == 0 and tensor in fed for tensor, place in axes)
        groups.append(AxisGroup(tuple(axes), shapes[name][axis], shown, batch))
    weight = {group: sum(int(np.prod(shapes[name])) for name, _ in group.members) for group in groups}
    return sorted(groups, key=lambda group: (not group.batch, -weight[group], group.members))


class _Ties:
    """Sets of axes that only grow together; each by one of its members."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self._above: dict[Axis, Axis] = {}

    def root(self, axis: Axis) -> Axis:
        while (above := self._above.get(axis, axis)) != axis:
            axis = above
        return axis

    def tie(self, *axes: Axis) -> None:
        """Tie axes, those apart that do not exist or have length 1, which are stretched."""
        there = [(name, i) for name, i in axes if name in self.shapes and 0 <= i < len(self.shapes[name])]
        kept = [(name, i) for name, i in there if self.shapes[name][i] > 1]
        for one, other in itertools.pairwise(kept):
            if self.shapes[one[0]][one[1]] == self.shapes[other[0]][other[1]]:
                self._above[self.root(other)] = self.root(one)


def _tie(node: onnx.NodeProto, ties: _Ties) -> None:
    rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx", "com.microsoft") else None
    if node.op_type in _ELEMENTWISE:
        _aligned(ties, [*node.input, *node.output])
    elif node.op_type in _CHANNELS_SECOND:
        _aligned(ties, [node.input[0], node.output[0]])
        ties.tie((node.input[0], 1), *((name, 0) for name in node.input[1:]))
    elif rule is not None:
        rule(node, ties)
    else:
        by_size: dict[int, list[Axis]] = {}
        for name in (*_read(node), *node.output):
            for axis, size in enumerate(ties.shapes.get(name, ())):
                by_size.setdefault(size, []).append((name, axis))
        for axes in by_size.values():
            ties.tie(*axes)


def _read(node: onnx.NodeProto) -> list[str]:
    """What a node reads, the bodies in it too."""
    names = list(node.input)
    graphs = [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]
    for graph in graphs:
        names += [name for inner in graph.node for name in _read(inner)]
    return names


def _aligned(ties: _Ties, names: Sequence[str], skip: int = 0) -> None:
    """Tie axes that stand above each other when shapes are written flush right.

    Args:
        ties: Where to note it.
        names: The tensors.
        skip: Axes at the right end that have nothing to do with each other.
    """
    known = [name for name in names if name in ties.shapes]
    rank = max((len(ties.shapes[name]) for name in known), default=0)
    for back in range(skip + 1, rank + 1):
        ties.tie(*((name, len(ties.shapes[name]) - back) for name in known))


def _matmul(node: onnx.NodeProto, ties: _Ties) -> None:
    a, b, y = node.input[0], node.input[1], node.output[0]
    if a not in ties.shapes or b not in ties.shapes:
        return
    ra, rb, ry = len(ties.shapes[a]), len(ties.shapes[b]), len(ties.shapes.get(y, ()))
    ties.tie((a, ra - 1), (b, max(0, rb - 2)))
    if ra > 1:
        ties.tie((a, ra - 2), (y, ry - 2 if rb > 1 else ry - 1))
    if rb > 1:
        ties.tie((b, rb - 1), (y, ry - 1))
    _aligned(ties, [a, b, y], skip=2)


def _gemm(node: onnx.NodeProto, ties: _Ties) -> None:
    a, b, y = node.input[0], node.input[1], node.output[0]
    ta, tb = (_attribute(node, name, 0) for name in ("transA", "transB"))
    ties.tie((a, 0 if ta else 1), (b, 1 if tb else 0))
    ties.tie((a, 1 if ta else 0), (y, 0))
    ties.tie((b, 0 if tb else 1), (y, 1))
    _aligned(ties, [*node.input[2:], y])


def _conv(node: onnx.NodeProto, ties: _Ties) -> None:
    x, w, y = node.input[0], node.input[1], node.output[0]
    ties.tie((x, 0), (y, 0))
    if _attribute(node, "group", 1) == 1:
        ties.tie((x, 1), (w, 1))
        ties.tie((w, 0), *((name, 0) for name in node.input[2:]), (y, 1))
        return
    ties.tie((x, 1), (w, 0), *((name, 0) for name in node.input[2:]), (y, 1))


def _transposed_conv(node: onnx.NodeProto, ties: _Ties) -> None:
    x, w, y = node.input[0], node.input[1], node.output[0]
    ties.tie((x, 0), (y, 0))
    ties.tie((x, 1), (w, 0))
    if _attribute(node, "group", 1) == 1:
        ties.tie((w, 1), *((name, 0) for name in node.input[2:]), (y, 1))


def _transpose(node: onnx.NodeProto, ties: _Ties) -> None:
    x, y = node.input[0], node.output[0]
    rank = len(ties.shapes.get(x, ()))
    order = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])
    for axis, source in enumerate(order):
        ties.tie((x, source), (y, axis))


def _concat(node: onnx.NodeProto, ties: _Ties) -> None:
    y = node.output[0]
    rank = len(ties.shapes.get(y, ties.shapes.get(node.input[0], ())))
    along = _attribute(node, "axis", 0) % max(1, rank)
    for axis in range(rank):
        if axis != along:
            ties.tie(*((name, axis) for name in (*node.input, y)))


def _pool(node: onnx.NodeProto, ties: _Ties) -> None:
    for axis in (0, 1):
        ties.tie((node.input[0], axis), (node.output[0], axis))


def _layer_normalization(node: onnx.NodeProto, ties: _Ties) -> None:
    _aligned(ties, [*node.input, node.output[0]])


def _gather(node: onnx.NodeProto, ties: _Ties) -> None:
    data, indices, y = node.input[0], node.input[1], node.output[0]
    along = _attribute(node, "axis", 0) % max(1, len(ties.shapes.get(data, ())))
    extra = len(ties.shapes.get(indices, ()))
    for axis in range(len(ties.shapes.get(data, ()))):
        if axis != along:
            ties.tie((data, axis), (y, axis if axis < along else axis + extra - 1))
    for axis in range(extra):
        ties.tie((indices, axis), (y, along + axis))


def _reduce(node: onnx.NodeProto, ties: _Ties) -> None:
    x, y = node.input[0], node.output[0]
    if len(ties.shapes.get(x, ())) == len(ties.shapes.get(y, ())):
        _aligned(ties, [x, y])


_RULES: Mapping[str, Callable[[onnx.NodeProto, _Ties], None]] = {
    "MatMul": _matmul, "MatMulInteger": _matmul, "FusedMatMul": _matmul, "Gemm": _gemm, "Conv": _conv,
    "ConvInteger": _conv, "ConvTranspose": _transposed_conv, "Transpose": _transpose, "Concat": _concat,
    "MaxPool": _pool, "AveragePool": _pool, "LpPool": _pool, "GlobalAveragePool": _pool, "GlobalMaxPool": _pool,
    "LayerNormalization": _layer_normalization, "RMSNormalization": _layer_normalization, "Gather": _gather,
    "ReduceSum": _reduce, "ReduceMean": _reduce, "ReduceMax": _reduce, "ReduceMin": _reduce, "ReduceProd": _reduce,
    "ReduceL1": _reduce, "ReduceL2": _reduce, "ReduceSumSquare": _reduce, "ReduceLogSumExp": _reduce,
}  # fmt: skip


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _shapes(piece: CulpritPiece) -> dict[str, tuple[int, ...]]:
    """Dimensions of all tensors, as far as they are known; those of the first sample."""
    found: dict[str, tuple[int, ...]] = {name: array.shape for name, array in piece.weights.items()}
    if piece.feeds:
        fed = piece.feeds[0]
        found.update((name, value.shape) for name, value in fed.items() if isinstance(value, np.ndarray))
    if piece.expected:
        shown = piece.expected[0]
        found.update((name, value.shape) for name, value in shown.items() if isinstance(value, np.ndarray))
    if len(piece.model.graph.node) > 1:
        for name, shape in _inferred(piece).items():
            found.setdefault(name, shape)
    return found


def _inferred(piece: CulpritPiece) -> dict[str, tuple[int, ...]]:
    model = onnx.ModelProto()
    model.CopyFrom(piece.model)
    del model.graph.initializer[:]
    for tensor in piece.model.graph.initializer:
        array = piece.weights[tensor.name]
        if array.size <= _MOST_KNOWN and array.dtype.isbuiltin != 2 and array.dtype != object:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
        elif all(value.name != tensor.name for value in model.graph.input):
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, array.shape))
    result: dict[str, tuple[int, ...]] = {}
    with contextlib.suppress(Exception):  # without shapes there are fewer ties, and trials tell
        inferred: Any = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for value in inferred.graph.value_info:
            dims = value.type.tensor_type.shape.dim
            if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
                result[value.name] = tuple(dim.dim_value for dim in dims)
    return result
