"""What a pass is, what it reports, and how one of its changes can be withheld.

A pass is a frozen dataclass whose fields are its options. It rewrites a model in place and asks its
:class:`ChangeLog` before *every single* rewrite; the log numbers the rewrites of a whole pipeline in order, so that
"stop after change N" means the same thing on every run, and a search over N finds the change that broke a value.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import onnx_ir as ir


@dataclasses.dataclass(frozen=True)
class Change:
    """One application of one rewrite."""

    number: int
    """Its place in the order of all changes of a run, from 1."""
    step: str
    """The pass that made it, by name."""
    kind: str
    """What was done, in the pass's own short words: ``fold``, ``remove-identity``, ``fuse``."""
    before: tuple[str, ...]
    """Nodes (or tensors, for changes to tensors) that were there before."""
    after: tuple[str, ...]
    """Nodes or tensors that stand in their place; empty if nothing does."""
    boundary: tuple[str, ...]
    """Tensors at the edge of the change that exist before and after it and must keep their values."""
    where: str
    """The graph it happened in, as :attr:`surgeon_passes.walk.Scope.path`; empty for the main graph."""


@dataclasses.dataclass(frozen=True)
class Declined:
    """A place where a pass could have acted and chose not to."""

    step: str
    """The pass, by name."""
    node: str
    """The node (or tensor) left alone."""
    reason: str
    """Why, as a phrase: ``result of 48 MB exceeds size_limit``."""
    where: str
    """The graph it is in; empty for the main graph."""


class ChangeLog:
    """Numbers changes as they are made and says when to stop.

    Args:
        limit: Withhold every change after this number; None for no limit.
        step: Name of the pass that is running.
    """

    def __init__(self, limit: int | None = None, step: str = "") -> None:
        self.limit = limit
        self.step = step
        self.changes: list[Change] = []
        self.declined: list[Declined] = []
        self._declined_keys: set[tuple[str, str, str, str]] = set()

    @property
    def exhausted(self) -> bool:
        """True once the limit is reached: no later call of :meth:`permit` will succeed."""
        return self.limit is not None and len(self.changes) >= self.limit

    def permit(
        self,
        kind: str,
        *,
        before: Iterable[str | None] = (),
        after: Iterable[str | None] = (),
        boundary: Iterable[str | None] = (),
        where: str = "",
    ) -> bool:
        """Ask to make one change, and record it if granted.

        Call it when the rewrite is certain to be possible, right before making it. False means: leave the graph as
        it is here. The arguments are the fields of :class:`Change`; None names become empty strings.
        """
        if self.exhausted:
            return False
        self.changes.append(
            Change(
                number=len(self.changes) + 1,
                step=self.step,
                kind=kind,
                before=tuple(name or "" for name in before),
                after=tuple(name or "" for name in after),
                boundary=tuple(name or "" for name in boundary),
                where=where,
            )
        )
        return True

    def decline(self, node: str | None, reason: str, *, where: str = "") -> None:
        """Record that a place was left alone, and why. The same place and reason is recorded once a run."""
        key = (self.step, where, node or "", reason)
        if key not in self._declined_keys:
            self._declined_keys.add(key)
            self.declined.append(Declined(self.step, node or "", reason, where))


@dataclasses.dataclass
class PassResult(ir.passes.PassResult):
    """The result of one pass, readable by onnx_ir's pass managers and by ours."""

    changes: tuple[Change, ...] = ()
    """What was changed, in order."""
    declined: tuple[Declined, ...] = ()
    """What was left alone, and why."""


def option(default: Any, help: str, *, unit: str = "", rest: bool = False) -> Any:  # noqa: A002  (dataclasses' word)
    """A field of a pass: an option with its default and one sentence of help.

    Args:
        default: The value if nothing is given.
        help: What it does, for ``surgeon passes NAME``.
        unit: ``bytes`` lets text such as ``64MB`` be given for an integer field.
        rest: The field (a tuple of pairs of text) takes every ``key=value`` that names no other field.
    """
    return dataclasses.field(default=default, metadata={"help": help, "unit": unit, "rest": rest})


class Pass(ir.passes.InPlacePass):
    """The base of every pass here; subclasses are frozen dataclasses.

    The class docstring of a subclass is what ``surgeon passes NAME`` prints, so it says what the pass touches, what it
    leaves alone, and when it refuses. A pass must

    * act in every graph of the model (:func:`surgeon_passes.walk.scopes`),
    * keep the interface (names, order and types of graph inputs and outputs) unless :attr:`changes_interface`,
    * keep the names of the nodes and tensors it does not replace,
    * ask :meth:`ChangeLog.permit` before each rewrite and change nothing when it says no,
    * leave the graph in topological order with unique names,
    * take time linear in the size of the model, without recursion over nodes.
    """

    name: ClassVar[str]
    """The name in the catalogue, in recipes and on the command line."""
    example: ClassVar[str] = ""
    """A command line that shows it at work."""
    changes_interface: ClassVar[bool] = False
    """Whether changing inputs or outputs of the model is this pass's purpose."""
    changes_values: ClassVar[bool] = False
    """Whether values may change on purpose (another precision); verification then reports, but demands no equality."""
    reassociates: ClassVar[bool] = False
    """Whether arithmetic is regrouped, so that values agree within rounding rather than to the bit."""

    @abc.abstractmethod
    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Rewrite ``model`` in place, one permitted change at a time.

        Raises:
            BadOptionError: An option names something that the model does not have.
            RefusalError: The rewrite as a whole cannot be shown to be safe; the model is then unchanged.
        """

    def call(self, model: ir.Model) -> PassResult:
        """Run without a limit (the protocol of onnx_ir)."""
        return self.run(model, ChangeLog(step=self.name))

    def run(self, model: ir.Model, log: ChangeLog) -> PassResult:
        """Run as a step of a pipeline whose changes ``log`` numbers; the result holds this step's part only."""
        log.step = self.name
        changes, declined = len(log.changes), len(log.declined)
        self.rewrite(model, log)
        made = tuple(log.changes[changes:])
        return PassResult(model, bool(made), made, tuple(log.declined[declined:]))
