"""What ``surgeon find nodes`` does between reading its options and printing its result."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from rich.console import Console

from surgeon import options
from surgeon.console import talk
from surgeon.report.cells import plain
from surgeon.targets import check_targets
from surgeon_debug.feed_files import load_feeds
from surgeon_debug.find.finding import Finding, FindOutcome
from surgeon_debug.find.nodes import find_nodes
from surgeon_debug.layers import DEFAULT_REFERENCE
from surgeon_debug.limits import Limits
from surgeon_debug.result_file import save_result
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_debug.search.budget import Budget
from surgeon_debug.user_functions import load_postprocess
from surgeon_passes.errors import BadOptionError, FileError
from surgeon_passes.graph import load
from surgeon_passes.spec import parse_size, quote

DEFAULT_VERSIONED = "onnxruntime"
"""The runner whose versions are compared unless one is named."""


@dataclasses.dataclass(frozen=True)
class Request:
    """The options of ``surgeon find nodes``, as typed; see its help."""

    model: Path
    target: str | None = None
    reference: str | None = None
    versions: tuple[str, str] | None = None
    check: str | None = None
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
    bundle: Path | None = None
    no_weights: bool = False
    save: Path | None = None
    timeout: float | None = None
    memory_cap: str | None = None
    allow_external: bool = False
    typed: str = ""
    """The command line, for the bundle."""

    @property
    def sides(self) -> tuple[str, str]:
        """The texts of the reference and of the target."""
        if self.versions:
            runner = self.target or DEFAULT_VERSIONED
            return with_python(runner, self.versions[0]), with_python(runner, self.versions[1])
        return self.reference or DEFAULT_REFERENCE, self.target or ""


def perform(request: Request) -> Finding:
    """Find the culprits.

    Args:
        request: What was typed.

    Raises:
        SurgeonError: A model, a runner or an option does not do, or a file must not or cannot be written.
        KeyboardInterrupt: The user has had enough; what was known is on stderr then.
    """
    _check(request)
    reference, target = request.sides
    limits = Limits.parse(request.metric, request.per_tensor, rtol=request.rtol, atol=request.atol)
    given = None
    if request.feeds is not None:
        given = load_feeds(request.feeds, load(request.model, allow_external=request.allow_external))
    console = talk()
    log = Log(request.model.name)
    with console.status(log.line) as status:

        def progress(words: str) -> None:
            log.take(words)
            status.update(log.line)

        try:
            return find_nodes(
                request.model,
                target=target,
                reference=reference,
                feeds=given,
                samples=request.samples,
                seed=request.seed,
                dims=options.parse_dims(request.dims),
                limits=limits if limits.given else None,
                postprocess=None if request.postprocess is None else load_postprocess(request.postprocess),
                check=request.check,
                jobs=request.jobs or 1,
                workers=request.workers,
                resume=request.resume,
                budget=Budget(request.max_trials, request.max_seconds),
                timeout=request.timeout,
                memory_cap=parse_size(request.memory_cap) if request.memory_cap else None,
                allow_external=request.allow_external,
                bundle=request.bundle,
                no_weights=request.no_weights,
                progress=progress,
                command=request.typed,
            )
        except KeyboardInterrupt:
            status.stop()
            log.tell(console, request.resume)
            raise


def exit_code(found: Finding) -> int:
    """0 if somebody is named, 1 if there is nothing to find, 3 if it could not be decided."""
    if found.outcome is FindOutcome.UNDECIDED:
        return 3
    return 0 if found.culprits or found.latent else 1


def write_result(found: Finding, request: Request) -> None:
    """Keep the result, if that was asked for; it comes after printing, which needs no disk.

    Raises:
        SurgeonError: The file cannot be written.
    """
    if request.save is not None:
        save_result(found.to_json(), request.save)


class Log:
    """What was last heard of every step.

    Args:
        name: The model.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.monotonic()
        self._steps: dict[str, str] = {}
        self._last = ""

    def take(self, words: str) -> None:
        """Take a phrase such as ``census: 120 of 340 nodes``."""
        step, _, rest = words.partition(":")
        self._last = words
        self._steps[step] = rest.strip()

    @property
    def line(self) -> str:
        """One line of progress, safe to print."""
        passed = time.monotonic() - self._started
        words = f", {self._last}" if self._last else ""
        return f"{plain(self._name)}{plain(words)} ({passed:.0f} s)"

    def tell(self, console: Console, resume: Path | None) -> None:
        """Say what is known, and how to go on.

        Args:
            console: Where to say it.
            resume: The folder in which trials are kept, if there is one.
        """
        for step, words in self._steps.items():
            console.print(f"  {plain(step)}: {plain(words)}" if words else f"  {plain(step)}")
        if resume is not None:
            folder = plain(str(resume))
            console.print(f"finished trials are kept in {folder}: the same command goes on from there")
        elif self._steps:
            console.print("with --resume DIR finished trials are kept, and the same command goes on from there")


