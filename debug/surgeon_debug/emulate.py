"""Run layers on the reference engine with inputs perturbed by what the target's precision rounds away."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surgeon_debug.differential import SegmentValues, Walker
from surgeon_debug.feed_pieces import isolated_piece
from surgeon_debug.noise_floor import DRAWS, Floor, floor_of, output_units, perturb, rounding_of, terms_of
from surgeon_debug.precision import Precision, coarser, precision_of
from surgeon_debug.quantisation import quantisation_noise
from surgeon_debug.screen import Screen
from surgeon_debug.values import Value, kind_of, nbytes
from surgeon_passes.errors import EngineError

_PRODUCTS = {
    "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention",
    "GroupQueryAttention", "FusedMatMul", "FusedConv", "Loop", "Scan", "If",
}  # fmt: skip
"""Operators that tensor cores compute, and those that may hold such."""

SMALL = 1 << 16
"""Elements up to which a constant is perturbed along with the inputs: biases, means, scales."""

MANY_DRAWS = 10
"""Runs with perturbed inputs where few numbers come out, whose errors may cancel by chance, or such that flip."""

_FEW = 64  # elements

_BATCH = 64 << 20  # bytes of layers that are emulated in one piece


@dataclasses.dataclass(frozen=True)
class Unit:
    """What a layer is computed by in the target: one node, or several where the reference has no such tensors."""

    precision: str
    """The coarsest precision in it."""
    ops: tuple[str, ...]
    """Operators."""
    reads: tuple[str, ...]
    """Tensors it is fed."""
    terms: int
    """How many products its longest sum has."""
    weighted: bool
    """Whether constants take part that are too large to be perturbed themselves."""
    quantised: float
    """Relative error of its inputs and weights by quantisation to integers; 0 if there is none."""

    @property
    def op(self) -> str:
        """The operator that rounds most."""
        return max(self.ops, key=output_units, default="")

    @property
    def quick_limit(self) -> float:
        """The relative L2 error that is rounding without a closer look; 0 if every error deserves one."""
        numbers = precision_of(self.precision)
        if numbers.low or self.quantised:
            return 0.0
        return numbers.unit * max(0.75, 0.4 * math.sqrt(self.terms))


def unit_of(target: Walker, name: str, values: SegmentValues, engine_precision: str | None) -> Unit:
    """What computes ``name`` in the target when the reference's tensors are given."""
    source = target.source
    nodes, reads = source.closure([name], values.available) if name in source.producer else ([], [])
    written = [tensor for i in nodes for tensor in source.nodes[i].writes]
    ops = tuple(source.nodes[i].op for i in nodes)
    precision = "float32"
    for tensor in (*written, *reads):
        kind = target.types.get(tensor)
        if kind is not None and kind_of(np.empty(0, kind)) == "float":
            precision = coarser(precision, kind.name)
    if engine_precision is not None and (engine_precision != "tf32" or not _PRODUCTS.isdisjoint(ops)):
        precision = coarser(precision, engine_precision)
    terms = 1
    for i in nodes:
        node = source.nodes[i]
        inputs = [_shape(source.constant_shape(read), read, values) for read in source.inputs_of(i)]
        output = _shape(None, node.writes[0], values) if node.writes else None
        terms = max(terms, terms_of(node.op, inputs, output or ()), source.window(i))
    weights = [source.constant_shape(weight) or () for i in nodes for weight in source.nodes[i].weights]
    weighted = any(math.prod(shape) > SMALL for shape in weights)
    return Unit(precision, ops, tuple(reads), terms, weighted, quantisation_noise(source, nodes, values.golden))


def _shape(known: tuple[int, ...] | None, name: str, values: SegmentValues) -> tuple[int, ...] | None:
    if known is not None:
        return known
    value = values.golden[0].get(name)
    return value.shape if isinstance(value, np.ndarray) else None


@dataclasses.dataclass(frozen=True)
class Emulation:
    """What emulating one layer came to."""

    name: str
    floor: Floor | None
    failed: str
    """Why there is no floor; empty if there is one."""
    quantised: bool
    available: frozenset[str]
    by_sample: tuple[Floor, ...] = ()
    """The floor of every sample; :attr:`floor` is the highest."""

    def own_inputs(self, reference: Walker, values: SegmentValues) -> float | None:
        """The error the target adds to what the reference makes of the target's own inputs; None if that fails."""
        theirs = [{**g, **t} for g, t in zip(values.golden, values.target, strict=True)]
        try:
            piece = isolated_piece(reference.source, [self.name], values.available, theirs, reference.types)
            found = reference.run(piece)
        except EngineError:
            return None
        seen = Screen()
        for ours, target in zip(found, values.target, strict=True):
            if self.name not in ours or self.name not in target:
                return None
            seen.add(ours[self.name], target[self.name])
        return None if seen.mismatch or seen.exact else seen.rel_l2


