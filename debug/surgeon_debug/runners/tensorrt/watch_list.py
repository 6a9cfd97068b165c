"""What a watched engine may show, and where the reference's value of each is: one file, for another process."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon_debug.runners.tensorrt.layer_map import ModelTensor
from surgeon_passes.errors import BadOptionError, FileError


@dataclasses.dataclass(frozen=True)
class Inside:
    """A tensor inside a node with a body or a function."""

    golden: str
    """Its name in the golden file, where it is stacked over the iterations that were kept."""
    axes: int
    """How many of the first dimensions there count iterations."""

    def index(self, occurrence: int, kept: tuple[int, ...], limit: int) -> tuple[int, ...] | None:
        """Where the value of a time that the engine showed it is in the golden file's.

        Args:
            occurrence: How often the run had shown it before.
            kept: The shape of the golden file's.
            limit: How many iterations of each loop were kept at most.

        Returns:
            The first indices; None if it was not kept, or cannot be told, as inner loops are that were cut short.
        """
        sizes = kept[: self.axes]
        if len(sizes) < self.axes or any(size >= limit for size in sizes[1:]) or 0 in sizes:
            return None
        if occurrence >= math.prod(sizes):
            return None
        found = []
        for size in reversed(sizes):
            occurrence, place = divmod(occurrence, size)
            found.append(place)
        return tuple(reversed(found))


@dataclasses.dataclass(frozen=True)
class WatchList:
    """The tensors of a model."""

    tensors: Mapping[str, ModelTensor]
    """Those of the main graph by name, in topological order."""
    inside: Mapping[str, tuple[Inside, ...]] = dataclasses.field(default_factory=dict)
    """Those inside nodes with bodies, by the name that they have there; several if bodies share a name, none if the
    reference keeps none of it."""
    iterations: int = 0
    """How many iterations of each loop the reference has kept at most."""

    def write(self, path: Path) -> None:
        """Write it for :func:`read_list`."""
        tensors = {
            name: (t.node, None if t.shape is None else list(t.shape), t.kind, t.readers)
            for name, t in self.tensors.items()
        }
        inside = {name: [dataclasses.astuple(item) for item in items] for name, items in self.inside.items()}
        held: dict[str, Any] = {"tensors": tensors, "inside": inside, "iterations": self.iterations}
        path.write_text(json.dumps(held), encoding="utf-8")


def read_list(path: Path) -> WatchList:
    """A list from a file.

    Raises:
        FileError: It cannot be read.
        BadOptionError: It is not of that form.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        tensors = {
            name: ModelTensor(
                node, None if shape is None else tuple(shape), kind, None if readers is None else tuple(readers)
            )
            for name, (node, shape, kind, readers) in held["tensors"].items()
        }
        inside = {name: tuple(Inside(*item) for item in items) for name, items in held["inside"].items()}
        return WatchList(tensors, inside, int(held["iterations"]))
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadOptionError(f"holds no tensors of a model: {error}", where=str(path)) from error
