"""``surgeon.find``: name the culprit, in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from surgeon.api import ModelLike, model_of
from surgeon_debug.feed_files import load_feeds
from surgeon_debug.find.auto import find_auto as auto
from surgeon_debug.find.engine_ground import Question
from surgeon_debug.find.engine_trials import HowToSearch
from surgeon_debug.find.finding import Finding
from surgeon_debug.find.fusion import find_fusion as fusion
from surgeon_debug.find.nodes import find_nodes
from surgeon_debug.find.tactic import find_tactic as tactic
from surgeon_debug.layers import DEFAULT_REFERENCE, RunnerLike
from surgeon_debug.limits import Limits
from surgeon_debug.search.budget import Budget
from surgeon_debug.values import Feeds

__all__ = ["HowToSearch", "Question", "auto", "fusion", "nodes", "tactic"]


def nodes(
    model: ModelLike,
    *,
    target: RunnerLike = "",
    reference: RunnerLike = DEFAULT_REFERENCE,
    check: str | None = None,
    feeds: Feeds | str | Path | None = None,
    samples: int = 1,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    metrics: Sequence[str] = (),
    per_tensor: str | Path | None = None,
    jobs: int = 1,
    workers: str | None = None,
    resume: str | Path | None = None,
    max_trials: int | None = None,
    max_seconds: float | None = None,
    bundle: str | Path | None = None,
    no_weights: bool = False,
    timeout: float | None = None,
    memory_cap: int | None = None,
    allow_external: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Finding:
    """Find the smallest sets of nodes that fail by themselves; see :func:`surgeon_debug.find.nodes.find_nodes`.

    Args:
        model: The model; it is not changed.
        target: The runner that is suspected, as text or object; none with ``check``.
        reference: The runner that is believed, as text or object.
        check: A command that decides instead of engines, with ``{model}`` in it: it ends with 0 for good, 125 if it
            cannot tell, anything else for bad.
        feeds: Values by input name, or a file of them; None for seeded ones.
        samples: How many seeded samples.
        seed: Seed of these.
        dims: Sizes of symbolic dimensions of these.
        rtol: Allow ``|error| <= atol + rtol * |reference|``, strictly; without any limit of yours, outputs are judged
            by a table by type, and nodes by the noise floor of their precision.
        atol: See ``rtol``.
        metrics: Limits such as ``rel_l2<0.01`` or ``./mine.py:score>0.9``; all must hold.
        per_tensor: A file of limits for single tensors; see :mod:`surgeon_debug.limits`.
        jobs: Trials made at a time, in processes here.
        workers: The address of a Dask scheduler whose workers make them instead.
        resume: A folder where finished trials are kept and looked up.
        max_trials: Stop after so many trials.
        max_seconds: Stop after so long.
        bundle: A zip file to write the failure to, for :func:`surgeon.replay`.
        no_weights: Replace the weights in the bundle by seeded ones, if it still fails.
        timeout: Seconds that an engine may take for one prepare or one run.
        memory_cap: Bytes of memory for the process of each engine.
        allow_external: Accept weights outside the model's folder.
        progress: Called with a phrase such as ``census: 120 of 340 nodes`` now and then.

    Returns:
        The finding: ``.outcome`` is found, nothing or undecided; ``.culprits`` are verified, ``.latent`` do not show.

    Raises:
        SurgeonError: A model, a runner, an option or a file does not do.
    """
    if isinstance(feeds, str | Path):
        given: Sequence[Feeds] | None = load_feeds(feeds, model_of(model))
    else:
        given = None if feeds is None else [feeds]
    limits = Limits.parse(metrics, per_tensor, rtol=rtol, atol=atol)
    return find_nodes(
        model,
        target=target,
        reference=reference,
        feeds=given,
        samples=samples,
        seed=seed,
        dims=dims,
        limits=limits if limits.given else None,
        check=check,
        jobs=jobs,
        workers=workers,
        resume=None if resume is None else Path(resume),
        budget=Budget(max_trials, max_seconds),
        timeout=timeout,
        memory_cap=memory_cap,
        allow_external=allow_external,
        bundle=None if bundle is None else Path(bundle),
        no_weights=no_weights,
        progress=progress,
    )
