"""Tools that are scored: each is given the files of a case and names nodes.

Ours, ``polygraphy debug reduce`` in both modes through its real ``--check``, ddmin over nodes, and the first tensor of
a full dump that is over a tolerance. Ours gets an engine in this process, whose log counts its builds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from surgeon_debug.find.finding import Step
from surgeon_debug.search.ddmin import Ddmin
from surgeon_debug.search.trial import Outcome
from surgeon_debug.verify import Verifier
from tests.bench.planted import engine as engine_file
from tests.bench.planted.engine import MockEngine, worst_output
from tests.bench.planted.host import RIGHT, values_of
from tests.bench.planted.plan import EnginePlan, Wrong
from tests.bench.planted.rewrites import rewritten
from tests.bench.planted_layers.baselines import guess
from tests.bench.planted_layers.ground import live_tensors

REFERENCE = "onnxruntime:optimize=none"
Feeds = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Files:
    """A case as a tool sees it."""

    folder: Path

    @property
    def model(self) -> Path:
        """The model."""
        return self.folder / "model.onnx"

    @property
    def plan(self) -> Path:
        """What the engine is made from."""
        return self.folder / "plan.json"

    def feeds(self) -> list[Feeds]:
        """All samples."""
        several = sorted((self.folder / "inputs").glob("*.npz"))
        return [dict(np.load(path)) for path in several or [self.folder / "inputs.npz"]]


@dataclasses.dataclass(frozen=True)
class Named:
    """What a tool said."""

    culprits: tuple[tuple[str, ...], ...] = ()
    """Sets of names of nodes, or of tensors that they compute."""
    latent: tuple[tuple[str, ...], ...] = ()
    """Likewise, without any effect on outputs."""
    change: int | None = None
    """The number of a wrong application of a rewrite."""
    undecided: bool = False
    """Whether it said that it cannot tell."""
    trials: int | None = None
    """Its own count, without those that only saw the whole model fail; None if it has none."""
    premise: int = 0
    """Builds of the whole model, to see it fail."""
    naming: int | None = None
    """Builds from there until the culprits had names and the model was seen to be right without them."""
    words: str = ""
    """Its reason."""


def ours(files: Files) -> Named:
    """``find_nodes``; for a rewrite the verifier's first wrong change."""
    if (files.folder / "rewrites.json").exists():
        return _first_wrong_change(files)
    from surgeon_debug.find.finding import FindOutcome
    from surgeon_debug.find.nodes import find_nodes

    found = find_nodes(
        str(files.model), reference=REFERENCE, target=MockEngine(files.plan), feeds=files.feeds(), timeout=300.0
    )
    return Named(
        tuple(culprit.nodes for culprit in found.culprits),
        tuple(culprit.nodes for culprit in found.latent),
        undecided=found.outcome is FindOutcome.UNDECIDED,
        trials=sum(step.trials for step in found.steps if step.name != "probe"),
        premise=sum(step.builds for step in found.steps if step.name == "probe"),
        naming=_naming(found.steps),
        words=found.reason or "; ".join(culprit.reason for culprit in (*found.culprits, *found.latent)),
    )


def _naming(steps: Sequence[Step]) -> int:
    """Builds of a census and of the first proof; what comes after tells several culprits apart."""
    builds = 0
    for step in steps:
        builds += step.builds if step.name != "probe" else 0
        if step.name == "verify":
            break
    return builds


def _first_wrong_change(files: Files) -> Named:
    applications = json.loads((files.folder / "rewrites.json").read_text())["applications"]
    model = onnx.load(str(files.model))
    with Verifier(str(files.model), feeds=files.feeds()) as verifier:
        blame = verifier.first_wrong_change(lambda count: rewritten(model, applications[:count]), len(applications))
    sure = blame.first == blame.last
    return Named(
        change=blame.first if sure else None, undecided=not sure, trials=blame.trials, words=blame.verification.reason
    )


def ddmin(files: Files) -> Named:
    """Delta debugging over the nodes, judged end to end, each trial an ideal hybrid run."""
    hybrid = _Hybrid(files)
    if not hybrid.fails(hybrid.everything):
        return Named(trials=1, words="does not fail")
    search = Ddmin(sorted(hybrid.everything))
    count = 1
    while not search.done:
        for trial in search.ask(1):
            count += 1
            search.tell(trial, Outcome.REPRODUCES if hybrid.fails(trial.elements) else Outcome.CLEAN)
    (found,) = search.answer.culprits
    return Named((tuple(hybrid.names[i] for i in sorted(found)),), trials=count)


