"""Put TensorRT and the device of a user to the test: questions, small models layer by layer, one pinned tactic."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.comparison import Cause
from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.feeds import make_feeds
from surgeon_debug.in_short import in_short
from surgeon_debug.observe_ladder import climb
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.tensorrt.record import BUILD, read_tables
from surgeon_debug.runners.tensorrt.self_check import ask
from surgeon_debug.runners.tensorrt.self_check.answer import QUESTIONS, Answer, Reply
from surgeon_debug.runners.tensorrt.self_check.record_file import write_record_file
from surgeon_debug.runners.tensorrt.self_check.result import ModelCheck, PinCheck, SelfCheck
from surgeon_debug.runners.tensorrt.self_check.small_models import CONV, FIVE, MLP, write_models
from surgeon_debug.values import Value
from surgeon_passes.errors import EngineError
from surgeon_passes.graph import load
from surgeon_passes.spec import quote

SECONDS = 300.0
"""What all of it may take."""

_ONE = 120.0  # seconds for one question, or one build
_LEAST = 5.0  # seconds with which nothing new is begun
_SHARE = 4.0  # times as long as the others one of them may take, so that one that hangs leaves time for the rest;
_MOST = 0.4  # and at most so much of what is left
_PINNED = (MLP, CONV)
_CACHE = "timing.cache"
_BUILDS, _MODELS, _PIN = "builds", "models", "pinned"


def check_tensorrt(
    *,
    record: Path | None = None,
    foreign: Path | None = None,
    seconds: float = SECONDS,
    models: Sequence[str] = FIVE,
    questions: Sequence[int] = tuple(QUESTIONS),
    progress: Callable[[str], None] | None = None,
) -> SelfCheck:
    """Check TensorRT as it is here; every question and every model in a process of its own.

    Args:
        record: A zip file to write all of it to: answers, logs, keys of timing caches, the inspector's words, versions.
        foreign: A timing cache that was made on another device.
        seconds: What all of it may take; what does not fit is answered with unknown.
        models: The small models to build and compare.
        questions: The numbers of the questions to ask.
        progress: Called with a phrase about what is being done.

    Raises:
        EngineError: TensorRT is not there, too old or without a GPU.
        FileError: The record cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True) as held:
        folder = Path(held)
        found = _Checks(folder, seconds, foreign, progress or (lambda _: None)).run(models, questions)
        if record is not None:
            write_record_file(record, folder, found.to_json())
    return found


