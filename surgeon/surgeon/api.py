"""The Python face: the same deeds as on the command line, on files, ``onnx_ir.Model`` or ``ModelProto``.

No function changes the model it is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir

from surgeon import rewriting
from surgeon.running import samples_of, wanted_tensors
from surgeon_debug.comparison import Comparison
from surgeon_debug.feed_files import check_feeds, load_feeds
from surgeon_debug.layers import DEFAULT_REFERENCE, RunnerLike, as_engine, compare_models
from surgeon_debug.limits import Limits
from surgeon_debug.observe_ladder import climb
from surgeon_debug.pair import LayerOptions
from surgeon_debug.replay import ReplayResult
from surgeon_debug.replay import replay as replay_bundle
from surgeon_debug.runners.runner_text import names_tensorrt
from surgeon_debug.stage import staged
from surgeon_debug.values import Feeds, Value
from surgeon_passes import extract as extracting
from surgeon_passes import graph
from surgeon_passes import save as saving
from surgeon_passes.contract import Change, Pass
from surgeon_passes.errors import BadOptionError, BrokenPassError, EngineError
from surgeon_passes.pipeline import Report
from surgeon_passes.recipe import Recipe

ModelLike: TypeAlias = str | Path | ir.Model | onnx.ModelProto
"""A path, a model of onnx_ir, or a ModelProto."""


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """A rewritten model and how it came about."""

    model: ir.Model
    """The new model."""
    changes: tuple[Change, ...]
    """Every change, by number."""
    report: Report
    """What each pass did and left alone."""
    verified: rewriting.Verified | None
    """The comparison before against after; None if it was not asked for."""


def load(path: str | Path, *, allow_external: bool = False) -> ir.Model:
    """Read a model without its weights, which stay mapped; see :func:`surgeon_passes.graph.load`."""
    return graph.load(path, allow_external=allow_external)


def save(model: ModelLike, path: str | Path, *, weights: str = "auto", shard_size: int | None = None) -> list[Path]:
    """Write a model whole or not at all; see :func:`surgeon_passes.save.save`.

    Args:
        model: The model.
        path: The target.
        weights: ``auto``, ``inline``, ``external`` or ``keep``.
        shard_size: Bytes after which a new data file is started.
    """
    try:
        layout = saving.Weights(weights)
    except ValueError:
        raise BadOptionError(f"weights='{weights}' is unknown", hint="use auto, inline, external or keep") from None
    return saving.save(model_of(model), path, weights=layout, shard_size=shard_size)


def to_proto(model: ModelLike) -> onnx.ModelProto:
    """A ModelProto with every weight inside it; see :func:`surgeon_passes.graph.to_proto`."""
    return graph.to_proto(model_of(model))


def model_of(model: ModelLike) -> ir.Model:
    """An ``onnx_ir.Model`` from whatever stands for a model; one in memory is returned as it is."""
    if isinstance(model, ir.Model):
        return model
    if isinstance(model, onnx.ModelProto):
        # onnx_ir keeps the TensorProtos it is given and renames them when a tensor is renamed.
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return graph.from_proto(copy)
    return graph.load(model)


def rewrite(
    model: ModelLike,
    steps: Sequence[str | Pass | Recipe] | str | Recipe,
    *,
    verify: bool = False,
    limit: int | None = None,
    samples: int = 1,
    dims: Mapping[str, int] | None = None,
) -> Rewritten:
    """Run passes on a copy of a model.

    Args:
        model: The model; it is not changed.
        steps: Passes as text or objects, or a recipe by name, file or object.
        verify: Compare before and after under onnxruntime.
        limit: Make the first changes only.
        samples: Seeded inputs for ``verify``.
        dims: Sizes of symbolic dimensions for ``verify``.

    Raises:
        BrokenPassError: ``verify`` found that a value changed; the message names the first change that did it.
        SurgeonError: The model, a pass or an option does not do.
    """
    recipe = rewriting.recipe_of([steps] if isinstance(steps, str | Recipe) else steps)
    source = Path(model) if isinstance(model, str | Path) else model_of(model)
    order = rewriting.Order(source, recipe, limit=limit)
    report = rewriting.perform(order)
    verified = rewriting.verify(order, report, samples=samples, dims=dims or {}) if verify else None
    if verified is not None and verified.altered:
        raise BrokenPassError(" ".join(verified.sentences()))
    return Rewritten(report.model, report.changes, report, verified)


def simplify(model: ModelLike, *, verify: bool = False) -> ir.Model:
    """The model after the recipe ``simplify``: fewer nodes, same values."""
    return rewrite(model, "simplify", verify=verify).model


def extract(
    model: ModelLike,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    nodes: Sequence[str] = (),
    inside: str = "",
) -> ir.Model:
    """Cut a piece out of a model; see :func:`surgeon_passes.extract.extract`."""
    return extracting.extract(model_of(model), inputs=inputs, outputs=outputs, nodes=nodes, inside=inside).model


def run(
    model: ModelLike,
    runner: RunnerLike = "onnxruntime",
    *,
    feeds: Feeds | str | Path | None = None,
    outputs: Sequence[str] = (),
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
) -> dict[str, Value]:
    """Run a model once.

    Args:
        model: The model.
        runner: The text of a runner, or a runner.
        feeds: Values by input name, or a file of them; None for seeded ones.
        outputs: Tensors to fetch, inner ones too; empty for the model's outputs.
        dims: Sizes of symbolic dimensions of seeded inputs.
        seed: Seed of these.

    Returns:
        Values by tensor name; types that numpy lacks are arrays of ml_dtypes, sequences are lists.

    Raises:
        BadOptionError: A runner, a tensor or an input does not exist.
        EngineError: The engine refuses the model, fails, or does not show a tensor that was asked for.
    """
    loaded = model_of(model)
    if feeds is None or isinstance(feeds, str | Path):
        sample = samples_of(loaded, None if feeds is None else Path(feeds), seed=seed, dims=dims)[0]
    else:
        sample = check_feeds(feeds, loaded)
    wanted = wanted_tensors(loaded, outputs, layers=False)
    engine = as_engine(runner)
    with staged(model) as path:
        try:
            engine.prepare(path, wanted)
            found = engine.run(sample)
        finally:
            if engine is not runner:
                engine.close()
    missing = [name for name in wanted if name not in found]
    if missing:
        raise EngineError(f"{engine.label} does not show tensor '{missing[0]}'")
    return {name: found[name] for name in wanted}


def compare(
    model: ModelLike,
    other: ModelLike | None = None,
    *,
    target: RunnerLike,
    reference: RunnerLike = DEFAULT_REFERENCE,
    layers: bool | LayerOptions = False,
    feeds: Feeds | str | Path | None = None,
    samples: int = 1,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    metrics: Sequence[str] = (),
    per_tensor: str | Path | None = None,
    against: str | Path | None = None,
    save_reference: str | Path | None = None,
    timeout: float | None = None,
    memory_cap: int | None = None,
) -> Comparison:
    """Run a model on two engines, or two models, and compare; see :func:`surgeon_debug.layers.compare_models`.

    Args:
        model: What the reference runs.
        other: What the target runs; None for the same model.
        target: The runner under test, as text or object.
        reference: The runner that is believed.
        layers: Compare tensors inside too. On TensorRT, with one model, they are looked at with as little disturbance
            as will do, and the result has a ``ladder``; a :class:`surgeon_debug.pair.LayerOptions` says how to compare
            piece by piece, there as on all other engines.
        feeds: Values by input name, or a file of them; None for seeded ones.
        samples: How many seeded samples.
        seed: Seed of these.
        dims: Sizes of symbolic dimensions of these.
        rtol: Allow ``|error| <= atol + rtol * |reference|``, strictly; without any limit of yours, the noise floor of
            its precision decides about a layer, and a table by type about outputs.
        atol: See ``rtol``.
        metrics: Limits such as ``rel_l2<0.01`` or ``./mine.py:score>0.9``; all must hold.
        per_tensor: A file of limits for single tensors; see :mod:`surgeon_debug.limits`.
        against: A file of values computed earlier, in the reference's place.
        save_reference: Where to keep what the reference computed.
        timeout: Seconds that an engine may take for one prepare or one run.
        memory_cap: Bytes of memory for the process of each engine.

    Returns:
        The comparison: ``.verdict`` is ``agree`` or ``differ``, ``.first`` the layer where the error first appears.
    """
    if isinstance(feeds, str | Path):
        given: Sequence[Feeds] | None = load_feeds(feeds, model_of(model))
    else:
        given = None if feeds is None else [feeds]
    shared: dict[str, Any] = {
        "reference": reference,
        "feeds": given,
        "samples": samples,
        "seed": seed,
        "dims": dims,
        "limits": Limits.parse(metrics, per_tensor, rtol=rtol, atol=atol),
        "against": against,
        "save_reference": save_reference,
        "timeout": timeout,
        "memory_cap": memory_cap,
    }
    if layers is True and other is None and isinstance(target, str) and names_tensorrt(target):
        return climb(model, target=target, **shared)
    return compare_models(model, other, target=target, layers=layers, **shared)


def replay(
    bundle: str | Path,
    *,
    target: str | None = None,
    reference: str | None = None,
    timeout: float | None = None,
    memory_cap: int | None = None,
    allow_code: bool = False,
) -> ReplayResult:
    """Run a bundle of ``find`` again, here; see :func:`surgeon_debug.replay.replay`.

    Args:
        bundle: The file.
        target: The text of a runner to run instead of the bundle's own.
        reference: The text of a runner that says what is expected, instead of the bundle.
        timeout: Seconds for one prepare or one run; None for the bundle's own limit.
        memory_cap: Bytes for the engine's process; None for the bundle's own limit.
        allow_code: Execute a runner's file that is in the bundle, which is code of whoever made it.

    Returns:
        The result: ``.outcome`` is REPRODUCES, CLEAN or UNRESOLVED, ``.words`` says what happened.

    Raises:
        SurgeonError: The bundle cannot be read, needs code that was not allowed, or a runner does not do.
    """
    return replay_bundle(
        bundle, target=target, reference=reference, timeout=timeout, memory_cap=memory_cap, allow_code=allow_code
    )
