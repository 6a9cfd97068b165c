"""The networks that cases are drawn from, by name: 23 architectures, and five families at four sizes each."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from tests.bench.planted.families import FAMILIES, SIZES
from tests.bench.planted_layers.ill_conditioned import ILL_CONDITIONED
from tests.bench.planted_layers.models import ARCHITECTURES
from tests.bench.planted_layers.variants import half, quantised

SMALL = "small"
"""The size of networks whose number of nodes is what it is: 23 to 600."""


def networks(size: str) -> list[str]:
    """Names of the networks of one size: ``small``, or a number of nodes.

    Raises:
        KeyError: There is no such size.
    """
    if size == SMALL:
        return list(ARCHITECTURES)
    if size not in map(str, SIZES):
        raise KeyError(size)
    return [f"{family}@{size}" for family in FAMILIES]


def sizes() -> Sequence[str]:
    """All sizes."""
    return (SMALL, *map(str, SIZES))


def build(name: str, seed: int) -> onnx.ModelProto:
    """Build a network.

    Args:
        name: ``NAME``, ``FAMILY@NODES``, or the name of an ill-conditioned network; with `` in float16`` or
            `` quantised`` behind it the network is converted.
        seed: Decides weights, and the structure of a random graph of a family.

    Raises:
        KeyError: There is no such network.
    """
    base, _, variant = name.partition(" ")
    family, _, nodes = base.partition("@")
    model = FAMILIES[family](seed, int(nodes)) if nodes else (ARCHITECTURES | ILL_CONDITIONED)[base](seed)
    return {"": lambda m: m, "in float16": half, "quantised": quantised}[variant](model)
