"""What ``surgeon find tactic``, ``fusion`` and ``auto`` do between reading their options and printing their result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from surgeon import options
from surgeon.console import talk
from surgeon.finding import Log
from surgeon.targets import check_targets
from surgeon_debug.feed_files import load_feeds
from surgeon_debug.find.auto import AutoFinding, find_auto
from surgeon_debug.find.engine_ground import Question
from surgeon_debug.find.engine_trials import HowToSearch
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.fusion import find_fusion
from surgeon_debug.find.fusion_finding import FusionFinding
from surgeon_debug.find.tactic import find_tactic
from surgeon_debug.find.tactic_finding import TacticFinding
from surgeon_debug.layers import DEFAULT_REFERENCE
from surgeon_debug.limits import Limits
from surgeon_debug.result_file import save_result
from surgeon_debug.runners.tensorrt.record import beside, read_beside
from surgeon_debug.search.budget import Budget
from surgeon_debug.user_functions import load_postprocess
from surgeon_passes.errors import BadOptionError, FileError
from surgeon_passes.graph import load
from surgeon_passes.spec import parse_size

_F = TypeVar("_F", TacticFinding, FusionFinding, AutoFinding)


@dataclasses.dataclass(frozen=True)
class Request:
    """The options of the three commands, as typed; see their help."""

    model: Path
    target: str = "tensorrt"
    reference: str | None = None
    original: Path | None = None
    feeds: Path | None = None
    samples: int = 1
    seed: int = 0
    dims: str = ""
    rtol: float | None = None
    atol: float | None = None
    metric: tuple[str, ...] = ()
    per_tensor: Path | None = None
    postprocess: str | None = None
    jobs: int | None = None
    workers: str | None = None
    resume: Path | None = None
    max_trials: int | None = None
    max_seconds: float | None = None
    save: Path | None = None
    timeout: float | None = None
    memory_cap: str | None = None
    allow_external: bool = False
    good: Path | None = None
    bad: Path | None = None
    every: bool = False
    output: Path | None = None
    """Where the timing cache goes; None for a name made from the model's, in the working folder."""

    @property
    def cache(self) -> Path:
        """Where the timing cache goes."""
        return self.output or Path(f"{self.model.stem}.good.cache")


def perform_tactic(request: Request) -> TacticFinding:
    """Find bad tactics.

    Raises:
        SurgeonError: A model, a runner or an option does not do, or a file must not or cannot be written.
    """
    if request.cache.exists() and not read_beside(request.cache):
        raise BadOptionError(
            f"{request.cache} exists and is no timing cache that was written here", hint="name another file with -o"
        )
    _check(request, {"-o": (request.cache, b""), "the description of -o": (beside(request.cache), b"{")})

    def search(question: Question, how: HowToSearch, progress: Callable[[str], None]) -> TacticFinding:
        return find_tactic(
            question,
            good=request.good,
            bad=request.bad,
            every=request.every,
            output=request.cache,
            how=how,
            progress=progress,
        )

    return _perform(request, search)


def perform_fusion(request: Request) -> FusionFinding:
    """Find bad fusions; errors are those of :func:`perform_tactic`."""
    _check(request, {})
    return _perform(request, lambda question, how, progress: find_fusion(question, how=how, progress=progress))


def perform_auto(request: Request) -> AutoFinding:
    """Say what to search for; errors are those of :func:`perform_tactic`."""
    _check(request, {})
    return _perform(request, lambda question, how, progress: find_auto(question, how=how, progress=progress))


def exit_code(found: TacticFinding | FusionFinding | AutoFinding) -> int:
    """0 if somebody is named, 1 if there is nothing to find, 3 if it could not be decided."""
    return {FindOutcome.FOUND: 0, FindOutcome.NOTHING: 1, FindOutcome.UNDECIDED: 3}[found.outcome]


def write_result(found: TacticFinding | FusionFinding | AutoFinding, request: Request) -> None:
    """Keep the result, if that was asked for.

    Raises:
        SurgeonError: The file cannot be written.
    """
    if request.save is not None:
        save_result(found.to_json(), request.save)


def _perform(request: Request, search: Callable[[Question, HowToSearch, Callable[[str], None]], _F]) -> _F:
    question = _question(request)
    budget = Budget(request.max_trials, request.max_seconds)
    how = HowToSearch(request.jobs or 1, request.workers, request.resume, budget)
    console = talk()
    log = Log(request.model.name)
    with console.status(log.line) as status:

        def progress(words: str) -> None:
            log.take(words)
            status.update(log.line)

        try:
            return search(question, how, progress)
        except KeyboardInterrupt:
            status.stop()
            log.tell(console, request.resume)
            raise


def _question(request: Request) -> Question:
    limits = Limits.parse(request.metric, request.per_tensor, rtol=request.rtol, atol=request.atol)
    given: Any = None
    if request.feeds is not None:
        given = load_feeds(request.feeds, load(request.model, allow_external=request.allow_external))
    return Question(
        request.model,
        target=request.target,
        reference=request.reference or DEFAULT_REFERENCE,
        original=request.original,
        feeds=given,
        samples=request.samples,
        seed=request.seed,
        dims=options.parse_dims(request.dims),
        limits=limits if limits.given else None,
        postprocess=None if request.postprocess is None else load_postprocess(request.postprocess),
        timeout=request.timeout,
        memory_cap=parse_size(request.memory_cap) if request.memory_cap else None,
        allow_external=request.allow_external,
    )


def _check(request: Request, more: dict[str, tuple[Path | None, bytes]]) -> None:
    """Refuse what would be found out after the work, or never."""
    if request.jobs is not None and request.workers is not None:
        raise BadOptionError("--jobs counts processes here, and --workers names others", hint="give one of them")
    if request.resume is not None and request.resume.exists() and not request.resume.is_dir():
        raise FileError("is no folder, and --resume keeps trials in one", where=str(request.resume))
    sources = [request.model, request.original, request.feeds, request.per_tensor, request.bad]
    good = request.good if request.good is not None and not request.good.is_dir() else None
    check_targets({"--save": (request.save, b"{"), **more}, [*sources, good])
