"""What ``surgeon find nodes`` does between reading its options and printing its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from surgeon import options
from surgeon.searching import SearchRequest, check_places, searched
from surgeon_debug.find.finding import Finding
from surgeon_debug.find.nodes import find_nodes
from surgeon_debug.layers import DEFAULT_REFERENCE
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_passes.errors import BadOptionError
from surgeon_passes.spec import quote

DEFAULT_VERSIONED = "onnxruntime"
"""The runner whose versions are compared unless one is named."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(SearchRequest):
    """The options of ``surgeon find nodes``, as typed; see its help."""

    target: str | None = None
    versions: tuple[str, str] | None = None
    check: str | None = None
    bundle: Path | None = None
    no_weights: bool = False
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

    def search(progress: Callable[[str], None]) -> Finding:
        return find_nodes(
            request.model,
            target=target,
            reference=reference,
            feeds=feeds,
            samples=request.samples,
            seed=request.seed,
            dims=options.parse_dims(request.dims),
            limits=limits,
            postprocess=postprocess,
            check=request.check,
            jobs=request.jobs or 1,
            workers=request.workers,
            resume=request.resume,
            budget=request.budget,
            timeout=request.timeout,
            memory_cap=request.cap,
            allow_external=request.allow_external,
            bundle=request.bundle,
            no_weights=request.no_weights,
            progress=progress,
            command=request.typed,
        )

    limits, feeds, postprocess = request.limits(), request.load_feeds(), request.load_postprocess()
    return searched(request, search)


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
    check_places(request, {"--bundle": (request.bundle, b"PK")}, [])


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
