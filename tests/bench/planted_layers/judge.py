"""Run one case through the comparison under test and through the baselines, and say who was right."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from surgeon_debug.comparison import Comparison, TensorResult
from surgeon_debug.layers import compare_models
from surgeon_debug.runners.contract import Runner
from tests.bench.planted_layers.baselines import Guesses, guess
from tests.bench.planted_layers.cases import Case, Planted, plant
from tests.bench.planted_layers.faults import FaultyEngine, Plan
from tests.bench.planted_layers.ground import Array, Ground, fit, run_all

ACCUSED = ("wrong", "shape")
"""Verdicts that blame the engine for a layer."""

SUSPECT = "suspect"
"""The verdict that blames it with a doubt."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    case: Case
    tensor: str
    """The culprit's tensor; empty if the case could not be built."""
    op: str
    """The operator that computes it."""
    expected: str
    """The verdict it deserves."""
    noise: float
    introduced: float
    verdict: str
    """The verdict it got; empty if the comparison failed."""
    ratio: float | None
    """Introduced error over floor, as the comparison says."""
    answer: str
    """The tensor that was named: the first that is accused, called wrong or suspect; empty if none is."""
    rank: str
    """``exact``, ``near`` (an output of a neighbour), ``elsewhere``, or ``missed``."""
    rank_of_wrong: str
    """The same for the first that is called wrong; suspects left aside."""
    layers: int
    """Layers compared."""
    false: tuple[str, ...]
    """Innocent layers that were called wrong."""
    suspects: int
    """Innocent layers that were called suspect."""
    baselines: dict[str, str]
    """Rank by baseline."""
    seconds: float
    error: str = ""
    """Why there is no answer."""


def run_case(case: Case) -> Outcome:
    """Build, compare, judge; what fails is an outcome too."""
    try:
        planted = plant(case)
    except Exception as error:  # noqa: BLE001  (counted and shown, never dropped)
        return _failed(case, f"cannot be built: {type(error).__name__}: {error}")
    started = time.perf_counter()
    try:
        comparison = compare(planted)
    except Exception as error:  # noqa: BLE001
        return dataclasses.replace(
            _failed(planted.case, f"{type(error).__name__}: {error}"), tensor=planted.tensor, expected=planted.expected
        )
    return judge(planted, comparison, time.perf_counter() - started)


def _failed(case: Case, words: str) -> Outcome:
    words = words[:300]
    return Outcome(case, "", "", "", 0.0, 0.0, "", None, "", "missed", "missed", 0, (), 0, {}, 0.0, words)


def compare(planted: Planted) -> Comparison:
    """The comparison under test, the wrong engine as its target."""
    engine = FaultyEngine(Plan(planted.ground.pair.base, planted.faults))
    try:
        return compare_pair(planted.ground, engine)
    finally:
        engine.close()


def compare_pair(ground: Ground, target: str | Runner) -> Comparison:
    """The comparison under test, on files as a user has them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("model.onnx", "other.onnx")]
        for path, model in zip(paths, (ground.model, ground.other), strict=True):
            if model is not None:
                onnx.save_model(model, str(path))
        return compare_models(
            paths[0],
            paths[1] if ground.other is not None else None,
            target=target,
            reference=ground.pair.reference,
            feeds=[ground.feeds],
            layers=True,
        )


def judge(planted: Planted, comparison: Comparison, seconds: float) -> Outcome:
    """Hold the answers against the truth."""
    ground = planted.ground
    same_node = _outputs_of(ground.model, planted.tensor)
    innocent = [r for r in comparison.layers if r.tensor not in {*same_node, *planted.also}]
    named, wrong = (_first(comparison, words) for words in _accusing(planted))
    culprit = next((r for r in comparison.layers if r.tensor == planted.tensor), None)
    if planted.expected == "overflow" and culprit is not None and culprit.verdict.value != planted.expected:
        # The engine is healthy: to blame it is an error, even at the right place.
        innocent.append(culprit)
        named = wrong = ""
    faulty = faulty_values(planted)
    guesses = guess(ground.model, ground.reference, faulty)
    return Outcome(
        case=planted.case,
        tensor=planted.tensor,
        op=_producer(ground.model, planted.tensor).op_type,
        expected=planted.expected,
        noise=planted.noise,
        introduced=planted.introduced,
        verdict=culprit.verdict.value if culprit else "not compared",
        ratio=culprit.ratio if culprit else None,
        answer=named,
        rank=rank_of(ground.model, planted.tensor, named),
        rank_of_wrong=rank_of(ground.model, planted.tensor, wrong),
        layers=len(comparison.layers),
        false=tuple(_words(r) for r in innocent if r.verdict.value in ACCUSED),
        suspects=sum(r.verdict.value == SUSPECT for r in innocent),
        baselines=_ranks(ground, planted.tensor, guesses),
        seconds=seconds,
    )


def _accusing(planted: Planted) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The verdicts that name a culprit, and those of them that leave no doubt."""
    if planted.expected == "wrong":
        return (*ACCUSED, SUSPECT), ACCUSED
    return (planted.expected, *ACCUSED, SUSPECT), (planted.expected, *ACCUSED)


def _first(comparison: Comparison, verdicts: tuple[str, ...]) -> str:
    """The first tensor with one of some verdicts; empty if there is none."""
    return next((result.tensor for result in comparison.layers if result.verdict.value in verdicts), "")


def _words(result: TensorResult) -> str:
    return f"{result.tensor} ({result.op}): {result.judgement.reason}"


def _ranks(ground: Ground, tensor: str, guesses: Guesses) -> dict[str, str]:
    found = {
        "first over 1e-2": guesses.first_over_limit,
        "cosine < 0.99": guesses.low_cosine,
        "largest jump": guesses.largest_jump,
    }
    return {name: rank_of(ground.model, tensor, guessed) for name, guessed in found.items()}


def faulty_values(planted: Planted) -> dict[str, Array]:
    """Every tensor of the wrong engine, each on its own inputs."""
    ground = planted.ground
    if not planted.faults:
        return ground.target
    engine = FaultyEngine(Plan(ground.pair.base, planted.faults))
    try:
        return fit(ground.feeds, ground.theirs) | run_all(ground.theirs, engine, ground.feeds)
    finally:
        engine.close()


def _producer(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    return next((node for node in model.graph.node if tensor in node.output), onnx.NodeProto())


def _outputs_of(model: onnx.ModelProto, tensor: str) -> list[str]:
    return list(_producer(model, tensor).output)


def rank_of(model: onnx.ModelProto, truth: str, answer: str) -> str:
    """``exact`` for the same node, ``near`` for one that it reads from or that reads it, else ``elsewhere``.

    Args:
        model: What the reference runs.
        truth: The culprit's tensor.
        answer: The tensor that was named; empty if none was.
    """
    if not answer:
        return "missed"
    culprit, named = _producer(model, truth), _producer(model, answer)
    if answer in culprit.output:
        return "exact"
    if set(culprit.output) & set(named.input) or set(named.output) & set(culprit.input):
        return "near"
    return "elsewhere"


def plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON takes it."""
    found = dataclasses.asdict(outcome)
    for key in ("noise", "introduced", "ratio"):
        if found[key] is not None and not np.isfinite(found[key]):
            found[key] = str(found[key])
    return found
