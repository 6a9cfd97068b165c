"""Cases: an architecture, a pair of engines, a kind of fault and a difficulty, all decided by a seed and a number."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import zlib

import numpy as np

from surgeon_passes.errors import EngineError
from tests.bench.planted_layers.corrupt import INTEGER, REPLACES_NODE, Fault
from tests.bench.planted_layers.edit import masked_fault, with_large_scale, with_mask
from tests.bench.planted_layers.ground import Ground
from tests.bench.planted_layers.models import ARCHITECTURES
from tests.bench.planted_layers.pairs import PAIRS
from tests.bench.planted_layers.place import Drawing

SCALED = ("gain", "bias", "channel", "tile tail", "noise", "one element", "rounds down", "data dependent")
PLAIN = ("sign", "zeroed tile", "stale tile", "axis slip")
OVERFLOW, MASKED, CANCELLED = "overflow", "masked NaN", "cancelled"
KINDS = (*SCALED, *PLAIN, REPLACES_NODE, INTEGER, MASKED, CANCELLED, OVERFLOW)
"""Every kind of case; overflow has no wrong engine, only a precision that cannot hold the values."""

DIFFICULTIES = (3.0, 30.0, 300.0)
_SHARES = (0.2, 0.4, 0.4)

_FLOAT_PAIRS = {"float32": 0.3, "float16": 0.3, "bfloat16": 0.15, "openvino": 0.15, "quantised": 0.1}
_PAIRS_OF = {
    REPLACES_NODE: {"float32": 0.7, "openvino": 0.3},
    INTEGER: {"quantised": 1.0},
    MASKED: {"float32": 0.4, "float16": 0.3, "bfloat16": 0.15, "openvino": 0.15},
    OVERFLOW: {"float16": 1.0},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One case, before anything is built."""

    number: int
    seed: int
    architecture: str
    pair: str
    kind: str
    difficulty: float | None
    """Introduced error over noise, for kinds that scale; None for the others."""

    @property
    def name(self) -> str:
        """How tables call it."""
        times = "" if self.difficulty is None else f" {self.difficulty:g}x"
        return f"{self.number}: {self.kind}{times} in {self.architecture}, {self.pair}"


@dataclasses.dataclass(frozen=True)
class Planted:
    """A case that is built."""

    case: Case
    """The case; the architecture is the one that had a place for the fault."""
    ground: Ground
    """Models, inputs and healthy values."""
    faults: tuple[Fault, ...]
    """What the wrong engine does; empty for overflow."""
    tensor: str
    """The culprit's tensor."""
    also: tuple[str, ...]
    """Tensors that may be accused as well: the second fault of two."""
    noise: float
    """What a healthy engine introduces there, relative L2."""
    introduced: float
    """What is introduced there in this case."""

    @property
    def expected(self) -> str:
        """The verdict that the culprit deserves."""
        return "overflow" if self.case.kind == OVERFLOW else "wrong"


def draw_cases(count: int, seed: int) -> list[Case]:
    """The first ``count`` cases of a seed: kinds and architectures in turns, all else drawn.

    Args:
        count: How many.
        seed: Decides all of them; more cases of one seed begin with the fewer.
    """
    order = np.random.default_rng([seed, 0])
    kinds = itertools.chain.from_iterable(order.permutation(KINDS) for _ in itertools.count())
    places = np.random.default_rng([seed, 1])
    names = sorted(ARCHITECTURES)
    architectures = itertools.chain.from_iterable(places.permutation(names) for _ in itertools.count())
    cases = []
    for number, kind, architecture in zip(range(count), kinds, architectures, strict=False):
        rng = np.random.default_rng([seed, 2, number])
        pairs = _PAIRS_OF.get(str(kind), _FLOAT_PAIRS)
        pair = rng.choice(list(pairs), p=list(pairs.values()))
        sized = kind in SCALED or kind == CANCELLED
        difficulty = float(rng.choice(DIFFICULTIES, p=_SHARES)) if sized else None
        cases.append(Case(number, seed, str(architecture), str(pair), str(kind), difficulty))
    return cases


def plant(case: Case) -> Planted:
    """Build a case; the next architecture is tried where one has no place for such a fault, or its engines refuse it.

    Raises:
        LookupError: No architecture has a place.
    """
    names = sorted(ARCHITECTURES)
    first = names.index(case.architecture)
    for name in names[first:] + names[:first]:
        with contextlib.suppress(EngineError):
            planted = _plant_in(dataclasses.replace(case, architecture=name))
            if planted is not None:
                return planted
    raise LookupError(f"no architecture has a place for {case.name}")


def _plant_in(case: Case) -> Planted | None:
    rng = np.random.default_rng([case.seed, 3, case.number, zlib.crc32(case.architecture.encode())])
    model = ARCHITECTURES[case.architecture](int(rng.integers(1000)))
    pair = PAIRS[case.pair]
    if case.kind in (MASKED, OVERFLOW):
        return _plant_edited(case, Ground.of(model, PAIRS["float32"]), rng)
    ground = Ground.of(model, pair)
    drawing = Drawing(ground, rng)
    if case.kind == CANCELLED:
        assert case.difficulty is not None
        placed = drawing.cancelled(case.difficulty)
    else:
        placed = drawing.place(case.kind, case.difficulty)
    if placed is None:
        return None
    also = tuple(fault.tensor for fault in placed.faults[1:])
    tensor = placed.faults[0].tensor
    return Planted(case, ground, placed.faults, tensor, also, placed.noise, placed.introduced)


def _plant_edited(case: Case, plain: Ground, rng: np.random.Generator) -> Planted | None:
    """A case in a network that is changed for both sides first."""
    edited = with_mask(plain, rng) if case.kind == MASKED else with_large_scale(plain, rng)
    if edited is None:
        return None
    ground = Ground.of(edited.model, PAIRS[case.pair])
    if edited.tensor not in ground.target or edited.tensor not in ground.reference:
        return None
    if case.kind == OVERFLOW:
        overflows = not np.isfinite(ground.target[edited.tensor].astype(np.float32)).all()
        inf = float("inf")
        return Planted(case, ground, (), edited.tensor, (), 0.0, inf) if overflows else None
    if ground.target[edited.tensor].dtype.kind not in "fV":
        return None
    fault = masked_fault(ground, edited)
    return Planted(case, ground, (fault,), edited.tensor, (), 0.0, ground.introduced(edited.tensor, [fault]))
