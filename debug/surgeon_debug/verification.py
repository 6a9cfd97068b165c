"""The result of verifying a rewrite: what became of each output, and which change is to blame."""

from __future__ import annotations

import dataclasses
import enum

from surgeon_debug.compare import Difference
from surgeon_debug.verdict import Verdict, judge

# Types that onnxruntime's CPU provider has few kernels for. It computes chains of such operators in float32, even when
# not optimising, and where it rounds in between depends on the graph around them: equality to the bit is not to be had.
_EMULATED = ("float16", "bfloat16")


class Outcome(enum.Enum):
    """What verification came to, for one output or for the model; the later the worse."""

    EQUAL = "equal"
    """Every element is equal; NaN equals NaN, and -0 equals 0."""
    ROUNDED = "rounded"
    """Not equal, and within what regrouped arithmetic may do."""
    UNVERIFIED = "not verified"
    """Nothing could be compared; the reason says why."""
    DIFFERS = "differs"
    """A value, a shape or a type changed, or the rewritten model no longer runs."""


@dataclasses.dataclass(frozen=True)
class OutputCheck:
    """What became of one graph output."""

    output: str
    """Its name."""
    outcome: Outcome
    """Equal, rounded or differs."""
    reason: str
    """Why, as a phrase."""
    difference: Difference | None
    """The measurement over all samples; None if it is missing on a side."""


@dataclasses.dataclass(frozen=True)
class Verification:
    """The result of comparing a model before and after."""

    outcome: Outcome
    """The worst of the outputs', or ``UNVERIFIED``."""
    reason: str
    """Why, as a sentence without a full stop."""
    outputs: tuple[OutputCheck, ...] = ()
    """Each output; empty if nothing could be compared."""
    samples: int = 0
    """Samples that both models were run on."""
    notes: tuple[str, ...] = ()
    """What else a reader must know, as sentences."""

    @property
    def altered(self) -> bool:
        """Whether the rewrite altered a value."""
        return self.outcome is Outcome.DIFFERS

    @property
    def exact(self) -> bool:
        """Whether every output is equal."""
        return self.outcome is Outcome.EQUAL

    @property
    def undecided(self) -> bool:
        """Whether nothing could be said."""
        return self.outcome is Outcome.UNVERIFIED


@dataclasses.dataclass(frozen=True)
class Blame:
    """The change that first altered a value."""

    first: int
    """Number of the first change that may be it, from 1; 0 if the model differs without any change."""
    last: int
    """Number of the last change that may be it; the same as :attr:`first` where one change is named."""
    verification: Verification
    """What is seen right after it."""
    trials: int
    """Models that were made and run to find it."""
    reason: str
    """Why it is not one change, as a phrase; empty if it is."""


@dataclasses.dataclass(frozen=True)
class Allowance:
    """What the passes that ran were allowed to do."""

    reassociates: bool = False
    """Regroup arithmetic or change precision: values may differ within rounding."""
    changes_interface: bool = False
    """Add and remove outputs, change the floating-point type of inputs and outputs, fix sizes: what is left of the old
    outputs is compared."""


def check_output(name: str, difference: Difference, precision: str, allowance: Allowance) -> OutputCheck:
    """Decide about one output.

    Args:
        name: The output.
        difference: Target minus reference, that is after minus before.
        precision: The coarsest precision that the output depends on, before or after.
        allowance: What the passes were allowed to do.
    """
    before, after = difference.reference_dtype, difference.target_dtype
    if before != after and not difference.mismatch and not allowance.changes_interface:
        return OutputCheck(name, Outcome.DIFFERS, f"its type changed from {before} to {after}", difference)
    if difference.equal:
        return OutputCheck(name, Outcome.EQUAL, "equal", difference)
    judgement = judge(difference, precision=precision, rounds_to_integers=allowance.reassociates)
    if judgement.verdict is not Verdict.AGREE:
        return OutputCheck(name, Outcome.DIFFERS, judgement.reason, difference)
    if allowance.reassociates or (allowance.changes_interface and before != after):
        return OutputCheck(name, Outcome.ROUNDED, judgement.reason, difference)
    if precision in _EMULATED:
        reason = f"{judgement.reason}; onnxruntime computes {precision} in float32 and rounds where the graph lets it"
        return OutputCheck(name, Outcome.ROUNDED, reason, difference)
    reason = (
        f"{difference.unequal:,} of {difference.elements:,} elements are not equal (largest error "
        f"{difference.max_abs:.3g}), and no pass that ran may round"
    )
    return OutputCheck(name, Outcome.DIFFERS, reason, difference)


def worst_of(checks: list[OutputCheck]) -> tuple[Outcome, str]:
    """The worst outcome, and the sentence that says so."""
    order = list(Outcome)
    worst = max(checks, key=lambda check: order.index(check.outcome))
    if worst.outcome is Outcome.EQUAL:
        return Outcome.EQUAL, "every output is equal"
    return worst.outcome, f"output '{worst.output}': {worst.reason}"
