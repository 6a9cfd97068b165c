"""What ``surgeon find tactic``, ``fusion`` and ``auto`` do between reading their options and printing their result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from surgeon import options
from surgeon.carried_options import carried_options
from surgeon.searching import SearchRequest, check_places, searched
from surgeon_debug.find.auto import AutoFinding, find_auto
from surgeon_debug.find.engine_ground import Question
from surgeon_debug.find.engine_trials import HowToSearch
from surgeon_debug.find.fusion import find_fusion
from surgeon_debug.find.fusion_finding import FusionFinding
from surgeon_debug.find.tactic import find_tactic
from surgeon_debug.find.tactic_finding import TacticFinding
from surgeon_debug.layers import DEFAULT_REFERENCE
from surgeon_debug.runners.tensorrt.profiles import parse_dims
from surgeon_debug.runners.tensorrt.record import beside, read_beside
from surgeon_passes.errors import BadOptionError

_F = TypeVar("_F", TacticFinding, FusionFinding, AutoFinding)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(SearchRequest):
    """The options of the three commands, as typed; see their help."""

    target: str = "tensorrt"
    original: Path | None = None
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
    found = _perform(request, lambda question, how, progress: find_auto(question, how=how, progress=progress))
    return dataclasses.replace(found, command=found.command and found.command + carried_options(request))


def _perform(request: Request, search: Callable[[Question, HowToSearch, Callable[[str], None]], _F]) -> _F:
    how = HowToSearch(request.jobs or 1, request.workers, request.resume, request.budget)
    dims, spans = sizes_of(request.dims)
    question = Question(
        request.model,
        target=request.target,
        reference=request.reference or DEFAULT_REFERENCE,
        original=request.original,
        feeds=request.load_feeds(),
        samples=request.samples,
        seed=request.seed,
        dims=dims,
        spans=spans,
        limits=request.limits(),
        postprocess=request.load_postprocess(),
        timeout=request.timeout,
        memory_cap=request.cap,
        allow_external=request.allow_external,
    )
    return searched(request, lambda progress: search(question, how, progress))


def sizes_of(text: str) -> tuple[dict[str, int], dict[str, tuple[int, int, int]]]:
    """``N=1..4..8,SEQ=128`` as sizes, and as smallest, best and largest sizes.

    Raises:
        BadOptionError: It is not of that form.
    """
    parts = [part for part in text.split(",") if part.strip()]
    ranges = [part for part in parts if ".." in part]
    plain = options.parse_dims(",".join(part for part in parts if ".." not in part))
    return plain, parse_dims(";".join(ranges))


def _check(request: Request, more: dict[str, tuple[Path | None, bytes]]) -> None:
    """Refuse what would be found out after the work, or never."""
    good = request.good if request.good is not None and not request.good.is_dir() else None
    check_places(request, more, [request.original, request.bad, good])
