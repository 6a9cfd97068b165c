"""What all searches do between reading their options and printing their result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console

from surgeon.console import print_json, results, talk
from surgeon.progress_log import ProgressLog
from surgeon.sampled_request import SampledRequest
from surgeon.targets import check_targets
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.result_file import save_result
from surgeon_debug.search.budget import Budget
from surgeon_passes.errors import BadOptionError, FileError
from surgeon_passes.spec import parse_size

EXIT_CODES = {FindOutcome.FOUND: 0, FindOutcome.NOTHING: 1, FindOutcome.UNDECIDED: 3}
"""How the commands end: somebody is named, there is nobody to find, it could not be decided."""


class Found(Protocol):
    """What every search comes to."""

    @property
    def outcome(self) -> FindOutcome:
        """Whether somebody is named."""

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""


_F = TypeVar("_F")
_G = TypeVar("_G", bound=Found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRequest(SampledRequest):
    """The options that all searches have, as typed; see their help."""

    reference: str | None = None
    jobs: int | None = None
    workers: str | None = None
    resume: Path | None = None
    max_trials: int | None = None
    max_seconds: float | None = None
    timeout: float | None = None
    memory_cap: str | None = None

    @property
    def cap(self) -> int | None:
        """Bytes of memory for the process of each engine."""
        return parse_size(self.memory_cap) if self.memory_cap else None

    @property
    def budget(self) -> Budget:
        """What the search may spend."""
        return Budget(self.max_trials, self.max_seconds)


def check_places(
    request: SearchRequest,
    targets: Mapping[str, tuple[Path | None, bytes]],
    sources: Sequence[Path | None],
) -> None:
    """Refuse what would be found out after the work, or never.

    Args:
        request: What was typed.
        targets: What is written beside the result: by option, the file and what a file of its kind begins with.
        sources: What is read, apart from the model, the feeds and the limits; none of it may be written to.

    Raises:
        SurgeonError: Options do not fit each other, or a file must not or cannot be written.
    """
    if request.jobs is not None and request.workers is not None:
        raise BadOptionError("--jobs counts processes here, and --workers names others", hint="give one of them")
    if request.resume is not None and request.resume.exists() and not request.resume.is_dir():
        raise FileError("is no folder, and --resume keeps trials in one", where=str(request.resume))
    code = request.postprocess.rpartition(":")[0] if request.postprocess else ""
    read = [request.model, request.feeds, request.per_tensor, Path(code) if code else None, *sources]
    check_targets({"--save": (request.save, b"{"), **targets}, read)


def searched(request: SearchRequest, search: Callable[[Callable[[str], None]], _F]) -> _F:
    """Search, with a line of progress.

    Args:
        request: What was typed.
        search: Searches; what it is given takes a phrase about where it is.

    Raises:
        KeyboardInterrupt: The user has had enough; what was known is on stderr then.
    """
    console = talk()
    log = ProgressLog(request.model.name)
    with console.status(log.line) as status:

        def progress(words: str) -> None:
            log.take(words)
            status.update(log.line)

        try:
            return search(progress)
        except KeyboardInterrupt:
            status.stop()
            log.tell(console, request.resume)
            raise


def answer(found: _G, request: SearchRequest, show: Callable[[Console, _G], None], *, as_json: bool) -> int:
    """Print what was found, then keep it if that was asked for: printing needs no disk.

    Args:
        found: What was found.
        request: What was typed.
        show: Prints it for people.
        as_json: Print one JSON document instead.

    Returns:
        The exit code, one of :data:`EXIT_CODES`.

    Raises:
        SurgeonError: The file cannot be written.
    """
    if as_json:
        print_json(found.to_json())
    else:
        show(results(), found)
    if request.save is not None:
        save_result(found.to_json(), request.save)
    return EXIT_CODES[found.outcome]
