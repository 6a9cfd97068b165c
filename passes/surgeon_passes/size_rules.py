"""The sizes of a node's outputs from the sizes of its inputs, for the operators that exported models are made of.

Every rule says only what holds in each run that does not fail. A symbolic size may be 0 when the model runs; the one
place where that is not followed is Reshape, whose 0 means "copy": there a symbolic size is taken to be above 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from surgeon_passes.constants import constant_tensor
from surgeon_passes.size_facts import Dims, Fact, Operation, Rule, fact_of_tensor
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
    return tuple(d if op.algebra.is_natural(d) else op.algebra.fresh() for d in fact.ints.tolist())


def _expand(op: Operation) -> Fact:
    dims, target = op.dims(0), _sizes_from(op, 1)
    if dims is None or target is None:
        return Fact(op.fact(0).dtype)
    return Fact(op.fact(0).dtype, broadcast(op.algebra, [dims, target]))


def _reshape(op: Operation) -> Fact | None:
    if op.opset < 5:
        return None
    dims, target, dtype = op.dims(0), op.fact(1), op.fact(0).dtype
    if target.ints is None or target.ints.ndim != 1:
        static = target.static
        return Fact(dtype, op.unknown(static[0]) if static is not None and len(static) == 1 else None)
    return Fact(dtype, reshaped(op.algebra, dims, target.ints.tolist(), op.int_attr("allowzero", 0) != 0))


def reshaped(algebra: Algebra, dims: Dims | None, target: list[Int], allowzero: bool) -> Dims:
    """The sizes Reshape gives: 0 copies (unless ``allowzero``), -1 is what is left over.

    A symbolic element counts as itself: taken to be neither 0 nor negative if it is a size.
    """
    result: list[Int] = []
    hole = None
    for i, d in enumerate(target):
        if d == 0 and not allowzero:
            result.append(dims[i] if dims is not None and i < len(dims) else algebra.fresh())
        elif d == -1:
            hole = i
            result.append(algebra.fresh())
        else:
            result.append(d if algebra.is_natural(d) else algebra.fresh())
    if hole is not None and dims is not None:
        left = algebra.quotient(algebra.product(dims), algebra.product([d for i, d in enumerate(result) if i != hole]))
        if left is not None:
            result[hole] = left
    return tuple(result)


def _flatten(op: Operation) -> Fact | None:
    dims = op.dims(0)
    if dims is None:
        return Fact(op.fact(0).dtype, op.unknown(2))
    axis = op.int_attr("axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    if not 0 <= axis <= len(dims):
        return None
    return Fact(op.fact(0).dtype, (op.algebra.product(dims[:axis]), op.algebra.product(dims[axis:])))


def _squeeze(op: Operation) -> Fact | None:
    dims = op.dims(0)
    if dims is None:
        return Fact(op.fact(0).dtype)
    given = op.has(1) or "axes" in op.node.attributes.data
    axes = op.axes(1, len(dims)) if given else [i for i, d in enumerate(dims) if d == 1]
    if axes is None or (not given and any(not isinstance(d, int) for d in dims)):
        return Fact(op.fact(0).dtype)
    return Fact(op.fact(0).dtype, tuple(d for i, d in enumerate(dims) if i not in axes))


def _unsqueeze(op: Operation) -> Fact | None:
    dims = op.dims(0)
    raw = op.ints_attr("axes") if "axes" in op.node.attributes.data else op.known(1)
    if dims is None or raw is None:
        return Fact(op.fact(0).dtype)
    axes = op.axes(1, len(dims) + len(raw))
    if axes is None:
        return None
    rest = iter(dims)
    return Fact(op.fact(0).dtype, tuple(1 if i in axes else next(rest) for i in range(len(dims) + len(axes))))


def _transpose(op: Operation) -> Fact | None:
    dims = op.dims(0)
    if dims is None:
        return _same(op)
    perm = op.ints_attr("perm") or list(range(len(dims)))[::-1]
    if sorted(perm) != list(range(len(dims))):
        return None
    return Fact(op.fact(0).dtype, tuple(dims[i] for i in perm))


def _concat(op: Operation) -> Fact | None:
    dtype = op.fact(0).dtype
    shapes = [fact.dims for fact in op.facts if fact is not None]
    known = [s for s in shapes if s is not None]
    if not known:
        return Fact(dtype)
    axis = op.axis(len(known[0]), 1 if op.opset < 4 else 0)
    if axis is None or any(len(s) != len(known[0]) for s in known):
        return None
    dims: list[Int] = []
    for i in range(len(known[0])):
        numbers = [s[i] for s in known if isinstance(s[i], int)]
        dims.append(numbers[0] if numbers else known[0][i])
    total: Int = 0
    for shape in known:
        total = op.algebra.add(total, shape[axis])
    dims[axis] = total if len(known) == len(shapes) else op.algebra.fresh()
    return Fact(dtype, tuple(dims))


def _split(op: Operation) -> list[Fact] | None:
    dims, dtype, count = op.dims(0), op.fact(0).dtype, len(op.node.outputs)
    axis = op.axis(len(dims), 0) if dims is not None else None
    if dims is None or axis is None:
        return None
    sizes: list[Int] | None = list(op.ints_attr("split") or ()) or None
    if sizes is None and op.has(1):
        fact = op.fact(1)
        sizes = fact.ints.tolist() if fact.ints is not None else [op.algebra.fresh() for _ in range(count)]
    elif sizes is None:
        if not isinstance(dims[axis], int):
            each = op.algebra.quotient(dims[axis], count)
            sizes = [each if each is not None else op.algebra.fresh() for _ in range(count)]
        else:
            whole = -(-dims[axis] // count)  # type: ignore[operator]
            sizes = [min(whole, max(0, dims[axis] - whole * i)) for i in range(count)]  # type: ignore[operator]
    if len(sizes) != count:
        return None
    return [Fact(dtype, (*dims[:axis], n, *dims[axis + 1 :])) for n in sizes]


def _gather(op: Operation) -> Fact | None:
    data, indices, dtype = op.dims(0), op.dims(1), op.fact(0).dtype
    if data is None or indices is None:
        return Fact(dtype)
    axis = op.axis(len(data), 0)
    return None if axis is None else Fact(dtype, (*data[:axis], *indices, *data[axis + 1 :]))


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


def _tile(op: Operation) -> Fact | None:
    if op.opset < 6:
        return None
    dims, repeats = op.dims(0), op.fact(1).ints
    if dims is None or repeats is None or repeats.shape != (len(dims),):
        return Fact(op.fact(0).dtype, op.unknown(len(dims)) if dims is not None else None)
    return Fact(op.fact(0).dtype, tuple(op.algebra.mul(d, n) for d, n in zip(dims, repeats.tolist(), strict=True)))


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
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Gather": _gather,
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceL1"), _reduce
    ),
    **dict.fromkeys(("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ArgMax", "ArgMin"), _reduce),
    "Range": _range,
    "Tile": _tile,
    **WINDOW_RULES,
}
"""What each operator of the default domain does to sizes; onnx's own inference answers for the others."""