def emulate(reference: Walker, units: Mapping[str, Unit], values: SegmentValues, seed: int) -> dict[str, Emulation]:
    """The noise floors of some layers.

    Args:
        reference: The engine that emulates, and its model.
        units: What computes each layer in the target, by tensor.
        values: The segment they are in.
        seed: Decides the signs of perturbations.
    """
    result: dict[str, Emulation] = {}
    groups: dict[tuple[str, int], list[str]] = {}
    for name, unit in units.items():
        sample = values.reference[0][name]
        few = np.size(sample) <= _FEW or kind_of(sample) != "float"
        groups.setdefault((unit.precision, MANY_DRAWS if few else DRAWS), []).append(name)
    for (precision, draws), names in groups.items():
        for batch in _batches(names, values):
            result.update(_emulate(reference, batch, units, precision_of(precision), values, (seed, draws)))
    return result


def _batches(names: Sequence[str], values: SegmentValues) -> list[list[str]]:
    batches: list[list[str]] = [[]]
    room = _BATCH
    for name in names:
        size = nbytes(values.reference[0][name])
        if batches[-1] and size > room:
            batches.append([])
            room = _BATCH
        batches[-1].append(name)
        room -= size
    return batches


def _emulate(
    reference: Walker,
    names: Sequence[str],
    units: Mapping[str, Unit],
    precision: Precision,
    values: SegmentValues,
    chance: tuple[int, int],
) -> dict[str, Emulation]:
    """The floors of one batch; ``chance`` is the seed and the number of draws."""
    seed, count = chance
    available = frozenset(values.available)
    try:
        draws = [_draw(reference, names, precision, values, [seed, draw]) for draw in range(count)]
    except EngineError as error:
        if len(names) > 1:
            half = len(names) // 2
            first = _emulate(reference, names[:half], units, precision, values, chance)
            return {**first, **_emulate(reference, names[half:], units, precision, values, chance)}
        reason = f"the reference cannot emulate it: {error}"
        return {names[0]: Emulation(names[0], None, reason, False, available)}
    result = {}
    for name in names:
        floors = tuple(
            _floor(name, units[name], precision, sample[name], [draw[s] for draw in draws])
            for s, sample in enumerate(values.reference)
        )
        highest = max(floors, key=lambda floor: (floor.flips, floor.relative))
        result[name] = Emulation(name, highest, "", units[name].quantised > 0.0, available, floors)
    return result


def _draw(
    reference: Walker, names: Sequence[str], precision: Precision, values: SegmentValues, seed: list[int]
) -> list[dict[str, Value]]:
    """The layers on perturbed inputs and small constants; one mapping a sample."""
    source = reference.source
    nodes, _ = source.closure(names, values.available)
    constants = {
        weight: perturb(constant, precision, _chance(seed, weight))
        for weight in dict.fromkeys(weight for i in nodes for weight in source.nodes[i].weights)
        if math.prod(source.constant_shape(weight) or ()) <= SMALL and (constant := source.constant(weight)) is not None
    }
    # A lone number may be an exponent or an epsilon, which must not move.
    fixed = {name: value for name, value in constants.items() if kind_of(value) == "float" and value.size > 1}
    piece = isolated_piece(source, names, values.available, values.golden, {}, fixed=fixed)
    labels = {port.name: name for name, port in piece.cut.ports.items()}
    path = source.write(piece.cut)
    try:
        reference.engine.prepare(path, piece.cut.outputs)
        found = []
        for s, feeds in enumerate(piece.feeds):
            rng = {label: _chance([*seed, s], labels[label]) for label in feeds}
            moved = {label: _moved(value, precision, rng[label]) for label, value in feeds.items()}
            found.append(reference.engine.run(moved))
        return found
    finally:
        path.unlink(missing_ok=True)


def _chance(seed: Sequence[int], name: str) -> np.random.Generator:
    """Random numbers of one tensor, the same whichever other tensors are perturbed with it."""
    return np.random.default_rng([*seed, zlib.crc32(name.encode(errors="surrogateescape"))])


def _moved(value: Value, precision: Precision, rng: np.random.Generator) -> Value:
    return perturb(value, precision, rng) if isinstance(value, np.ndarray) else value


def _floor(
    name: str, unit: Unit, precision: Precision, reference: np.ndarray[Any, Any], draws: Sequence[Mapping[str, Value]]
) -> Floor:
    rounding = rounding_of(precision, unit.op, unit.terms, weighted=unit.weighted)
    rounding = math.hypot(rounding, unit.quantised)
    return floor_of(reference, [draw[name] for draw in draws], precision, unit.op, rounding, unit.terms)
