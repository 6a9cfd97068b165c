"""A search for nodes from its first trial to its result: probe, hunt, and what is said about it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.find.census import SHARE_OF_MEMORY, Census, take_census
from surgeon_debug.find.census_or_cuts import batches_of
from surgeon_debug.find.check_spec import CheckSpec
from surgeon_debug.find.finding import Culprit, Finding, conclude
from surgeon_debug.find.found import Found
from surgeon_debug.find.hunt import Examiners, Hunt, Trail
from surgeon_debug.find.lab_spec import LabSpec
from surgeon_debug.find.open_pool import open_pool
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.find.probe import Probe, probe
from surgeon_debug.find.remember import Remembering
from surgeon_debug.find.shown import Shown, show_everything
from surgeon_debug.find.trials import Trials, stopped_early
from surgeon_debug.journal import Journal
from surgeon_debug.memory_left import memory_left
from surgeon_debug.search.budget import Budget
from surgeon_debug.values import Feeds
from surgeon_debug.whole_run import run_whole
from surgeon_passes.errors import EngineError

Spec = LabSpec | CheckSpec


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How to search."""

    census: bool = True
    """Judge every node alone first."""
    jobs: int = 1
    """Trials at a time, on this machine."""
    workers: str | None = None
    """A Dask scheduler whose workers make the trials instead."""
    resume: Path | None = None
    """A folder that remembers finished trials."""
    budget: Budget = dataclasses.field(default_factory=Budget)
    """What the search may cost."""
    memory: int | None = None
    """Bytes for tensors and weights of one model of a census."""
    seed: int = 0
    """Decides inputs that are made up, and signs of perturbations."""


