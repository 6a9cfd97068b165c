"""What a search with two engines is made of, in a form that can be sent to another process or machine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from surgeon_debug.find.content_address import content_address
from surgeon_debug.find.lab import Lab
from surgeon_debug.find.model_spec import OpenedEngines, PieceSpec
from surgeon_debug.limits import Limits
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Value


@dataclasses.dataclass
class OpenedPairs(OpenedEngines):
    """The same, and pairs of a reference and a suspect that nobody uses."""

    spare: list[tuple[Engine, Engine]] = dataclasses.field(default_factory=list)


class LabSpec(PieceSpec[OpenedPairs]):
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

    opens = OpenedPairs

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
        super().__init__(model, feeds, allow_external=allow_external)
        self.reference, self.target = reference, target
        self.limits, self.postprocess = limits or Limits(), postprocess
        self.timeout, self.memory_cap, self.by_values = timeout, memory_cap, by_values
        if engines:
            self._open.spare.append(engines)

    def following(self, by_values: bool) -> LabSpec:
        """The same for a search that follows a failure of values, or one that the suspect shows by itself.

        Both share what is open.
        """
        return self._like(by_values=by_values)

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
        self._open.engines.append(engine)
        return engine

    def _take_back(self, engines: tuple[Engine, Engine]) -> None:
        """Keep the engines of a lab for the next one."""
        with self._open.lock:
            self._open.spare.append(engines)
