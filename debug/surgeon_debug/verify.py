"""Prove that a rewrite kept the values, or name the first change that did not.

The model before and after runs under onnxruntime, unoptimised and on one thread, so that nothing but the rewrite can
make a difference. Where no arithmetic was regrouped the values must be equal; where some was, they must stay within
the bound of rounding. A model that cannot be run is *not verified*, which is an outcome of its own and never a pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import onnx_ir as ir

from surgeon_debug.compare import Tally
from surgeon_debug.feed_files import check_feeds
from surgeon_debug.feeds import inputs_of, make_feeds
from surgeon_debug.layer_plan import plan_layers, random_nodes
from surgeon_debug.pairing import feeds_for_other
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.stage import ModelLike, staged
from surgeon_debug.values import Feeds, Value
from surgeon_debug.verdict import coarsest
from surgeon_debug.verification import Allowance, Blame, Outcome, Verification, check_output, worst_of
from surgeon_passes.errors import BadModelError, BadOptionError, EngineError, SurgeonError
from surgeon_passes.graph import load

ENGINE = "onnxruntime:optimize=none,threads=1,deterministic=true,config.session.disable_prepacking=1"
"""What both sides run on."""

_Sample = dict[str, Value]


class Verifier:
    """Holds what a model computes before a rewrite, and compares.

    Args:
        before: The model as it was. A path is read in place; a model in memory is copied to a temporary folder at
            once, so it may be rewritten afterwards.
        samples: Seeded inputs to try; of every two, one has free sizes of several and one has free sizes of 1.
        seed: Decides the inputs.
        dims: Sizes of symbolic dimensions.
        feeds: Inputs to use instead of seeded ones.
        allow_external: Accept weights outside the model's folder.

    Raises:
        BadModelError: The model cannot be used.
        BadOptionError: ``dims`` or ``feeds`` do not fit the model.
    """

    def __init__(
        self,
        before: ModelLike,
        *,
        samples: int = 2,
        seed: int = 0,
        dims: Mapping[str, int] | None = None,
        feeds: Sequence[Feeds] | None = None,
        allow_external: bool = False,
    ) -> None:
        self._samples, self._seed = max(1, samples), seed
        self._allow_external = allow_external
        self._known: list[tuple[_Sample, _Sample]] = []  # inputs, and what the model made of them before
        self._notes: list[str] = []
        self._reason = ""
        with contextlib.ExitStack() as stack:
            self._engine = stack.enter_context(make_engine(ENGINE))
            self._path = stack.enter_context(staged(before, allow_external=allow_external))
            self._before = load(self._path, allow_external=allow_external)
            self._outputs = [value.name for value in self._before.graph.outputs if value.name]
            self._prepare(dims, feeds)
            self._stack = stack.pop_all()

    def _prepare(self, dims: Mapping[str, int] | None, feeds: Sequence[Feeds] | None) -> None:
        """Run the model before the rewrite; afterwards either results or a reason is there."""
        if not self._outputs:
            self._reason = "the model has no outputs"
        elif drawn := random_nodes(self._before):
            self._reason = f"the model draws random numbers, in {', '.join(drawn[:3])}"
        elif feeds:
            self._learn([check_feeds(sample, self._before) for sample in feeds])
        else:
            try:
                self._learn(self._made_up(self._before, dims))
            except (BadModelError, BadOptionError) as error:
                if dims:
                    raise
                self._reason = str(error)  # that no inputs can be made up is no fault of the caller

    def _made_up(self, model: ir.Model, dims: Mapping[str, int] | None) -> list[_Sample]:
        return [make_feeds(model, seed=self._seed, sample=i, dims=dims, small=i % 2 == 1) for i in range(self._samples)]

    def _learn(self, candidates: Sequence[_Sample]) -> list[tuple[_Sample, _Sample]]:
        """Run the model before the rewrite on new inputs and keep what it computes."""
        learned = []
        try:
            self._engine.prepare(self._path, self._outputs)
        except EngineError as error:
            self._reason = str(error)
            return []
        for sample in candidates:
            try:
                learned.append((sample, self._engine.run(sample)))
            except EngineError as error:
                self._reason = str(error)
        failed = len(candidates) - len(learned)
        if learned and failed:
            self._notes.append(f"{failed} of {len(candidates)} inputs did not run: {self._reason}")
        self._known += learned
        return learned

    def check(self, after: ModelLike, *, allowance: Allowance | None = None) -> Verification:
        """Compare with the model after a rewrite.

        Args:
            after: The rewritten model; it is not changed.
            allowance: What the passes that ran may do; None for nothing but keeping every value.
        """
        allowance = allowance or Allowance()
        if not self._known and not (allowance.changes_interface and self._outputs):
            return Verification(Outcome.UNVERIFIED, f"the model was not run: {self._reason}")
        try:
            with staged(after, allow_external=self._allow_external) as path:
                return self._check(path, allowance)
        except SurgeonError as error:
            if type(error.__cause__).__name__ == "NotImplemented":
                # The graph may be right; this engine has no kernel for an operator in some type.
                return Verification(Outcome.UNVERIFIED, f"the rewritten model was not run: {error}")
            # The model before ran with these inputs; one that no longer does was altered.
            reason = f"the rewritten model can no longer be run: {error}"
            return Verification(Outcome.DIFFERS, reason, (), len(self._known), tuple(self._notes))

    def _check(self, path: Path, allowance: Allowance) -> Verification:
        model = load(path, allow_external=self._allow_external)
        pairs, notes = self._fitting(model, allowance)
        if not pairs:
            return Verification(Outcome.UNVERIFIED, f"no inputs fit both models: {self._reason}")
        theirs = [value.name for value in model.graph.outputs if value.name]
        names = [name for name in self._outputs if name in theirs]
        strangers = [name for name in dict.fromkeys([*self._outputs, *theirs]) if name not in names]
        if strangers and not allowance.changes_interface:
            return Verification(Outcome.DIFFERS, f"outputs came or went: {', '.join(strangers[:4])}")
        if strangers:
            notes.append(f"outputs came or went and are not compared: {', '.join(strangers[:4])}")
        if not names:
            return Verification(Outcome.UNVERIFIED, "the two models have no output in common")
        tallies = {name: Tally() for name in names}
        self._engine.prepare(path, names)
        for i, (fed, expected) in enumerate(pairs):
            found = self._engine.run(fed)
            for name in names:
                tallies[name].add(expected[name], found.pop(name), sample=i)
        precisions = _precisions(self._before, self._known[0][0]), _precisions(model, pairs[0][0])
        checks = [
            check_output(name, tally.difference(), coarsest(*(p[name] for p in precisions if name in p)), allowance)
            for name, tally in tallies.items()
        ]
        return Verification(*worst_of(checks), tuple(checks), len(pairs), (*self._notes, *notes))

    def _fitting(self, model: ir.Model, allowance: Allowance) -> tuple[list[tuple[_Sample, _Sample]], list[str]]:
        """Inputs for the rewritten model with what the old one made of them, and notes."""
        pairs: list[tuple[_Sample, _Sample]] = []
        notes: list[str] = []
        for fed, expected in self._known:
            try:
                (theirs,), remarks = feeds_for_other([fed], self._before, model)
            except BadOptionError as error:
                if not allowance.changes_interface:
                    raise
                self._reason = str(error)
                continue
            pairs.append((theirs, expected))
            notes += remarks
        if pairs or not allowance.changes_interface:
            return pairs, list(dict.fromkeys(notes))
        # Sizes were fixed, to others than were tried: what fits the new model fits the old one.
        ours = {value.name for value in inputs_of(self._before)}
        try:
            made = [
                check_feeds({name: value for name, value in sample.items() if name in ours}, self._before)
                for sample in self._made_up(model, None)
            ]
        except (BadModelError, BadOptionError) as error:
            self._reason = str(error)
            return [], notes
        learned = self._learn(made)
        return [(feeds_for_other([fed], self._before, model)[0][0], expected) for fed, expected in learned], notes

    def first_wrong_change(
        self, run_prefix: Callable[[int], ModelLike], total: int, *, allowance: Allowance | None = None
    ) -> Blame:
        """Find the first change after which :meth:`check` says that the values differ.

        Args:
            run_prefix: Makes the model after the first so many changes.
            total: How many changes there are; after all of them the values differ.
            allowance: As for :meth:`check`.

        Returns:
            One change, or the narrowest range of changes that can be told apart.

        Raises:
            BadOptionError: After all changes the values do not differ, so there is nothing to find.
        """
        seen: dict[int, Verification] = {}

        def outcome(count: int) -> Outcome:
            if count not in seen:
                seen[count] = self._check_prefix(run_prefix, count, allowance)
            return seen[count].outcome

        if outcome(total) is not Outcome.DIFFERS:
            raise BadOptionError(f"after all {total} changes the values are {seen[total].outcome.value}")
        if total == 0 or outcome(0) is Outcome.DIFFERS:
            return Blame(0, 0, seen[0], len(seen), "the model differs from itself before any change")
        good, bad = 0, total
        unclear: set[int] = set()
        while tries := [n for n in _from_the_middle(good, bad) if n not in unclear]:
            found = outcome(tries[0])
            if found is Outcome.DIFFERS:
                bad = tries[0]
            elif found is Outcome.UNVERIFIED:
                unclear.add(tries[0])  # says nothing, so it may not move a boundary
            else:
                good = tries[0]
        reason = "" if bad - good == 1 else "what lies between could not be verified"
        return Blame(good + 1, bad, seen[bad], len(seen), reason)

    def _check_prefix(
        self, run_prefix: Callable[[int], ModelLike], count: int, allowance: Allowance | None
    ) -> Verification:
        try:
            model = run_prefix(count)
        except SurgeonError as error:
            return Verification(Outcome.UNVERIFIED, f"the first {count} changes could not be made: {error}")
        return self.check(model, allowance=allowance)

    def close(self) -> None:
        """Let go of the engine and of temporary files."""
        self._stack.close()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _precisions(model: ir.Model, feeds: Feeds) -> dict[str, str]:
    return {layer.tensor: layer.precision for layer in plan_layers(model, feeds)}


def _from_the_middle(low: int, high: int) -> list[int]:
    """The numbers strictly between two, the middle first and then outwards."""
    middle = (low + high) // 2
    return sorted(range(low + 1, high), key=lambda n: (abs(n - middle), n))
