"""Look into an engine step by step, each step more of a disturbance than the one before, and mind whether it heals.

An engine fuses, and what is fused cannot be seen; to show a tensor it must fuse less, and a fault may go with that. So
the tensors that fusion has left are looked at first, which changes nothing; then a few tensors at the border of the
groups that go wrong are marked; then the first group runs alone; and only then are its tensors made outputs. After each
step the failure of the whole is looked for again. If looking heals it, that is what was found: the fault depends on
fusion, and what was fused before and is not any more is the evidence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from surgeon_debug.climber import Climber
from surgeon_debug.comparison import Comparison
from surgeon_debug.golden import GoldenReader
from surgeon_debug.ladder_judge import Judge
from surgeon_debug.ladder_runs import Runs
from surgeon_debug.layers import DEFAULT_REFERENCE, RunnerLike, as_engine, compare_models
from surgeon_debug.limits import Limits
from surgeon_debug.model_tensors import tensors_of
from surgeon_debug.pair import LayerOptions
from surgeon_debug.pairing import output_names
from surgeon_debug.stage import ModelLike, label_of, staged
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Feeds


def climb(
    model: ModelLike,
    *,
    target: str,
    reference: RunnerLike = DEFAULT_REFERENCE,
    feeds: Sequence[Feeds] | None = None,
    samples: int = 1,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    limits: Limits | None = None,
    postprocess: Postprocess | None = None,
    layers: LayerOptions | None = None,
    against: str | Path | None = None,
    save_reference: str | Path | None = None,
    timeout: float | None = None,
    memory_cap: int | None = None,
    allow_external: bool = False,
) -> Comparison:
    """Compare a model's outputs on TensorRT, and look for what computes it wrongly, disturbing it as little as will do.

    The reference runs once; its values stay in a file, and are read from there one at a time.

    Args:
        model: The model.
        target: The text of the runner ``tensorrt``.
        reference: The runner that is believed.
        feeds: Samples, values by input name; None makes seeded ones up.
        samples: How many to make up.
        seed: Decides them.
        dims: Sizes of their symbolic dimensions.
        limits: The caller's own limits for the outputs; tensors inside are judged by the table.
        postprocess: What is compared instead of the outputs.
        layers: Of these options ``iterations`` and ``inner`` count.
        against: A file of values computed earlier, which takes the reference's place.
        save_reference: Where to keep the reference's values.
        timeout: Seconds for one build or one run.
        memory_cap: Bytes of memory for each engine's process.
        allow_external: Accept weights outside the model's folder.

    Returns:
        The comparison. Its ``ladder`` says what was seen; its ``layers`` are the tensors that fusion has left.

    Raises:
        BadModelError: The model cannot be used.
        BadOptionError: A runner does not do, or inputs or limits do not fit.
        EngineError: The reference cannot run, or the whole engine cannot be built or run.
    """
    options = layers or LayerOptions()
    given = limits or Limits()
    with contextlib.ExitStack() as stack:
        engine = as_engine(reference, isolated=True, timeout=timeout, memory_cap=memory_cap)
        if engine is not reference:
            stack.callback(engine.close)
        path = stack.enter_context(staged(model, allow_external=allow_external))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="surgeon-")))
        golden_path = folder / "reference.golden" if save_reference is None else Path(save_reference)
        kept = compare_models(
            path,
            target=engine,
            reference=engine,
            feeds=feeds,
            samples=samples,
            seed=seed,
            dims=dims,
            layers=LayerOptions(
                isolate=False, whole=False, follow=False, iterations=options.iterations, inner=options.inner
            ),
            against=against,
            save_reference=golden_path,
            allow_external=allow_external,
        )
        golden = stack.enter_context(GoldenReader(golden_path))
        tensors = tensors_of(path, golden.feeds(0), options, allow_external=allow_external)
        names = output_names(tensors.model)
        given.require_matched([*names, *tensors.layers])
        runs = Runs(
            target,
            path,
            names,
            golden_path,
            tensors.listed,
            folder,
            made_up=feeds is None and against is None,
            timeout=timeout,
            memory_cap=memory_cap,
        )
        stack.callback(runs.close)
        judge = Judge(names, tensors, golden, given, postprocess, (kept.reference, target))
        found = Climber(runs, judge, tensors, golden, folder, engine).climb()
        # Two notes are about comparing piece by piece, which only filled the file.
        notes = [note for note in kept.notes if not note.startswith("the target")]
        return dataclasses.replace(found, model=label_of(model), other=label_of(model), notes=(*notes, *found.notes))
