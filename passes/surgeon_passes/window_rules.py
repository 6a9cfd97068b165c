"""The sizes left by operators that take windows of a tensor or put a border around it: Slice, Pad, Conv, pooling."""

from __future__ import annotations

from collections.abc import Mapping

from surgeon_passes.size_facts import Fact, Operation, Rule
from surgeon_passes.symbolic_ints import Algebra, Int

_FAR = 2**31 - 1
"""An end at least this large means: to the end."""


def slice_size(algebra: Algebra, size: Int, start: Int, end: Int, step: int) -> Int:
    """How many elements Slice takes from an axis; an unknown number where that cannot be said."""
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(*slice(start, end, step).indices(size))) if step else algebra.fresh()
    if step < 0:
        whole = isinstance(end, int) and end <= -_FAR and (start == -1 or (isinstance(start, int) and start >= _FAR))
        count = algebra.floor_div(algebra.add(size, -step - 1), -step) if whole else None
        return algebra.fresh() if count is None else count
    low, high = _position(algebra, size, start), _position(algebra, size, end)
    if low is None or high is None or step == 0:
        return algebra.fresh()
    taken = algebra.maximum(algebra.sub(high, low), 0)
    count = algebra.floor_div(algebra.add(taken, step - 1), step)
    return algebra.fresh() if count is None else count


def _position(algebra: Algebra, size: Int, index: Int) -> Int | None:
    """Where an index that may be negative or too large points, from 0 to ``size``; None if its sign is unknown."""
    if isinstance(index, int) and index < 0:
        return algebra.maximum(algebra.add(size, index), 0)
    if isinstance(index, int) and index >= _FAR:
        return size
    return algebra.minimum(index, size) if algebra.is_natural(index) else None


def slice_axes(op: Operation, rank: int, count: int) -> tuple[list[int], list[int]] | None:
    """Axes (from 0) and steps of a Slice of ``count`` axes, if they are known."""
    given = op.has(3) or "axes" in op.node.attributes.data
    axes = op.axes(3, rank) if given else list(range(count))
    steps = op.known(4) if op.has(4) else [1] * count
    if axes is None or steps is None or len(axes) != count or len(steps) != count:
        return None
    return axes, steps


def _slice(op: Operation) -> Fact | None:
    dims, dtype = op.dims(0), op.fact(0).dtype
    if dims is None:
        return Fact(dtype)
    starts, ends = _bounds(op, 1, "starts"), _bounds(op, 2, "ends")
    if starts is None or ends is None or len(starts) != len(ends):
        return Fact(dtype, _only_axes_change(op, len(dims)))
    where = slice_axes(op, len(dims), len(starts))
    if where is None:
        return Fact(dtype, op.unknown(len(dims)))
    result = list(dims)
    for axis, step, start, end in zip(*where, starts, ends, strict=True):
        result[axis] = slice_size(op.algebra, dims[axis], start, end, step)
    return Fact(dtype, tuple(result))


def _only_axes_change(op: Operation, rank: int) -> tuple[Int, ...]:
    """Sizes after a Slice whose bounds are unknown: axes that it does not name keep theirs."""
    dims = op.dims(0) or ()
    axes = op.axes(3, rank) if op.has(3) else None
    if not axes:
        return op.unknown(rank)
    return tuple(op.algebra.fresh() if i in axes else d for i, d in enumerate(dims))


def _bounds(op: Operation, i: int, attr: str) -> list[Int] | None:
    given = op.ints_attr(attr)
    if given is not None:
        return list(given)
    ints = op.fact(i).ints
    return None if ints is None or ints.ndim != 1 else ints.tolist()


def _pad(op: Operation) -> Fact | None:
    dims, dtype = op.dims(0), op.fact(0).dtype
    if dims is None or op.opset < 2:
        return None
    rank, pads = len(dims), _bounds(op, 1, "pads")
    axes = op.axes(3, rank) if op.has(3) else list(range(rank))
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        return Fact(dtype, op.unknown(rank))
    result = list(dims)
    for i, axis in enumerate(axes):
        size = op.algebra.add(dims[axis], op.algebra.add(pads[i], pads[i + len(axes)]))
        result[axis] = size if op.algebra.is_natural(size) else op.algebra.fresh()
    return Fact(dtype, tuple(result))


def _windows(op: Operation, kernel: list[int]) -> tuple[Int, ...] | None:
    """The spatial sizes after sliding a window; None where padding is to be worked out."""
    dims, n = op.dims(0), len(kernel)
    strides = op.ints_attr("strides") or [1] * n
    dilations = op.ints_attr("dilations") or [1] * n
    pads = op.ints_attr("pads") or [0] * (2 * n)
    mode = op.node.attributes.data.get("auto_pad")
    auto = "NOTSET" if mode is None else mode.value
    if dims is None or len(dims) != n + 2 or auto not in ("NOTSET", "VALID"):
        return None
    if len(strides) != n or len(dilations) != n or len(pads) != 2 * n or min(strides) < 1:
        return None
    result = []
    for i, size in enumerate(dims[2:]):
        before, border = (0, 0) if auto == "VALID" else (pads[i], pads[i] + pads[i + n])
        room = op.algebra.add(size, border - (kernel[i] - 1) * dilations[i] - 1)
        steps = op.algebra.floor_div(room, strides[i])
        if op.int_attr("ceil_mode", 0):
            steps = _rounded_up(room, strides[i], size, before)
        count = None if steps is None else op.algebra.add(steps, 1)
        # Where the window does not fit, an engine fails: a result is at least 1 in a run that does not, or unknown.
        result.append(count if count is not None and op.algebra.is_natural(count) else op.algebra.fresh())
    return tuple(result)


def _rounded_up(room: Int, stride: int, size: Int, before: int) -> int | None:
    """Steps of a window, rounded up; None where the last one would start in the border: there engines differ."""
    if not isinstance(room, int) or not isinstance(size, int):
        return None
    steps = -(-room // stride)
    return steps if steps * stride < size + before else None


def _conv(op: Operation) -> Fact | None:
    dims, weights = op.dims(0), op.dims(1)
    if dims is None or weights is None or len(weights) < 3:
        return None
    kernel = [k for k in weights[2:] if isinstance(k, int)]
    sizes = _windows(op, kernel) if len(kernel) == len(weights) - 2 else None
    return None if sizes is None else Fact(op.fact(0).dtype, (dims[0], weights[0], *sizes))


def _pool(op: Operation) -> list[Fact] | None:
    dims, kernel = op.dims(0), op.ints_attr("kernel_shape")
    sizes = _windows(op, kernel) if kernel else None
    return None if dims is None or sizes is None else [Fact(op.fact(0).dtype, (*dims[:2], *sizes))]


def _resize(op: Operation) -> Fact | None:
    dims = op.dims(0)
    policy = op.node.attributes.data.get("keep_aspect_ratio_policy")
    mode = op.node.attributes.data.get("coordinate_transformation_mode")
    plain = (policy is None or policy.value == "stretch") and (mode is None or mode.value != "tf_crop_and_resize")
    if plain:
        return None
    return Fact(op.fact(0).dtype, None if dims is None else op.unknown(len(dims)))


def _unsaid(op: Operation) -> Fact:
    """An operator on whose sizes inference and engines have differed."""
    return Fact(op.fact(0).dtype)


WINDOW_RULES: Mapping[str, Rule] = {
    "Slice": _slice,
    "Pad": _pad,
    "Conv": _conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "Resize": _resize,
    **dict.fromkeys(("DFT", "STFT"), _unsaid),
}
"""Rules by operator, for :data:`surgeon_passes.size_rules.SIZE_RULES`."""
