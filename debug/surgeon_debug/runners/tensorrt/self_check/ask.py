"""One question put to TensorRT, as a runner: a question that crashes or hangs it ends only its own process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.runners.tensorrt.buffers import open_memory
from surgeon_debug.runners.tensorrt.build import make_builder
from surgeon_debug.runners.tensorrt.module import CAPABILITIES, capabilities, load_tensorrt, version_of
from surgeon_debug.runners.tensorrt.self_check.answer import QUESTIONS, Answer
from surgeon_debug.runners.tensorrt.self_check.bare_build import ear
from surgeon_debug.runners.tensorrt.self_check.cache_questions import (
    convolutions_have_keys,
    misses_are_stopped,
    other_devices_are_refused,
    rebuilds_are_fast,
)
from surgeon_debug.runners.tensorrt.self_check.engine_questions import ENGINE_QUESTIONS
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import BadOptionError

ANSWER = "answer"
"""The name under which the answer is returned, a JSON text."""


class Ask:
    """Ask one question.

    Args:
        question: Its number; 0 asks what TensorRT and device are there.
        foreign: A timing cache of another device.

    Raises:
        BadOptionError: There is no such question.
        EngineError: TensorRT cannot be loaded, or there is no GPU.
    """

    observes = True

    def __init__(self, question: int, foreign: Path | None = None) -> None:
        if question and question not in QUESTIONS:
            raise BadOptionError(f"there is no question {question}", hint=f"0 to {len(QUESTIONS)}")
        self._number, self._foreign = question, foreign
        load_tensorrt()
        self._device = open_memory().device_info()
        self._found: dict[str, Any] = {}

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Find the answer; all models lie beside ``model_path``, ``outputs`` is of no interest."""
        del outputs
        models = {path.stem: path for path in model_path.parent.glob("*.onnx")}
        self._found = self._who() if self._number == 0 else self._answer(models).to_json()

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Return the answer; ``feeds`` are of no interest."""
        del feeds
        return {ANSWER: np.array([json.dumps(self._found)], dtype=object)}

    def _who(self) -> dict[str, Any]:
        trt = load_tensorrt()
        make_builder(trt, ear(trt)[0])  # which only a usable GPU makes
        parser = getattr(trt, "get_nv_onnx_parser_version", None)
        have = capabilities(trt)
        return {
            "tensorrt": version_of(trt),
            "parser": str(parser()) if callable(parser) else "",
            "device": dataclasses.asdict(self._device),
            "capabilities": sorted(have),
            "lacking": sorted({one.path for one in CAPABILITIES} - have),
        }

    def _answer(self, models: Mapping[str, Path]) -> Answer:
        cache = {1: convolutions_have_keys, 6: misses_are_stopped, 8: rebuilds_are_fast}
        ask = cache.get(self._number) or ENGINE_QUESTIONS.get(self._number)
        found = other_devices_are_refused(models, self._foreign) if ask is None else ask(models)
        return Answer(self._number, QUESTIONS[self._number], *found)
