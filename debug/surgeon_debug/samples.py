"""The inputs that a model is run on: those that were given, held against it, or seeded ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from surgeon_debug.feed_files import check_feeds
from surgeon_debug.feeds import make_feeds
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import BadOptionError


def samples_of(
    model: ir.Model, given: Sequence[Feeds] | None, *, count: int, seed: int, dims: Mapping[str, int] | None
) -> list[dict[str, Value]]:
    """One mapping a sample, in the types that the model wants.

    Args:
        model: The model.
        given: Samples, values by input name; None makes seeded ones up.
        count: How many to make up.
        seed: Decides those.
        dims: Sizes of their symbolic dimensions.

    Raises:
        BadOptionError: What was given does not fit the model, or there is nothing.
    """
    if given is None:
        samples = [make_feeds(model, seed=seed, sample=i, dims=dims) for i in range(count)]
    else:
        samples = [check_feeds(sample, model) for sample in given]
    if not samples:
        raise BadOptionError("there is no sample to run", hint="give at least one")
    return samples