class _Hybrid:
    """Which sets of nodes fail on the mock engine if all others are computed right.

    The engine is right about every node that no fault names, so a hybrid run is a run with the faults inside the set.
    """

    def __init__(self, files: Files) -> None:
        self._model, self._plan = onnx.load(str(files.model)), EnginePlan.read(files.plan)
        self._feeds = files.feeds()
        self._expected = values_of(RIGHT, self._model, self._feeds)
        nodes = self._model.graph.node
        self.names = [node.name or node.output[0] for node in nodes]
        self.everything = frozenset(range(len(nodes)))
        place = {name: i for i, node in enumerate(nodes) for name in (*node.output, *_inner(node))}
        self._needs = [
            (wrong, {place[name] for name in (wrong.window or (wrong.tensor,))}) for wrong in self._plan.faults
        ]
        self._known: dict[frozenset[Wrong], bool] = {}

    def fails(self, elements: frozenset[int]) -> bool:
        active = [wrong for wrong, needed in self._needs if needed <= elements]
        key = frozenset(id(wrong) for wrong in active)
        if key in self._known and not self._plan.by_chance:
            return self._known[key]
        plan = dataclasses.replace(self._plan, faults=tuple(active), log="", real=False)
        try:
            found = values_of(plan, self._model, self._feeds)
            worst = max(worst_output(r, v) for r, v in zip(self._expected, found, strict=True))
            self._known[key] = not worst <= plan.limit
        except Exception:  # noqa: BLE001  (the engine ended; that is a failure too)
            self._known[key] = True
        return self._known[key]


def _inner(node: onnx.NodeProto) -> list[str]:
    """Tensors computed in the bodies of a node."""
    found = []
    stack = [a.g for a in node.attribute if a.HasField("g")]
    while stack:
        for inner in stack.pop().node:
            found += list(inner.output)
            stack += [a.g for a in inner.attribute if a.HasField("g")]
    return found


def first_over(files: Files) -> Named:
    """The first tensor of a full dump whose relative L2 error is over 1e-2."""
    return _dump(files, "first_over_limit")


def low_cosine(files: Files) -> Named:
    """The first tensor of a full dump whose cosine is below 0.99."""
    return _dump(files, "low_cosine")


def _dump(files: Files, which: str) -> Named:
    model = onnx.load(str(files.model))
    plan = dataclasses.replace(EnginePlan.read(files.plan), log="")
    names = live_tensors(model.graph)
    for feeds in files.feeds():
        right = values_of(RIGHT, model, [feeds], names)[0]
        try:
            found = values_of(plan, model, [feeds], names)[0]
        except Exception as error:  # noqa: BLE001  (nothing can be dumped from an engine that does not deliver)
            return Named(undecided=True, trials=1, words=str(error))
        tensor = getattr(guess(model, right, found), which)
        if tensor:
            return Named(((tensor,),), trials=1)
    return Named(trials=1)


def polygraphy_bisect(files: Files) -> Named:
    """``polygraphy debug reduce --mode bisect``."""
    return _polygraphy(files, "bisect")


def polygraphy_linear(files: Files) -> Named:
    """``polygraphy debug reduce --mode linear``."""
    return _polygraphy(files, "linear")


def _polygraphy(files: Files, mode: str) -> Named:
    program = shutil.which("polygraphy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise FileNotFoundError("polygraphy is not installed")
    feeds = files.feeds()[0]
    shapes = [f"{name}:[{','.join(map(str, value.shape))}]" for name, value in feeds.items()]
    check = [sys.executable, str(Path(str(engine_file.__file__)).resolve()), "check", "polygraphy_debug.onnx"]
    check += ["--plan", str(files.plan.resolve()), "--inputs", str((files.folder / "inputs.npz").resolve())]
    reduced = files.folder / "reduced.onnx"
    command = [program, "debug", "reduce", str(files.model.resolve()), "-o", str(reduced.resolve()), "--mode", mode]
    command += ["--model-input-shapes", *shapes, "--ignore-fail-code", "125", "--check", *check]
    scratch = files.folder / "polygraphy"
    scratch.mkdir(exist_ok=True)
    log = files.folder / "engine.log"
    log.unlink(missing_ok=True)
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    trials = log.read_text().count('"did": "build"') if log.exists() else 0
    if not reduced.exists():
        words = (done.stdout + done.stderr).strip().splitlines()[-1:]
        return Named(undecided=done.returncode != 0, trials=trials, words=" ".join(words)[:200])
    graph = onnx.load(str(reduced)).graph
    nodes = [node.name or node.output[0] for node in graph.node if node.op_type != "Constant"]
    return Named((tuple(nodes),), trials=trials)


TOOLS: dict[str, Callable[[Files], Named]] = {
    "ours": ours,
    "polygraphy-bisect": polygraphy_bisect,
    "polygraphy-linear": polygraphy_linear,
    "ddmin": ddmin,
    "first-over": first_over,
    "cosine": low_cosine,
}
"""Tools by name."""


def builds_and_runs(files: Files) -> tuple[int, int, float]:
    """What the mock engine's log says: builds, runs, and virtual seconds of the builds."""
    log = files.folder / "engine.log"
    if not log.exists():
        return 0, 0, 0.0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    built = [line for line in lines if line["did"] == "build"]
    return len(built), len(lines) - len(built), sum(line["seconds"] for line in built)
