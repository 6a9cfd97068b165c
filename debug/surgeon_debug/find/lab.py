"""Trials with two engines: the suspect computes some nodes of a model, the reference all others, and outputs decide."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import signal
import time
from collections.abc import Callable

import numpy as np

from surgeon_debug.cell import Cell
from surgeon_debug.endings import EngineFailure
from surgeon_debug.feed_pieces import FedPiece, chain_piece
from surgeon_debug.find.groundwork import Groundwork, given_outputs
from surgeon_debug.find.hybrid import Hybrid, share, unread
from surgeon_debug.find.oracle import BUILD, FRESH, NAMED, FailureKind, Signature, TrialRecord
from surgeon_debug.find.signature import of_error, of_outputs
from surgeon_debug.limits import Limits
from surgeon_debug.runners.contract import Engine
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Value, kind_of, numpy_dtype
from surgeon_debug.whole_run import OutputRules, WholeOutputs
from surgeon_passes.errors import EngineError

_PIECE = re.compile(r"\S*piece-\d+\.onnx")

Values = dict[str, Value]


@dataclasses.dataclass
class _Tally:
    builds: int = 0
    runs: int = 0
    reference_runs: int = 0
    named: tuple[str, ...] = ()  # nodes that the suspect names as what it refuses


class Lab:
    """Makes trials, one at a time.

    A trial's outputs are judged as those of a comparison are: by the caller's limits, else by the table.

    Args:
        ground: The model and its inputs.
        engines: The reference and the suspect.
        limits: The caller's own limits for outputs.
        postprocess: What is compared instead of the outputs.
        by_values: Whether the failure shows in values; if not, only the suspect is run.
        give_back: Called with the engines when the lab is closed.
    """

    def __init__(
        self,
        ground: Groundwork,
        engines: tuple[Engine, Engine],
        *,
        limits: Limits,
        postprocess: Postprocess | None,
        by_values: bool,
        give_back: Callable[[tuple[Engine, Engine]], None],
    ) -> None:
        self.ground = ground
        self.reference, self.target = engines
        self._limits, self._postprocess, self._by_values = limits, postprocess, by_values
        self._give_back = give_back
        self._aborted = False
        self._build = ""
        model = self.ground.source.model
        self._types = {
            value.name: numpy_dtype(value.dtype.value)
            for node in model.graph
            for value in node.outputs
            if value.name and value.dtype is not None and value.dtype.is_floating_point()
        }
        self._built: tuple[frozenset[int], Hybrid, FedPiece] | None = None
        self._truth: list[Values] | None = None

    def close(self) -> None:
        """Give the engines back."""
        if self._aborted:
            for engine in (self.reference, self.target):
                engine.close()  # it starts anew when it is prepared
        self._give_back((self.reference, self.target))

    def abort(self) -> None:
        """End what the engines are doing, from another thread; the trial under way fails."""
        self._aborted = True
        for engine in (self.reference, self.target):
            if isinstance(engine.runner, Cell) and engine.runner.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(engine.runner.pid, signal.SIGKILL)

    def evaluate(self, elements: frozenset[int], attempt: int) -> TrialRecord:
        """Make a trial; see :class:`surgeon_debug.find.oracle.Oracle`.

        A further attempt at the elements of the last trial runs what is already compiled, up to the next that must not.
        """
        started = time.monotonic()
        tally = _Tally()
        held = self.ground.values.runs
        try:
            signature, words, error, unresolved = self._try(elements, attempt, tally)
        finally:
            tally.reference_runs += self.ground.values.runs - held
        return TrialRecord(
            signature,
            unresolved,
            words,
            error,
            time.monotonic() - started,
            tally.builds,
            tally.runs,
            tally.reference_runs,
            {BUILD: self._build, **({NAMED: list(tally.named)} if tally.named else {})},
        )

    def _try(
        self, elements: frozenset[int], attempt: int, tally: _Tally
    ) -> tuple[Signature | None, str, float | None, str]:
        if not elements:
            return None, "", None, ""
        try:
            hybrid, piece = self._plan(elements)
        except EngineError as error:
            return None, "", None, f"the reference cannot compute its inputs: {error}"
        if not piece.cut.outputs:
            return None, "", None, ""  # nothing of it is read by anything
        try:
            found, unresolved = self._run(elements, attempt, hybrid, piece, tally)
        except EngineError as error:
            self._built = None
            tally.named = error.nodes if isinstance(error, EngineFailure) else ()
            return of_error(error, self.ground.names), str(error), None, ""
        if unresolved or not self._by_values:
            return None, "", None, unresolved
        if isinstance(found, str):
            return Signature(FailureKind.SHAPE), found, None, ""
        return (*self._judge(found, hybrid), "")

    def truth(self) -> list[Values]:
        """The model's outputs as the reference computes them, one mapping a sample.

        Raises:
            EngineError: The reference refuses or fails.
        """
        if self._truth is None:
            ground = self.ground
            names = [name for name in ground.outputs if name in ground.source.producer]
            try:
                ground.values.hold(names, self.reference)
                computed = ground.values.of(names, self.reference)
            except EngineFailure as error:
                what = f"the reference cannot run the model: {_PIECE.sub(ground.path.name, error.what)}"
                hint = error.hint or "give inputs that fit with --feeds or --dims, or another --reference"
                raise EngineFailure(what, ending=error.ending, hint=hint) from error
            self._truth = [{**a, **b} for a, b in zip(given_outputs(ground), computed, strict=True)]
        return self._truth

    def _plan(self, elements: frozenset[int]) -> tuple[Hybrid, FedPiece]:
        if self._built is not None and self._built[0] == elements:
            return self._built[1:]
        ground = self.ground
        hybrid = share(ground.source, ground.elements.positions(elements))
        suspect = hybrid.suspect
        values = ground.values.of(suspect.reads, self.reference)
        shows = [name for name in suspect.shows if name not in ground.source.non_tensors or name in ground.outputs]
        if not shows and not self._by_values:
            shows = unread(ground.source, suspect.nodes)  # or the engine is given nothing to fail at
        settings = hybrid.known & ground.source.producer.keys()
        piece = chain_piece(suspect.nodes, suspect.reads, shows, values, settings)
        if len(elements) == len(ground.elements):
            # The model as it is wants all its inputs, those that no node reads too.
            piece = dataclasses.replace(piece, feeds=tuple(dict(sample) for sample in ground.feeds))
        return hybrid, piece

    def _run(
        self, elements: frozenset[int], attempt: int, hybrid: Hybrid, piece: FedPiece, tally: _Tally
    ) -> tuple[list[Values] | str, str]:
        """Outputs of a run, or how they cannot be compared; and why nobody can tell."""
        whole = len(elements) == len(self.ground.elements)
        if self._built is None or self._built[0] != elements or attempt % FRESH == 0:
            tally.builds += 1
            self._build = secrets.token_hex(4)
            self._prepare(piece, whole)
            self._built = (elements, hybrid, piece)
        values = [dict(sample) for sample in piece.feeds]
        followers: FedPiece | None = None
        for _ in range(hybrid.rounds if self._by_values else 1):
            for sample, fed in zip(values, piece.feeds, strict=True):
                sample.update(self.target.run({name: sample[name] for name in fed}))
                tally.runs += 1
            lacking = [name for name in piece.cut.outputs if any(name not in sample for sample in values)]
            if lacking and not whole:
                return [], f"the engine did not deliver {lacking[0]}"
            if not hybrid.reference.nodes or not self._by_values:
                continue
            try:
                followers = self._follow(hybrid, values, followers, tally)
            except EngineError as error:
                return self._not_followed(hybrid, values, error)
        return values, ""

    def _prepare(self, piece: FedPiece, whole: bool) -> None:
        source = self.ground.source
        if whole:
            written = source.write_whole()
            try:
                self.target.prepare(written or self.ground.path, self.ground.outputs)
            finally:
                if written is not None:
                    written.unlink(missing_ok=True)
            return
        path = source.write(piece.cut)
        try:
            self.target.prepare(path, piece.cut.outputs)
        finally:
            path.unlink(missing_ok=True)

    def _follow(self, hybrid: Hybrid, values: list[Values], followers: FedPiece | None, tally: _Tally) -> FedPiece:
        """Let the reference go on from the suspect's values."""
        own = hybrid.reference
        source = self.ground.source
        known = self.ground.values.of([name for name in own.reads if name in hybrid.known], self.reference)
        fed = [
            {**truth, **{name: self._typed(name, sample[name]) for name in own.reads if name in sample}}
            for truth, sample in zip(known, values, strict=True)
        ]
        if followers is None:
            followers = chain_piece(own.nodes, own.reads, own.shows, fed)
            path = source.write(followers.cut)
            try:
                self.reference.prepare(path, followers.cut.outputs)
            finally:
                path.unlink(missing_ok=True)
        for sample, given in zip(values, fed, strict=True):
            sample.update(self.reference.run(given))
            tally.reference_runs += 1
        return followers

    def _typed(self, name: str, value: Value) -> Value:
        """A value in the type that the model states; some engines give their own."""
        wanted = self._types.get(name)
        if wanted is None or not isinstance(value, np.ndarray) or value.dtype == wanted or kind_of(value) != "float":
            return value
        with np.errstate(over="ignore", invalid="ignore"):
            return value.astype(wanted)

    def _not_followed(self, hybrid: Hybrid, values: list[Values], error: EngineError) -> tuple[str, str]:
        """Why the reference cannot go on: values of another shape are a failure of the suspect, all else is not."""
        shown = [name for name in hybrid.suspect.shows if name in values[0]]
        with contextlib.suppress(EngineError):
            for truth, sample in zip(self.ground.values.of(shown, self.reference), values, strict=True):
                for name in shown:
                    ours, theirs = getattr(truth.get(name), "shape", None), getattr(sample[name], "shape", None)
                    if ours != theirs:
                        return f"{name}: shape {theirs} instead of {ours}", ""
        return "", f"the reference cannot go on from the engine's values: {error}"

    def _judge(self, values: list[Values], hybrid: Hybrid) -> tuple[Signature | None, str, float | None]:
        truth = self.truth()
        names = self.ground.outputs
        labels = (self.reference.label, self.target.label)
        precisions = tuple(e.precision for e in (self.reference, self.target) if e.precision)
        rules = OutputRules(self.ground.layers, self._limits, precisions)
        watch = WholeOutputs(names, rules, labels, self._postprocess)
        touched = set(hybrid.outputs)
        seen = []
        for sample, right in zip(values, truth, strict=True):
            same = {name: value for name, value in right.items() if name not in touched}
            seen.append({**same, **{name: sample[name] for name in touched if name in sample}})
        watch.take(seen)
        watch.compare(truth, [{} for _ in truth])
        return of_outputs(watch.results(truth[0]))
