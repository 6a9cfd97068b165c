"""The inputs of pieces: what a piece is fed from earlier values, under which names and types."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from surgeon_debug.piece_source import Cut, PieceSource, Port
from surgeon_debug.values import Value, element_type_of, kind_of

_FIXED_ELEMENTS = 64  # an integer tensor up to this size is a shape, an axis or a count, and stays a constant

Values = Mapping[str, Value]


@dataclasses.dataclass(frozen=True)
class FedPiece:
    """A piece and its inputs, one set a sample."""

    cut: Cut
    feeds: tuple[dict[str, Value], ...]
    lost: frozenset[str]
    """Tensors that hold finite numbers which the type of their input cannot."""


def chain_piece(
    nodes: Sequence[int],
    reads: Sequence[str],
    shows: Sequence[str],
    values: Sequence[Values],
    settings: Collection[str] = (),
) -> FedPiece:
    """A piece whose nodes feed each other, as in the whole model.

    Args:
        nodes: Positions of the model's nodes.
        reads: Tensors from earlier pieces or from outside.
        shows: Tensors to show.
        values: The values of ``reads``, one mapping a sample.
        settings: Of ``reads``, what is fixed in the piece if it says how to compute rather than what.
    """
    fed = [name for name in reads if all(name in sample for sample in values)]
    constants: dict[str, np.ndarray[Any, Any]] = {}
    for name in fed:
        first = values[0][name]
        if name in settings and isinstance(first, np.ndarray) and is_setting([sample[name] for sample in values]):
            constants[name] = first
    fed = [name for name in fed if name not in constants]
    ports = {name: _port(name, name, [sample[name] for sample in values]) for name in fed}
    feeds = tuple({name: sample[name] for name in fed} for sample in values)
    return FedPiece(Cut(nodes, ports, tuple(shows), constants), feeds, frozenset())


def isolated_piece(
    source: PieceSource,
    wanted: Sequence[str],
    available: Collection[str],
    golden: Sequence[Values],
    own_types: Mapping[str, np.dtype[Any]],
    fixed: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> FedPiece:
    """A piece in which each wanted tensor is computed from given values alone.

    Args:
        source: The model.
        wanted: Tensors to show.
        available: Tensors whose values are given.
        golden: Values of available tensors and of inputs of the graph, one mapping a sample.
        own_types: Types that tensors have in this model, where they are not those of the values.
        fixed: Other values of constants.
    """
    nodes, reads = source.closure(wanted, available)
    produced = {name for i in nodes for name in source.nodes[i].writes}
    ports: dict[str, Port] = {}
    constants: dict[str, np.ndarray[Any, Any]] = dict(fixed or {})
    lost: set[str] = set()
    columns: dict[str, list[Value]] = {}
    for name in reads:
        if any(name not in sample for sample in golden):
            continue  # an optional input that is left out
        given = [sample[name] for sample in golden]
        if name in source.producer and is_setting(given):
            constants[name] = given[0]
            continue
        column = [_typed(value, own_types.get(name)) for value in given]
        if any(_lost(before, after) for before, after in zip(given, column, strict=True)):
            lost.add(name)
        label = f"{source.mark}golden/{name}" if name in produced else name
        ports[name] = _port(name, label, column)
        columns[label] = column
    feeds = tuple({label: column[s] for label, column in columns.items()} for s in range(len(golden)))
    return FedPiece(Cut(nodes, ports, tuple(wanted), constants), feeds, frozenset(lost))


def _port(name: str, label: str, values: Sequence[Value]) -> Port:
    first = values[0]
    if not isinstance(first, np.ndarray):
        return Port(name, 0, None)  # a sequence: an input of the graph, which is declared there
    shapes = [value.shape for value in values if isinstance(value, np.ndarray)]
    shape = None
    if all(len(other) == len(first.shape) for other in shapes):
        same = [all(other[i] == size for other in shapes) for i, size in enumerate(first.shape)]
        shape = tuple(size if equal else None for size, equal in zip(first.shape, same, strict=True))
    return Port(label, element_type_of(first), shape)


def is_setting(values: Sequence[Value]) -> bool:
    """Whether a tensor says how to compute rather than what: a short list of integers, the same in every sample.

    Engines that need such a thing at compile time, or compile better with it, get it as they do in the whole model,
    where it follows from shapes.
    """
    first = values[0]
    if not isinstance(first, np.ndarray) or first.ndim > 1 or first.size > _FIXED_ELEMENTS:
        return False
    if kind_of(first) not in ("int", "bool") or first.dtype.isbuiltin == 2:
        return False
    return all(value.shape == first.shape and bool((value == first).all()) for value in values[1:])


def _typed(value: Value, wanted: np.dtype[Any] | None) -> Value:
    if wanted is None or not isinstance(value, np.ndarray) or value.dtype == wanted:
        return value
    if kind_of(value) != "float" or kind_of(np.empty(0, wanted)) != "float":
        return value
    with np.errstate(over="ignore"):
        return value.astype(wanted)


def _lost(before: Value, after: Value) -> bool:
    if before is after or not isinstance(before, np.ndarray):
        return False
    with np.errstate(invalid="ignore"):
        return bool((np.isfinite(before) & ~np.isfinite(after)).any())
