"""Draw a node and a size for a fault, and measure both before they are accepted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from tests.bench.planted.fusion import reads_of, windows_of
from tests.bench.planted.host import Host
from tests.bench.planted.plan import BY_VALUES, VALUES, EnginePlan, Wrong
from tests.bench.planted.truth import NODE, Planted, Truth, bits_of
from tests.bench.planted_layers.corrupt import Fault
from tests.bench.planted_layers.place import Drawing, eligible

MARGIN = 3.0
"""How many times the limit an output must be off, at least, to count as wrong beyond doubt."""
TRIES = 25


@dataclasses.dataclass(frozen=True)
class Sized:
    """A fault with its measurements."""

    wrong: Wrong
    noise: float
    introduced: float
    visible: float


class Draw:
    """Draws from one host.

    Args:
        host: Where.
        rng: Decides everything.
    """

    def __init__(self, host: Host, rng: np.random.Generator) -> None:
        self.host, self.rng = host, rng

    @property
    def engine(self) -> EnginePlan:
        """The engine, without faults."""
        return self.host.engine

    def candidates(self) -> Iterator[str]:
        """Floating-point tensors that a fault may be planted in, in a random order."""
        names = [n for n in eligible(self.host.ground) if self.host.place[n] in self.host.live]
        yield from map(str, self.rng.permutation(names)[:TRIES])

    def fault(self, kind: str, tensor: str, delta: float) -> Wrong | None:
        """A fault of a kind whose error is ``delta`` times the tensor; None if it does not suit."""
        fault = Drawing(self.host.ground, self.rng).scaled(kind, tensor, delta)
        return None if fault is None else self.values(fault)

    def values(self, fault: Fault) -> Wrong:
        """A fault that changes values."""
        return Wrong(fault.tensor, VALUES, corruption=dataclasses.asdict(fault))

    def plain(self, kind: str, tensor: str) -> Wrong | None:
        """A fault of a kind without a size; None if the tensor does not suit."""
        fault = Drawing(self.host.ground, self.rng).plain(kind, tensor)
        return None if fault is None else self.values(fault)

    def sized(self, kind: str, tensor: str, times_noise: float, times_limit: float) -> Sized | None:
        """A fault that is so large that it is seen.

        Args:
            kind: One of the kinds that scale.
            tensor: Where.
            times_noise: The error by itself is at least so many times the noise there.
            times_limit: The error of an output is at least about so many times the limit.

        Returns:
            None if that cannot be had with an error as large as the tensor itself.
        """
        state = self.rng.bit_generator.state
        probe = 0.3 if self.engine.precision else 0.02
        first = self.fault(kind, tensor, probe)
        if first is None:
            return None
        seen = self.error(first)
        if not 1e-9 < seen < np.inf:
            return None
        noise = self.host.noise(tensor)
        delta = max(times_noise * noise, probe * times_limit * self.engine.limit / seen)
        for _ in range(3):
            if delta > 1.0:
                return None
            self.rng.bit_generator.state = state  # the same place, another size
            wrong = self.fault(kind, tensor, delta)
            seen = self.error(wrong) if wrong else 0.0
            if wrong and MARGIN * self.engine.limit <= seen:
                return self.measured(wrong, noise, seen)
            delta *= 2.5
        return None

    def measured(self, wrong: Wrong, noise: float | None = None, seen: float | None = None) -> Sized | None:
        """The fault with its measurements; None if nobody can tell it from rounding where it is."""
        noise = self.host.noise(wrong.tensor) if noise is None else noise
        seen = self.error(wrong) if seen is None else seen
        introduced = self.alone(wrong)
        return Sized(wrong, noise, introduced, seen) if introduced >= 12 * noise else None

    def error(self, *wrong: Wrong) -> float:
        """The worst error of an output with some faults."""
        return self.host.error(self.plan(*wrong))

    def alone(self, wrong: Wrong) -> float:
        """The error of the node by itself."""
        return self.host.alone(self.plan(wrong), [self.host.place[wrong.tensor]])

    def plan(self, *wrong: Wrong) -> EnginePlan:
        """The engine with some faults."""
        return dataclasses.replace(self.engine, faults=wrong)

    def truth(self, label: str, culprits: Sequence[Sequence[int]], **more: object) -> Truth:
        """The truth about nodes at some positions."""
        nodes = self.host.nodes
        sets = [sorted(group) for group in culprits]
        own = {i for group in sets for i in group}
        window = label == "window"
        bits = bits_of(len(nodes), max(1, len(sets)), window, float(str(more.pop("probability", 1.0))))
        return Truth(
            label,
            tuple(tuple(nodes[i].name for i in group) for group in sets),
            tuple(tuple(nodes[i].output[0] for i in group) for group in sets),
            near=tuple(nodes[i].name for i in sorted(self._near(own) - own)),
            bits=bits,
            **more,  # type: ignore[arg-type]
        )

    def _near(self, own: set[int]) -> set[int]:
        """Nodes next to some, and those that are fused with them."""
        found: set[int] = set()
        names = {name for i in own for name in self.host.nodes[i].output}
        for i in own:
            found |= {self.host.place[n] for n in reads_of(self.host.nodes[i]) if n in self.host.place}
        found |= {i for i, node in enumerate(self.host.nodes) if names.intersection(reads_of(node))}
        for window in windows_of(self.host.model.graph, self.engine.seed, self.engine.fused):
            positions = {self.host.place[name] for name in window}
            found |= positions if positions & own else set()
        return found

    def one(self, found: Sized, cause: str, **more: object) -> Planted:
        """A case with one faulty node."""
        truth = self.truth(
            NODE,
            [[self.host.place[found.wrong.tensor]]],
            cause=cause,
            noise=found.noise,
            introduced=found.introduced,
            visible=found.visible,
            **more,
        )
        return self.planted(truth, found.wrong)

    def planted(self, truth: Truth, *wrong: Wrong) -> Planted:
        """A case."""
        assert all(w.effect in BY_VALUES or truth.culprits for w in wrong)
        return Planted(self.plan(*wrong), truth, self.host.model, self.host.feeds)
