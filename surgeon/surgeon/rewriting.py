"""What ``surgeon rewrite`` and the Python functions share: load, run the passes, verify, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from surgeon_passes.catalogue import parse_step, pass_locations
from surgeon_passes.change_journal import ChangeJournal
from surgeon_passes.contract import Change, Pass
from surgeon_passes.errors import BadOptionError
from surgeon_passes.graph import load
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.pipeline import Hook, Report, StepReport, run_pipeline
from surgeon_passes.recipe import Recipe, built_in_recipes, is_recipe, load_recipe
from surgeon_passes.save import Weights, save
from surgeon_passes.spec import parse_size, spec_of

if TYPE_CHECKING:  # the engines are imported by those who verify
    from surgeon_debug.verification import Blame, Verification


@dataclasses.dataclass(frozen=True)
class Order:
    """What to rewrite, and how."""

    source: Path | ir.Model
    """The model: a file, or one in memory that is copied and not changed."""
    recipe: Recipe
    """The passes."""
    allow_external: bool = False
    """Accept weights outside the model's folder."""
    limit: int | None = None
    """Make the first changes only."""
    journal: Path | None = None
    """Where to record changes; None for nowhere."""

    def original(self) -> ir.Model:
        """The model before any pass; a new object on each call."""
        if isinstance(self.source, ir.Model):
            return self.source.clone()
        return load(self.source, allow_external=self.allow_external)


@dataclasses.dataclass(frozen=True)
class Target:
    """Where to write."""

    path: Path
    """The model file."""
    weights: Weights
    """Where its weights go."""
    shard_size: int | None
    """Bytes after which a new data file is started."""


