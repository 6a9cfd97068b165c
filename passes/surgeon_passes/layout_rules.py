"""The sizes left by operators that move elements around: Reshape, Transpose, Concat, Split, Gather and their kin."""

from __future__ import annotations

from collections.abc import Mapping

from surgeon_passes.size_facts import Dims, Fact, Operation, Rule, natural
from surgeon_passes.symbolic_ints import Algebra, Int


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
        return Fact(op.fact(0).dtype)
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
        sizes = list(natural(op.algebra, fact.ints.tolist()) if fact.ints is not None else op.unknown(count))
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


def _tile(op: Operation) -> Fact | None:
    if op.opset < 6:
        return None
    dims, repeats = op.dims(0), op.fact(1).ints
    if dims is None or repeats is None or repeats.shape != (len(dims),):
        return Fact(op.fact(0).dtype, op.unknown(len(dims)) if dims is not None else None)
    sizes = [op.algebra.mul(d, n) for d, n in zip(dims, repeats.tolist(), strict=True)]
    return Fact(op.fact(0).dtype, natural(op.algebra, sizes))


LAYOUT_RULES: Mapping[str, Rule] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Gather": _gather,
    "Tile": _tile,
}
"""Rules by operator, for :data:`surgeon_passes.size_rules.SIZE_RULES`."""
