"""What ``surgeon run``, ``compare`` and ``extract --feeds`` share: the inputs to run with."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from surgeon_debug.feed_files import load_feeds
from surgeon_debug.feeds import make_feeds
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.values import Value
from surgeon_passes.errors import BadOptionError, EngineError
from surgeon_passes.graph import load
from surgeon_passes.near_names import did_you_mean


def samples_of(
    model: ir.Model, feeds: Path | None, *, samples: int = 1, seed: int = 0, dims: Mapping[str, int] | None = None
) -> list[dict[str, Value]]:
    """Inputs from a file or folder, else seeded ones.

    Args:
        model: The model that will be fed.
        feeds: A ``.npz``, ``.json`` or ``.safetensors`` file or a folder of ONNX test data; None for seeded inputs.
        samples: How many seeded inputs to make; of a folder, how many to take at most.
        seed: Seed of the first.
        dims: Sizes of symbolic dimensions of seeded inputs.
    """
    if feeds is not None:
        return load_feeds(feeds, model)
    return [make_feeds(model, seed=seed, sample=sample, dims=dims or {}) for sample in range(samples)]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a model on one engine."""

    model: Path
    """The model."""
    runner: str
    """The engine, as it was asked for."""
    values: dict[str, Value]
    """What it computed, by tensor name, in the order of the graph."""
    missing: tuple[str, ...]
    """Tensors that were wanted and that the engine did not show."""
    seconds: float
    """Wall time of the run itself, without preparing."""


def run_once(
    path: Path,
    runner: str,
    *,
    feeds: Path | None = None,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    outputs: Sequence[str] = (),
    layers: bool = False,
    allow_external: bool = False,
) -> Run:
    """Run a model once.

    Args:
        path: The model file.
        runner: The text of a runner.
        feeds: Where inputs come from; None for seeded ones.
        seed: Seed of the inputs.
        dims: Sizes of symbolic dimensions.
        outputs: Tensors to fetch; empty for the model's outputs.
        layers: Fetch every tensor of the main graph as well.
        allow_external: Accept weights outside the model's folder.

    Raises:
        BadOptionError: A tensor, an input or a runner does not exist.
        EngineError: The engine refuses the model or fails.
    """
    model = load(path, allow_external=allow_external)
    sample = samples_of(model, feeds, seed=seed, dims=dims)[0]
    wanted = wanted_tensors(model, outputs, layers=layers)
    with make_engine(runner) as engine:
        engine.prepare(path, wanted)
        started = time.perf_counter()
        try:
            found = engine.run(sample)
        except EngineError as error:
            if feeds is None and not error.hint:
                error.hint = "its inputs were made up: give real ones with --feeds, or sizes with --dims"
            raise
        seconds = time.perf_counter() - started
    values = {name: found[name] for name in wanted if name in found}
    return Run(path, runner, values, tuple(name for name in wanted if name not in found), seconds)


def wanted_tensors(model: ir.Model, outputs: Sequence[str], *, layers: bool) -> list[str]:
    """Names of the tensors to fetch, in the order of the graph.

    Raises:
        BadOptionError: A name is no tensor of the main graph.
    """
    inner = [value.name for node in model.graph for value in node.outputs if value.name]
    given = [value.name for value in model.graph.outputs if value.name]
    for name in outputs:
        if name not in set(inner) | set(given):
            raise BadOptionError(f"there is no tensor '{name}'", hint=did_you_mean(name, [*inner, *given]))
    if not layers:
        return list(outputs) or given
    return list(dict.fromkeys([*inner, *given]))
