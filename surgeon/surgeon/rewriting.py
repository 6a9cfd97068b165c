"""What ``surgeon rewrite`` and the Python functions share: load, run the passes, verify, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from surgeon_passes.catalogue import parse_step
from surgeon_passes.change_journal import ChangeJournal
from surgeon_passes.contract import Pass
from surgeon_passes.errors import BadOptionError
from surgeon_passes.graph import load
from surgeon_passes.pipeline import Hook, Report, StepReport, run_pipeline
from surgeon_passes.recipe import Recipe, built_in_recipes, load_recipe
from surgeon_passes.save import Weights, save
from surgeon_passes.spec import parse_size, spec_of


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

    @property
    def reassociates(self) -> bool:
        """Whether a pass regroups arithmetic or changes precision, so that equality to the bit is not expected."""
        return any(step.reassociates or step.changes_values for step in self.recipe.steps)


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


def recipe_of(recipe: str | None, steps: Sequence[str | Pass]) -> Recipe:
    """The recipe named, followed by single passes.

    Raises:
        BadOptionError: Nothing is given, or something does not exist.
    """
    if recipe is None and not steps:
        raise BadOptionError("no pass is given", hint="add -p PASS or -r RECIPE (surgeon passes lists them)")
    base = load_recipe(recipe) if recipe is not None else Recipe(())
    for step in steps:
        if isinstance(step, str) and step in built_in_recipes():
            raise BadOptionError(f"'{step}' is a recipe, not a pass", hint=f"write -r {step}")
    added = tuple(parse_step(step) if isinstance(step, str) else step for step in steps)
    return dataclasses.replace(base, steps=base.steps + added)


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


def verify(order: Order, report: Report, *, samples: int, dims: Mapping[str, int]) -> object:
    raise NotImplementedError
