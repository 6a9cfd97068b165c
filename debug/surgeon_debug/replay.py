"""Run a bundle here: does the engine still fail as it did then?"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.compare import Difference
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.find.piece_failure import PieceResult
from surgeon_debug.find.piece_trials import Seen, run_model
from surgeon_debug.find.signature import of_error
from surgeon_debug.here import differences, environment
from surgeon_debug.open_bundle import OpenBundle, open_bundle
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.runners.runner_text import checked_cap, checked_timeout
from surgeon_debug.search.trial import Outcome
from surgeon_debug.values import Value, digest
from surgeon_passes.errors import BadOptionError, EngineError

SCHEMA = "surgeon.replay/1"
"""The ``schema`` field of the JSON document; the number changes when a field changes its meaning."""

_HANG = 60.0  # seconds after which an engine that was given no limit counts as hung


@dataclasses.dataclass(frozen=True)
class ReplayedOutput:
    """One output, against what is expected of it."""

    name: str
    wrong: bool
    """Whether it counts as wrong by the bundle's own rule."""
    rel_l2: float | None
    """Relative L2 error; None where it cannot be compared."""
    max_abs: float | None
    """Largest absolute error, likewise."""
    nan: tuple[int, int]
    """NaN expected and seen."""
    words: str
    """The verdict as a phrase."""


@dataclasses.dataclass(frozen=True)
class ReplayResult:
    """What a replay came to."""

    bundle: str
    nodes: tuple[str, ...]
    target: str
    """The runner that was run here."""
    outcome: Outcome
    """REPRODUCES: the failure of then; CLEAN: none; UNRESOLVED: another failure, or it could not be run."""
    words: str
    """What happened, as a phrase."""
    then: str
    """What happened then."""
    error: float | None
    """The largest relative L2 error of an output, where there are numbers."""
    same_bits: bool | None
    """Whether the outputs are those of then, bit by bit; None where then or now there were none."""
    reference_agrees: bool | None
    """Whether the reference computes here what it did then; None if it was not asked."""
    outputs: tuple[ReplayedOutput, ...]
    changes: tuple[str, ...]
    """Versions that are not as they were."""
    notes: tuple[str, ...]
    """What a reader should know, each a sentence."""

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        plain = dataclasses.asdict(self)
        plain["outcome"] = self.outcome.value
        return {"schema": SCHEMA, **_finite(plain)}


def replay(
    bundle: str | Path,
    *,
    target: str | None = None,
    reference: str | None = None,
    timeout: float | None = None,
    memory_cap: int | None = None,
    allow_code: bool = False,
) -> ReplayResult:
    """Run a bundle in fresh processes.

    Args:
        bundle: The file.
        target: The text of a runner to run instead of the bundle's own.
        reference: The text of a runner whose outputs are expected, instead of those in the bundle.
        timeout: Seconds for one prepare or one run; None for the bundle's own limit.
        memory_cap: Bytes for the engine's process; None for the bundle's own limit.
        allow_code: Execute a runner's file that is in the bundle, or a runner with options that can touch files.

    Raises:
        FileError: The bundle cannot be read, is damaged, or is made to do harm.
        BadModelError: The model in it cannot be used.
        BadOptionError: It needs code that was not allowed, or a runner does not exist.
        EngineError: A runner's package is not installed here, or the reference fails.
    """
    with tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True) as name:
        opened = open_bundle(Path(bundle), Path(name))
        limits = opened.document["limits"]
        timeout = limits["timeout"] if timeout is None else timeout
        timeout = None if timeout is None else checked_timeout(timeout)
        if timeout is None and opened.failure.signature.kind is FailureKind.HUNG:
            timeout = _HANG
        memory_cap = limits["memory_cap"] if memory_cap is None else memory_cap
        memory_cap = None if memory_cap is None else checked_cap(int(memory_cap))
        engine = _engine(opened, target, timeout, memory_cap, allow_code)
        notes: list[str] = []
        if target is None and opened.target.is_code:
            notes.append("Code that is in the bundle was executed.")
        with engine:
            engine.ready()
            expected: tuple[Mapping[str, Value], ...] = opened.expected
            agrees = None
            if reference is not None:
                expected, agrees = _expected(opened, reference, notes)
            seen = run_model(opened.model, opened.outputs, opened.feeds, engine)
        return _result(opened, engine.label, seen, expected, agrees, notes)


