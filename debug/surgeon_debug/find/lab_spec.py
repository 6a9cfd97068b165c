"""What a search with two engines is made of, in a form that can be sent to another process or machine."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.find.content_address import content_address
from surgeon_debug.find.groundwork import Groundwork, lay
from surgeon_debug.find.lab import Lab
from surgeon_debug.limits import Limits
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Value


@dataclasses.dataclass
class _Open:
    """What a spec holds in this process."""

    spare: list[tuple[Engine, Engine]]
    owned: list[Engine] = dataclasses.field(default_factory=list)
    ground: Groundwork | None = None
    address: str = ""
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


class LabSpec:
    """All that is needed to make a :class:`Lab`; it can be pickled.

    Args:
        model: The model's file, in binary form.
        feeds: Its inputs, one mapping a sample.
        reference: The runner that is believed.
        target: The runner that is suspected.
        limits: The caller's own limits for outputs.
        postprocess: What is compared instead of the outputs.
        timeout: Seconds for one prepare or one run of an engine.
        memory_cap: Bytes of memory for the process of each engine.
        allow_external: Accept weights outside the model's folder.
        by_values: Whether the failure shows in values; if not, only the suspect is run.
        engines: The reference and the suspect, if they were made already; they stay the caller's to close.
    """

    def __init__(
        self,
        model: Path,
        feeds: Sequence[Mapping[str, Value]],
        *,
        reference: str,
        target: str,
        limits: Limits | None = None,
        postprocess: Postprocess | None = None,
        timeout: float | None = None,
        memory_cap: int | None = None,
        allow_external: bool = False,
        by_values: bool = True,
        engines: tuple[Engine, Engine] | None = None,
    ) -> None:
        self.model, self.feeds = model, [dict(sample) for sample in feeds]
        self.reference, self.target = reference, target
        self.limits, self.postprocess = limits or Limits(), postprocess
        self.timeout, self.memory_cap = timeout, memory_cap
        self.allow_external, self.by_values = allow_external, by_values
        self._open = _Open([engines] if engines else [])

    def __getstate__(self) -> dict[str, Any]:
        # What is open here is made anew wherever the spec arrives.
        state = {name: value for name, value in vars(self).items() if name != "_open"}
        return {**state, "model": self.model.absolute()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._open = _Open([])

    def following(self, by_values: bool) -> LabSpec:
        """The same for a search that follows a failure of values, or one that the suspect shows by itself.

        Both share what is open.
        """
        other = LabSpec.__new__(LabSpec)
        vars(other).update(vars(self))
        other.by_values = by_values
        return other

    def address(self) -> str:
        """A digest of everything but the elements that outcomes depend on."""
        with self._open.lock:
            if not self._open.address:
                texts = [repr(self.limits), self.postprocess.text if self.postprocess else ""]
                texts += [repr(self.timeout), repr(self.memory_cap)]
                runners = [self.reference, self.target]
                self._open.address = content_address(
                    self.model, self.feeds, runners=runners, texts=texts, allow_external=self.allow_external
                )
            return f"{self._open.address}/{'values' if self.by_values else 'suspect'}"

    def ground(self) -> Groundwork:
        """The model taken apart, once for all labs of this process."""
        with self._open.lock:
            if self._open.ground is None:
                self._open.ground = lay(self.model, self.feeds, allow_external=self.allow_external)
            return self._open.ground

    def make(self) -> Lab:
        """A lab with engines of its own: those of one that was closed, else new ones."""
        return Lab(
            self.ground(),
            self._take(),
            limits=self.limits,
            postprocess=self.postprocess,
            by_values=self.by_values,
            give_back=self._take_back,
        )

    def start_spare(self, count: int) -> None:
        """Have the engines of further labs start in the background, which takes seconds where an engine is large."""
        for _ in range(count):
            engines = self._engine(self.reference), self._engine(self.target)
            with self._open.lock:
                self._open.spare.insert(0, engines)

    @contextlib.contextmanager
    def lend(self) -> Iterator[tuple[Engine, Engine]]:
        """The reference and the suspect, for something that is not a trial."""
        engines = self._take()
        try:
            yield engines
        finally:
            self._take_back(engines)

    def _take(self) -> tuple[Engine, Engine]:
        with self._open.lock:
            if self._open.spare:
                return self._open.spare.pop()
        return self._engine(self.reference), self._engine(self.target)

    def _engine(self, text: str) -> Engine:
        engine = make_engine(text, isolated=True, timeout=self.timeout, memory_cap=self.memory_cap)
        self._open.owned.append(engine)
        return engine

    def _take_back(self, engines: tuple[Engine, Engine]) -> None:
        """Keep the engines of a lab for the next one."""
        with self._open.lock:
            self._open.spare.append(engines)

    def close(self) -> None:
        """Stop all engines that were started here, and remove what was written."""
        for engine in self._open.owned:
            engine.close()
        if self._open.ground is not None:
            self._open.ground.close()
