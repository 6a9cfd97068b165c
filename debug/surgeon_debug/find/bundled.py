"""Put what a search found into a bundle, as the last step of the search."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from surgeon_debug.find.bundle_culprit import BundleRequest, bundle_culprit
from surgeon_debug.find.check_spec import CheckSpec
from surgeon_debug.find.finding import Culprit, Finding, Step
from surgeon_debug.find.lab_spec import LabSpec
from surgeon_debug.find.oracle import Signature


def with_bundle(
    found: Finding, spec: LabSpec | CheckSpec, path: Path, *, no_weights: bool = False, command: str = "", seed: int = 0
) -> Finding:
    """The finding with a bundle of its first culprit, or with a note on why none was made.

    Args:
        found: What the search found.
        spec: The model and who decides.
        path: The zip file to write.
        no_weights: Replace weights and inputs by seeded ones, if it still fails.
        command: What was typed.
        seed: Decides these.

    Raises:
        SurgeonError: The file cannot be written, or the model cannot be read any more.
    """
    named = [*found.culprits, *found.latent]
    if not named:
        return _noted(found, "no bundle was made: nobody was named")
    if isinstance(spec, CheckSpec):
        return _noted(found, "no bundle was made: a command judged the failure, and a bundle holds no command")
    culprit = named[0]
    started = time.monotonic()
    # A signal or the engine's words belong to the failure of the whole model.
    whole = found.signature
    signature = whole if whole is not None and whole.kind is culprit.kind else Signature(culprit.kind)
    info = bundle_culprit(path, _request(culprit, signature, spec, no_weights, command, seed))
    words = f"{info.nbytes:,} bytes" if info.made else info.reason
    step = Step("bundle", words, trials=info.trials, runs=info.trials, seconds=time.monotonic() - started)
    notes = [*found.notes, *info.notes]
    if info.private:
        notes.append(info.private)
    if not info.made:
        notes.append(info.reason)
    elif len(named) > 1:
        notes.append(f"the bundle holds {culprit.nodes[0]}, one of {len(named)} culprits")
    made = dataclasses.replace(found, steps=(*found.steps, step), notes=tuple(notes), bundle=info.path)
    if info.path and "--bundle" in found.advice:
        made = dataclasses.replace(made, advice=f"attach {Path(info.path).name} to a bug report")
    return made


def _noted(found: Finding, note: str) -> Finding:
    return dataclasses.replace(found, notes=(*found.notes, note))


def _request(
    culprit: Culprit, signature: Signature, spec: LabSpec, no_weights: bool, command: str, seed: int
) -> BundleRequest:
    return BundleRequest(
        model=spec.model,
        positions=culprit.positions,
        feeds=spec.feeds,
        reference=spec.reference,
        target=spec.target,
        signature=signature,
        words=culprit.reason,
        limits=spec.limits if spec.limits.given else None,
        limit_texts=tuple(limit.text for limit in spec.limits.everywhere),
        noise=culprit.floor,
        timeout=spec.timeout,
        memory_cap=spec.memory_cap,
        no_weights=no_weights,
        seed=seed,
        command=command,
        allow_external=spec.allow_external,
    )
