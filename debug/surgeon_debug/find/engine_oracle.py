"""Trials over the ways to build one engine: build it so, run it some times, judge its outputs against the truth.

A build that fails says nothing about what it would have computed, so it is never counted as the failure that is looked
for: such a trial is unresolved.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.endings import EngineFailure
from surgeon_debug.find.content_address import content_address
from surgeon_debug.find.dimension import Dimension
from surgeon_debug.find.engine_builds import (
    Builder,
    BuildRecord,
    BuildRefused,
    Builds,
    Wish,
    chosen_instead,
    under_new_keys,
)
from surgeon_debug.find.model_spec import ModelSpec, Opened
from surgeon_debug.find.oracle import FailureKind, Signature, TrialRecord
from surgeon_debug.find.signature import of_error, of_outputs
from surgeon_debug.layer_plan import Layer, plan_layers
from surgeon_debug.limits import Limits
from surgeon_debug.pairing import output_names
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Value
from surgeon_debug.whole_run import OutputRules, WholeOutputs
from surgeon_passes.graph import load

RUNS = 3
"""Runs of each engine, because some kernels are not deterministic."""

_MOST_RUNS = 48  # of an engine whose rate of failure is wanted
_ENOUGH_FAILURES = 8
_SECONDS = 5.0
_HALF = 0.5
_ROUNDS = 4  # of pinning ops that have got new keys; each may give others new ones


@dataclasses.dataclass
class OpenedModel(Opened):
    """What is known of the model and of its builds."""

    layers: Mapping[str, Layer] | None = None
    richer: BuildRecord | None = None
    """A build whose cache has keys that ops get beside other tactics."""


class EngineSpec(ModelSpec[OpenedModel]):
    """All that is needed to make an :class:`EngineOracle`; it can be pickled.

    Args:
        model: The model's file, in binary form.
        feeds: Its inputs, one mapping a sample.
        truth: Its outputs as they should be, one mapping a sample.
        builder: Builds engines of it.
        dimension: What the elements are.
        limits: The caller's own limits for outputs.
        postprocess: What is compared instead of the outputs.
        runs: Runs of each engine; it is enough that one fails.
        allow_external: Accept weights outside the model's folder.
    """

    opens = OpenedModel
    worst: float | None = None
    """The error of the engine that fails; one that passes with more than half of it is not taken for right."""
    unbuilt = False
    """Whether the failure that is looked for is one of the build; a build that fails is then one like any other."""
    thorough = False
    """Whether an engine is run on after it failed, to see how often it does."""

    def __init__(
        self,
        model: Path,
        feeds: Sequence[Mapping[str, Value]],
        truth: Sequence[Mapping[str, Value]],
        builder: Builder,
        dimension: Dimension,
        *,
        limits: Limits | None = None,
        postprocess: Postprocess | None = None,
        runs: int = RUNS,
        allow_external: bool = False,
    ) -> None:
        super().__init__(model, feeds, allow_external=allow_external)
        self.truth, self.builder, self.dimension = list(truth), builder, dimension
        self.limits, self.postprocess, self.runs = limits or Limits(), postprocess, runs

    def along(
        self,
        dimension: Dimension,
        runs: int | None = None,
        *,
        thorough: bool = False,
        worst: float | None = None,
        unbuilt: bool = False,
    ) -> EngineSpec:
        """The same with other elements; both share what is open."""
        runs = self.runs if runs is None else runs
        return self._like(dimension=dimension, runs=runs, thorough=thorough, worst=worst, unbuilt=unbuilt)

    def address(self) -> str:
        """A digest of everything but the elements that outcomes depend on."""
        texts = [
            repr(self.limits),
            self.postprocess.text if self.postprocess else "",
            f"{self.runs} {self.thorough} {self.worst} {self.unbuilt}",
        ]
        samples = [*self.feeds, *self.truth]
        texts.append(self.dimension.facts())
        runners = [self.builder.label]
        return content_address(self.model, samples, runners=runners, texts=texts, allow_external=self.allow_external)

    def rules(self, precision: str | None) -> OutputRules:
        """What outputs are judged by."""
        with self._open.lock:
            if self._open.layers is None:
                model = load(self.model, allow_external=self.allow_external)
                self._open.layers = {layer.tensor: layer for layer in plan_layers(model, self.feeds[0])}
            layers = self._open.layers
        return OutputRules(layers, self.limits, (precision,) if precision else ())

    @property
    def richer(self) -> BuildRecord | None:
        """The last build whose cache has keys that ops get beside other tactics; None if there was none."""
        return self._open.richer

    def learn(self, record: BuildRecord) -> None:
        """Remember keys that came anew, so that the next build need not time them again."""
        with self._open.lock:
            known = self._open.richer.tables if self._open.richer is not None else ()
            tables = {table.key: table for table in (*known, *record.tables)}
            self._open.richer = dataclasses.replace(record, tables=tuple(tables.values()), layers=())

    def make(self) -> EngineOracle:
        """An oracle with a builder of its own."""
        return EngineOracle(self, self.builder.make())


class EngineOracle:
    """Builds and judges, one engine at a time.

    Args:
        spec: What is to be built.
        builds: Builds it.
    """

    def __init__(self, spec: EngineSpec, builds: Builds) -> None:
        self._spec, self._builds = spec, builds
        self._names = output_names(load(spec.model, allow_external=spec.allow_external))

    def close(self) -> None:
        """Let go of the engine."""
        self._builds.close()

    def abort(self) -> None:
        """End the trial under way, from another thread."""
        self._builds.abort()

    def evaluate(self, elements: frozenset[int], attempt: int) -> TrialRecord:  # noqa: ARG002  (each builds anew)
        """Make a trial; see :class:`surgeon_debug.find.oracle.Oracle`.

        The payload tells ``failed`` of ``runs`` runs, ``milliseconds`` of a run, ``cache``, and as far as there is
        something to tell ``moved`` keys, the ``record``, and the tactics that keys had ``instead`` of those wanted.
        """
        started = time.monotonic()
        made = self._build(self._spec.dimension.wish(elements))
        payload = self._payload(made)
        if made.ended is not None and not made.unresolved:
            seconds = time.monotonic() - started
            return TrialRecord(made.ended, "", made.reason, seconds=seconds, builds=made.builds, payload=payload)
        if made.record is None or made.unresolved:
            seconds = time.monotonic() - started
            return TrialRecord(None, made.unresolved, seconds=seconds, builds=made.builds, payload=payload)
        seen = self._run()
        payload |= {"failed": seen.failed, "runs": seen.runs}
        if seen.milliseconds:
            payload["milliseconds"] = min(seen.milliseconds)  # others were disturbed
        seconds = time.monotonic() - started
        return TrialRecord(
            seen.signature,
            self._hardly(seen),
            seen.words,
            seen.error,
            seconds,
            made.builds,
            seen.runs * len(self._spec.feeds),
            0,
            payload,
        )

    def _payload(self, made: _Made) -> dict[str, Any]:
        payload: dict[str, Any] = {"moved": list(made.moved)} if made.moved else {}
        if made.record is not None and self._spec.dimension.keeps:
            payload["record"] = made.record.to_json()
        if made.record is not None and made.record.cache:
            payload["cache"] = made.record.cache
        if made.instead:
            payload["instead"] = dict(made.instead)
        return payload

    def _build(self, wish: Wish) -> _Made:
        """Build until the engine is what was wished for.

        A tactic that wants another format gives neighbours other keys, which are timed anew. So the engine is built
        again with the tactics that were wanted under these keys too, unless any known ones will do.
        """
        builds, rounds = 0, 0
        if wish.pins is not None and self._spec.richer is not None:
            wish = under_new_keys(wish, self._spec.richer)
        instead: Mapping[str, str] = {}
        while True:
            builds += 1
            try:
                record = self._builds.build(wish)
            except BuildRefused as error:
                if not (error.missed and wish.strict):
                    return self._unbuilt(error, builds)
                wish = dataclasses.replace(wish, strict=False)
                continue
            if wish.strict or wish.pins is None or not record.cache or record.tactics.keys() <= wish.pins.keys():
                break
            self._spec.learn(record)
            found = None if wish.exact else chosen_instead(wish, record)
            if found is not None:
                instead = found
                break
            again = under_new_keys(wish, self._spec.richer or record)
            if rounds == _ROUNDS or all(record.tactics.get(key) == hash_ for key, hash_ in (again.pins or {}).items()):
                break
            wish, rounds = again, rounds + 1
        objection, moved = self._spec.dimension.objection(wish, record)
        return _Made(record, builds, objection, moved, instead)

    def _unbuilt(self, error: BuildRefused, builds: int) -> _Made:
        """A build that failed: it tells nothing, unless such a failure is looked for, or is the first to be seen.

        The first is seen where records are kept: what its cache holds can be pinned then.
        """
        dimension, record = self._spec.dimension, error.record
        known = record is not None and bool(record.tactics)
        if self._spec.unbuilt or (dimension.keeps and self._spec.thorough and known):
            return _Made(record, builds, ended=error.signature, reason=error.reason, unresolved=_unless(error))
        return _Made(None, builds, error.reason + (f"; {error.last}" if error.last else ""))

    def _run(self) -> _Seen:
        """Run the engine as often as is wanted."""
        spec, seen = self._spec, _Seen()
        rules = spec.rules(self._builds.precision)
        begun = time.monotonic()
        while not self._enough(seen, time.monotonic() - begun):
            seen.runs += 1
            started = time.monotonic()
            try:
                values = [dict(self._builds.run(sample)) for sample in spec.feeds]
            except EngineFailure as error:
                seen.take(of_error(error), str(error), None)
                break  # there may be no engine any more
            seen.milliseconds.append(1000 * (time.monotonic() - started) / max(1, len(values)))
            seen.take(*self._judge(values, rules))
        return seen

    def _hardly(self, seen: _Seen) -> str:
        """Why an engine that passes is not taken for right: near a limit any change of rounding decides."""
        worst = self._spec.worst
        if seen.signature is not None or not worst or seen.error is None or seen.error <= _HALF * worst:
            return ""
        return f"it passes, but is hardly better: relative L2 {seen.error:.2g} instead of {worst:.2g}"

    def _enough(self, seen: _Seen, seconds: float) -> bool:
        if not self._spec.thorough:
            return seen.failed > 0 or seen.runs >= self._spec.runs
        if seen.failed >= _ENOUGH_FAILURES or seen.runs >= _MOST_RUNS:
            return True
        return seconds > _SECONDS and seen.runs >= self._spec.runs

    def _judge(self, values: list[dict[str, Value]], rules: OutputRules) -> tuple[Signature | None, str, float | None]:
        spec = self._spec
        lacking = [name for name in self._names if any(name not in sample for sample in values)]
        if lacking:
            return Signature(FailureKind.SHAPE), f"{lacking[0]}: not delivered", None
        watch = WholeOutputs(self._names, rules, ("the reference", spec.builder.label), spec.postprocess)
        watch.take([{name: sample[name] for name in self._names} for sample in values])
        watch.compare(spec.truth, [{} for _ in values])
        return of_outputs(watch.results(spec.truth[0]))


@dataclasses.dataclass(frozen=True)
class _Made:
    """What a wish came to."""

    record: BuildRecord | None
    """The last build; None if there is no engine."""
    builds: int
    unresolved: str = ""
    """Why nobody can tell what such an engine computes; empty if somebody can."""
    moved: tuple[str, ...] = ()
    """Keys that show it."""
    instead: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Tactics that keys had instead of those wanted."""
    ended: Signature | None = None
    """How the build failed, if that is an answer."""
    reason: str = ""
    """How it failed, as a phrase."""


def _unless(error: BuildRefused) -> str:
    """Why a build that failed tells nothing: it was refused for its cache; empty if it failed by itself."""
    return error.reason if error.signature is None else ""


@dataclasses.dataclass
class _Seen:
    """What some runs of an engine came to."""

    signature: Signature | None = None
    words: str = ""
    error: float | None = None
    runs: int = 0
    failed: int = 0
    milliseconds: list[float] = dataclasses.field(default_factory=list)

    def take(self, signature: Signature | None, words: str, error: float | None) -> None:
        if signature is not None:
            self.failed += 1
            self.signature, self.words = self.signature or signature, self.words or words
        if error is not None and (self.error is None or error > self.error):
            self.error = error
