"""When two operators in a row undo each other, or do together what one of them can do alone.

Each rule looks at the second of the two. What it returns is the value that the second one's output equals, or a new
input (and attribute) with which the second one does the work of both.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from surgeon_passes.attributes import plain_attributes
from surgeon_passes.neutral import Site, permutation

_D = ir.DataType
_HALVES = {_D.FLOAT, _D.DOUBLE}
# Every value of the key can be held by each of these types, so that a cast there and back changes nothing.
_WIDER: dict[ir.DataType, set[ir.DataType]] = {
    _D.BOOL: {*_HALVES, _D.FLOAT16, _D.BFLOAT16, _D.INT8, _D.INT16, _D.INT32, _D.INT64}
    | {_D.UINT8, _D.UINT16, _D.UINT32, _D.UINT64},
    _D.UINT8: {*_HALVES, _D.FLOAT16, _D.BFLOAT16, _D.INT16, _D.INT32, _D.INT64, _D.UINT16, _D.UINT32, _D.UINT64},
    _D.INT8: {*_HALVES, _D.FLOAT16, _D.BFLOAT16, _D.INT16, _D.INT32, _D.INT64},
    _D.UINT16: {*_HALVES, _D.INT32, _D.INT64, _D.UINT32, _D.UINT64},
    _D.INT16: {*_HALVES, _D.INT32, _D.INT64},
    _D.UINT32: {_D.DOUBLE, _D.INT64, _D.UINT64},
    _D.INT32: {_D.DOUBLE, _D.INT64},
    _D.FLOAT16: _HALVES,
    _D.BFLOAT16: _HALVES,
    _D.FLOAT: {_D.DOUBLE},
}
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclasses.dataclass(frozen=True)
class Shortcut:
    """A node may read past the one before it."""

    kind: str
    """The kind of change."""
    source: ir.Value
    """What it then reads as its first input."""
    attribute: ir.Attr | None = None
    """An attribute that changes with it."""


def undone(site: Site, first: Site) -> ir.Value | None:
    """The input of ``first`` if ``site``, which reads its output, gives it back unchanged."""
    one, two, x = first.node.op_type, site.node.op_type, first.input(0)
    if one == two == "Cast" or (one == two and one in ("Neg", "Not")):
        return x if one != "Cast" or _cast_and_back(site, first) else None
    if {one, two} == {"Squeeze", "Unsqueeze"}:
        axes, again = _axes(first), _axes(site)
        # Both lists count in the tensor of higher rank, so equal numbers are equal axes.
        return x if axes and again and sorted(axes) == sorted(again) else None
    if one == two == "Transpose":
        joined = _joined(site, first)
        return x if joined is not None and joined == sorted(joined) else None
    return None


def shortcut(site: Site, first: Site) -> Shortcut | None:
    """How ``site`` alone can do what it and ``first``, whose output it reads, do together."""
    x = first.input(0)
    if x is None:
        return None
    if site.node.op_type == first.node.op_type == "Transpose":
        joined = _joined(site, first)
        return None if joined is None else Shortcut("merge-transposes", x, ir.AttrInt64s("perm", joined))
    if site.node.op_type == "Reshape" and first.node.op_type in _RESHAPES and site.opset >= 5:
        target = site.ints(1)
        # A zero stands for a dimension of the tensor in between, unless zeros are meant as such.
        if target is not None and (0 not in target or site.attributes.get("allowzero") == 1):
            return Shortcut("merge-reshapes", x)
    return None


def site_before(site: Site) -> Site | None:
    """The node that makes the first input of ``site``, if it has one output in use and plain attributes."""
    value = site.input(0)
    node = value.producer() if value is not None else None
    if node is None or node.domain not in ("", "ai.onnx") or node.outputs[0] is not value:
        return None
    attributes = plain_attributes(node)
    if attributes is None or not node.inputs:
        return None
    return Site(node, attributes, site.opset, site.shapes_of)


def _joined(site: Site, first: Site) -> list[int] | None:
    """The permutation of two transposes in a row."""
    inner = permutation(first)
    outer = permutation(site)
    if outer is None and inner is not None and "perm" not in site.attributes:
        outer = list(range(len(inner)))[::-1]
    if inner is None and outer is not None and "perm" not in first.attributes:
        inner = list(range(len(outer)))[::-1]
    if inner is None or outer is None or len(inner) != len(outer):
        return None
    return [inner[axis] for axis in outer]


def _axes(site: Site) -> list[int] | None:
    return site.setting("axes", 1, 13)


def _cast_and_back(site: Site, first: Site) -> bool:
    have, between, back = site.shapes.dtype(first.input(0)), first.attributes.get("to"), site.attributes.get("to")
    return have is not None and have.value == back and between in {wider.value for wider in _WIDER.get(have, ())}