def with_python(runner: str, python: str) -> str:
    """The text of a runner that runs in another environment.

    Args:
        runner: ``NAME[:KEY=VALUE,...]`` or ``FILE.py:CLASS[:KEY=VALUE,...]``.
        python: An interpreter, or the folder of a virtual environment.

    Raises:
        BadOptionError: The text names an environment already, or makes no sense.
    """
    text, confines = parse_runner(runner)
    if confines.python is not None:
        raise BadOptionError(
            f"'{runner}' names an environment, and so does --versions", hint="leave python= out of the runner"
        )
    return f"{runner}{',' if text.options or confines.asked else ':'}python={quote(python)}"


def _check(request: Request) -> None:
    """Refuse what would be found out after the work, or never.

    Raises:
        SurgeonError: Options do not fit each other, or a file must not or cannot be written.
    """
    _check_sides(request)
    if request.no_weights and request.bundle is None:
        raise BadOptionError("--no-weights says what goes into a bundle, and none is asked for", hint="add --bundle")
    if request.jobs is not None and request.workers is not None:
        raise BadOptionError("--jobs counts processes here, and --workers names others", hint="give one of them")
    if request.resume is not None and request.resume.exists() and not request.resume.is_dir():
        raise FileError("is no folder, and --resume keeps trials in one", where=str(request.resume))
    code = request.postprocess.rpartition(":")[0] if request.postprocess else ""
    check_targets(
        {"--save": (request.save, b"{"), "--bundle": (request.bundle, b"PK")},
        [request.model, request.feeds, request.per_tensor, Path(code) if code else None],
    )


def _check_sides(request: Request) -> None:
    if request.check is None:
        if request.target is None and request.versions is None:
            raise BadOptionError(
                "nothing says what to suspect", hint="add --target RUNNER, --versions A B or --check COMMAND"
            )
        if request.versions is not None and request.reference is not None:
            raise BadOptionError(
                "--versions makes one engine the reference of itself", hint="leave --reference out, or --versions"
            )
        for text in request.sides:
            parse_runner(text)  # raises where there is no such interpreter, say
        return
    for option, given in (
        ("--target", request.target),
        ("--versions", request.versions),
        ("--rtol", request.rtol),
        ("--atol", request.atol),
        ("--metric", request.metric or None),
        ("--per-tensor", request.per_tensor),
        ("--postprocess", request.postprocess),
        ("--memory-cap", request.memory_cap),
    ):
        if given is not None:
            raise BadOptionError(f"with --check a command decides, and {option} does not matter", hint="give one")
    if request.bundle is not None:
        raise BadOptionError(
            "a bundle holds no command, so --bundle does not go with --check",
            hint="cut the culprit out with surgeon extract",
        )
    if "{model}" not in request.check:
        raise BadOptionError("the command of --check is not told what to try", hint="write {model} where it belongs")
