"""Name the nodes that are to blame for a failure of a model on an engine, or in the eyes of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from surgeon_debug.find.bundled import with_bundle
from surgeon_debug.find.check_spec import CheckSpec
from surgeon_debug.find.finding import Finding
from surgeon_debug.find.lab_spec import LabSpec
from surgeon_debug.find.node_search import NodeSearch, Spec, Wanted
from surgeon_debug.layer_plan import random_notes
from surgeon_debug.layers import DEFAULT_REFERENCE, RunnerLike, as_engine
from surgeon_debug.limits import Limits
from surgeon_debug.runners.contract import Engine
from surgeon_debug.samples import samples_of
from surgeon_debug.search.budget import Budget
from surgeon_debug.stage import ModelLike, label_of, staged
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Feeds
from surgeon_passes.errors import BadOptionError
from surgeon_passes.graph import load

TIMEOUT = 600.0
"""Seconds for one prepare or one run of an engine unless the caller says otherwise; an engine that hangs must be seen
to hang."""


def find_nodes(
    model: ModelLike,
    *,
    target: RunnerLike = "",
    reference: RunnerLike = DEFAULT_REFERENCE,
    feeds: Sequence[Feeds] | None = None,
    samples: int = 1,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    limits: Limits | None = None,
    postprocess: Postprocess | None = None,
    check: str | None = None,
    census: bool = True,
    memory: int | None = None,
    jobs: int = 1,
    workers: str | None = None,
    resume: str | Path | None = None,
    budget: Budget | None = None,
    timeout: float | None = None,
    memory_cap: int | None = None,
    allow_external: bool = False,
    bundle: str | Path | None = None,
    no_weights: bool = False,
    command: str = "",
    progress: Callable[[str], None] | None = None,
) -> Finding:
    """Find the smallest sets of nodes that fail by themselves.

    Args:
        model: The model; it is not changed.
        target: The runner that is suspected; with ``check`` none.
        reference: The runner that is believed.
        feeds: Samples, values by input name; None makes seeded ones up.
        samples: How many samples to make up.
        seed: Decides the samples that are made up.
        dims: Sizes of symbolic dimensions for those.
        limits: The caller's own limits for outputs; None for the table.
        postprocess: What is compared instead of the outputs.
        check: A command that decides instead of the target; see :class:`surgeon_debug.find.check_spec.CheckSpec`.
        census: Judge every node alone first, which takes one compilation; if not, the model is only cut.
        memory: Bytes for tensors and weights of one model of the census; None for a quarter of what is left.
        jobs: Trials at a time, on this machine.
        workers: The address of a Dask scheduler whose workers make the trials instead.
        resume: A folder that remembers finished trials, made if it is not there.
        budget: What the search may cost; None for as much as it takes.
        timeout: Seconds that an engine, or the command, may take for one step; None for :data:`TIMEOUT`.
        memory_cap: Bytes of memory for the process of each engine; None for no limit.
        allow_external: Accept weights outside the model's folder.
        bundle: A zip file to write the failure to.
        no_weights: Replace the weights in it by seeded ones, if it still fails.
        command: What was typed, for the bundle.
        progress: Called with a phrase about where the search is.

    Raises:
        BadModelError: The model cannot be used.
        BadOptionError: A runner or option does not exist, or inputs do not fit.
        EngineError: The reference cannot run the model.
        FileError: A file cannot be read or written.
    """
    wanted = Wanted(census, jobs, workers, None if resume is None else Path(resume), budget or Budget(), memory, seed)
    _check(wanted, target, reference, check)
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(staged(model, allow_external=allow_external))
        loaded = load(path, allow_external=allow_external)
        fed = samples_of(loaded, feeds, count=samples, seed=seed, dims=dims)
        others = samples_of(loaded, None, count=samples, seed=seed + 1, dims=dims) if feeds is None else None
        limit = TIMEOUT if timeout is None else timeout
        spec: Spec
        if check is not None:
            text = _text(reference)
            spec = CheckSpec(path, fed, command=check, reference=text, timeout=limit, allow_external=allow_external)
        else:
            engines = _given(stack, reference, target, limit, memory_cap)
            spec = LabSpec(
                path,
                fed,
                reference=_text(reference),
                target=_text(target),
                limits=limits,
                postprocess=postprocess,
                timeout=limit,
                memory_cap=memory_cap,
                allow_external=allow_external,
                engines=engines,
            )
        stack.callback(spec.close)
        search = NodeSearch(spec, wanted, others, progress, random_notes(loaded))
        found = search.run(label_of(model), (_text(reference), check or _text(target)))
        if bundle is not None:
            found = with_bundle(found, spec, Path(bundle), no_weights=no_weights, command=command, seed=seed)
        return found


def _check(wanted: Wanted, target: RunnerLike, reference: RunnerLike, check: str | None) -> None:
    if check is None and target == "":
        raise BadOptionError("nothing says what to test", hint="name a target runner or a check command")
    if check is not None and target != "":
        raise BadOptionError("a check command decides instead of a target runner", hint="leave one of the two out")
    in_process = not isinstance(target, str) or not isinstance(reference, str)
    if in_process and (wanted.jobs > 1 or wanted.workers or wanted.resume):
        raise BadOptionError(
            "a runner that is an object can neither be copied nor remembered",
            hint="give runners as text, such as ./mine.py:MyRunner",
        )


def _text(runner: RunnerLike) -> str:
    if isinstance(runner, str):
        return runner
    return runner.label if isinstance(runner, Engine) else type(runner).__name__


def _given(
    stack: contextlib.ExitStack, reference: RunnerLike, target: RunnerLike, timeout: float, memory_cap: int | None
) -> tuple[Engine, Engine] | None:
    """Engines around runners that are objects; None if both are texts, of which as many are made as are needed."""
    if isinstance(reference, str) and isinstance(target, str):
        return None
    engines = []
    for given in (reference, target):
        engine = as_engine(given, isolated=True, timeout=timeout, memory_cap=memory_cap)
        if engine is not given:
            stack.callback(engine.close)
        engines.append(engine)
    return engines[0], engines[1]
