"""Pairs of values taken apart into pairs of arrays: sequences item by item, maps key by key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from surgeon_debug.values import Value, dtype_name, kind_of


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """Two arrays of one shape, or the reason why two values cannot be compared."""

    where: tuple[int | str, ...]
    """Position or key in each container on the way."""
    reference: Value
    """An array."""
    target: Value
    """An array of the same shape and kind."""
    text: bool = False
    """Whether the elements are text."""
    mismatch: str = ""
    """Why they cannot be compared, as a phrase; empty if they can."""


def leaves(reference: Value, target: Value, where: tuple[int | str, ...] = ()) -> Iterator[Leaf]:
    """The pairs of arrays in two values; containers that do not fit each other give one leaf that says so.

    Args:
        reference: As :func:`surgeon_debug.values.normalise` returns it.
        target: Likewise.
        where: Where the two stand, for :attr:`Leaf.where`.
    """
    kind = kind_of(reference)
    if kind != kind_of(target) or kind == "raw":
        yield Leaf(where, None, None, mismatch=f"{dtype_name(reference)} against {dtype_name(target)}")
    elif kind in ("sequence", "map"):
        yield from _items(reference, target, where)
    elif kind != "none":
        if reference.shape != target.shape:
            yield Leaf(where, None, None, mismatch=f"shape {dims(reference.shape)} against {dims(target.shape)}")
        else:
            yield Leaf(where, reference, target, text=kind == "text")


def _items(reference: Value, target: Value, where: tuple[int | str, ...]) -> Iterator[Leaf]:
    if isinstance(reference, Mapping):
        if reference.keys() != target.keys():
            reason = f"a map of {len(reference)} keys against one with other keys"
            yield Leaf(where, None, None, mismatch=reason)
            return
        for key, item in reference.items():
            yield from leaves(item, target[key], (*where, str(key)))
    elif len(reference) != len(target):
        yield Leaf(where, None, None, mismatch=f"{len(reference)} items against {len(target)}")
    else:
        for i, (r, t) in enumerate(zip(reference, target, strict=True)):
            yield from leaves(r, t, (*where, i))


def shape_of(value: Value) -> tuple[int, ...]:
    """The shape of an array; of a container its length; empty for nothing."""
    kind = kind_of(value)
    if kind in ("sequence", "map"):
        return (len(value),)
    return () if kind == "none" else tuple(value.shape)


def dims(shape: tuple[int, ...]) -> str:
    """A shape as people write it: ``2x3``, ``scalar``."""
    return "x".join(map(str, shape)) or "scalar"


def plain(item: Any) -> Any:
    """A numpy or ml_dtypes scalar as Python has it."""
    kind = kind_of(item)
    found: Any = {"float": float, "int": int, "bool": bool, "complex": complex}.get(kind, str)(item)
    return found