def _engine(
    opened: OpenBundle, target: str | None, timeout: float | None, memory_cap: int | None, allow_code: bool
) -> Engine:
    if target is not None:
        return make_engine(target, isolated=True, timeout=timeout, memory_cap=memory_cap)
    own = opened.target
    if own.is_code and not allow_code:
        what = f"brings a runner of its own ({own.file})" if own.file else f"asks for the runner {own.text!r}"
        raise BadOptionError(
            f"{what}, which is code and was not executed",
            where=str(opened.path),
            hint="read it, then give --allow-code, or name another runner with --target",
        )
    return own.engine(opened.folder, timeout=timeout, memory_cap=memory_cap)


def _expected(
    opened: OpenBundle, reference: str, notes: list[str]
) -> tuple[tuple[Mapping[str, Value], ...], bool | None]:
    """What a reference computes here, and whether that is what it was then."""
    with make_engine(reference, isolated=True) as engine:
        engine.ready()
        seen = run_model(opened.model, opened.outputs, opened.feeds, engine)
    if seen.error is not None:
        raise EngineError(f"the reference fails here: {seen.error}") from seen.error
    agrees = None
    if opened.expected:
        agrees = opened.failure.of_values(opened.expected, seen.values).signature is None
        if not agrees:
            notes.append(f"{reference} does not compute here what the bundle expects.")
    return seen.values, agrees


def _result(
    opened: OpenBundle,
    label: str,
    seen: Seen,
    expected: Sequence[Mapping[str, Value]],
    agrees: bool | None,
    notes: list[str],
) -> ReplayResult:
    failure = opened.failure
    if seen.error is not None:
        names = {*opened.nodes, *opened.outputs, *(name for sample in opened.feeds for name in sample)}
        result = failure.of_ending(of_error(seen.error, names), str(seen.error))
    elif expected:
        result = failure.of_values(expected, seen.values)
    else:
        result = PieceResult(None, "")
    if result.signature is None:
        outcome, words = Outcome.CLEAN, "it delivers what is expected" if expected else "it delivers"
    elif failure.matches(result):
        outcome, words = Outcome.REPRODUCES, result.words
    else:
        outcome, words = Outcome.UNRESOLVED, f"it fails in another way: {result.words}"
    document = opened.document
    then = document["versions"].get("target", {}) if isinstance(document.get("versions"), dict) else {}
    return ReplayResult(
        str(opened.path),
        opened.nodes,
        label,
        outcome,
        words,
        str(document["failure"].get("words", "")),
        result.error,
        _same_bits(opened.seen, seen.values),
        agrees,
        tuple(_output(opened, name, found) for name, found in result.differences.items()),
        tuple(differences(then, environment(label))) if isinstance(then, dict) else (),
        tuple(notes),
    )


def _output(opened: OpenBundle, name: str, found: Difference) -> ReplayedOutput:
    judgement = opened.failure.rules[name].judge(found)
    wrong = judgement.verdict.value != "agree"
    nan = (found.nan.reference, found.nan.target)
    if found.mismatch:
        return ReplayedOutput(name, wrong, None, None, nan, judgement.reason)
    return ReplayedOutput(name, wrong, found.rel_l2, found.max_abs, nan, judgement.reason)


def _same_bits(then: Sequence[Mapping[str, Value]], now: Sequence[Mapping[str, Value]]) -> bool | None:
    if not then or not now:
        return None
    return all(
        ours.keys() == theirs.keys() and all(digest(ours[name]) == digest(theirs[name]) for name in ours)
        for ours, theirs in zip(then, now, strict=True)
    )


def _finite(value: Any) -> Any:
    """Numbers as JSON can hold them."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
