"""Where values computed earlier come from: golden files, Polygraphy's outputs, .npz, ONNX test data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from surgeon_debug.feed_files import load_feeds
from surgeon_debug.golden import SUFFIX, GoldenReader
from surgeon_debug.onnx_test_data import data_sets, read_data_set
from surgeon_debug.package_versions import package_versions
from surgeon_debug.polygraphy_files import read_polygraphy_outputs
from surgeon_debug.values import Feeds, Value, is_foreign, normalise, numpy_dtype
from surgeon_passes import graph
from surgeon_passes.errors import BadOptionError, FileError

_PACKAGES = ("onnx-surgeon", "onnx", "onnxruntime", "openvino", "tensorrt", "numpy")


class Recording(Protocol):
    """Where recorded values come from; :class:`surgeon_debug.golden.GoldenReader` is one."""

    meta: dict[str, Any]
    """Where they come from; see :func:`describe`."""

    @property
    def samples(self) -> int:
        """Number of samples."""
        ...

    def feeds(self, sample: int) -> dict[str, Value]:
        """The inputs of a sample; empty if they are not known."""
        ...

    def has_feeds(self, sample: int) -> bool:
        """Whether the inputs of a sample are known."""
        ...

    def names(self, sample: int) -> list[str]:
        """The tensors of a sample."""
        ...

    def has(self, sample: int, name: str) -> bool:
        """Whether a sample has a tensor."""
        ...

    def get(self, sample: int, name: str) -> Value:
        """A tensor of a sample."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class MemoryRecording:
    """Values in memory as a recording.

    Args:
        values: Values by tensor name, for each sample.
        feeds: The inputs of each sample, if they are known.
        meta: Where the values come from.
    """

    def __init__(
        self,
        values: Sequence[Mapping[str, Value]],
        feeds: Sequence[Feeds] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.meta = dict(meta or {})
        self._values = [{name: normalise(value) for name, value in sample.items()} for sample in values]
        self._feeds = [dict(sample) for sample in feeds] if feeds is not None else [{} for _ in values]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self._values)

    def feeds(self, sample: int) -> dict[str, Value]:
        """The inputs of a sample; empty if they are not known."""
        return dict(self._feeds[sample])

    def has_feeds(self, sample: int) -> bool:
        """Whether the inputs of a sample are known."""
        return bool(self._feeds[sample])

    def names(self, sample: int) -> list[str]:
        """The tensors of a sample."""
        return list(self._values[sample])

    def has(self, sample: int, name: str) -> bool:
        """Whether a sample has a tensor."""
        return 0 <= sample < len(self._values) and name in self._values[sample]

    def get(self, sample: int, name: str) -> Value:
        """A tensor of a sample."""
        return self._values[sample][name]

    def close(self) -> None:
        """Nothing to let go of."""


def open_recording(path: str | Path, model: ir.Model, *, run: str = "") -> Recording:
    """A recording from a file or folder.

    Args:
        path: A ``.golden`` file, Polygraphy's outputs (``.json``), an ``.npz`` file of outputs, or a folder of ONNX
            test data (``input_*.pb`` and ``output_*.pb``) or of such folders.
        model: The model it will be compared with. It names what test data only number, and knows the types that
            ``.npz`` and Polygraphy's files lose.
        run: Which runner's outputs to take where a file holds several.

    Raises:
        FileError: It cannot be read or is of no known kind.
        BadOptionError: It holds the outputs of several runners and ``run`` names none of them, or its inputs do not
            fit the model.
    """
    path = Path(path)
    if path.suffix == SUFFIX:
        return GoldenReader(path)
    if not path.exists():
        raise FileError("there is no such file or folder of outputs", where=str(path))
    if path.is_dir() and (sets := data_sets(path, "output")):
        values = [read_data_set(folder, "output", model.graph.outputs) for folder in sets]
        known = data_sets(path, "input") == sets
        return MemoryRecording(values, load_feeds(path, model) if known else None)
    if path.suffix == ".json" or path.is_dir():
        name, samples = _run_of(path, run)
        return MemoryRecording(_typed(samples, model), meta={"runner": name})
    if path.suffix == ".npz":
        return MemoryRecording(_typed([_read_npz(path)], model))
    raise FileError(
        "is of no known kind of outputs", where=str(path), hint="use .golden, .json, .npz or a folder of output_*.pb"
    )


def _run_of(path: Path, run: str) -> tuple[str, list[dict[str, Value]]]:
    runs = read_polygraphy_outputs(path)
    matching = [found for found in runs if run in ("", found[0])]
    if len(matching) != 1:
        names = ", ".join(name for name, _ in runs)
        what = f"holds no outputs of '{run}'" if run else "holds the outputs of several runners"
        raise BadOptionError(what if runs else "holds no outputs", where=str(path), hint=f"it has {names or 'none'}")
    return matching[0]


def _read_npz(path: Path) -> dict[str, Value]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise FileError(f"cannot be read as outputs: {' '.join(str(error).split())[:200]}", where=str(path)) from error


def _typed(samples: Sequence[Mapping[str, Value]], model: ir.Model) -> list[dict[str, Value]]:
    """Values whose type got lost in a file, as raw bytes, in the type the model states."""
    declared = {v.name: v.dtype for node in model.graph for v in node.outputs if v.name and v.dtype is not None}

    def typed(name: str, value: Value) -> Value:
        raw = isinstance(value, np.ndarray) and value.dtype.kind == "V" and not is_foreign(value.dtype)
        if not raw or name not in declared:
            return value
        dtype = numpy_dtype(declared[name].value)
        return value.view(dtype) if dtype.itemsize == value.dtype.itemsize else value

    return [{name: typed(name, value) for name, value in sample.items()} for sample in samples]


def describe(
    model: ir.Model,
    *,
    name: str,
    runner: str,
    seed: int | None = None,
    dims: Mapping[str, int] | None = None,
    model_digest: str = "",
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a recording must say about itself, as plain JSON values.

    Args:
        model: The model that is run.
        name: How it is called: its path.
        runner: The text of the runner.
        seed: Seed of the inputs; None if they came from a file.
        dims: Sizes of symbolic dimensions that were asked for.
        model_digest: The model's digest; empty to compute it, which reads every weight once.
        versions: Versions of packages, where they are not those installed here.
    """
    installed = {package: version for package, version in package_versions(_PACKAGES).items() if version}
    return {
        "model": name,
        "model_digest": model_digest or graph.digest(model),
        "opset": dict(model.opset_imports),
        "ir_version": model.ir_version,
        "runner": runner,
        "seed": seed,
        "dims": dict(dims or {}),
        "versions": {**installed, **(versions or {})},
    }
