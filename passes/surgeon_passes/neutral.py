"""When an operator gives back its input unchanged, to the bit.

Each rule looks at one node and returns the input that its first output equals, or None if that is not certain. What
depends on a shape relies on :mod:`surgeon_passes.trusted_shapes` alone. Left out on purpose: adding +0.0 (it turns
-0.0 into 0.0), sums and means over one element (an implementation may start from +0.0), clipping to a range.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from surgeon_passes.constants import constant_of, small_ints
from surgeon_passes.trusted_shapes import TrustedShapes

_READ_LIMIT = 1 << 16  # elements of a constant that are worth reading to learn that they are all alike
_TO_THE_END = 2**31 - 1  # exporters write this, or 2**63 - 1, for "as far as it goes"


@dataclasses.dataclass(frozen=True)
class Site:
    """A node and what is known around it."""

    node: ir.Node
    attributes: dict[str, Any]
    """Its attributes; nodes with references to function attributes are no sites."""
    opset: int
    """The version of the default operator set that holds there."""
    shapes_of: Callable[[], TrustedShapes]
    """The trusted shapes, computed when first asked for."""

    @property
    def shapes(self) -> TrustedShapes:
        """The trusted shapes of the model."""
        return self.shapes_of()

    def input(self, index: int) -> ir.Value | None:
        """An input, None if it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def ints(self, index: int) -> list[int] | None:
        """The numbers of a constant input, None if it is left out or not a constant."""
        return small_ints(self.input(index))

    def setting(self, name: str, index: int, since: int) -> list[int] | None:
        """Numbers that are an attribute before version ``since`` and an input from then on; None if not known."""
        if self.opset >= since:
            return self.ints(index)
        found = self.attributes.get(name)
        return list(found) if isinstance(found, Sequence) and not isinstance(found, str) else None


def identity(site: Site) -> ir.Value | None:
    """Identity."""
    return site.input(0)


def one_input(site: Site) -> ir.Value | None:
    """Concat, Sum, Max, Min or Mean of one tensor."""
    return site.input(0) if len(site.node.inputs) == 1 else None


def one_output(site: Site) -> ir.Value | None:
    """Split into one part."""
    return site.input(0) if len(site.node.outputs) == 1 else None


def dropout(site: Site) -> ir.Value | None:
    """Dropout that does not train. From version 12 an input decides, before 7 an attribute."""
    if site.opset < 7:
        return site.input(0) if site.attributes.get("is_test") else None
    training = site.input(2) if site.opset >= 12 else None
    if training is not None:
        tensor = constant_of(training)
        if tensor is None or tensor.size != 1 or bool(tensor.numpy().reshape(-1)[0]):
            return None
    return site.input(0)


def cast(site: Site) -> ir.Value | None:
    """Cast or CastLike to the type that the input has."""
    have = site.shapes.dtype(site.input(0))
    if have is None:
        return None
    if site.node.op_type == "CastLike":
        return site.input(0) if have == site.shapes.dtype(site.input(1)) else None
    return site.input(0) if have.value == site.attributes.get("to") else None


def same_shape(site: Site) -> ir.Value | None:
    """Flatten or Squeeze that keeps the shape, and so the tensor."""
    return site.input(0) if site.shapes.same_dims(site.input(0), site.node.outputs[0]) else None


def reshape(site: Site) -> ir.Value | None:
    """Reshape to the shape that the input has."""
    if site.shapes.same_dims(site.input(0), site.node.outputs[0]):
        return site.input(0)
    dims = site.shapes.dims(site.input(0))
    target = site.ints(1) if site.opset >= 5 else None
    if dims is None or target is None or len(dims) != len(target) or site.attributes.get("allowzero"):
        return None
    # One dimension may be inferred: it can only be what is left over, which is what it was.
    open_places = target.count(-1)
    fits = all(t in (0, -1) or t == d for t, d in zip(target, dims, strict=True))
    return site.input(0) if fits and (open_places == 0 or (open_places == 1 and 0 not in dims)) else None


def transpose(site: Site) -> ir.Value | None:
    """Transpose that moves nothing, or only axes of size one past each other."""
    dims = site.shapes.dims(site.input(0))
    perm = permutation(site)
    if perm is None:
        return None
    if perm == sorted(perm):
        return site.input(0)
    if dims is None or len(dims) != len(perm):
        return None
    wide = [axis for axis in perm if dims[axis] != 1]
    same = all(dims[axis] == dims[i] and dims[i] is not None for i, axis in enumerate(perm))
    return site.input(0) if same and wide == sorted(wide) else None


def permutation(site: Site) -> list[int] | None:
    """The axes of a Transpose, from its attribute or its input's rank; None if unknown or not a permutation."""
    perm = site.attributes.get("perm")
    if perm is None:
        rank = site.shapes.rank(site.input(0))
        return None if rank is None else list(range(rank))[::-1]
    return list(perm) if sorted(perm) == list(range(len(perm))) else None


