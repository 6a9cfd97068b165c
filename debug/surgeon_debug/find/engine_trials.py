"""Opens trials for one dimension after the other in a search over the ways to build an engine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from surgeon_debug.find.dimension import Dimension
from surgeon_debug.find.engine_builds import BuildRecord
from surgeon_debug.find.engine_oracle import RUNS, EngineSpec
from surgeon_debug.find.finding import Step
from surgeon_debug.find.flaky_repeats import flaky_repeats
from surgeon_debug.find.open_pool import open_pool
from surgeon_debug.find.oracle import FailureKind, Signature, TrialRecord
from surgeon_debug.find.remember import Remembering
from surgeon_debug.find.trials import Trials
from surgeon_debug.journal import Journal
from surgeon_debug.search.budget import Budget
from surgeon_passes.errors import BadOptionError

_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class HowToSearch:
    """What a search over builds may use."""

    jobs: int = 1
    """Trials at a time, on this machine; engines that are timed side by side disturb each other."""
    workers: str | None = None
    """A Dask scheduler whose workers make the trials instead."""
    resume: Path | None = None
    """A folder that remembers finished trials."""
    budget: Budget = dataclasses.field(default_factory=Budget)
    """What the search may cost."""


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A build and how it behaves."""

    record: BuildRecord
    trial: TrialRecord

    @property
    def signature(self) -> Signature | None:
        """How it fails; None if it does not."""
        return self.trial.signature

    @property
    def words(self) -> str:
        """How it behaves, as a phrase."""
        if self.signature is None:
            return f"right in {self.runs} runs"
        if self.flaky:
            return f"it fails in {self.failed} of {self.runs} runs: {self.trial.words}"
        return f"it fails: {self.trial.words}"

    @property
    def runs(self) -> int:
        """Runs of it."""
        return int(self.trial.payload.get("runs", 0))

    @property
    def unbuilt(self) -> bool:
        """Whether it fails before it can be run: there is no engine, or none that can be loaded."""
        return self.signature is not None and self.runs == 0

    @property
    def failed(self) -> int:
        """Runs in which it failed."""
        return int(self.trial.payload.get("failed", 0))

    @property
    def flaky(self) -> bool:
        """Whether it fails in some runs only."""
        return 0 < self.failed < self.runs

    @property
    def rate(self) -> float | None:
        """The share of runs that fail, if not all of them do."""
        return self.failed / self.runs if self.flaky else None

    @property
    def worst(self) -> float | None:
        """Its error, if that is what is wrong with it."""
        numbers = self.signature is not None and self.signature.kind is FailureKind.WRONG_NUMBERS
        return self.trial.error if numbers else None

    @property
    def runs_wanted(self) -> int:
        """Runs after which a failure that did not show is not there, but for one case in a hundred."""
        return flaky_repeats(self.failed, self.runs, least=RUNS) if self.flaky else RUNS


class EngineTrials:
    """All trials of one search; each dimension has a pool of its own.

    Args:
        spec: What is built.
        how: What the search may use.
        journal: Where trials are kept.
        progress: Called with a phrase about where the search is.
    """

    def __init__(
        self,
        spec: EngineSpec,
        how: HowToSearch,
        journal: Journal,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._spec, self._how, self._journal, self._progress = spec, how, journal, progress
        self._meter = how.budget.start()
        self._all: list[Trials] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        """Steps that are over, of all dimensions."""
        return tuple(step for one in self._all for step in one.steps)

    @contextlib.contextmanager
    def along(
        self,
        dimension: Dimension,
        *,
        against: Recorded | None = None,
        thorough: bool = False,
        lanes: int | None = None,
    ) -> Iterator[Trials]:
        """Trials of one dimension.

        Args:
            dimension: What the elements are.
            against: The build whose failure is looked for; it says how often each engine is to be run, too.
            thorough: Run each engine on after it failed.
            lanes: Trials at a time; as the search may use them, if None.
        """
        runs, worst = (None, None) if against is None else (against.runs_wanted, against.worst)
        unbuilt = against is not None and against.unbuilt
        spec = self._spec.along(dimension, runs, thorough=thorough, worst=worst, unbuilt=unbuilt)
        if self._how.resume is not None or self._how.workers:
            address = spec.address()
        else:
            address = f"{dimension.facts()} {spec.runs} {thorough} {spec.worst} {unbuilt}"
        remember = Remembering(address, self._journal)
        begins = getattr(dimension, "cache", "")  # the timing cache that its builds begin with
        files = (Path(begins),) if begins else ()
        pool = open_pool(spec, remember, lanes=lanes or self._how.jobs, workers=self._how.workers, files=files)
        with contextlib.closing(pool):
            trials = Trials(pool, remember, self._meter, self._progress)
            trials.followed = against.signature if against is not None else None
            self._all.append(trials)
            yield trials

    def record(self, trials: Trials, elements: frozenset[int] = frozenset()) -> TrialRecord:
        """Make a trial whose files are wanted; one that is remembered and whose files are gone is made again.

        Raises:
            SearchStopped: The budget is spent.
            BadOptionError: A worker made the files where this machine does not see them.
        """
        for attempt in range(_ATTEMPTS):
            found = trials.record(elements, attempt)
            cache = found.payload.get("cache", "")
            if not cache or Path(cache).is_file():
                return found
            if self._how.workers:
                raise BadOptionError(
                    f"a worker wrote the timing cache {cache}, which is not to be seen here",
                    hint="give --resume a folder that this machine and all workers share",
                )
        return found


def recorded(found: TrialRecord) -> Recorded | None:
    """The build behind a trial that keeps records; None if there is none."""
    kept = found.payload.get("record")
    return None if kept is None or found.unresolved else Recorded(BuildRecord.from_json(kept), found)
