"""Prices trials in builds and runs, and picks what tells most for its time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

PACE = 0.5
"""How far a learned rate follows one trial: half of the way, on a logarithmic scale."""


@dataclasses.dataclass(frozen=True)
class Price:
    """What a trial takes.

    Raises:
        ValueError: A part is negative.
    """

    builds: float = 0.0
    """Models that the engine under test compiles, in models of the whole's size."""
    runs: float = 0.0
    """Times that it runs one."""
    reference_runs: float = 0.0
    """Times that the reference runs one."""

    def __post_init__(self) -> None:
        if min(self.builds, self.runs, self.reference_runs) < 0:
            raise ValueError(f"a price cannot be negative: {self}")


@dataclasses.dataclass(frozen=True)
class Rates:
    """What builds and runs cost, in seconds each.

    Raises:
        ValueError: One is not positive.
    """

    build_seconds: float = 10.0
    run_seconds: float = 0.1
    reference_seconds: float = 0.1

    def __post_init__(self) -> None:
        if not min(self.build_seconds, self.run_seconds, self.reference_seconds) > 0:
            raise ValueError(f"everything takes some time: {self}")

    def seconds(self, price: Price) -> float:
        """How long a trial is expected to take."""
        return (
            price.builds * self.build_seconds
            + price.runs * self.run_seconds
            + price.reference_runs * self.reference_seconds
        )

    def learned(self, price: Price, seconds: float) -> Rates:
        """Rates that take one more trial into account.

        Each is multiplied by a power of how much longer the trial took than expected; the power is its share of the
        expected time, so that what hardly counted is hardly changed. Trials of different kinds thus set all three.

        Args:
            price: What the trial took.
            seconds: How long it took; if not positive, nothing is learned.
        """
        expected = self.seconds(price)
        if expected <= 0 or seconds <= 0:
            return self
        factor = seconds / expected

        def follow(count: float, rate: float) -> float:
            return float(rate * factor ** (PACE * count * rate / expected))

        return Rates(
            follow(price.builds, self.build_seconds),
            follow(price.runs, self.run_seconds),
            follow(price.reference_runs, self.reference_seconds),
        )


@dataclasses.dataclass(frozen=True)
class Offer:
    """Something that could be done next."""

    name: str
    bits: float
    """What it is expected to tell."""
    price: Price


def best(offers: Iterable[Offer], rates: Rates) -> Offer:
    """The offer with the most bits a second; what costs nothing and tells something comes before all others.

    Raises:
        ValueError: There is no offer.
    """

    def worth(offer: Offer) -> tuple[float, float]:
        seconds = rates.seconds(offer.price)
        if seconds <= 0:
            return (float("inf") if offer.bits > 0 else 0.0), offer.bits
        return offer.bits / seconds, offer.bits

    found = max(offers, key=worth, default=None)
    if found is None:
        raise ValueError("there is nothing to choose from")
    return found
