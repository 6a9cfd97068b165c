"""Sizes of dynamic inputs: from a file, from text, or from the inputs that are to be run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.element_types import Buffer
from surgeon_debug.runners.tensorrt.failures import BuildFailure, BuildStatus
from surgeon_passes.errors import BadOptionError, FileError

Dims = tuple[int, ...]
_FORM = 'write {"INPUT": {"min": [1, 8], "opt": [4, 8], "max": [8, 8]}}'


@dataclasses.dataclass(frozen=True)
class Range:
    """The sizes, or for an input that holds a shape the values, that an engine is made for."""

    least: Dims
    """The smallest."""
    best: Dims
    """What it is made fast for."""
    most: Dims
    """The largest."""

    def holds(self, dims: Dims) -> bool:
        """Whether sizes are within it."""
        return len(dims) == len(self.least) and all(
            a <= d <= b for a, d, b in zip(self.least, dims, self.most, strict=True)
        )

    def widened(self, dims: Dims) -> Range:
        """The range that holds other sizes too; of another rank it starts anew."""
        if len(dims) != len(self.least):
            return Range(dims, dims, dims)
        return Range(tuple(map(min, self.least, dims)), self.best, tuple(map(max, self.most, dims)))


Ranges = Mapping[str, Range]
"""Ranges by input."""


def read_ranges(path: Path) -> dict[str, Range]:
    """Ranges from a JSON file: by input ``min``, ``opt`` and ``max``, or one list of sizes.

    Raises:
        FileError: It cannot be read.
        BadOptionError: It is not of that form.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): _range(value) for name, value in held.items()}
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadOptionError(f"holds no sizes of inputs: {error}", where=str(path), hint=_FORM) from error


def _range(value: Any) -> Range:
    three = [value] * 3 if isinstance(value, list) else [value["min"], value.get("opt", value["max"]), value["max"]]
    least, best, most = (tuple(int(size) for size in sizes) for sizes in three)
    if not len(least) == len(best) == len(most) or any(
        not 0 <= a <= b <= c for a, b, c in zip(least, best, most, strict=True)
    ):
        raise ValueError(f"{value} is no range")
    return Range(least, best, most)


