"""Whether to judge every node alone first, or to cut the model at once: whichever tells more in the time it takes."""

from __future__ import annotations

import math

from surgeon_debug.find.groundwork import Groundwork
from surgeon_debug.find.probe import Probe
from surgeon_debug.search.information import census_bits
from surgeon_debug.search.planner import Offer, Price, Rates, best

_ALONE = 0.8  # of failures of values, those that a node shows by itself; the others are of fusions
_BATCH = 0.1  # what one more model costs to compile however small it is, as a share of the whole
_HALF = 0.5  # of the whole is what a cut compiles, on average
_PROOF = 2  # trials that follow a search by cuts
_COPIES = 3  # of a tensor while it is judged
_LEAST_SECONDS = 1e-3


def batches_of(ground: Groundwork, memory: int) -> int:
    """How many models a census takes.

    Args:
        ground: The model and its inputs.
        memory: Bytes that the tensors and weights of one may take.
    """
    tensors = len(ground.feeds) * sum(layer.nbytes for layer in ground.layers.values())
    weights = sum({name: ground.source.weight_bytes(name) for n in ground.source.nodes for name in n.weights}.values())
    return max(1, math.ceil((_COPIES * tensors + 2 * weights) / max(1, memory)))


def census_first(places: int, batches: int, seen: Probe) -> bool:
    """Whether a census is worth more than cuts.

    Args:
        places: Elements that may be to blame.
        batches: Models that the census takes.
        seen: The probe, which tells how long the engine compiles and runs.
    """
    rates = Rates(
        max(_LEAST_SECONDS, seen.build_seconds),
        max(_LEAST_SECONDS, seen.run_seconds),
        max(_LEAST_SECONDS, seen.run_seconds),
    )
    rounds = math.log2(max(2, places))
    census = Price(1 + _BATCH * (batches - 1), batches * seen.repeats, 2 * batches)
    cuts = Price(_HALF * rounds + _PROOF, (rounds + _PROOF) * seen.repeats, rounds + _PROOF)
    offers = [Offer("census", census_bits(places, _ALONE), census), Offer("cuts", rounds, cuts)]
    return best(offers, rates).name == "census"
