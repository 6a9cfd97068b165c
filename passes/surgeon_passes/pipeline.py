"""Run passes in order, with conditions checked around each of them and hooks between them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Protocol

import onnx_ir as ir

from surgeon_passes.conditions import broken_conditions, clashing_names, interface_changes, interface_of
from surgeon_passes.contract import Change, ChangeLog, Declined, Pass
from surgeon_passes.errors import BadModelError, BrokenPassError
from surgeon_passes.pause_collector import collector_paused
from surgeon_passes.recipe import Recipe
from surgeon_passes.sort import Sort
from surgeon_passes.spec import spec_of
from surgeon_passes.walk import scopes


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one run of one pass did."""

    spec: str
    """The pass with its options, as one line of text."""
    round: int
    """Which time through the recipe, from 1."""
    changes: tuple[Change, ...]
    """What it changed, in order."""
    declined: tuple[Declined, ...]
    """What it left alone, and why."""
    seconds: float
    """Wall time of the pass itself."""
    nodes_before: int
    """Nodes in all graphs before it."""
    nodes_after: int
    """Nodes in all graphs after it."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a pipeline did to a model."""

    model: ir.Model
    """The rewritten model: the object that was given, changed in place."""
    steps: tuple[StepReport, ...]
    """Every run of every pass, in order."""
    withheld: bool
    """True if a limit on the number of changes held some back."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """Every change, by number."""
        return tuple(change for step in self.steps for change in step.changes)

    @property
    def declined(self) -> tuple[Declined, ...]:
        """Everything left alone in the last run of each pass, and why."""
        last = {step.spec: step for step in self.steps}
        return tuple(item for step in last.values() for item in step.declined)


class Hook(Protocol):
    """Something that watches a pipeline: verification, a journal, a progress bar."""

    def before(self, step: Pass, model: ir.Model) -> None:
        """Called before a pass runs."""

    def after(self, step: Pass, model: ir.Model, report: StepReport) -> None:
        """Called after a pass ran and its conditions hold."""


def count_nodes(model: ir.Model) -> int:
    """Nodes in all graphs: main, bodies and functions."""
    return sum(len(scope.graph) for scope in scopes(model))


def make_runnable(model: ir.Model, log: ChangeLog) -> None:
    """Bring a model into the form passes rely on, or refuse it.

    Graphs that are out of order are sorted, as a change like any other.

    Raises:
        BadModelError: A cycle, a tensor that nothing defines, a name defined twice.
    """
    problems = broken_conditions(model)
    if problems:
        Sort().run(model, log)
        problems = broken_conditions(model)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BadModelError(f"the graph is not valid: {problems[0]}{more}")


def run_pipeline(model: ir.Model, recipe: Recipe, *, limit: int | None = None, hooks: Sequence[Hook] = ()) -> Report:
    """Run the passes of a recipe on a model, in place.

    Args:
        model: The model to rewrite.
        recipe: The passes, and how often to go through them. In a later round a pass whose last run changed nothing
            is left out until another pass has changed something.
        limit: Withhold every change after this number.
        hooks: Called around each pass, in order.

    Raises:
        BadModelError: The model was invalid to begin with.
        BrokenPassError: A pass broke the graph or its interface.
        SurgeonError: Whatever a pass or a hook refuses.
    """
    log = ChangeLog(limit)
    reports: list[StepReport] = []
    started = time.perf_counter()
    nodes = count_nodes(model)
    with collector_paused():
        make_runnable(model, log)
        if log.changes:
            reports.append(StepReport("sort", 1, tuple(log.changes), (), time.perf_counter() - started, nodes, nodes))
        _run_recipe(model, recipe, log, hooks, reports)
    return Report(model, tuple(reports), log.exhausted)


def _run_recipe(
    model: ir.Model, recipe: Recipe, log: ChangeLog, hooks: Sequence[Hook], reports: list[StepReport]
) -> None:
    settled: dict[int, int] = {}
    for turn in range(1, recipe.rounds + 1):
        made_before = len(log.changes)
        for index, step in enumerate(recipe.steps):
            at = len(log.changes)
            if settled.get(index) == at:
                continue
            if isinstance(step, Recipe):
                _run_recipe(model, step, log, hooks, reports)
            else:
                reports.append(_run_step(model, step, turn, log, hooks))
            if len(log.changes) == at:
                settled[index] = at
        if len(log.changes) == made_before or log.exhausted:
            break


def _run_step(model: ir.Model, step: Pass, turn: int, log: ChangeLog, hooks: Sequence[Hook]) -> StepReport:
    for hook in hooks:
        hook.before(step, model)
    interface, clashes, nodes = interface_of(model), clashing_names(model), count_nodes(model)
    started = time.perf_counter()
    result = step.run(model, log)
    seconds = time.perf_counter() - started
    report = StepReport(spec_of(step), turn, result.changes, result.declined, seconds, nodes, count_nodes(model))
    if result.changes:
        problems = broken_conditions(model)
        problems += [clash for clash in clashing_names(model) if clash not in clashes]
        if not step.changes_interface:
            problems += interface_changes(interface, interface_of(model))
        if problems:
            raise BrokenPassError(f"pass {step.name} broke the model: {problems[0]}", hint="nothing was written")
    for hook in hooks:
        hook.after(step, model, report)
    return report