def slice_all(site: Site) -> ir.Value | None:
    """Slice from the start to the end in steps of one."""
    starts, ends = site.setting("starts", 1, 10), site.setting("ends", 2, 10)
    if starts is None or ends is None or len(starts) != len(ends):
        return None
    steps = site.ints(4) if site.opset >= 10 and site.input(4) is not None else [1] * len(starts)
    given = (site.opset >= 10 and site.input(3) is not None) or "axes" in site.attributes
    axes = site.setting("axes", 3, 10) if given else list(range(len(starts)))
    if steps is None or axes is None or len(axes) != len(ends):
        return None
    if any(step != 1 for step in steps) or any(start != 0 for start in starts):
        return None
    dims = site.shapes.dims(site.input(0)) if any(end < _TO_THE_END for end in ends) else None
    for end, axis in zip(ends, axes, strict=True):
        if end >= _TO_THE_END:
            continue
        if dims is None or not -len(dims) <= axis < len(dims):
            return None
        size = dims[axis]
        if not isinstance(size, int) or end < size:
            return None
    return site.input(0)


def pad_nothing(site: Site) -> ir.Value | None:
    """Pad by zero on every side."""
    pads = site.setting("paddings" if site.opset < 2 else "pads", 1, 11)
    return site.input(0) if pads is not None and not any(pads) else None


def expand(site: Site) -> ir.Value | None:
    """Expand to a shape that the input has, or that asks for nothing."""
    if site.shapes.same_dims(site.input(0), site.node.outputs[0]):
        return site.input(0)
    target = site.ints(1)
    return site.input(0) if target is not None and absorbs(site, site.input(0), target) else None


def tile_once(site: Site) -> ir.Value | None:
    """Tile with one repetition along every axis."""
    repeats = site.ints(1) if site.opset >= 6 else None
    return site.input(0) if repeats is not None and all(count == 1 for count in repeats) else None


def clip_nothing(site: Site) -> ir.Value | None:
    """Clip without limits. Before version 11 limits that are left out are the largest finite numbers."""
    free = site.opset >= 11 and site.input(1) is None and site.input(2) is None
    return site.input(0) if free else None


def reduce_nothing(site: Site) -> ir.Value | None:
    """ReduceMax, ReduceMin or ReduceProd over axes of size one that are kept."""
    given = (site.opset >= 18 and site.input(1) is not None) or "axes" in site.attributes
    axes = site.setting("axes", 1, 18) if given else []
    if axes is None or site.attributes.get("keepdims", 1) != 1:
        return None
    if not axes and site.attributes.get("noop_with_empty_axes"):
        return site.input(0)
    dims = site.shapes.dims(site.input(0))
    if dims is None or any(not -len(dims) <= axis < len(dims) for axis in axes):
        return None
    return site.input(0) if all(dims[axis] == 1 for axis in axes or range(len(dims))) else None


def arithmetic(site: Site) -> ir.Value | None:
    """``x * 1``, ``x / 1``, ``x - 0``, ``x + -0.0``, ``x ** 1`` and the like, if the constant does not widen ``x``."""
    op, inputs = site.node.op_type, site.node.inputs
    if site.opset < 7 or len(inputs) != 2:
        return None
    for x, other in ((inputs[0], inputs[1]), (inputs[1], inputs[0])):
        tensor = constant_of(other)
        if x is not None and tensor is not None and tensor.size <= _READ_LIMIT and _is_neutral(op, tensor):
            return x if absorbs(site, x, list(tensor.shape.numpy())) and _keeps_bits(site, x) else None
        if op in ("Sub", "Div", "Pow"):
            break
    return None


def _is_neutral(op: str, tensor: ir.TensorProtocol) -> bool:
    if tensor.dtype in (ir.DataType.STRING, ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return False
    array = tensor.numpy()
    if op in ("Mul", "Div", "Pow"):
        return bool((array == 1).all())
    if op in ("And", "Or", "Xor"):
        return bool((array == (op == "And")).all())
    if not bool((array == 0).all()):
        return False
    if not tensor.dtype.is_floating_point():
        return True
    negative = np.signbit(array.astype(np.float64))
    return bool(negative.all()) if op == "Add" else not bool(negative.any())


def _keeps_bits(site: Site, x: ir.Value) -> bool:
    """Powers of integers may be computed in floating point, where large ones lose digits even to the power of one."""
    if site.node.op_type != "Pow":
        return True
    dtype = site.shapes.dtype(x)
    return dtype is not None and dtype.is_floating_point()


def absorbs(site: Site, x: ir.Value | None, dims: list[int]) -> bool:
    """Whether broadcasting ``x`` with a tensor of shape ``dims`` certainly keeps the shape of ``x``."""
    if not dims:
        return True
    have = site.shapes.dims(x)
    if have is None or len(have) < len(dims):
        return False
    return all(d in (1, h) for d, h in zip(reversed(dims), reversed(have), strict=False))


RULES: dict[str, Callable[[Site], ir.Value | None]] = {
    "Identity": identity,
    "Concat": one_input,
    "Sum": one_input,
    "Max": one_input,
    "Min": one_input,
    "Mean": one_input,
    "Split": one_output,
    "Dropout": dropout,
    "Cast": cast,
    "CastLike": cast,
    "Reshape": reshape,
    "Flatten": same_shape,
    "Squeeze": same_shape,
    "Transpose": transpose,
    "Slice": slice_all,
    "Pad": pad_nothing,
    "Expand": expand,
    "Tile": tile_once,
    "Clip": clip_nothing,
    "ReduceMax": reduce_nothing,
    "ReduceMin": reduce_nothing,
    "ReduceProd": reduce_nothing,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor"), arithmetic),
}
"""The rule for each operator that may do nothing."""
