"""See the failure before anything is searched for: is it there, always, and in the same way?"""

from __future__ import annotations

import collections
import dataclasses

from surgeon_debug.find.flaky_repeats import flaky_repeats
from surgeon_debug.find.oracle import BUILD, FRESH, NAMED, FailureKind, Signature, TrialRecord
from surgeon_debug.find.trials import Trials

MAX_RUNS = 48
"""Runs of a model that does not fail at once: a failure in every tenth run then escapes in 1 of 150 searches."""

_SURE = 8
"""Runs of one that fails each time: a failure in every second run then looks certain in 1 of 250 searches."""

_RATE = 24
"""Times that a flaky failure is seen before its rate is known well enough; not to know it makes a search half as long
again."""

_MOST = 96
"""Runs of a model that fails in some of them."""

_MOST_BUILDS = 40
"""Compilations, where they cost next to nothing."""

_LOOKS, _SURE_OF_BUILD = 6, 3  # of the first so many compilations each is run so often
_QUICK = 1.0  # seconds that further looks at a model that always fails may begin within
_SECONDS = 5.0  # what these further runs may take, or as much as compiling the model did
_SLOW = (FailureKind.CRASHED, FailureKind.HUNG, FailureKind.OUT_OF_MEMORY)
_LEAST_PRICE = 0.1  # the same question again tells less and less


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the whole model does."""

    signature: Signature | None
    """Its failure, the most frequent one; None if it does not fail."""
    words: str
    """The failure as a phrase."""
    runs: int
    """Runs of it."""
    failed: int
    """Runs in which it failed so."""
    error: float | None
    """Relative L2 of its worst output, over all runs."""
    unresolved: str = ""
    """Why nobody can tell what it does."""
    build_seconds: float = 0.0
    """What compiling it takes."""
    run_seconds: float = 0.0
    """What running it and judging its outputs takes."""
    per_build: bool = False
    """Whether chance decides when it is compiled; what is counted as runs are compilations then."""

    named: tuple[str, ...] = ()
    """Nodes that the engine itself names as the ones it refuses; empty if it names none."""

    @property
    def flaky(self) -> bool:
        """Whether it fails in some runs only."""
        return 0 < self.failed < self.runs

    @property
    def repeat_price(self) -> float:
        """What a run costs of what is compiled already, relative to one that must be compiled first."""
        if self.per_build:
            return 1.0
        both = self.build_seconds + self.run_seconds
        return max(_LEAST_PRICE, min(1.0, self.run_seconds / both)) if both > 0 else 1.0

    @property
    def repeats(self) -> int:
        """Runs after which a failure that did not show is not there, but for one case in a hundred."""
        return flaky_repeats(self.failed, self.runs, least=2) if self.flaky else 1


def probe(trials: Trials, everything: frozenset[int], *, by_command: bool = False) -> Probe:
    """Run the whole model until it is clear whether it fails.

    It is compiled twice, because some failures are of one compilation; further runs, and compilations that cost little,
    show those that come and go.

    Args:
        trials: Carries them out.
        everything: All elements.
        by_command: A command decides; what it costs to run it again is not known to be little.
    """
    prober = _Prober(trials, everything)
    prober.begin()
    if not _ends_early(prober.builds[0][0], by_command):
        prober.go_on()
    return prober.summary()


class _Prober:
    """Runs the whole model, and keeps what came out by compilation."""

    def __init__(self, trials: Trials, everything: frozenset[int]) -> None:
        self._trials, self._everything = trials, everything
        self.builds: list[list[TrialRecord]] = []
        self._place: dict[str, int] = {}  # of compilations in these lists; where lanes share the work any may be next
        self._attempts: list[int] = []
        self._spent = 0.0
        # A search that may make few trials needs them for more than to see the model run.
        left = trials.meter.trials_left
        self._until = 0.0
        self._allowed_trials = None if left is None else max(2, left // 2)

    def begin(self) -> None:
        """Compile twice, side by side where there are lanes, and run each once."""
        self._attempts = [1, 1]
        for attempt, record in zip((0, FRESH), self._trials.records(self._everything, (0, FRESH)), strict=True):
            self._take(record, attempt)

    def compile(self) -> None:
        """Compile anew and run once."""
        self._attempts.append(0)
        self.run()

    def run(self) -> None:
        """Run what is compiled."""
        attempt = FRESH * (len(self._attempts) - 1) + self._attempts[-1]
        self._attempts[-1] += 1
        self._take(self._trials.record(self._everything, attempt), attempt)

    def _take(self, record: TrialRecord, attempt: int) -> None:
        name = str(record.payload.get(BUILD) or attempt // FRESH)
        if name not in self._place:
            self._place[name] = len(self.builds)
            self.builds.append([])
        self.builds[self._place[name]].append(record)
        self._last = self.builds[self._place[name]]
        self._spent += record.seconds

    def go_on(self) -> None:
        """Run and compile more often, within the time that may take."""
        self._until = max(_SECONDS, self.builds[0][0].seconds) + self._spent
        while self._may() and not self._settled():
            self.run()
        while self._may() and not self._mixed() and self._more_builds():
            self.compile()
            # A second and third look tell a failure of single runs from one of single compilations.
            while self._may() and len(self.builds) <= _LOOKS and len(self._last) < _SURE_OF_BUILD:
                self.run()
        while self._may() and self._mixed() and not _clear(self._records()):
            self.run()

    def _may(self) -> bool:
        """Whether time and trials are left for another run."""
        made = sum(len(build) for build in self.builds)
        return self._spent < self._until and (self._allowed_trials is None or made < self._allowed_trials)

    def _records(self) -> list[TrialRecord]:
        return [record for build in self.builds for record in build]

    def _settled(self) -> bool:
        """Whether the last compilation was run often enough."""
        if self._mixed():
            return _clear(self._records())
        wanted = _SURE if self._last[0].signature is not None else MAX_RUNS
        return len(self._last) >= wanted

    def _mixed(self) -> bool:
        """Whether one compilation fails in some runs and not in others."""
        return any(len({record.signature is None for record in build}) > 1 for build in self.builds)

    def _more_builds(self) -> bool:
        """Whether other compilations may tell more: some fail, or none does."""
        failed = sum(build[0].signature is not None for build in self.builds)
        if failed == len(self.builds):
            return failed < _LOOKS and self._spent < _QUICK
        return len(self.builds) < _MOST_BUILDS and failed < _SURE

    def summary(self) -> Probe:
        """What was seen."""
        outcomes = {build[0].signature is None for build in self.builds}
        if len(outcomes) > 1 and not self._mixed():
            return dataclasses.replace(_summary([build[0] for build in self.builds]), per_build=True)
        return _summary(self._records())


def _ends_early(first: TrialRecord, by_command: bool) -> bool:
    slow = first.signature is not None and first.signature.kind in (*_SLOW, FailureKind.REFUSED)
    return by_command or slow or bool(first.unresolved)


def _clear(records: list[TrialRecord]) -> bool:
    """Whether it has been seen not to fail, to fail always, or often enough to say how often."""
    failed = sum(record.signature is not None for record in records)
    if failed in (0, len(records)):
        return len(records) >= (_SURE if failed else MAX_RUNS)
    return failed >= _RATE or len(records) >= _MOST


def _summary(records: list[TrialRecord]) -> Probe:
    seen = collections.Counter(record.signature.kind for record in records if record.signature is not None)
    errors = [record.error for record in records if record.error is not None]
    error = max(errors, default=None)
    if not seen:
        unresolved = next((record.unresolved for record in records if record.unresolved), "")
        return Probe(None, "", len(records), 0, error, unresolved, *_seconds(records))
    kind = seen.most_common(1)[0][0]
    example = next(record for record in records if record.signature is not None and record.signature.kind is kind)
    signature = example.signature
    assert signature is not None
    failed = sum(record.signature is not None and signature.matches(record.signature) for record in records)
    named = tuple(str(name) for name in example.payload.get(NAMED, ()))
    return Probe(signature, example.words, len(records), failed, error, "", *_seconds(records), named=named)


def _seconds(records: list[TrialRecord]) -> tuple[float, float]:
    """Of one compilation, and of one run."""
    runs = [record.seconds for record in records if not record.builds]
    builds = [record.seconds for record in records if record.builds]
    run = min(runs, default=0.0)
    return max(0.0, min(builds, default=0.0) - run), run
