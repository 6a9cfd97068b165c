"""Where an error comes from: what a layer adds itself, what it was handed, and what the precision explains of it.

With r what the reference computes, t what the target computes, and i what the target computes from the reference's
inputs, every element satisfies t - r = (t - i) + (i - r) exactly: the error is inherited plus introduced.
"""

from __future__ import annotations

import dataclasses

from surgeon_debug.noise_floor import Stripe


@dataclasses.dataclass(frozen=True)
class Attribution:
    """The error of one layer, taken apart; relative errors are L2 norms over the reference's, over all samples."""

    introduced: float | None
    """Of the layer alone, fed the reference's inputs; None if it could not be isolated."""
    inherited: float | None
    """What errors in its inputs make of its output; None likewise."""
    amplification: float | None
    """How much larger the relative error it inherits is than that of its inputs; None if these are right."""
    precision: str
    """What the target computes this layer in: a dtype's name, ``tf32``, or ``quantisation``."""
    floor: float | None
    """The introduced error that the precision explains; None if it was not needed."""
    ratio: float | None
    """Introduced error over floor, along the axis where that is largest; None without a floor."""
    bound: float | None
    """For sums of products: the largest error of an element over the bound on its rounding; above 1 it is no rounding.
    None for other operators, or where nothing had to be explained."""
    conditioning: float | None
    """Relative error of the output over that of the inputs for random perturbations; None without a floor."""
    own_inputs: float | None
    """The error the layer adds to what the reference makes of the target's own inputs; measured for suspects only.
    Where it is far from :attr:`introduced`, the fault depends on the data."""
    stripe: Stripe | None
    """Where along an axis it is worst, if that is what gave it away."""
    worst_sample: int
    """The sample with the largest introduced error."""
    introduced_worst: float | None
    """The introduced error in that sample."""
    introduced_mean: float | None
    """The introduced error, averaged over samples."""
    unjudged: str
    """Why it could not be isolated or has no floor, as a phrase; empty if it was."""
    onset: tuple[int, ...] = ()
    """For a wrong tensor of a loop: the first iteration that is wrong, of the outermost loop first."""