class _Announcer:
    """A hook that tells which pass is running."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce

    def before(self, step: Pass, model: ir.Model) -> None:  # noqa: ARG002  (a hook's signature)
        self._announce(spec_of(step))

    def after(self, step: Pass, model: ir.Model, report: StepReport) -> None:
        """Nothing to tell."""


def recipe_of(steps: Sequence[str | Pass | Recipe]) -> Recipe:
    """One recipe out of passes and recipes, given as text or as objects, in order.

    Raises:
        BadOptionError: Nothing is given, or something does not exist.
    """
    if not steps:
        raise BadOptionError("no pass is given", hint="add -p PASS or -r RECIPE (surgeon passes lists them)")
    return Recipe(tuple(_step_of(step) if isinstance(step, str) else step for step in steps))


def _step_of(text: str) -> Pass | Recipe:
    if is_recipe(text):
        return load_recipe(text)
    name = text.partition(":")[0].strip()
    known = [*pass_locations(), *built_in_recipes()]
    if name not in known and name != "gs" and "." not in name:
        raise BadOptionError(f"there is no pass or recipe '{name}'", hint=did_you_mean(name, known))
    return parse_step(text)


def target_of(output: Path | None, weights: str, keep_weights: bool, shard_size: str | None) -> Target | None:
    """Where to write, from the options; None if nothing is to be written.

    Raises:
        BadOptionError: Options that exclude each other, or no size.
    """
    if keep_weights and (weights != "auto" or shard_size):
        raise BadOptionError("--keep-weights excludes --weights and --shard-size")
    if shard_size and weights == "inline":
        raise BadOptionError("--shard-size needs external weights", hint="add --weights external")
    if output is None:
        return None
    size = parse_size(shard_size) if shard_size else None
    if size == 0:
        raise BadOptionError("--shard-size must be larger than 0")
    layout = Weights.KEEP if keep_weights else Weights.EXTERNAL if size else Weights(weights)
    return Target(output, layout, size)


def perform(order: Order, *, announce: Callable[[str], None] | None = None) -> Report:
    """Run the passes on a fresh copy of the model."""
    model = order.original()
    hooks: list[Hook] = [_Announcer(announce)] if announce else []
    journal = ChangeJournal(order.journal) if order.journal else None
    if journal:
        hooks.append(journal)
    try:
        return run_pipeline(model, order.recipe, limit=order.limit, hooks=hooks)
    finally:
        if journal:
            journal.close()


def prefix(order: Order, count: int) -> ir.Model:
    """The model after the first ``count`` changes."""
    return perform(dataclasses.replace(order, limit=count, journal=None)).model


def write(report: Report, target: Target) -> list[Path]:
    """Save the rewritten model; returns the files written."""
    return save(report.model, target.path, weights=target.weights, shard_size=target.shard_size)


@dataclasses.dataclass(frozen=True)
class Verified:
    """What comparing the model before and after came to."""

    verification: Verification
    """The comparison after all changes."""
    blame: Blame | None
    """Which change altered a value; None if none did."""
    changes: tuple[Change, ...]
    """The changes that may be to blame; one, where the search could name it."""

    @property
    def altered(self) -> bool:
        """Whether a value changed."""
        return self.verification.altered

    @property
    def undecided(self) -> bool:
        """Whether nothing could be said."""
        return self.verification.undecided

    def sentences(self) -> list[str]:
        """The result in words, the verdict first."""
        done = self.verification
        if done.undecided:
            return [f"NOT VERIFIED: {done.reason}", *done.notes]
        if not done.altered:
            samples = "1 sample" if done.samples == 1 else f"{done.samples} samples"
            words = "equal" if done.exact else "equal within rounding"
            detail = "" if done.exact else f" ({done.reason})"
            return [f"verified: {words} under onnxruntime on {samples}{detail}", *done.notes]
        lines = [f"A VALUE CHANGED: {done.reason}"]
        for change in self.changes[:3]:
            place = f" in {change.where}" if change.where else ""
            nodes = ", ".join(change.before[:4])
            lines.append(f"first altered by change {change.number}: {change.step} ({change.kind}) at {nodes}{place}")
        if len(self.changes) > 3 and self.blame is not None:
            lines.append(f"... or any change up to {self.blame.last}: {self.blame.reason}")
        if self.blame is not None and self.blame.first > 1:
            good = self.blame.first - 1
            lines.append(f"the {good} changes before it keep every value (--rewrite-limit {good})")
        return [*lines, *done.notes]

    def to_json(self) -> dict[str, object]:
        """A document of plain values."""
        done = self.verification
        culprit = self.changes[0] if len(self.changes) == 1 else None
        return {
            "verdict": "altered" if done.altered else done.outcome.value,
            "reason": done.reason,
            "samples": done.samples,
            "notes": list(done.notes),
            "culprit": None if culprit is None else dataclasses.asdict(culprit),
            "first": None if self.blame is None else self.blame.first,
            "last": None if self.blame is None else self.blame.last,
            "trials": None if self.blame is None else self.blame.trials,
        }


def verify(order: Order, report: Report, *, samples: int, dims: Mapping[str, int]) -> Verified:
    """Compare the model before and after under onnxruntime; if a value changed, find the change that did it.

    Args:
        order: What was rewritten, and how.
        report: What came of it.
        samples: Seeded inputs to try.
        dims: Sizes of symbolic dimensions of these.
    """
    from surgeon_debug.verification import Allowance
    from surgeon_debug.verify import Verifier

    steps = {step.name: step for step in order.recipe.passes()}
    ran = [steps[change.step] for change in report.changes if change.step in steps]
    allowance = Allowance(
        reassociates=any(step.reassociates or step.changes_values for step in ran),
        changes_interface=any(step.changes_interface for step in ran),
    )
    with Verifier(order.source, samples=samples, dims=dims, allow_external=order.allow_external) as verifier:
        done = verifier.check(report.model, allowance=allowance)
        if not done.altered:
            return Verified(done, None, ())
        total = len(report.changes)
        blame = verifier.first_wrong_change(lambda count: prefix(order, count), total, allowance=allowance)
    return Verified(done, blame, report.changes[max(0, blame.first - 1) : blame.last])
