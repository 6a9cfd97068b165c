"""The elements of a node's small integer output from the elements of its inputs: what shape arithmetic is made of.

Exact: division truncates, Mod takes the sign that its attribute says, a number that leaves its type is not followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from surgeon_passes.size_facts import Elements, Fact, Operation, elements
from surgeon_passes.symbolic_ints import Algebra, Form, Int

IntegerRule = Callable[[Operation, tuple[int, ...]], Elements | None]
"""The elements of the first output, whose shape is given; None if they are unknown."""

_Pair = Callable[[Algebra, Int, Int], Int | None]


def _all(op: Operation, count: int) -> list[Elements] | None:
    """The elements of the first ``count`` inputs, or None if those of one are not followed."""
    found = [op.fact(i).ints for i in range(count)]
    return None if any(x is None for x in found) else found


def _shape(op: Operation, shape: tuple[int, ...]) -> Elements | None:
    dims = op.dims(0)
    if dims is None:
        return None
    start = op.int_attr("start", 0)
    start = max(0, min(len(dims), start + len(dims) if start < 0 else start))
    return elements(dims[start : start + shape[0]], shape)


def _size(op: Operation, shape: tuple[int, ...]) -> Elements | None:
    dims = op.dims(0)
    return None if dims is None else elements([op.algebra.product(dims)], shape)


def _copy(op: Operation, shape: tuple[int, ...]) -> Elements | None:
    data = op.fact(0).ints
    return None if data is None else data.reshape(shape)


def _cast(op: Operation, _: tuple[int, ...]) -> Elements | None:
    data = op.fact(0).ints
    to = op.node.attributes.data.get("to")
    kind = op.fact(1).dtype if to is None else ir.DataType(to.value)
    return _truth(op, data) if data is not None and kind == ir.DataType.BOOL else data


def _truth(op: Operation, data: Elements) -> Elements:
    """Each element as 0 or 1."""
    found = []
    for item in data.reshape(-1).tolist():
        equal = op.algebra.compare(item, 0)[1]
        found.append(op.algebra.fresh(low=0, high=1) if equal is None else int(not equal))
    return elements(found, data.shape)


def _constant(op: Operation, shape: tuple[int, ...]) -> Elements | None:
    attr = op.node.attributes.data.get("value")
    if attr is None:
        return None  # the default is a float
    item = int(attr.value.numpy().reshape(-1)[0])
    return elements([item] * int(np.prod(shape, dtype=np.int64)), shape)


def _range(op: Operation, shape: tuple[int, ...]) -> Elements | None:
    start, delta = op.fact(0).ints, op.known(2)
    if start is None or delta is None:
        return None
    first = start.reshape(-1)[0]
    return elements([op.algebra.add(first, i * delta[0]) for i in range(shape[0])], shape)


def _gather(op: Operation, shape: tuple[int, ...]) -> Elements | None:
    data, indices = op.fact(0).ints, op.known(1)
    if data is None or indices is None or data.ndim == 0:
        return None
    axis = op.axis(data.ndim, 0)
    if axis is None or any(not -data.shape[axis] <= i < data.shape[axis] for i in indices):
        return None
    where = np.array(indices, dtype=np.int64).reshape(op.fact(1).static or ())
    return np.take(data, where, axis=axis).reshape(shape) if shape else elements([_only(data, where, axis)], ())


def _only(data: Elements, where: Elements, axis: int) -> Int:
    """One element of a vector: numpy would hand out the object itself, not an array."""
    item: Int = np.take(data, where.reshape(-1), axis=axis).reshape(-1)[0]
    return item


def _slice(op: Operation, _: tuple[int, ...]) -> Elements | None:
    data = op.fact(0).ints
    if data is None:
        return None
    starts, ends = (op.ints_attr(attr) or op.known(i) for i, attr in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        return None
    given = op.has(3) or "axes" in op.node.attributes.data
    axes = op.axes(3, data.ndim) if given else list(range(len(starts)))
    steps = op.known(4) if op.has(4) else [1] * len(starts)
    if axes is None or steps is None or not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        return None
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        rows = list(range(*slice(start, end, step).indices(data.shape[axis])))
        data = np.take(data, np.array(rows, dtype=np.int64), axis=axis)
    return data


def _concat(op: Operation, _: tuple[int, ...]) -> Elements | None:
    found = [fact.ints for fact in op.facts if fact is not None]
    if any(x is None for x in found):
        return None
    return np.concatenate(found, axis=op.int_attr("axis", 0))  # type: ignore[arg-type]


def _transpose(op: Operation, _: tuple[int, ...]) -> Elements | None:
    data = op.fact(0).ints
    return None if data is None else np.transpose(data, op.ints_attr("perm"))


def _expand(op: Operation, shape: tuple[int, ...]) -> Elements | None:
    data = op.fact(0).ints
    return None if data is None else np.broadcast_to(data, shape)


def _tile(op: Operation, _: tuple[int, ...]) -> Elements | None:
    data, repeats = op.fact(0).ints, op.known(1)
    return None if data is None or repeats is None else np.tile(data, repeats)


def _pairwise(function: _Pair) -> IntegerRule:
    """A rule for an operator that takes two elements, or folds any number of inputs from the left."""

    def rule(op: Operation, shape: tuple[int, ...]) -> Elements | None:
        inputs = _all(op, len(op.facts))
        if not inputs:
            return None
        total = np.broadcast_to(inputs[0], shape).reshape(-1).tolist()
        for other in inputs[1:]:
            items = np.broadcast_to(other, shape).reshape(-1).tolist()
            found = [function(op.algebra, a, b) for a, b in zip(total, items, strict=True)]
            if any(item is None for item in found):
                return None
            total = found
        return elements(total, shape)

    return rule


def _each(function: Callable[[Algebra, Int], Int]) -> IntegerRule:
    def rule(op: Operation, shape: tuple[int, ...]) -> Elements | None:
        data = op.fact(0).ints
        return None if data is None else elements([function(op.algebra, x) for x in data.reshape(-1).tolist()], shape)

    return rule


def _mod(op: Operation, shape: tuple[int, ...]) -> Elements | None:
    def one(algebra: Algebra, a: Int, b: Int) -> Int | None:
        if not op.int_attr("fmod", 0) or (algebra.is_natural(a) and algebra.is_natural(b)):
            return algebra.floor_mod(a, b)
        quotient = algebra.trunc_div(a, b)
        return None if quotient is None else algebra.sub(a, algebra.mul(b, quotient))

    return _pairwise(one)(op, shape)


def _decided(pick: Callable[[tuple[bool | None, bool | None, bool | None]], bool | None]) -> _Pair:
    """A comparison: 0 or 1 where it is proven, else an unknown truth value."""

    def one(algebra: Algebra, a: Int, b: Int) -> Int:
        answer = pick(algebra.compare(a, b))
        return algebra.fresh(low=0, high=1) if answer is None else int(answer)

    return one


def _not(algebra: Algebra, a: Int) -> Int:
    return algebra.sub(1, a)


def _opposite(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _and(algebra: Algebra, a: Int, b: Int) -> Int:
    return algebra.minimum(a, b)


def _or(algebra: Algebra, a: Int, b: Int) -> Int:
    return algebra.maximum(a, b)


def _absolute(algebra: Algebra, a: Int) -> Int:
    return a if algebra.is_natural(a) else algebra.maximum(a, algebra.neg(a))


def _where(op: Operation, shape: tuple[int, ...]) -> Elements | None:
    inputs = _all(op, 3)
    if inputs is None:
        return None
    found = []
    for condition, a, b in zip(*(np.broadcast_to(x, shape).reshape(-1).tolist() for x in inputs), strict=True):
        if isinstance(condition, Form):
            lows = op.algebra.low(a), op.algebra.low(b)
            low = None if lows[0] is None or lows[1] is None else min(lows[0], lows[1])
            found.append(a if a == b else op.algebra.fresh(low=low))
        else:
            found.append(a if condition else b)
    return elements(found, shape)


def _reduce(step: Callable[[Algebra, Int, Int], Int]) -> IntegerRule:
    """A rule that folds axes with ``step``; nothing is said of an empty reduction."""

    def rule(op: Operation, shape: tuple[int, ...]) -> Elements | None:
        data = op.fact(0).ints
        axes = None if data is None else op.axes(1, data.ndim)
        if data is None or axes is None or data.size == 0:
            return None
        if not axes and op.int_attr("noop_with_empty_axes", 0):
            return data
        axes = axes or list(range(data.ndim))
        kept = [i for i in range(data.ndim) if i not in axes]
        rows = np.transpose(data, kept + axes).reshape(int(np.prod([data.shape[i] for i in kept], dtype=np.int64)), -1)
        found = []
        for row in rows.tolist():
            total = row[0]
            for item in row[1:]:
                total = step(op.algebra, total, item)
            found.append(total)
        return elements(found, shape)

    return rule


def split_ints(op: Operation, facts: list[Fact]) -> None:
    """Fill in the elements of every output of a Split of integers."""
    data = op.fact(0).ints
    axis = None if data is None or data.ndim == 0 else op.axis(data.ndim, 0)
    if data is None or axis is None:
        return
    at = 0
    for fact in facts:
        static = fact.static
        if static is None:
            return
        fact.ints = np.take(data, np.arange(at, at + static[axis]), axis=axis)
        at += static[axis]


INTEGER_RULES: Mapping[str, IntegerRule] = {
    "Shape": _shape,
    "Size": _size,
    **dict.fromkeys(("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"), _copy),
    **dict.fromkeys(("Cast", "CastLike"), _cast),
    "ConstantOfShape": _constant,
    "Range": _range,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Transpose": _transpose,
    "Expand": _expand,
    "Tile": _tile,
    "Where": _where,
    "Add": _pairwise(Algebra.add),
    "Sum": _pairwise(Algebra.add),
    "Sub": _pairwise(Algebra.sub),
    "Mul": _pairwise(Algebra.mul),
    "Div": _pairwise(Algebra.trunc_div),
    "Mod": _mod,
    "Min": _pairwise(Algebra.minimum),
    "Max": _pairwise(Algebra.maximum),
    "Neg": _each(Algebra.neg),
    "Abs": _each(_absolute),
    "Not": _each(_not),
    "And": _pairwise(_and),
    "Or": _pairwise(_or),
    "Equal": _pairwise(_decided(lambda order: order[1])),
    "Less": _pairwise(_decided(lambda order: order[0])),
    "Greater": _pairwise(_decided(lambda order: order[2])),
    "LessOrEqual": _pairwise(_decided(lambda order: _opposite(order[2]))),
    "GreaterOrEqual": _pairwise(_decided(lambda order: _opposite(order[0]))),
    "ReduceProd": _reduce(Algebra.mul),
    "ReduceSum": _reduce(Algebra.add),
    "ReduceMax": _reduce(Algebra.maximum),
    "ReduceMin": _reduce(Algebra.minimum),
}
"""Rules by operator of the default domain."""
