"""What ``surgeon run``, ``compare`` and ``extract --feeds`` share: the inputs to run with."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from surgeon_debug.facts import Facts, facts_of
from surgeon_debug.feed_files import load_feeds
from surgeon_debug.feeds import make_feeds
from surgeon_debug.golden import SUFFIX
from surgeon_debug.recording import describe
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.save_values import check_ending, saving
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import BadOptionError, EngineError
from surgeon_passes.graph import load
from surgeon_passes.near_names import did_you_mean


def samples_of(
    model: ir.Model,
    feeds: Path | None,
    *,
    samples: int | None = None,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
) -> list[dict[str, Value]]:
    """Inputs from a file or folder, else seeded ones.

    Args:
        model: The model that will be fed.
        feeds: A file or folder of inputs, see :func:`surgeon_debug.feed_files.load_feeds`; None for seeded inputs.
        samples: How many seeded inputs to make, None for one; of a file or folder, how many to take at most, None for
            all.
        seed: Seed of the first.
        dims: Sizes of symbolic dimensions of seeded inputs.
    """
    if feeds is not None:
        return load_feeds(feeds, model, most=samples)
    return [make_feeds(model, seed=seed, sample=sample, dims=dims or {}) for sample in range(samples or 1)]


@dataclasses.dataclass(frozen=True)
class Run:
    """Runs of a model on one engine, one for each sample."""

    model: Path
    """The model."""
    runner: str
    """The engine, as it was asked for."""
    samples: int
    """How many samples were run."""
    tensors: dict[str, Facts]
    """What was computed over all samples, by tensor name, in the order of the graph."""
    missing: tuple[str, ...]
    """Tensors that were wanted and that the engine did not show."""
    seconds: float
    """Mean wall time of a run, without preparing."""


@dataclasses.dataclass(frozen=True)
class RunOrder:
    """What to run and how."""

    model: Path
    """The model file."""
    runner: str
    """The text of a runner."""
    feeds: Path | None = None
    """Where inputs come from; None for seeded ones."""
    samples: int | None = None
    """How many samples; see :func:`samples_of`."""
    seed: int = 0
    """Seed of seeded inputs."""
    dims: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Sizes of symbolic dimensions of seeded inputs."""
    outputs: Sequence[str] = ()
    """Tensors to fetch; empty for the model's outputs."""
    layers: bool = False
    """Fetch every tensor of the main graph as well."""
    save: Path | None = None
    """Where to save what was fetched; None for nowhere."""
    allow_external: bool = False
    """Accept weights outside the model's folder."""


def run_samples(order: RunOrder) -> Run:
    """Run a model on every sample; the values of one are let go before the next is run.

    Args:
        order: What to run.

    Raises:
        BadOptionError: A tensor, an input or a runner does not exist, or values cannot be saved as asked for.
        EngineError: The engine refuses the model or fails.
        FileError: Values cannot be saved.
    """
    if order.save is not None:
        check_ending(order.save, order.samples or 1)
    model = load(order.model, allow_external=order.allow_external)
    fed = samples_of(model, order.feeds, samples=order.samples, seed=order.seed, dims=order.dims)
    wanted = wanted_tensors(model, order.outputs, layers=order.layers)
    with contextlib.ExitStack() as stack:
        saver = None
        if order.save is not None:
            check_ending(order.save, len(fed))
            saver = stack.enter_context(saving(order.save, runner=order.runner, meta=_meta(order, model)))
        engine = stack.enter_context(make_engine(order.runner))
        engine.prepare(order.model, wanted)
        tensors: dict[str, Facts] = {}
        missing: dict[str, None] = {}
        seconds = 0.0
        for number, sample in enumerate(fed):
            values, spent = _timed(engine, sample, made_up=order.feeds is None)
            seconds += spent
            missing.update((name, None) for name in wanted if name not in values)
            values = {name: values[name] for name in wanted if name in values}
            if saver is not None:
                saver.add(number, sample, values)
            for name, value in values.items():
                facts = facts_of(value)
                tensors[name] = tensors[name].joined(facts) if name in tensors else facts
            del values, sample  # before the next sample is computed
    ordered = {name: tensors[name] for name in wanted if name in tensors}
    return Run(order.model, order.runner, len(fed), ordered, tuple(missing), seconds / len(fed))


def _timed(engine: Engine, sample: Feeds, *, made_up: bool) -> tuple[dict[str, Value], float]:
    started = time.perf_counter()
    try:
        values = engine.run(sample)
    except EngineError as error:
        if made_up and not error.hint:
            error.hint = "its inputs were made up: give real ones with --feeds, or sizes with --dims"
        raise
    return values, time.perf_counter() - started


def _meta(order: RunOrder, model: ir.Model) -> dict[str, Any]:
    """What a golden file says about itself; other files say nothing, and the digest of a model reads every weight."""
    if order.save is None or order.save.suffix != SUFFIX:
        return {}
    seed = order.seed if order.feeds is None else None
    return describe(model, name=str(order.model), runner=order.runner, seed=seed, dims=order.dims)


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