def parse_dims(text: str) -> dict[str, tuple[int, int, int]]:
    """Sizes of symbolic dimensions from ``N=4;SEQ=1..128`` or ``N=1..4..8``: smallest, best, largest.

    Raises:
        BadOptionError: It is not of that form.
    """
    found = {}
    for part in filter(None, (piece.strip() for piece in text.replace(",", ";").split(";"))):
        name, _, sizes = part.rpartition("=")
        numbers = sizes.split("..")
        if not name or not all(number.isdigit() for number in numbers) or len(numbers) > 3:
            raise BadOptionError(f"'{part}' is no dimension", hint="write NAME=SIZE or NAME=MIN..BEST..MAX")
        values = [int(number) for number in numbers]
        least, best, most = values[0], values[len(values) // 2], values[-1]
        if not least <= best <= most:
            raise BadOptionError(f"'{part}' is no range", hint="write NAME=MIN..BEST..MAX")
        if name.strip() in found:
            raise BadOptionError(f"dimension '{name.strip()}' is given twice", hint="write NAME=MIN..BEST..MAX")
        found[name.strip()] = (least, best, most)
    return found


def dynamic_inputs(network: Any) -> dict[str, Any]:
    """Inputs whose sizes, or if they hold shapes whose values, are open, by name."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    return {tensor.name: tensor for tensor in tensors if tensor.is_shape_tensor or -1 in tuple(tensor.shape)}


def ranges_from_dims(network: Any, dims: Mapping[str, tuple[int, int, int]]) -> dict[str, Range]:
    """Ranges of inputs of which every open dimension is named and has sizes.

    Args:
        network: The parsed model.
        dims: Sizes by the dimension's name; the empty name stands for every dimension that is not named.
    """
    found = {}
    for name, tensor in dynamic_inputs(network).items():
        shape = tuple(int(size) for size in tensor.shape)
        names = [tensor.get_dimension_name(i) or "" for i in range(len(shape))]
        known = [
            (size,) * 3 if size >= 0 else dims.get(title, dims.get(""))
            for size, title in zip(shape, names, strict=True)
        ]
        if tensor.is_shape_tensor or any(sizes is None for sizes in known):
            continue
        columns = [sizes for sizes in known if sizes is not None]
        least, best, most = (tuple(sizes[i] for sizes in columns) for i in range(3))
        found[name] = Range(least, best, most)
    return found


def sizes_of(dynamic: Mapping[str, bool], feeds: Mapping[str, Any]) -> dict[str, Dims]:
    """What the feeds say about dynamic inputs.

    Args:
        dynamic: Their names, and whether they hold shapes: it is their values that count then.
        feeds: Values by input.
    """
    found = {}
    for name, holds_shape in dynamic.items():
        value = feeds.get(name)
        if not isinstance(value, (np.ndarray, Buffer)):
            continue
        if holds_shape:
            found[name] = tuple(int(item) for item in np.asarray(value).reshape(-1))
        else:
            found[name] = tuple(value.shape)
    return found


def fitted(ranges: Ranges, sizes: Mapping[str, Dims], dynamic: Mapping[str, bool], fixed: Ranges) -> dict[str, Range]:
    """Ranges that hold other sizes too.

    Args:
        ranges: Those of the present engine.
        sizes: Sizes, or values, of dynamic inputs.
        dynamic: Their names, and whether they hold shapes.
        fixed: Ranges that were given and stay as they are.

    Returns:
        The ranges themselves if the sizes are within them; wider ones; where an input holds a shape, exactly the
        sizes: of a shape the least of each number and the most of each number seldom are shapes that fit the rest.
    """
    open_ = {name: dims for name, dims in sizes.items() if name not in fixed}
    if all(name in ranges and ranges[name].holds(dims) for name, dims in open_.items()):
        return dict(ranges)
    exact = any(dynamic.values())
    found = dict(ranges)
    for name, dims in open_.items():
        span = found.get(name)
        found[name] = Range(dims, dims, dims) if span is None or exact else span.widened(dims)
    return found


def add_profile(builder: Any, config: Any, network: Any, ranges: Ranges, model: str) -> dict[str, Range]:
    """Give the configuration one optimisation profile, if the network needs one.

    Args:
        builder: The builder.
        config: Its configuration.
        network: The parsed model.
        ranges: Sizes of the dynamic inputs; others are ignored.
        model: The model's name, for messages.

    Returns:
        The ranges that were used.

    Raises:
        BuildFailure: An input's sizes are open, or TensorRT does not take them.
    """
    needed = dynamic_inputs(network)
    lacking = [name for name in needed if name not in ranges]
    if lacking:
        tensor = needed[lacking[0]]
        words = f"the sizes of input '{lacking[0]}' ({_shape_words(tensor)}) are open"
        raise BuildFailure(
            BuildStatus.BUILD_ERROR, words, model=model, hint="give them: dims=NAME=MIN..BEST..MAX or profile=FILE.json"
        )
    if not needed:
        return {}
    profile = builder.create_optimization_profile()
    used = {name: ranges[name] for name in needed}
    for name, span in used.items():
        _set(profile, needed[name], span, model)
    if not profile or config.add_optimization_profile(profile) < 0:
        raise BuildFailure(BuildStatus.BUILD_ERROR, "the sizes of its inputs make no profile", model=model)
    return used


def _set(profile: Any, tensor: Any, span: Range, model: str) -> None:
    three: Sequence[Dims] = (span.least, span.best, span.most)
    if not tensor.is_shape_tensor and not _fits(tensor, span):
        words = f"sizes {span.least} to {span.most} do not fit input '{tensor.name}' of {_shape_words(tensor)}"
        raise BuildFailure(BuildStatus.BUILD_ERROR, words, model=model)
    try:
        if tensor.is_shape_tensor:
            profile.set_shape_input(tensor.name, *map(list, three))
        else:
            profile.set_shape(tensor.name, *three)
    except (RuntimeError, ValueError) as error:
        words = f"sizes {span.least} to {span.most} do not fit input '{tensor.name}': {error}"
        raise BuildFailure(BuildStatus.BUILD_ERROR, words, model=model) from error


def _fits(tensor: Any, span: Range) -> bool:
    """Whether a range has the input's rank and its fixed sizes."""
    sizes = [int(size) for size in tensor.shape]
    columns = zip(span.least, span.most, sizes, strict=True) if len(sizes) == len(span.least) else None
    return columns is not None and all(size < 0 or least == most == size for least, most, size in columns)


def _shape_words(tensor: Any) -> str:
    sizes = [int(size) for size in tensor.shape]
    return (
        "x".join(str(size) if size >= 0 else (tensor.get_dimension_name(i) or "?") for i, size in enumerate(sizes))
        or "scalar"
    )
