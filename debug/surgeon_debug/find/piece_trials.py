"""Run a piece on both engines: what is expected of it, what the suspect makes of it, whether that is the failure."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from surgeon_debug.find.culprit_piece import CulpritPiece
from surgeon_debug.find.piece_failure import PieceFailure, PieceResult
from surgeon_debug.find.signature import of_error
from surgeon_debug.noise_floor import perturb
from surgeon_debug.precision import precision_of
from surgeon_debug.runners.contract import Engine
from surgeon_debug.total import Total, root_ratio
from surgeon_debug.values import Value, kind_of
from surgeon_passes.errors import EngineError

_CONDITION_RATIO = 4.0  # an error must be this many times what rounding of the inputs makes of the outputs


@dataclasses.dataclass(frozen=True)
class Seen:
    """What an engine made of a piece."""

    values: tuple[dict[str, Value], ...]
    """Outputs, one mapping a sample; empty if it did not deliver."""
    error: EngineError | None = None
    """What it raised; None if it delivered."""


def run_piece(piece: CulpritPiece, engine: Engine, folder: Path, name: str = "piece.onnx") -> Seen:
    """Run every sample of a piece.

    Args:
        piece: The piece.
        engine: What runs it.
        folder: Where the model is written for the time being.
        name: The model's name there.

    Raises:
        BadOptionError: The engine does not exist or does not have such an option.
        FileError: The folder cannot be written.
    """
    path = piece.write(folder, name)
    try:
        return run_model(path, piece.outputs, piece.feeds, engine)
    finally:
        for written in folder.glob(f"{name}*"):
            written.unlink(missing_ok=True)


def run_model(path: Path, outputs: Sequence[str], feeds: Sequence[Mapping[str, Value]], engine: Engine) -> Seen:
    """Run every sample of a model in a file.

    Raises:
        BadOptionError: The engine does not exist or does not have such an option.
    """
    try:
        engine.prepare(path, outputs)
        return Seen(tuple(engine.run(sample) for sample in feeds))
    except EngineError as error:
        return Seen((), error)


class PieceTrials:
    """Makes trials of one piece and its smaller forms, and counts them.

    Args:
        reference: The engine that is believed.
        target: The engine under test; it must survive what the piece does to it, so where that is a crash or a hang it
            has to be one in a process of its own.
        failure: The failure that is followed.
        folder: Where models are written for the time being.
        trials: How often the target may be asked; None for as often as needed.
        seconds: How long all may take; None for as long as it takes.
    """

    def __init__(
        self,
        reference: Engine,
        target: Engine,
        failure: PieceFailure,
        folder: Path,
        *,
        trials: int | None = None,
        seconds: float | None = None,
    ) -> None:
        self.failure = failure
        self._reference, self._target = reference, target
        self._folder = folder
        self._most = trials
        self._until = None if seconds is None else time.monotonic() + seconds
        self._numbers = itertools.count()
        self.trials = 0
        """Runs of the target so far."""
        self.last: tuple[Seen, PieceResult] | None = None
        """What the target made of the last piece that failed."""

    @property
    def spent(self) -> bool:
        """Whether nothing more may be tried."""
        if self._most is not None and self.trials >= self._most:
            return True
        return self._until is not None and time.monotonic() > self._until

    def expected(self, piece: CulpritPiece) -> CulpritPiece | None:
        """The piece with what the reference computes; None if the reference refuses it."""
        seen = run_piece(piece, self._reference, self._folder, self._name())
        if seen.error is not None or any(name not in sample for sample in seen.values for name in piece.outputs):
            return None
        return piece.with_expected(seen.values)

    def run(self, piece: CulpritPiece) -> tuple[Seen, PieceResult]:
        """Run the target once and judge it.

        Args:
            piece: A piece of which is known what is expected, if the failure is one of values.
        """
        self.trials += 1
        seen = run_piece(piece, self._target, self._folder, self._name())
        if seen.error is not None:
            names = {*piece.nodes, *piece.weights, *piece.outputs, *(name for s in piece.feeds for name in s)}
            return seen, self.failure.of_ending(of_error(seen.error, names), str(seen.error))
        return seen, self.failure.of_values(piece.expected, seen.values)

    def attempt(self, piece: CulpritPiece) -> CulpritPiece | None:
        """Try a smaller form of the piece.

        Returns:
            The piece with what is expected of it now; None if the reference refuses it, if the failure is gone or is
            another one, if the difference may be rounding, or if nothing more may be tried.
        """
        if self.spent:
            return None
        ready = self.expected(piece)
        if ready is None or not _says_something(ready):
            return None
        seen, result = self.run(ready)
        if not self.failure.matches(result) or not self._beyond_rounding(ready, result):
            return None
        self.last = seen, result
        return ready

    def _beyond_rounding(self, piece: CulpritPiece, result: PieceResult) -> bool:
        """Whether the inputs, moved by as much as they are rounded, change the outputs far less than the target does.

        A sum that a crop makes cancel turns any engine's rounding into a large relative error.
        """
        numbers = [
            name
            for name, found in result.differences.items()
            if not found.mismatch and not found.exact and not found.special_mismatches and found.unequal
        ]
        if result.signature is None or result.worst_output not in numbers:
            return True
        rng = np.random.default_rng(0)
        precision = precision_of(self.failure.rules[result.worst_output].precision)
        moved = [
            {name: perturb(v, precision, rng) if isinstance(v, np.ndarray) else v for name, v in sample.items()}
            for sample in piece.feeds
        ]
        again = self.expected(dataclasses.replace(piece, feeds=tuple(moved)))
        if again is None:
            return True
        noise = _relative(piece.expected, again.expected, result.worst_output)
        return result.differences[result.worst_output].rel_l2 > _CONDITION_RATIO * noise

    def _name(self) -> str:
        return f"trial-{next(self._numbers)}.onnx"


def _says_something(piece: CulpritPiece) -> bool:
    """Whether anything is left that an engine can get wrong: some output with an element."""
    values = [value for sample in piece.expected for value in sample.values()]
    return not values or any(not isinstance(value, np.ndarray) or value.size for value in values)


def _relative(one: Sequence[Mapping[str, Value]], other: Sequence[Mapping[str, Value]], name: str) -> float:
    top, bottom = Total(), Total()
    for ours, theirs in zip(one, other, strict=True):
        a, b = ours[name], theirs[name]
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or a.shape != b.shape:
            return 0.0
        if kind_of(a) != "float":
            return 0.0
        with np.errstate(all="ignore"):
            left, right = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
            kept = np.isfinite(left) & np.isfinite(right)
            error = left[kept] - right[kept]
            top.add(float(error @ error))
            bottom.add(float(left[kept] @ left[kept]))
    return root_ratio(top, bottom)
