"""Judge the layers of one segment: measure, find the noise floor where there is something to explain, and decide."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surgeon_debug.attribution import Attribution
from surgeon_debug.compare import Difference
from surgeon_debug.comparison import TensorResult
from surgeon_debug.differential import SegmentValues, Walker
from surgeon_debug.emulate import Emulation, Unit, emulate, unit_of
from surgeon_debug.layer_plan import Layer
from surgeon_debug.layer_verdict import SUSPECT, Facts, judge_layer
from surgeon_debug.limits import Limits
from surgeon_debug.noise_floor import Floor, Stripe, worst_stripe
from surgeon_debug.onset import onset
from surgeon_debug.precision import precision_of
from surgeon_debug.rounding_bound import bound_ratio
from surgeon_debug.screen import Screen
from surgeon_debug.total import root_ratio
from surgeon_debug.triple import Triple
from surgeon_debug.values import kind_of
from surgeon_debug.verdict import Judgement, Verdict, coarsest
from surgeon_debug.whole_run import by_limits

_CLOSER = {Verdict.WRONG, Verdict.SUSPECT, Verdict.OVERFLOW, Verdict.ILL_CONDITIONED, Verdict.DIFFER}
_ON_THE_WAY = 16  # units of relative error in a number that just leaves the range
_MAX_CLOSER = 64  # layers of one comparison that get the full set of metrics


@dataclasses.dataclass
class _Measured:
    """One layer over all samples."""

    layer: Layer
    total: Screen
    introduced: Screen | None
    inherited: Screen | None
    by_sample: list[float]
    unisolated: str
    floor: Floor | None = None
    ratio: float | None = None
    stripe: Stripe | None = None
    bound: float | None = None
    own_inputs: float | None = None
    unjudged: str = ""
    lost: tuple[str, ...] = ()
    overflowed: bool = False
    precision: str = "float32"


class LayerJudge:
    """Takes the values of segments and makes results.

    Args:
        reference: The side that is believed; its engine emulates precisions.
        target: The side under test.
        engine_precision: What the target's engine computes in, if that is not what its model says.
        limits: The caller's own limits, which replace the noise floor.
        random: Tensors that are random or follow from random numbers.
        stacked: Tensors whose first dimensions count iterations of loops, and how many do.
        seed: Decides the signs of perturbations.
    """

    def __init__(
        self,
        reference: Walker,
        target: Walker,
        *,
        engine_precision: str | None,
        limits: Limits,
        random: frozenset[str] = frozenset(),
        stacked: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        self._reference, self._target = reference, target
        self._engine_precision = engine_precision
        self._limits = limits
        self._random = random
        self._stacked = stacked or {}
        self._seed = seed
        self._closer = 0
        self._errors: dict[str, float] = {}  # relative total error of each tensor so far
        self.results: dict[str, TensorResult] = {}
        self.unobserved: dict[str, str] = {}

    def __call__(self, values: SegmentValues) -> None:
        """Judge one segment."""
        measured = [m for layer in values.segment.layers if (m := self._measure(layer, values)) is not None]
        self._explain([item for item in measured if not self._limits.for_tensor(item.layer.tensor)], values)
        for item in measured:
            self.results[item.layer.tensor] = self._result(item, values)

    def _measure(self, layer: Layer, values: SegmentValues) -> _Measured | None:
        name = layer.tensor
        if any(name not in sample for sample in values.reference):
            return None
        if any(name not in sample for sample in values.target):
            self.unobserved.setdefault(name, f"not delivered by {self._target.engine.label}")
            return None
        alone = all(name in sample for sample in values.isolated)
        triple, by_sample = Triple(), []
        for s, (ours, theirs) in enumerate(zip(values.reference, values.target, strict=True)):
            if alone:
                own = Triple()
                own.add(ours[name], theirs[name], values.isolated[s][name], sample=s)
                by_sample.append(_error_of(own.introduced))
                triple.merge(own)
            else:
                triple.total.add(ours[name], theirs[name], sample=s)
        self._errors[name] = _error_of(triple.total)
        if not alone:
            return _Measured(layer, triple.total, None, None, [], values.unisolated.get(name, "not asked for"))
        return _Measured(layer, triple.total, triple.introduced, triple.inherited, by_sample, "")

    def _explain(self, measured: Sequence[_Measured], values: SegmentValues) -> None:
        """Give a noise floor to every layer whose own error asks for one."""
        asking = []
        for item in measured:
            name = item.layer.tensor
            unit = unit_of(self._target, name, values, self._engine_precision)
            item.precision = "quantisation" if unit.quantised else unit.precision
            item.lost = tuple(sorted(read for read in unit.reads if read in values.lost))
            if item.introduced is None or name in self._random:
                continue
            item.overflowed = _overflowed(name, values, unit.precision) or (
                item.introduced.special_mismatches > 0 and _cast_away(unit, values)
            )
            if _asks(item.introduced, unit.quick_limit):
                asking.append((item, unit))
        if not asking:
            return
        found = emulate(self._reference, {item.layer.tensor: unit for item, unit in asking}, values, self._seed)
        for item, _ in asking:
            self._weigh(item, found[item.layer.tensor], values)
        for item, unit in asking:
            if not unit.quantised and item.introduced is not None and not item.introduced.exact:
                numbers = precision_of(unit.precision)
                item.bound = bound_ratio(self._reference, item.layer.tensor, numbers, unit.terms, values)
        suspects = [item for item, _ in asking if item.ratio is not None and item.ratio > SUSPECT]
        for item in suspects:
            item.own_inputs = found[item.layer.tensor].own_inputs(self._reference, values)

    def _weigh(self, item: _Measured, found: Emulation, values: SegmentValues) -> None:
        item.unjudged = found.failed
        item.floor = found.floor
        if found.floor is None or item.introduced is None or item.introduced.exact:
            return
        error = item.introduced.rel_l2
        ratio = error / found.floor.relative if found.floor.relative else (math.inf if error else 0.0)
        if not found.quantised:
            for r, i, floor in zip(values.reference, values.isolated, found.by_sample, strict=True):
                stripe = worst_stripe(r[item.layer.tensor], i[item.layer.tensor], floor)
                if stripe is not None and stripe.ratio > ratio:
                    ratio, item.stripe = stripe.ratio, stripe
        item.ratio = ratio

    def _result(self, item: _Measured, values: SegmentValues) -> TensorResult:
        layer = item.layer
        attribution = self._attribution(item)
        facts = Facts(
            total=item.total,
            introduced=item.introduced,
            attribution=attribution,
            flips=item.floor.flips if item.floor is not None else 0.0,
            overflowed=item.overflowed,
            lost_inputs=item.lost,
            accumulated=coarsest(layer.precision, *([self._engine_precision] if self._engine_precision else [])),
            rounds_to_integers=layer.rounds_to_integers,
        )
        difference = None
        asked = self._limits.for_tensor(layer.tensor)
        if asked:
            difference = self._full(item, values, introduced=False)
            judgement = by_limits(difference, asked)
        elif layer.tensor in self._random:
            judgement = Judgement(Verdict.SKIPPED, "follows from random numbers, which differ from run to run")
        else:
            judgement = judge_layer(facts)
        if difference is None and judgement.verdict in _CLOSER and self._closer < _MAX_CLOSER:
            self._closer += 1
            difference = self._full(item, values, introduced=item.introduced is not None)
        if judgement.verdict is Verdict.WRONG and layer.tensor in self._stacked:
            attribution = dataclasses.replace(attribution, onset=self._onset(item, values))
        return TensorResult(layer.tensor, layer.node, layer.op, difference, judgement, item.total, attribution)

    def _onset(self, item: _Measured, values: SegmentValues) -> tuple[int, ...]:
        """The first iteration that is wrong, over all samples."""
        name, floor = item.layer.tensor, item.floor.relative if item.floor is not None else None
        found = [
            onset(r[name], i[name], self._stacked[name], floor)
            for r, i in zip(values.reference, values.isolated, strict=True)
        ]
        return min((first for first in found if first is not None), default=())

    def _attribution(self, item: _Measured) -> Attribution:
        introduced, inherited = item.introduced, item.inherited
        inherits = None if inherited is None else _over(inherited, item.total)
        return Attribution(
            introduced=None if introduced is None else _error_of(introduced),
            inherited=inherits,
            amplification=self._amplification(item, inherits),
            precision=item.precision,
            floor=item.floor.relative if item.floor is not None else None,
            ratio=item.ratio,
            bound=item.bound,
            conditioning=item.floor.conditioning if item.floor is not None else None,
            own_inputs=item.own_inputs,
            stripe=item.stripe,
            worst_sample=int(np.argmax(item.by_sample)) if item.by_sample else 0,
            introduced_worst=max(item.by_sample, default=None),
            introduced_mean=float(np.mean(item.by_sample)) if item.by_sample else None,
            unjudged=item.unisolated or item.unjudged,
        )

    def _amplification(self, item: _Measured, inherited: float | None) -> float | None:
        source = self._target.source
        index = source.producer.get(item.layer.tensor)
        if index is None or inherited is None or item.total.exact:
            return None
        incoming = math.sqrt(sum(self._errors.get(name, 0.0) ** 2 for name in source.nodes[index].reads))
        return inherited / incoming if incoming and math.isfinite(incoming) else None

    def _full(self, item: _Measured, values: SegmentValues, *, introduced: bool) -> Difference:
        """The full set of metrics: of the introduced error, or of the total."""
        name = item.layer.tensor
        tally = self._limits.tally(name, compute="" if item.precision == "quantisation" else item.precision)
        others = values.isolated if introduced else values.target
        for s, (ours, theirs) in enumerate(zip(values.reference, others, strict=True)):
            tally.add(ours[name], theirs[name], sample=s)
        return tally.difference()


def _error_of(screen: Screen) -> float:
    """Relative L2 of numbers; of what has no rounding, the share of elements that differ."""
    if screen.mismatch:
        return math.inf
    if screen.exact:
        return screen.unequal / max(1, screen.elements)
    return math.inf if screen.special_mismatches else screen.rel_l2


def _over(screen: Screen, total: Screen) -> float:
    """The error of one screen over the reference of another."""
    if screen.exact or screen.mismatch or total.mismatch:
        return _error_of(screen)
    if screen.special_mismatches:
        return math.inf
    return root_ratio(screen.dd, total.rr)


def _asks(introduced: Screen, quick_limit: float) -> bool:
    """Whether an error is worth explaining: not equal, and not plainly the rounding of the precision."""
    if introduced.unequal == 0 or introduced.mismatch:
        return False
    if introduced.exact:
        return True
    if introduced.special_mismatches:
        return False
    return not introduced.rel_l2 <= quick_limit


def _overflowed(name: str, values: SegmentValues, precision: str) -> bool:
    """Whether whatever is not finite in the target alone is, in the reference, beyond the range of the precision."""
    numbers = precision_of(precision)
    if math.isinf(numbers.largest):
        return False
    # What is rounded on the way may be a little larger in the target than in the reference.
    largest = numbers.largest * (1.0 - _ON_THE_WAY * numbers.unit)
    seen = False
    for ours, alone in zip(values.reference, values.isolated, strict=True):
        r, i = ours[name], alone.get(name)
        if not isinstance(r, np.ndarray) or not isinstance(i, np.ndarray) or not _comparable(r, i):
            return False
        with np.errstate(invalid="ignore"):
            apart = np.isfinite(r) & ~np.isfinite(i)
            if not apart.any():
                continue
            seen = True
            if not (np.abs(r[apart].astype(np.float64)) > largest).all():
                return False
    return seen


def _cast_away(unit: Unit, values: SegmentValues) -> bool:
    """Whether the target casts an input of a layer to a type that cannot hold it.

    So it is behind a layer that was kept in float32 because its values do not fit into float16: then the next one is
    where they are lost.
    """
    largest = precision_of(unit.precision).largest
    if "Cast" not in unit.ops or math.isinf(largest):
        return False
    for sample in values.golden:
        for name in unit.reads:
            value = sample.get(name)
            if isinstance(value, np.ndarray) and kind_of(value) == "float" and value.size:
                beyond = np.abs(value[np.isfinite(value)].astype(np.float64))
                if beyond.max(initial=0.0) > largest:
                    return True
    return False


def _comparable(r: np.ndarray[Any, Any], i: np.ndarray[Any, Any]) -> bool:
    return kind_of(r) == "float" and kind_of(i) == "float" and r.shape == i.shape