class NodeSearch:
    """One search for nodes.

    Args:
        spec: The model and who decides.
        wanted: How to search.
        others: Other inputs, to confirm what is found where the model does not fail; None if there are none.
        progress: Called with a phrase about where the search is.
        random: Notes that the model draws random numbers, if it does.
    """

    def __init__(
        self,
        spec: Spec,
        wanted: Wanted,
        others: Sequence[Feeds] | None,
        progress: Callable[[str], None] | None,
        random: Sequence[str],
    ) -> None:
        self._spec, self._wanted, self._others = spec, wanted, others
        self._progress, self._random = progress, random
        self._ground = spec.ground()
        self._meter = wanted.budget.start()
        self._journal = Journal(None)
        self._trail, self._seen = Trail(), Probe(None, "", 0, 0, None)
        self._all: list[Trials] = []

    def run(self, model: str, labels: tuple[str, str]) -> Finding:
        """Search.

        Args:
            model: How the result calls the model.
            labels: How it calls the reference and the suspect.
        """
        with Journal(self._wanted.resume) as self._journal:
            stopped = stopped_early(self._search)
        return self._finding(model, labels, stopped)

    def _search(self) -> None:
        if isinstance(self._spec, LabSpec) and self._wanted.workers is None:
            self._spec.start_spare(self._wanted.jobs - 1)
        with self._trials(self._spec, min(2, self._wanted.jobs)) as first, first.step("probe") as step:
            self._seen = probe(first, self._ground.elements.everything, by_command=self._by_command)
            step.words = _seen_words(self._seen)
        if self._seen.unresolved:
            self._trail.undecided = f"nobody can tell whether the model fails: {self._seen.unresolved}"
            self._trail.advice = "see by hand why the whole model cannot be judged"
        else:
            self._hunt()

    @property
    def _by_command(self) -> bool:
        return isinstance(self._spec, CheckSpec)

    def _hunt(self) -> None:
        seen = self._seen
        by_values = seen.signature is None or seen.signature.kind.by_values
        spec = self._spec if isinstance(self._spec, CheckSpec) else self._spec.following(by_values)
        if not by_values and isinstance(self._spec, LabSpec):
            self._note_reference(self._spec)
        with self._trials(spec, self._wanted.jobs, self._wanted.workers) as second:
            second.followed = seen.signature
            Hunt(second, self._ground.elements, seen, self._examiners(second), self._trail).run()

    def _note_reference(self, spec: LabSpec) -> None:
        """Note it if the engine that is believed fails as well: then the inputs may be to blame."""
        ground = self._ground
        with spec.lend() as (reference, _):
            try:
                run_whole(reference, ground.path, ground.outputs, ground.feeds, made_up=self._others is not None)
            except EngineError as error:
                self._trail.notes.append(f"the reference cannot run the model on these inputs either: {error}")

    @contextlib.contextmanager
    def _trials(self, spec: Spec, lanes: int, workers: str | None = None) -> Iterator[Trials]:
        address = spec.address() if self._wanted.resume is not None or self._wanted.workers else "here"
        remember = Remembering(f"{address}/{getattr(spec, 'by_values', '')}", self._journal)
        pool = open_pool(spec, remember, lanes=lanes, workers=workers)
        with contextlib.closing(pool):
            self._all.append(Trials(pool, remember, self._meter, self._progress))
            yield self._all[-1]

    def _examiners(self, trials: Trials) -> Examiners:
        spec = self._spec
        if isinstance(spec, CheckSpec):
            return Examiners(None, None, None)

        def census(repeats: int, compile_each: bool) -> Census:
            return self._take_census(trials, spec, repeats, None, compile_each)

        def confirm() -> Census:
            return self._take_census(trials, spec, 1, self._others)

        def shown() -> Shown:
            with spec.lend() as engines:
                return show_everything(
                    self._ground,
                    engines,
                    limits=spec.limits,
                    postprocess=spec.postprocess,
                    allow_external=spec.allow_external,
                )

        memory = self._wanted.memory or memory_left() // SHARE_OF_MEMORY
        return Examiners(
            census if self._wanted.census else None,
            confirm if self._others else None,
            shown,
            batches_of(self._ground, memory),
        )

    def _take_census(
        self,
        trials: Trials,
        spec: LabSpec,
        repeats: int,
        feeds: Sequence[Feeds] | None,
        compile_each: bool = False,
    ) -> Census:
        def take() -> Mapping[str, Any]:
            with spec.lend() as engines:
                return take_census(
                    self._ground,
                    engines,
                    feeds=feeds,
                    repeats=repeats,
                    compile_each=compile_each,
                    memory=self._wanted.memory,
                    seed=self._wanted.seed,
                    allow_external=spec.allow_external,
                    progress=lambda done, total: trials.say(f"{done:,} of {total:,} tensors"),
                ).to_json()

        found, known = trials.remember.remember(
            ("census", repeats, compile_each, feeds is None, self._wanted.memory), take
        )
        census = Census.from_json(found)
        if known:
            trials.count(cached=1)
            census = dataclasses.replace(census, builds=0, runs=0, reference_runs=0)
        else:
            trials.count(trials=1)
        return census

    def _finding(self, model: str, labels: tuple[str, str], stopped: str) -> Finding:
        seen, trail = self._seen, self._trail
        ground = self._ground
        named = bool(trail.guilty or trail.latent)
        end = conclude(named, nothing=trail.nothing, undecided=trail.undecided, advice=trail.advice, stopped=stopped)
        notes = [*trail.notes, *([end.note] if end.note else []), *self._random]
        elements = ground.elements

        def name(found: Sequence[Found], latent: bool) -> tuple[Culprit, ...]:
            ordered = sorted(found, key=lambda one: min(one.elements))
            return tuple(one.culprit(ground.source, elements, latent=latent, cured=trail.cured) for one in ordered)

        return Finding(
            outcome=end.outcome,
            model=model,
            reference=labels[0],
            target=labels[1],
            elements=len(elements),
            samples=len(ground.feeds),
            signature=seen.signature,
            failure=seen.words,
            culprits=name(trail.guilty, False),
            latent=name(trail.latent, True),
            reason=end.reason,
            advice=end.advice or ("" if not named else _next_step(trail, self._by_command)),
            steps=tuple(step for one in self._all for step in one.steps),
            notes=tuple(notes),
            rate=seen.failed / seen.runs if seen.flaky else None,
        )


def _next_step(trail: Trail, by_command: bool) -> str:
    if by_command:
        return "cut it out as a model of its own with surgeon extract --nodes"
    if trail.guilty and all(found.found_by == "report" for found in trail.guilty):
        return "rewrite what is refused, or cut out what the engine takes with surgeon extract"
    if any(found.kind is FailureKind.NOT_FINITE and "range" in found.reason for found in trail.guilty):
        return "keep these nodes in float32"
    return "put it into a file that replays anywhere with --bundle OUT.zip"


def _seen_words(seen: Probe) -> str:
    if seen.unresolved:
        return seen.unresolved
    if seen.signature is None:
        return f"it does not fail in {seen.runs} runs"
    if seen.flaky:
        return f"it fails in {seen.failed} of {seen.runs} runs: {seen.words}"
    return f"it fails in all of {seen.runs} runs: {seen.words}"
