"""What trials on one model are made of, wherever they are made: the rest of a spec travels, what is open stays."""

from __future__ import annotations

import abc
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from surgeon_debug.find.groundwork import Groundwork, lay
from surgeon_debug.find.oracle import Oracle
from surgeon_debug.runners.contract import Engine
from surgeon_debug.values import Value


@dataclasses.dataclass
class Opened:
    """What a spec has opened in this process."""

    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


_O = TypeVar("_O", bound=Opened)


class ModelSpec(abc.ABC, Generic[_O]):
    """A model, its inputs, and what is open of them here; it can be pickled, and opens what it needs where it arrives.

    Args:
        model: The model's file, in binary form.
        feeds: Its inputs, one mapping a sample.
        allow_external: Accept weights outside the model's folder.
    """

    opens: type[_O]
    """The kind of what is open, which starts empty."""

    def __init__(self, model: Path, feeds: Sequence[Mapping[str, Value]], *, allow_external: bool) -> None:
        self.model, self.feeds = model, [dict(sample) for sample in feeds]
        self.allow_external = allow_external
        self._open: _O = self.opens()

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "_open"}
        return {**state, "model": self.model.absolute()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._open = self.opens()

    @abc.abstractmethod
    def address(self) -> str:
        """A digest of everything but the elements that outcomes depend on."""

    @abc.abstractmethod
    def make(self) -> Oracle:
        """An oracle, with engines of its own."""

    def _like(self, **changes: Any) -> Self:
        """The same but for some fields; both share what is open."""
        other = type(self).__new__(type(self))
        vars(other).update(vars(self), **changes)
        return other


@dataclasses.dataclass
class OpenedEngines(Opened):
    """A model taken apart, and engines that were started."""

    ground: Groundwork | None = None
    engines: list[Engine] = dataclasses.field(default_factory=list)
    """Those that were started here, to be closed."""
    address: str = ""


_E = TypeVar("_E", bound=OpenedEngines)


class PieceSpec(ModelSpec[_E]):
    """A spec whose trials are pieces of the model."""

    def ground(self) -> Groundwork:
        """The model taken apart, once for all oracles of this process."""
        with self._open.lock:
            if self._open.ground is None:
                self._open.ground = lay(self.model, self.feeds, allow_external=self.allow_external)
            return self._open.ground

    def close(self) -> None:
        """Stop all engines that were started here, and remove what was written."""
        for engine in self._open.engines:
            engine.close()
        if self._open.ground is not None:
            self._open.ground.close()
