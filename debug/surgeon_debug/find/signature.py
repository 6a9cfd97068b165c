"""How a model failed: from what an engine raised, or from what its outputs came to."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence

from surgeon_debug.comparison import TensorResult
from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.find.oracle import FailureKind, Signature
from surgeon_debug.verdict import Verdict
from surgeon_passes.errors import EngineError

_KINDS = {
    Ending.REFUSED: FailureKind.REFUSED,
    Ending.CRASHED: FailureKind.CRASHED,
    Ending.EXITED: FailureKind.CRASHED,
    Ending.HUNG: FailureKind.HUNG,
    Ending.OUT_OF_MEMORY: FailureKind.OUT_OF_MEMORY,
}
_SIGNAL = re.compile(r"ended by (SIG[A-Z]+|signal \d+)|(exit code \d+)")
_FILE = re.compile(r"\S*\.onnx:?")
_QUOTED = re.compile(r"(?<!\w)'[^']*'|\"[^\"]*\"|`[^`]*`")
_NUMBER = re.compile(r"\b(?:0x[0-9a-f]+|\d+)\b|[\[{(][\d, x?-]*[\])}]", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_MAX_DETAIL = 120


def of_error(error: EngineError, names: Collection[str] = ()) -> Signature:
    """The signature of an engine that did not deliver.

    Args:
        error: What it raised.
        names: Names of tensors and nodes; a failure is the same whichever of them it is about.
    """
    ending = error.ending if isinstance(error, EngineFailure) else Ending.REFUSED
    kind = _KINDS[ending]
    if kind is FailureKind.CRASHED:
        found = _SIGNAL.search(error.what)
        return Signature(kind, next((part for part in found.groups() if part), "") if found else "")
    if kind is FailureKind.REFUSED:
        return Signature(kind, _plain(error.what, names))
    return Signature(kind)


def _plain(words: str, names: Collection[str]) -> str:
    """An engine's words without all that differs from piece to piece: files, names, numbers, shapes."""
    text = _QUOTED.sub("", _FILE.split(words, maxsplit=1)[-1])
    known = [word for word in _WORD.findall(text) if word.strip(".,:;()[]") not in names]
    return " ".join(_NUMBER.sub("", " ".join(known)).split())[:_MAX_DETAIL]


def of_outputs(results: Sequence[TensorResult]) -> tuple[Signature | None, str, float | None]:
    """What the outputs of a run came to.

    Returns:
        The signature, None if they agree; the worst output's verdict as a phrase; its relative L2 error, if it has
        one.
    """
    failed = [result for result in results if result.verdict is not Verdict.AGREE]
    errors = [result.difference.rel_l2 for result in results if result.difference and not result.difference.mismatch]
    error = max(errors, default=None)
    if not failed:
        return None, "", error
    worst = max(failed, key=_badness)
    kind = _kind_of(worst)
    return Signature(kind), f"{worst.tensor}: {worst.judgement.reason}", error


def _kind_of(result: TensorResult) -> FailureKind:
    if result.verdict in (Verdict.SHAPE, Verdict.MISSING):
        return FailureKind.SHAPE
    found = result.difference
    if found is not None and any(count.mismatched for count in (found.nan, found.posinf, found.neginf)):
        return FailureKind.NOT_FINITE
    return FailureKind.WRONG_NUMBERS


def _badness(result: TensorResult) -> tuple[int, float]:
    order = (FailureKind.WRONG_NUMBERS, FailureKind.NOT_FINITE, FailureKind.SHAPE)
    found = result.difference
    error = found.rel_l2 if found is not None and not math.isnan(found.rel_l2) else math.inf
    return order.index(_kind_of(result)), error
