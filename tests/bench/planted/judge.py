"""Judge what a tool said about a case."""

from __future__ import annotations

import dataclasses
import math
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import onnx

from tests.bench.planted.cases import Case, Spec, plant, read_case
from tests.bench.planted.tools import TOOLS, Files, Named, builds_and_runs
from tests.bench.planted.truth import CHANGE, NOBODY, SEVERAL, Truth


@dataclasses.dataclass(frozen=True)
class Score:
    """How a tool did on one case."""

    spec: Spec
    nodes: int
    cause: str
    exact: bool
    """Whether it named the culprits and no one else; on a healthy case, nobody."""
    near: bool
    """Whether what it named first is a culprit, in the same window as one, or next to one."""
    found: int
    """How many culprits are among those named."""
    culprits: int
    """How many there are."""
    false: int
    """Innocent nodes that were named, those in sets with culprits not among them."""
    undecided: bool
    trials: int
    builds: int
    runs: int
    bits: float
    """The bound on trials that answer yes or no."""
    seconds: float
    virtual: float
    """Seconds that the mock engine's builds would take."""
    hard: bool = False
    """Whether abstaining is right as well."""
    latent: bool = False
    named: tuple[tuple[str, ...], ...] = ()
    truth: tuple[tuple[str, ...], ...] = ()
    words: str = ""
    error: str = ""
    naming: int | None = None
    """Builds until the culprits had names and a proof; None if the tool does not say."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return dataclasses.asdict(self)


def score_spec(spec: Spec, tool: str, timeout: int = 900) -> Score:
    """Plant a case, let a tool loose on it, and judge; what goes wrong is kept as an error."""
    try:
        case = plant(spec)
    except Exception as error:  # noqa: BLE001  (counted and shown, never dropped)
        return _failed(spec, 0, Truth(NOBODY), f"not planted: {type(error).__name__}: {error}")
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        return score_case(case, Files(case.write(Path(folder))), tool, timeout)


def score_folder(folder: Path, tool: str, timeout: int = 900) -> Score:
    """Let a tool loose on a copy of a case that was written before, and judge."""
    with tempfile.TemporaryDirectory(prefix="planted-") as scratch:
        own = Path(shutil.copytree(folder, Path(scratch) / folder.name, ignore=shutil.ignore_patterns("engine.*")))
        return score_case(read_case(own), Files(own), tool, timeout)


def score_case(case: Case, files: Files, tool: str, timeout: int = 900) -> Score:
    """Let a tool loose on a case that is written, and judge."""
    started = time.perf_counter()
    try:
        named = _in_time(tool, files, timeout)
    except Exception as error:  # noqa: BLE001
        words = f"{type(error).__name__}: {error}"
        return dataclasses.replace(
            _failed(case.spec, case.nodes, case.planted.truth, words), seconds=time.perf_counter() - started
        )
    seconds = time.perf_counter() - started
    builds, runs, virtual = builds_and_runs(files)
    builds -= named.premise
    truth = case.planted.truth
    culprits, latent = (_by_name(case.planted.model, sets) for sets in (named.culprits, named.latent))
    exact, near, found, false = judge(truth, named, culprits, latent)
    return Score(
        case.spec,
        case.nodes,
        truth.cause,
        exact,
        near,
        found,
        len(truth.culprits) or int(truth.label == CHANGE),
        false,
        named.undecided,
        named.trials if named.trials is not None else builds,
        builds,
        runs,
        truth.bits,
        seconds,
        virtual,
        truth.abstain,
        truth.latent,
        (*culprits, *latent),
        truth.culprits,
        named.words,
        naming=named.naming,
    )


def judge(
    truth: Truth, named: Named, culprits: Iterable[tuple[str, ...]], latent: Iterable[tuple[str, ...]]
) -> tuple[bool, bool, int, int]:
    """Whether an answer is exact, and near; how many culprits it has; how many innocents it accuses."""
    if truth.label == CHANGE:
        right = named.change == truth.change
        return right, right, int(right), 0
    seen, hidden = [frozenset(c) for c in culprits], [frozenset(c) for c in latent]
    sets = [*seen, *hidden]
    all_named: frozenset[str] = frozenset().union(*sets)
    wanted = [frozenset(c) for c in truth.culprits]
    guilty: frozenset[str] = frozenset().union(*wanted)
    if truth.label == NOBODY:
        return not sets, not sets, 0, len(all_named)
    found = sum(one in sets or (len(one) == 1 and one <= all_named) for one in wanted)
    false = len(frozenset().union(*(s for s in sets if not s & guilty)))
    if truth.abstain and not sets:
        return True, True, 0, 0
    if truth.latent:
        exact = not seen and all_named == guilty
    elif truth.label == SEVERAL:
        exact = all_named == guilty and bool(seen)
    else:
        exact = seen == wanted and all_named == guilty
    first = sets[0] if sets else frozenset()
    near = bool(first) and bool(first & (guilty | frozenset(truth.near)))
    return exact, exact or near, found, false


def _by_name(model: onnx.ModelProto, sets: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Names of nodes, where a tool named tensors."""
    names = {node.name for node in model.graph.node}
    of_tensor = {name: node.name for node in model.graph.node for name in node.output}
    return [tuple(name if name in names else of_tensor.get(name, name) for name in group) for group in sets]


def _in_time(tool: str, files: Files, timeout: int) -> Named:
    """Run a tool, but not for ever."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"took longer than {timeout} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(timeout)
    try:
        return TOOLS[tool](files)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _failed(spec: Spec, nodes: int, truth: Truth, error: str) -> Score:
    count = len(truth.culprits) or int(truth.label == CHANGE)
    return Score(
        spec, nodes, truth.cause, False, False, 0, count, 0, False, 0, 0, 0, truth.bits, 0.0, 0.0,
        truth.abstain, truth.latent, truth=truth.culprits, error=error[:300],
    )  # fmt: skip


def ratio(score: Score) -> float:
    """Trials over the bound; NaN where there is nothing to find."""
    return score.trials / max(1.0, score.bits) if score.bits and score.trials else math.nan
