"""A group of nodes as a model of its own, on the reference's values."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from surgeon_debug.feed_pieces import FedPiece, isolated_piece
from surgeon_debug.golden import GoldenReader
from surgeon_debug.ladder import Group
from surgeon_debug.noise_floor import DRAWS, amplitude, perturb
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.precision import precision_of
from surgeon_debug.runners.contract import Engine
from surgeon_debug.seen_tensor import look_at
from surgeon_debug.values import Value
from surgeon_passes.errors import EngineError


@dataclasses.dataclass(frozen=True)
class Piece:
    """A group, cut out."""

    path: Path
    """The model."""
    wanted: tuple[str, ...]
    """Its outputs, by the model's names."""
    fed: FedPiece
    """Its inputs, one set a sample."""
    whole: bool
    """Whether it is all of the model."""


class GroupCutter:
    """Cuts groups out of a model.

    Args:
        model: The model.
        golden: The reference's values, and the inputs.
        folder: Where pieces may be written.
        makers: The node of the main graph that computes each tensor.
    """

    def __init__(self, model: ir.Model, golden: GoldenReader, folder: Path, makers: Mapping[str, str]) -> None:
        self._model, self._golden, self._folder, self._makers = model, golden, folder, makers
        self._source: PieceSource | None = None

    def cut(self, group: Group) -> Piece:
        """A piece that computes what a group writes from what it reads.

        Raises:
            EngineError: Nothing that it writes has a name in the model.
        """
        self._source = self._source or PieceSource(self._model, self._folder, "piece")
        source = self._source
        wanted = [name for name in group.writes if name in source.producer] or self._ends(source, group)
        if not wanted:
            raise EngineError("the group writes nothing that the model has a name for")
        ready = [name for name in self._golden.names(0) if name in self._makers]
        ready = [name for name in ready if self._makers[name] not in group.nodes]
        nodes, reads = source.closure(wanted, ready)
        names = {*reads, *wanted}
        samples: list[dict[str, Value]] = [
            {
                **self._golden.feeds(s),
                **{name: self._golden.get(s, name) for name in names if self._golden.has(s, name)},
            }
            for s in range(self._golden.samples)
        ]
        fed = isolated_piece(source, wanted, ready, samples, {})
        return Piece(source.write(fed.cut), tuple(wanted), fed, len(nodes) == len(source.nodes))

    def _ends(self, source: PieceSource, group: Group) -> list[str]:
        """What others read of a group's nodes: for one that was told by a tensor in a body."""
        own = [node for node in source.nodes if node.title in group.nodes]
        read = {name for node in source.nodes if node.title not in group.nodes for name in node.reads}
        return [name for node in own for name in node.writes if name in read or name in source.outputs]


def conditioning(engine: Engine, piece: Piece, precision: str, golden: GoldenReader, seed: int = 0) -> float:
    """How many times larger the relative error of what a group writes is than that of what it reads; at least 1.

    The reference runs it on inputs that are off by what the precision rounds away.

    Args:
        engine: The reference.
        piece: The group.
        precision: The coarsest that its values went through.
        golden: The reference's values.
        seed: Decides the signs.

    Raises:
        EngineError: The reference does not run it.
    """
    numbers = precision_of(precision)
    rng = np.random.default_rng(seed)
    engine.prepare(piece.path, piece.wanted)
    worst = 1.0
    for (sample, feeds), _ in itertools.product(enumerate(piece.fed.feeds), range(DRAWS)):
        moved = {
            name: perturb(value, numbers, rng) if isinstance(value, np.ndarray) else value
            for name, value in feeds.items()
        }
        for name, value in engine.run(moved).items():
            found = look_at(name, value, golden.get(sample, name))
            if not found.special and not found.mismatch:
                worst = max(worst, found.rel_l2 / amplitude(numbers))
    return worst


def spread(names: Sequence[str], most: int) -> list[str]:
    """At most so many of some names, evenly spread over all of them."""
    if len(names) <= most:
        return list(names)
    return [names[(2 * i + 1) * len(names) // (2 * most)] for i in range(most)]
