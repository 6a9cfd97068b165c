"""Save what a run computed, in the form that the file's ending asks for: .npz, .golden, or Polygraphy's .json."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from surgeon_debug.golden import SUFFIX, GoldenWriter
from surgeon_debug.polygraphy_files import save_polygraphy_outputs
from surgeon_debug.values import Feeds, Value, kind_of, normalise
from surgeon_passes.atomic_write import check_target, staged
from surgeon_passes.errors import BadOptionError

ENDINGS = (".npz", SUFFIX, ".json")
"""The endings of files that values can be saved in."""


class Saver(Protocol):
    """Takes the values of a run, sample by sample."""

    def add(self, sample: int, feeds: Feeds, values: Mapping[str, Value]) -> None:
        """Take one sample.

        Args:
            sample: Its number, from 0.
            feeds: Its inputs, by name.
            values: What was computed, by tensor name; may be changed afterwards.
        """
        ...


def check_ending(path: Path, samples: int = 1) -> None:
    """Refuse a file that values cannot be saved in, before they are computed.

    Raises:
        BadOptionError: Its ending is unknown, or it takes one sample and there are more.
        FileError: It cannot be written there.
    """
    if path.suffix not in ENDINGS:
        raise BadOptionError(
            "values are saved as .npz, .golden or .json",
            where=str(path),
            hint=f"write {path.with_suffix('.npz').name}" if path.name else "",
        )
    if path.suffix == ".npz" and samples > 1:
        raise BadOptionError(
            f".npz takes one sample, and there are {samples}",
            where=str(path),
            hint=f"write {path.with_suffix(SUFFIX).name}",
        )
    check_target(path)


@contextlib.contextmanager
def saving(path: Path, *, runner: str, meta: Mapping[str, Any] | None = None) -> Iterator[Saver]:
    """A saver; the file appears whole when the block ends, or not at all if it fails.

    ``.golden`` takes values of any kind, of several samples, with their inputs, and writes them as they come. ``.json``
    is Polygraphy's form of outputs and holds all samples in memory until the end. ``.npz`` takes one sample; see
    :func:`save_npz` for what it makes of it.

    Args:
        path: The file.
        runner: The text of the runner that computes the values.
        meta: What a golden file says about itself; see :func:`surgeon_debug.recording.describe`.

    Raises:
        BadOptionError: The file's ending is unknown, or a value has no form in the file.
        FileError: The file cannot be written.
    """
    check_ending(path)
    if path.suffix == SUFFIX:
        with GoldenWriter(path, meta) as writer:
            yield _Golden(writer)
        return
    held = _Held()
    yield held
    if path.suffix == ".json":
        save_polygraphy_outputs([(runner, held.samples)], path)
        return
    check_ending(path, len(held.samples))
    save_npz(held.samples[0] if held.samples else {}, path)


class _Golden:
    """Writes samples as they come."""

    def __init__(self, writer: GoldenWriter) -> None:
        self._writer = writer

    def add(self, sample: int, feeds: Feeds, values: Mapping[str, Value]) -> None:
        self._writer.add_feeds(sample, feeds)
        for name, value in values.items():
            self._writer.add(sample, name, value)


class _Held:
    """Holds all samples."""

    def __init__(self) -> None:
        self.samples: list[dict[str, Value]] = []

    def add(self, sample: int, feeds: Feeds, values: Mapping[str, Value]) -> None:
        del sample, feeds
        self.samples.append(dict(values))


def save_npz(values: Mapping[str, Value], path: Path) -> None:
    """Write values by name into a ``.npz`` file that numpy and ``--feeds`` read.

    Types that numpy lacks (bfloat16, float8, int4) are stored as numpy stores them, as raw bytes of the item's size;
    ``--feeds`` reads them back by the model's type. The items of a sequence are stored as ``NAME[0]``, ``NAME[1]``;
    an optional without a value is left out; text is stored as unicode.

    Args:
        values: Arrays, lists of arrays, or None, by name.
        path: The file.

    Raises:
        BadOptionError: A value is neither tensor nor sequence of tensors, or text that numpy would cut short.
        FileError: The file cannot be written.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, value in values.items():
        items = {name: value} if not isinstance(value, list) else {f"{name}[{i}]": v for i, v in enumerate(value)}
        for label, item in items.items():
            if item is not None:
                arrays[label] = _as_array(label, normalise(item), path)
    # Not numpy.savez: it takes names as keywords, and a tensor may be called 'file'.
    with staged() as files, files.open(path) as out, zipfile.ZipFile(out, "w") as archive:
        for label, array in arrays.items():
            with archive.open(f"{label}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _as_array(label: str, value: Value, path: Path) -> np.ndarray[Any, Any]:
    if not isinstance(value, np.ndarray):
        raise BadOptionError(
            f"'{label}' is neither a tensor nor a sequence of tensors",
            where=str(path),
            hint=f"write {path.with_suffix(SUFFIX).name}",
        )
    if kind_of(value) != "text":
        return value
    text = value.astype(np.str_)
    if not np.array_equal(text.astype(object), value):
        raise BadOptionError(
            f"'{label}' holds text that ends with a NUL, which .npz cuts off",
            where=str(path),
            hint=f"write {path.with_suffix(SUFFIX).name}",
        )
    return text
