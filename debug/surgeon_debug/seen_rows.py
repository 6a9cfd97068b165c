"""What an engine showed as a table: each tensor once, with the layer that makes it, its error and a verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

from surgeon_debug.ladder import Group, Row
from surgeon_debug.runners.tensorrt.layer_map import How, LayerMap
from surgeon_debug.seen_tensor import Look
from surgeon_debug.suspect_group import SeenTensors
from surgeon_debug.verdict import Verdict

_BESIDE = {How.PRODUCER: "after", How.CONSUMER: "before"}


def rows_of(
    seen: SeenTensors,
    layers: LayerMap,
    groups: Sequence[Group],
    follows: Collection[str],
    excused: Collection[str],
    inner: Mapping[str, str],
) -> list[Row]:
    """The tensors in the order in which the engine shows them.

    Args:
        seen: What it showed.
        layers: Its layers.
        groups: Those that go wrong.
        follows: Wrong tensors that follow from these.
        excused: Tensors whose error the rounding of the inputs explains.
        inner: The nodes that compute tensors in bodies, by the names of these in the model.
    """
    starts = {name for group in groups for name in group.shown}
    rows = [_row(name, looks, seen, layers, starts, follows, excused) for name, looks in seen.looks.items()]
    return [_inside(row, seen, inner) for row in rows]


def _inside(row: Row, seen: SeenTensors, inner: Mapping[str, str]) -> Row:
    """A row of a tensor in a body: its node is there, too, and it may begin to be wrong late."""
    if not any(look.how == "body" for look in seen.looks[row.name]):
        return row
    nodes = tuple(dict.fromkeys(inner[tensor] for tensor in row.tensors if tensor in inner)) or row.nodes
    wrong = seen.wrong.get(row.name)
    return dataclasses.replace(row, nodes=nodes, beside="", iteration=wrong[0].occurrence if wrong else None)


def _row(
    name: str,
    looks: Sequence[Look],
    seen: SeenTensors,
    layers: LayerMap,
    starts: Collection[str],
    follows: Collection[str],
    excused: Collection[str],
) -> Row:
    writer = seen.writer(name)
    known = layers.nodes_of(writer.name) if writer is not None else None
    nodes = known.nodes if known is not None else ()
    beside = _BESIDE.get(known.how, "") if known is not None else ""
    compared = [look for look in looks if look.compared]
    tensors = tuple(dict.fromkeys(look.tensor for look in compared))
    worst = _worst((seen.wrong.get(name) and [x for x in compared if x in seen.wrong[name]]) or compared)
    verdict, reason = _judged(name, looks, seen, starts, follows, excused)
    if compared and len(tensors) > 1:
        reason += f"; it may be {' or '.join(tensors)}"
    error, largest = (None, 0.0) if worst is None else (math.inf if worst.special else worst.rel_l2, worst.max_abs)
    return Row(name, tensors, writer.name if writer else "", nodes, beside, error, largest, verdict, reason)


def _worst(looks: Sequence[Look]) -> Look | None:
    """Of the tensors that it may be the one that fits best, the time at which it is worst."""
    times: dict[tuple[int, int], Look] = {}
    for look in looks:
        key = (look.run, look.occurrence)
        if key not in times or _size(look) < _size(times[key]):
            times[key] = look
    return max(times.values(), key=_size, default=None)


def _size(look: Look) -> tuple[int, float]:
    return (look.special, math.inf if math.isnan(look.rel_l2) else look.rel_l2)


def _judged(
    name: str,
    looks: Sequence[Look],
    seen: SeenTensors,
    starts: Collection[str],
    follows: Collection[str],
    excused: Collection[str],
) -> tuple[Verdict, str]:
    if name in excused:
        return Verdict.ILL_CONDITIONED, "the rounding of what goes into its layers explains it"
    if name in seen.grown:
        return Verdict.INHERITS, f"{seen.grown[name][0].words}; the errors of what it is made of explain that"
    if name not in seen.wrong:
        if any(look.compared for look in looks):
            return Verdict.AGREE, "within what the precision of a whole model explains"
        if looks[0].mismatch:
            return Verdict.SKIPPED, looks[0].mismatch
        if looks[0].how == "body":
            return Verdict.SKIPPED, "inside a body, and the reference did not keep it"
        return Verdict.SKIPPED, "no tensor of the model could be told to be it; no NaN or Inf in it"
    first = seen.wrong[name][0]
    words = f"{first.words}, first in iteration {first.occurrence}" if first.how == "body" else first.words
    if name in starts:
        return Verdict.WRONG, words
    if name in follows:
        return Verdict.INHERITS, f"{words}; what goes into its layer is wrong"
    return Verdict.DIFFER, f"{words}; the engine does not say which layer makes it"
