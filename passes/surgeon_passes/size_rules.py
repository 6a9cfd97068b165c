"""The sizes of a node's outputs from the sizes of its inputs, for the operators that exported models are made of.

Every rule says only what holds in each run that does not fail. A symbolic size may be 0 when the model runs; the one
place where that is not followed is Reshape, whose 0 means "copy": there a symbolic size is taken to be above 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from surgeon_passes.constants import constant_tensor
from surgeon_passes.layout_rules import LAYOUT_RULES
from surgeon_passes.size_facts import Dims, Fact, Operation, Rule, fact_of_tensor, natural
from surgeon_passes.symbolic_ints import Algebra, Form, Int
from surgeon_passes.window_rules import WINDOW_RULES


def broadcast(algebra: Algebra, shapes: list[Dims]) -> Dims:
    """The sizes that shapes take on together, by the rule of numpy."""
    rank = max(len(s) for s in shapes)
    result: list[Int] = [1] * rank
    for shape in shapes:
        for i, d in enumerate(shape, rank - len(shape)):
            result[i] = _broadcast_one(algebra, result[i], d)
    return tuple(result)


def _broadcast_one(algebra: Algebra, a: Int, b: Int) -> Int:
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    # A size above 1 decides: the other one must be the same or 1. So does 0.
    for one in (a, b):
        if isinstance(one, int) or (algebra.low(one) or 0) > 1:
            return one
    for one, other in ((a, b), (b, a)):
        if _is_capped(one, other):
            return other
    return algebra.fresh()


def _is_capped(one: Int, other: Int) -> bool:
    """Whether one is min(k, other) for a known k of at least 1: then, if both fit together, other is the result."""
    symbol = one.symbol if isinstance(one, Form) else None
    if symbol is None or symbol.parts is None or symbol.parts[0] != "min":
        return False
    first, second = symbol.parts[1]
    cap = first if second == other else second if first == other else None
    return isinstance(cap, int) and cap >= 1


def _same(op: Operation) -> Fact:
    return Fact(op.fact(0).dtype, op.dims(0))


def _normalised(op: Operation) -> Fact:
    # onnxruntime takes a scale of another type, and lets it decide the type of the result.
    return Fact(op.fact(0).dtype if op.fact(1).dtype == op.fact(0).dtype else None, op.dims(0))


def _same_bool(op: Operation) -> Fact:
    return Fact(ir.DataType.BOOL, op.dims(0))


def _dropout(op: Operation) -> list[Fact]:
    return [_same(op), Fact(ir.DataType.BOOL if op.opset >= 10 else op.fact(0).dtype, op.dims(0))]


def _constant(op: Operation) -> Fact | None:
    tensor = constant_tensor(op.node)
    return None if tensor is None else fact_of_tensor(tensor)


def _together(op: Operation) -> Dims | None:
    shapes = [fact.dims for fact in op.facts if fact is not None]
    known = [s for s in shapes if s is not None]
    return broadcast(op.algebra, known) if len(known) == len(shapes) and known else None


def _elementwise(op: Operation) -> Fact | None:
    if op.opset < 8:
        return None
    return Fact(op.fact(0).dtype, _together(op))


def _comparison(op: Operation) -> Fact | None:
    if op.opset < 8:
        return None
    return Fact(ir.DataType.BOOL, _together(op))


def _where(op: Operation) -> Fact:
    return Fact(op.fact(1).dtype, _together(op))


def _cast(op: Operation) -> Fact | None:
    attr = op.node.attributes.data.get("to")
    if attr is None or not isinstance(attr.value, int):
        return None
    return Fact(ir.DataType(attr.value), op.dims(0))


def _cast_like(op: Operation) -> Fact:
    return Fact(op.fact(1).dtype, op.dims(0))


def _matmul(op: Operation) -> Fact | None:
    a, b, dtype = op.dims(0), op.dims(1), op.fact(0).dtype
    if a is None or b is None:
        return Fact(dtype)
    if not a or not b:
        return None
    head = broadcast(op.algebra, [a[:-2], b[:-2]]) if len(a) > 2 or len(b) > 2 else ()
    return Fact(dtype, (*head, *a[-2:-1], *(b[-1:] if len(b) > 1 else ())))


def _shape(op: Operation) -> Fact:
    dims = op.dims(0)
    if dims is None:
        return Fact(ir.DataType.INT64, op.unknown(1))
    start, end = op.int_attr("start", 0), op.int_attr("end", len(dims))
    return Fact(ir.DataType.INT64, (len(dims[slice(*_clamped(start, end, len(dims)))]),))


def _clamped(start: int, end: int, rank: int) -> tuple[int, int]:
    start, end = (max(0, min(rank, x + rank if x < 0 else x)) for x in (start, end))
    return start, max(start, end)


def _size(_: Operation) -> Fact:
    return Fact(ir.DataType.INT64, ())


def _constant_of_shape(op: Operation) -> Fact:
    attr = op.node.attributes.data.get("value")
    dtype = ir.DataType.FLOAT if attr is None else attr.value.dtype
    return Fact(dtype, _sizes_from(op, 0))


def _sizes_from(op: Operation, i: int) -> Dims | None:
    """The elements of input i as sizes; where one might be negative, a size of its own."""
    fact = op.fact(i)
    if fact.ints is None or fact.ints.ndim != 1:
        static = fact.static
        return op.unknown(static[0]) if static is not None and len(static) == 1 and static[0] <= 16 else None
    return natural(op.algebra, fact.ints.tolist())


def _expand(op: Operation) -> Fact:
    dims, target = op.dims(0), _sizes_from(op, 1)
    if dims is None or target is None:
        return Fact(op.fact(0).dtype)
    return Fact(op.fact(0).dtype, broadcast(op.algebra, [dims, target]))


def _reduce(op: Operation) -> Fact | None:
    dims, dtype = op.dims(0), op.fact(0).dtype
    if op.node.op_type in ("ArgMax", "ArgMin"):
        dtype = ir.DataType.INT64
    if dims is None:
        return Fact(dtype)
    if op.node.op_type in ("ArgMax", "ArgMin"):
        axis = op.axis(len(dims), 0)
        axes = None if axis is None else [axis]
    else:
        axes = op.axes(1, len(dims))
    if axes is None:
        return Fact(dtype, op.unknown(len(dims)) if op.int_attr("keepdims", 1) else None)
    if not axes and not op.int_attr("noop_with_empty_axes", 0):
        axes = list(range(len(dims)))
    if op.int_attr("keepdims", 1):
        return Fact(dtype, tuple(1 if i in axes else d for i, d in enumerate(dims)))
    return Fact(dtype, tuple(d for i, d in enumerate(dims) if i not in axes))


def _range(op: Operation) -> Fact:
    dtype, start, limit, delta = op.fact(0).dtype, op.fact(0).ints, op.fact(1).ints, op.known(2)
    if start is None or limit is None or delta is None or start.size != 1 or limit.size != 1 or len(delta) != 1:
        return Fact(dtype, op.unknown(1))
    step, span = delta[0], op.algebra.sub(limit.reshape(-1)[0], start.reshape(-1)[0])
    if step < 0:
        step, span = -step, op.algebra.neg(span)
    count = op.algebra.floor_div(op.algebra.add(span, step - 1), step)
    return Fact(dtype, op.unknown(1) if count is None else (op.algebra.maximum(count, 0),))


def _unary(*names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, _same)


SIZE_RULES: Mapping[str, Rule] = {
    **_unary("Identity", "Relu", "Sigmoid", "Tanh", "Erf", "Sqrt", "Exp", "Log", "Neg", "Abs", "Softmax", "LogSoftmax"),
    **_unary("Clip", "LeakyRelu", "Elu", "Selu", "Gelu", "HardSigmoid", "HardSwish", "Softplus", "Softsign", "Mish"),
    **_unary("Not", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Tan", "Reciprocal", "CumSum", "Trilu", "PRelu"),
    **_unary(
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LpNormalization",
        "ScatterND",
        "ScatterElements",
        "Hardmax",
        "ThresholdedRelu",
    ),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _normalised),
    "Dropout": _dropout,
    "Constant": _constant,
    **dict.fromkeys(("IsNaN", "IsInf"), _same_bool),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean"), _elementwise),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift"), _elementwise),
    **dict.fromkeys(("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor"), _comparison),
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast_like,
    "MatMul": _matmul,
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceL1"), _reduce
    ),
    **dict.fromkeys(("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ArgMax", "ArgMin"), _reduce),
    "Range": _range,
    **LAYOUT_RULES,
    **WINDOW_RULES,
}
"""What each operator of the default domain does to sizes; onnx's own inference answers for the others."""
