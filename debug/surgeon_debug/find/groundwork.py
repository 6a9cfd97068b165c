"""What all trials of one model share: the model taken apart, its inputs, and what the reference makes of them."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from surgeon_debug.find.elements import Elements
from surgeon_debug.find.reference_values import ReferenceValues
from surgeon_debug.layer_plan import Layer, plan_layers
from surgeon_debug.memory_left import memory_left
from surgeon_debug.pairing import output_names
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.values import Value
from surgeon_passes.graph import load

_SHARE_OF_MEMORY = 8  # the part of what is left that the reference's tensors may take


@dataclasses.dataclass(frozen=True)
class Groundwork:
    """A model, ready for trials; threads may share it."""

    path: Path
    """Its file, in binary form."""
    source: PieceSource
    elements: Elements
    outputs: tuple[str, ...]
    """Its graph outputs."""
    feeds: Sequence[Mapping[str, Value]]
    """Its inputs, one mapping a sample."""
    layers: Mapping[str, Layer]
    """What is known about its tensors, by name."""
    values: ReferenceValues
    names: frozenset[str]
    """Names of its tensors and nodes."""
    folder: tempfile.TemporaryDirectory[str]
    """Where pieces are written."""

    def close(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError):
            self.folder.cleanup()


def lay(path: Path, feeds: Sequence[Mapping[str, Value]], *, allow_external: bool = False) -> Groundwork:
    """Load a model and take it apart.

    Raises:
        BadModelError: It cannot be used.
        FileError: It cannot be read, or the temporary folder cannot be written.
    """
    model = load(path, allow_external=allow_external)
    outputs = tuple(output_names(model))
    layers = {layer.tensor: layer for layer in plan_layers(model, feeds[0])}
    folder = tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True)
    try:
        source = PieceSource(model, Path(folder.name), "model")
    except BaseException:
        folder.cleanup()
        raise
    values = ReferenceValues(
        source,
        feeds,
        budget=memory_left() // _SHARE_OF_MEMORY,
        sizes={name: layer.nbytes for name, layer in layers.items()},
    )
    names = frozenset(name for node in source.nodes for name in (node.title, *node.writes, *node.weights))
    return Groundwork(path, source, Elements(source), outputs, feeds, layers, values, names, folder)


def given_outputs(ground: Groundwork) -> list[dict[str, Value]]:
    """Graph outputs that no node computes: inputs and constants handed on; one mapping a sample."""
    found: list[dict[str, Value]] = []
    for sample in ground.feeds:
        own: dict[str, Value] = {}
        for name in ground.outputs:
            if name in sample:
                own[name] = sample[name]
            elif isinstance(constant := ground.source.constant(name), np.ndarray):
                own[name] = constant
        found.append(own)
    return found