class _Checks:
    """One check.

    Args:
        folder: An empty folder; what is to be kept lies there in the end.
        seconds: What all of it may take.
        foreign: A timing cache of another device.
        progress: Called with a phrase.
    """

    def __init__(self, folder: Path, seconds: float, foreign: Path | None, progress: Callable[[str], None]) -> None:
        self._folder, self._foreign, self._progress = folder, foreign, progress
        self._began = time.monotonic()
        self._end = self._began + seconds
        self._until, self._ahead = self._end, 1
        (folder / _MODELS).mkdir()
        self._models = write_models(folder / _MODELS)

    def run(self, models: Sequence[str], questions: Sequence[int]) -> SelfCheck:
        """All checks, the most telling ones first."""
        self._ahead = 2 + len(models) + len(questions)  # who is there, and a pin
        self._begin("TensorRT and the device")
        system = self._asked(0)
        checked = tuple(self._check(name) for name in models)
        pin = self._pin()
        answers = tuple(self._answer(number) for number in questions)
        return SelfCheck(system, answers, checked, pin, time.monotonic() - self._began)

    def _begin(self, words: str) -> None:
        self._progress(words)
        left = self._end - time.monotonic()
        share = left * min(_MOST, _SHARE / self._ahead)
        self._until = time.monotonic() + min(_ONE, max(_LEAST, share), left)
        self._ahead = max(1, self._ahead - 1)

    @property
    def _over(self) -> bool:
        return self._end - time.monotonic() < _LEAST

    @property
    def _patience(self) -> float:
        """Seconds that what was begun may still take."""
        return max(1.0, self._until - time.monotonic())

    def _asked(self, number: int) -> dict[str, Any]:
        text = f"{ask.__file__}:Ask:question={number}"
        if self._foreign is not None:
            text += f",foreign={quote(str(self._foreign.absolute()))}"
        with in_short(text, "tensorrt"), make_engine(text, isolated=True, timeout=self._patience) as engine:
            engine.prepare(self._models[MLP], [ask.ANSWER])
            found: dict[str, Any] = json.loads(str(engine.run({})[ask.ANSWER][0]))
        return found

    def _answer(self, number: int) -> Answer:
        self._begin(f"question {number} of {len(QUESTIONS)}")
        if self._over:
            return Answer(number, QUESTIONS[number], Reply.UNKNOWN, "the time was over")
        try:
            return Answer.from_json(self._asked(number))
        except EngineError as error:
            # A crash or a hang is worth knowing, too.
            ending = getattr(getattr(error, "ending", None), "value", "")
            return Answer(number, QUESTIONS[number], Reply.UNKNOWN, _words(error), {"ending": ending})

    def _check(self, name: str) -> ModelCheck:
        """Build a model with everything recorded, and compare it layer by layer."""
        self._begin(f"model {name}")
        began = time.monotonic()
        if self._over:
            return ModelCheck(name, "failed", "the time was over", 0, False, 0.0)
        path, folder = self._models[name], self._folder / _BUILDS / name
        try:
            self._outputs(name, f"editable=true,save_cache={quote(str(folder / _CACHE))},record={quote(str(folder))}")
            found = climb(path, target="tensorrt", timeout=self._patience)
        except EngineError as error:
            return ModelCheck(name, "failed", _words(error), 0, False, time.monotonic() - began)
        if found.ladder is not None and not found.ladder.rows:
            return ModelCheck(name, "failed", found.ladder.words, 0, False, time.monotonic() - began)
        first = found.first
        words = "" if first is None else f"{first.tensor}: {first.judgement.reason}"
        if not words and found.verdict != "agree":
            words = next((f"{one.tensor}: {one.judgement.reason}" for one in found.outputs), "")
        disturbed = found.cause is Cause.FUSION
        seconds = time.monotonic() - began
        return ModelCheck(name, found.verdict, words, len(found.layers), disturbed, seconds)

    def _outputs(self, name: str, options: str) -> Mapping[str, Value]:
        """What an engine that is built so computes from the first sample."""
        path = self._models[name]
        model = load(path)
        text = f"tensorrt:{options}"
        with in_short(text, "tensorrt"), make_engine(text, isolated=True, timeout=self._patience) as engine:
            engine.prepare(path, [value.name for value in model.graph.outputs if value.name])
            return engine.run(make_feeds(model))

    def _pin(self) -> PinCheck:
        """Write another tactic into a timing cache, and see whether the engine has it and computes the same."""
        self._begin("a pinned tactic")
        why = "no build has an op with a key and two tactics"
        for name in _PINNED:
            folder = self._folder / _BUILDS / name
            try:
                document = json.loads((folder / BUILD).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            for table in read_tables(document):
                now = document["tactics"].get(table.key)
                others = [row for row in table.rows if row.hash != now]
                if now and others and not self._over:
                    return self._pinned(name, table.key, table.op, others[0].hash, others[0].kernel)
        return PinCheck(None, why)

    def _pinned(self, name: str, key: str, op: str, tactic: str, kernel: str) -> PinCheck:
        folder = self._folder / _PIN
        folder.mkdir()
        (folder / "pins.json").write_text(json.dumps({key: tactic}))
        words = f"op {op} of {name} pinned to {tactic} {kernel}".rstrip()
        cache = f"editable=true,cache={quote(str(self._folder / _BUILDS / name / _CACHE))}"
        pins = f"pins={quote(str(folder / 'pins.json'))},record={quote(str(folder))}"
        try:
            free, pinned = self._outputs(name, cache), self._outputs(name, f"{cache},{pins}")
        except EngineError as error:
            return PinCheck(False, f"{words}: {_words(error)}", key, tactic)
        return PinCheck(True, words, key, tactic, _error(free, pinned))


def _words(error: EngineError) -> str:
    """The sentence of a failure; how to wait longer is no advice here."""
    hung = isinstance(error, EngineFailure) and error.ending is Ending.HUNG
    return error.what if hung else str(error)


def _error(free: Mapping[str, Value], pinned: Mapping[str, Value]) -> float | None:
    """Relative L2 of the worst output; None if there is nothing to compare."""
    errors = []
    for name, value in free.items():
        other = pinned.get(name)
        if isinstance(value, np.ndarray) and isinstance(other, np.ndarray) and value.shape == other.shape:
            size = float(np.linalg.norm(value.astype(np.float64)))
            difference = float(np.linalg.norm(other.astype(np.float64) - value.astype(np.float64)))
            errors.append(difference / size if size else difference)
    return max(errors, default=None)
