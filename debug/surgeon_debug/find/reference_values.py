"""What the reference computes, kept while it fits into memory and computed again when it is asked for otherwise."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from surgeon_debug.feed_pieces import chain_piece
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.runners.contract import Engine
from surgeon_debug.values import Value

_BLOCK = 2000
"""Nodes of one piece; some engines need more than linear time for a graph."""


class ReferenceValues:
    """Tensors of a model as the reference computes them; threads may share them, each with an engine of its own.

    Args:
        source: The model.
        feeds: The model's inputs, one mapping a sample.
        budget: Bytes that tensors may take; what does not fit is computed again each time it is asked for.
        sizes: Bytes of tensors by name, as far as they are known beforehand, to decide whether all of them fit.
    """

    def __init__(
        self,
        source: PieceSource,
        feeds: Sequence[Mapping[str, Value]],
        *,
        budget: int,
        sizes: Mapping[str, int],
    ) -> None:
        self._source, self._feeds = source, feeds
        self._all_fit = len(feeds) * sum(sizes.values()) <= budget
        self._held: list[dict[str, Value]] = [dict(sample) for sample in feeds]
        self._walked = False
        self._lock = threading.Lock()
        self.runs = 0
        """Times that the reference was run so far."""

    def of(self, names: Iterable[str], engine: Engine) -> list[dict[str, Value]]:
        """Values of some tensors and inputs, one mapping a sample; inputs that are left out are not among them.

        Args:
            names: The tensors.
            engine: The reference, for what is not known.

        Raises:
            EngineError: The reference refuses or fails.
        """
        wanted = list(dict.fromkeys(names))
        with self._lock:
            missing = self._missing(wanted)
            if missing and self._all_fit and not self._walked:
                self._walk(engine)
                missing = self._missing(wanted)
            extra = self._compute(missing, engine) if missing else [{} for _ in self._feeds]
            return [
                {name: held[name] if name in held else more[name] for name in wanted if name in held or name in more}
                for held, more in zip(self._held, extra, strict=True)
            ]

    def hold(self, names: Iterable[str], engine: Engine) -> None:
        """Compute tensors and keep them whatever they take."""
        with self._lock:
            if missing := self._missing(names):
                for held, found in zip(self._held, self._compute(missing, engine), strict=True):
                    held.update(found)

    def _missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self._source.producer and name not in self._held[0]]

    def _compute(self, names: Sequence[str], engine: Engine) -> list[dict[str, Value]]:
        nodes, reads = self._source.closure(names, frozenset(self._held[0]))
        return self._run(engine, nodes, reads, names)

    def _walk(self, engine: Engine) -> None:
        """Compute every tensor, block by block."""
        self._walked = True
        source = self._source
        start, count = 0, len(source.nodes)
        while start < count:
            end = min(start + _BLOCK, count)
            while end < count and end in source.glued:
                end += 1
            block = range(start, end)
            writes = {name for i in block for name in source.nodes[i].writes}
            reads = dict.fromkeys(name for i in block for name in source.nodes[i].reads if name not in writes)
            shows = [name for i in block for name in source.nodes[i].writes if name not in source.non_tensors]
            for held, found in zip(self._held, self._run(engine, block, list(reads), shows), strict=True):
                held.update(found)
            start = end

    def _run(
        self, engine: Engine, nodes: Sequence[int], reads: Sequence[str], shows: Sequence[str]
    ) -> list[dict[str, Value]]:
        piece = chain_piece(list(nodes), reads, shows, self._held)
        path = self._source.write(piece.cut)
        try:
            engine.prepare(path, piece.cut.outputs)
            found = [engine.run(sample) for sample in piece.feeds]
        finally:
            path.unlink(missing_ok=True)
        self.runs += len(piece.feeds)
        return found
