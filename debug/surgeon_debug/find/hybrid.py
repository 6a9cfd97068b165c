"""Share a model between two engines: the suspect computes some nodes, the reference all others.

However the nodes lie, each engine compiles one model. Where values go to and fro between the two, both are run again:
in every round the inputs of one more *level* are right, and what is not yet known is stood in for by the reference's
own values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from surgeon_debug.piece_source import PieceSource

_UNTOUCHED = -1


@dataclasses.dataclass(frozen=True)
class Share:
    """What one engine computes."""

    nodes: tuple[int, ...]
    """Positions of its nodes, ascending."""
    reads: tuple[str, ...]
    """Tensors it is fed."""
    shows: tuple[str, ...]
    """Tensors that the other engine, or the caller, reads."""


@dataclasses.dataclass(frozen=True)
class Hybrid:
    """A model shared between two engines."""

    suspect: Share
    reference: Share
    """Only what depends on the suspect; everything else is as it was."""
    rounds: int
    """How often each runs until every value is right."""
    known: frozenset[str]
    """Tensors read by either whose values are those of the reference alone."""
    outputs: tuple[str, ...]
    """Graph outputs that depend on the suspect."""


def share(source: PieceSource, inside: Collection[int]) -> Hybrid:
    """Plan a run in which some nodes are the suspect's.

    Args:
        source: The model.
        inside: Positions of these nodes; no sequence or optional may lead into or out of them.
    """
    given = set(inside)
    levels = _levels(source, given)
    touched = {name for i, level in enumerate(levels) if level != _UNTOUCHED for name in source.nodes[i].writes}
    suspect_reads = _reads_from_outside(source, given)
    suspect_writes = {name for i in given for name in source.nodes[i].writes}
    outputs = tuple(name for name in dict.fromkeys(source.outputs) if name in touched)
    wanted = [name for name in (*outputs, *suspect_reads) if name in touched and name not in suspect_writes]
    stop = suspect_writes | {name for name in source.producer if name not in touched}
    nodes, reads = source.closure(wanted, stop)
    read_by_reference = set(reads)
    shows = [
        name for i in sorted(given) for name in source.nodes[i].writes if name in read_by_reference or name in outputs
    ]
    shows += _read_outside(source, given, set(shows))
    known = frozenset(name for name in (*suspect_reads, *reads) if name not in touched)
    rounds = 1 + max((levels[i] for i in given), default=0)
    return Hybrid(
        Share(tuple(sorted(given)), suspect_reads, tuple(shows)),
        Share(tuple(nodes), tuple(reads), tuple(dict.fromkeys(wanted))),
        rounds,
        known,
        outputs,
    )


def unread(source: PieceSource, nodes: Sequence[int]) -> list[str]:
    """Tensors that some nodes compute and that none of these nodes reads.

    Args:
        source: The model.
        nodes: Positions of the nodes.
    """
    read = {name for i in nodes for name in source.nodes[i].reads} | source.non_tensors
    return [name for i in nodes for name in source.nodes[i].writes if name not in read]


def _levels(source: PieceSource, given: set[int]) -> list[int]:
    """For each node how many changes of engines lie before it; -1 where the suspect has no part in it."""
    levels: list[int] = []
    for i, node in enumerate(source.nodes):
        before = [(other in given, levels[other]) for other in node.before if levels[other] != _UNTOUCHED]
        if i in given:
            levels.append(max((level + (not theirs) for theirs, level in before), default=0))
        else:
            levels.append(max((level for _, level in before), default=_UNTOUCHED))
    return levels


def _reads_from_outside(source: PieceSource, given: set[int]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for i in sorted(given):
        for name in source.nodes[i].reads:
            if source.producer.get(name) not in given:
                names[name] = None
    return tuple(names)


def _read_outside(source: PieceSource, given: set[int], shown: set[str]) -> list[str]:
    """What nodes outside read although no output depends on it; engines must keep it as they do in the whole model."""
    found: dict[str, None] = {}
    for i, node in enumerate(source.nodes):
        if i not in given:
            for name in node.reads:
                if name not in shown and source.producer.get(name) in given:
                    found[name] = None
    return list(found)
