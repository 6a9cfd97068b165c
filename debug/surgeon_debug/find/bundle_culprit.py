"""From culprit nodes to a bundle: cut them out, see them fail, make the piece smaller, write it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from surgeon_debug.bundle import BundleInfo, Story, make_bundle, reason_of_failure
from surgeon_debug.find.culprit_piece import CulpritPiece, cut_culprit
from surgeon_debug.find.oracle import FailureKind, Signature
from surgeon_debug.find.piece_failure import PieceFailure, PieceResult
from surgeon_debug.find.piece_trials import PieceTrials, Seen
from surgeon_debug.find.seeded_weights import seeded_weights
from surgeon_debug.find.shrink import shrink
from surgeon_debug.limits import Limits
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.values import Value
from surgeon_passes.atomic_write import check_target
from surgeon_passes.errors import EngineError
from surgeon_passes.graph import load

_FIRST_RUNS = 3  # a flaky failure may need more than one
_HANG = 60.0  # seconds after which an engine that was given no limit counts as hung


@dataclasses.dataclass(frozen=True)
class BundleRequest:
    """All that a bundle is made from."""

    model: Path
    """The model that the culprit is in."""
    positions: Sequence[int]
    """The culprit's nodes by their place in :attr:`PieceSource.nodes`."""
    feeds: Sequence[Mapping[str, Value]]
    """The model's inputs, one mapping a sample."""
    reference: str
    """The text of the runner that is believed."""
    target: str
    """The text of the runner under test."""
    signature: Signature
    """The failure."""
    words: str = ""
    """What was measured, as a phrase."""
    limits: Limits | None = None
    """The caller's own limits, by which the failure was found."""
    limit_texts: tuple[str, ...] = ()
    """These limits as they were typed."""
    noise: float | None = None
    """The relative L2 error that the precision explains, where the failure was found by that."""
    timeout: float | None = None
    """Seconds for one prepare or one run of the target."""
    memory_cap: int | None = None
    """Bytes for its process."""
    no_weights: bool = False
    """Replace weights and inputs by random ones where the failure survives it."""
    seed: int = 0
    """Decides these."""
    command: str = ""
    """The command line that was typed."""
    allow_external: bool = False
    """Accept weights outside the model's folder."""
    trials: int | None = 120
    """How often the target may be run to make the piece smaller; None for as often as needed."""
    seconds: float | None = 300.0
    """How long that may take; None for as long as it takes."""


def bundle_culprit(path: Path, request: BundleRequest) -> BundleInfo:
    """Cut a culprit out of its model and write it into a bundle.

    Args:
        path: The file to write.
        request: The culprit and all that belongs to it.

    Returns:
        What was made, or in one sentence why nothing was: the nodes do not fail alone, or not in a clean process.

    Raises:
        FileError: The file cannot be written, or the model cannot be read.
        BadModelError: The model cannot be used.
        BadOptionError: A runner does not exist or an option makes no sense.
    """
    check_target(path)
    if request.signature.kind is FailureKind.CHECK:
        return BundleInfo("", "no bundle was made: a command judged the failure, and a bundle holds no command")
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        source = PieceSource(load(request.model, allow_external=request.allow_external), folder, "model")
        reference = stack.enter_context(make_engine(request.reference))
        timeout = request.timeout
        if timeout is None and request.signature.kind is FailureKind.HUNG:
            timeout = _HANG
        cap = request.memory_cap
        target = stack.enter_context(make_engine(request.target, isolated=True, timeout=timeout, memory_cap=cap))
        reference.ready()
        target.ready()
        try:
            piece = cut_culprit(source, request.positions, request.feeds, reference)
            return _Maker(request, timeout, folder).make(path, piece, reference, target)
        except EngineError as error:
            return BundleInfo("", reason_of_failure(error))


class _Maker:
    """Makes one bundle.

    Args:
        request: What is asked for.
        timeout: Seconds the target has for one prepare or run.
        folder: Where models are written for the time being.
    """

    def __init__(self, request: BundleRequest, timeout: float | None, folder: Path) -> None:
        self._request, self._timeout, self._folder = request, timeout, folder

    def make(self, path: Path, piece: CulpritPiece, reference: Engine, target: Engine) -> BundleInfo:
        request = self._request
        precisions = [engine.precision for engine in (reference, target) if engine.precision]
        failure = PieceFailure.of_piece(piece, request.signature, precisions=precisions)
        trials = PieceTrials(reference, target, failure, self._folder, trials=request.trials, seconds=request.seconds)
        ready = trials.expected(piece)
        if ready is None and request.signature.kind.by_values:
            return self._none(piece, trials, "the reference does not run them alone")
        piece = ready or piece
        first, seen, result = self._first(piece, trials)
        if first is None:
            return self._none(piece, trials, result.words or "they do not fail")
        trials.failure = first
        steps: list[str] = []
        private = "Weights and inputs are those of the model."
        if request.no_weights:
            seeded = seeded_weights(piece, trials.attempt, seed=request.seed)
            piece, private = seeded.piece, seeded.words
            steps += [f"random values for {', '.join(seeded.replaced[:6])}"] if seeded.replaced else []
            seen, result = trials.last or (seen, result)
        shrunk = shrink(piece, trials.attempt, worst_sample=result.worst_sample, seen=seen.values)
        steps += shrunk.steps
        story = Story(
            request.reference, request.target, self._verdict(shrunk.piece), request.command, request.limit_texts,
            tuple(steps), private, self._timeout, request.memory_cap,
        )  # fmt: skip
        info = make_bundle(path, shrunk.piece, trials.failure, story)
        return dataclasses.replace(info, trials=trials.trials + 1)

    def _first(self, piece: CulpritPiece, trials: PieceTrials) -> tuple[PieceFailure | None, Seen, PieceResult]:
        """See the piece fail; the failure with what was seen as its measure, None if it does not fail."""
        request = self._request
        for _ in range(_FIRST_RUNS):
            seen, result = trials.run(piece)
            first = trials.failure.anchored(result, limits=request.limits, noise=request.noise)
            if first is not None:
                break
        return first, seen, result

    def _verdict(self, piece: CulpritPiece) -> str:
        request = self._request
        nodes = ", ".join(piece.nodes)
        what = {
            FailureKind.WRONG_NUMBERS: "computes wrong numbers",
            FailureKind.NOT_FINITE: "delivers NaN or Inf where there should be none, or the other way round",
            FailureKind.SHAPE: "delivers another shape or type",
            FailureKind.REFUSED: "refuses the model",
            FailureKind.CRASHED: "crashes",
            FailureKind.HUNG: "hangs",
            FailureKind.OUT_OF_MEMORY: "runs out of memory",
        }[request.signature.kind]
        measured = f" ({request.words})" if request.words else ""
        return (
            f"{request.target} {what} at {nodes}{measured}, against {request.reference}. In this bundle "
            f"{'these nodes stand' if len(piece.nodes) > 1 else 'this node stands'} alone and "
            f"{'are' if len(piece.nodes) > 1 else 'is'} fed what {request.reference} computes up to there."
        )

    def _none(self, piece: CulpritPiece, trials: PieceTrials, why: str) -> BundleInfo:
        nodes = ", ".join(piece.nodes[:3])
        reason = f"no bundle was made: cut out and fed the reference's values, {nodes}: {why}"
        return BundleInfo("", reason, nodes=piece.nodes, trials=trials.trials)
