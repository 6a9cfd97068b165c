"""Inputs from files: .npz, .safetensors, golden files, Polygraphy's JSON, ONNX test data, and folders of any of these.

Whatever the file, the values are held against the model: a name, element type or shape that does not fit is an error
with the name that was probably meant, never a warning and other inputs.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from surgeon_debug.feeds import inputs_of
from surgeon_debug.golden import SUFFIX, GoldenReader
from surgeon_debug.onnx_test_data import by_number, data_sets, read_data_set
from surgeon_debug.polygraphy_files import read_polygraphy_inputs
from surgeon_debug.values import Feeds, Value, decode, is_foreign, kind_of, normalise, numpy_dtype
from surgeon_passes.errors import BadOptionError, FileError

_IN_FOLDERS = (".npz", ".safetensors", ".json", ".golden")
_SAFETENSORS = {
    "F64": ir.DataType.DOUBLE,
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F8_E4M3": ir.DataType.FLOAT8E4M3FN,
    "F8_E5M2": ir.DataType.FLOAT8E5M2,
    "I64": ir.DataType.INT64,
    "I32": ir.DataType.INT32,
    "I16": ir.DataType.INT16,
    "I8": ir.DataType.INT8,
    "U64": ir.DataType.UINT64,
    "U32": ir.DataType.UINT32,
    "U16": ir.DataType.UINT16,
    "U8": ir.DataType.UINT8,
    "BOOL": ir.DataType.BOOL,
}


def load_feeds(path: str | Path, model: ir.Model, *, most: int | None = None) -> list[dict[str, Value]]:
    """Read inputs and check them against a model.

    Args:
        path: A ``.npz`` or ``.safetensors`` file, which is one sample; a ``.golden`` or ``.json`` (Polygraphy) file,
            which may hold several; a folder with ``input_*.pb``, which is one; a folder of such folders or of files of
            one of these kinds, in the order of the numbers in their names.
        model: The model that will be fed.
        most: How many samples to take at most, the first ones; None for all.

    Returns:
        Samples in order, each with values by input name.

    Raises:
        FileError: The file cannot be read or is of no known kind.
        BadOptionError: A name, element type or shape does not fit the model.
    """
    path = Path(path)
    if not path.exists():
        raise FileError("there is no such file or folder of inputs", where=str(path))
    try:
        samples = list(itertools.islice(_read(path, model), most))
    except (FileError, BadOptionError):
        raise
    except Exception as error:
        raise FileError(f"cannot be read as inputs: {' '.join(str(error).split())[:200]}", where=str(path)) from error
    if not samples:
        raise FileError("holds no inputs", where=str(path))
    several = len(samples) > 1
    return [
        check_feeds(sample, model, where=f"{path} (sample {i})" if several else str(path))
        for i, sample in enumerate(samples)
    ]


def _read(path: Path, model: ir.Model) -> Iterator[dict[str, Value]]:
    if path.is_dir():
        yield from _read_folder(path, model)
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            yield {name: archive[name] for name in archive.files}
    elif path.suffix == ".safetensors":
        yield _read_safetensors(path)
    elif path.suffix == ".json":
        yield from read_polygraphy_inputs(path)
    elif path.suffix == SUFFIX:
        yield from _read_golden(path)
    else:
        raise FileError(
            "is of no known kind of inputs",
            where=str(path),
            hint="use .npz, .safetensors, .golden, .json or a folder of input_*.pb",
        )


def _read_golden(path: Path) -> Iterator[dict[str, Value]]:
    with GoldenReader(path) as reader:
        if reader.samples and not any(reader.has_feeds(sample) for sample in range(reader.samples)):
            raise FileError("holds no inputs, only what was computed", where=str(path))
        yield from (reader.feeds(sample) for sample in range(reader.samples))


def _read_folder(folder: Path, model: ir.Model) -> Iterator[dict[str, Value]]:
    sets = data_sets(folder, "input")
    if sets == [folder]:
        yield read_data_set(folder, "input", inputs_of(model))
        return
    kinds = {suffix: files for suffix in _IN_FOLDERS if (files := list(folder.glob(f"*{suffix}")))}
    if len(kinds) + bool(sets) > 1:
        found = [*kinds, *(["folders of test data"] if sets else [])]
        raise FileError(
            f"holds inputs of several kinds: {' and '.join(found)}", where=str(folder), hint="keep each in a folder"
        )
    for sub in sets:
        yield read_data_set(sub, "input", inputs_of(model))
    for files in kinds.values():
        for file in by_number(files):
            yield from _read(file, model)


def _read_safetensors(path: Path) -> dict[str, Value]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    body = memoryview(data)[8 + length :]
    result: dict[str, Value] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind = _SAFETENSORS.get(entry["dtype"])
        if kind is None:
            raise FileError(f"tensor '{name}' has the unknown type {entry['dtype']}", where=str(path))
        start, end = entry["data_offsets"]
        result[name] = decode(body[start:end], kind.value, entry["shape"])
    return result


def check_feeds(feeds: Feeds, model: ir.Model, *, where: str = "") -> dict[str, Value]:
    """Hold values against a model's inputs.

    Args:
        feeds: Values by name. Integers of another width are taken if nothing is lost; raw bytes of the right size
            (numpy saves bfloat16 that way) are taken for a type that numpy lacks.
        model: The model.
        where: The file, for messages.

    Returns:
        The values in the order of the inputs, in the types the model wants.

    Raises:
        BadOptionError: An input is missing, unknown, of another type, or contradicts a fixed dimension.
    """
    inputs = {value.name or "": value for value in inputs_of(model)}
    overridable = {v.name or "": v for v in model.graph.inputs if v.is_initializer()}
    for name in feeds:
        if name not in inputs and name not in overridable:
            folded = {known.casefold(): known for known in inputs}
            close = difflib.get_close_matches(name.casefold(), folded, 1)
            hint = f"did you mean '{folded[close[0]]}'?" if close else f"its inputs are {', '.join(inputs) or 'none'}"
            raise BadOptionError(f"the model has no input '{name}'", where=where, hint=hint)
    result: dict[str, Value] = {}
    for name, value in {**inputs, **overridable}.items():
        if name in feeds:
            result[name] = _fitted(value, normalise(feeds[name]), where)
        elif name in inputs and not isinstance(value.type, ir.OptionalType):
            raise BadOptionError(f"input '{name}' is not given", where=where, hint="give every input of the model")
        elif name in inputs:
            result[name] = None
    return result


def _fitted(declared: ir.Value, value: Value, where: str) -> Value:
    if not isinstance(declared.type, ir.TensorType) or declared.type.dtype == ir.DataType.UNDEFINED:
        return value
    if not isinstance(value, np.ndarray):
        raise BadOptionError(f"input '{declared.name}' is a tensor, not a {kind_of(value)}", where=where)
    value = _typed(declared.name or "", declared.type.dtype, value, where)
    wanted = declared.shape
    if wanted is None:
        return value
    # A dimension of -1 is an exporter's way to say that it is free.
    fits = len(wanted) == value.ndim and all(
        not isinstance(dim, int) or dim < 0 or dim == size for dim, size in zip(wanted, value.shape, strict=True)
    )
    if not fits:
        dims = "x".join(str(dim) if isinstance(dim, int) else dim.value or "?" for dim in wanted) or "scalar"
        given = "x".join(map(str, value.shape)) or "scalar"
        raise BadOptionError(f"input '{declared.name}' is {dims} in the model and {given} in the data", where=where)
    return value


def _typed(name: str, wanted: ir.DataType, value: np.ndarray[Any, Any], where: str) -> np.ndarray[Any, Any]:
    target = numpy_dtype(wanted.value)
    if value.dtype == target:
        return value
    if value.dtype.kind == "V" and not is_foreign(value.dtype) and value.dtype.itemsize == target.itemsize:
        return value.view(target)
    kinds = (kind_of(value), kind_of(np.empty(0, target)))
    if kinds in (("int", "int"), ("bool", "int"), ("bool", "bool")):
        converted = value.astype(target)
        if np.array_equal(converted, value):
            return converted
        raise BadOptionError(f"input '{name}' holds integers that do not fit {target.name}", where=where)
    if kinds == ("text", "text"):
        return value
    raise BadOptionError(
        f"input '{name}' is {target.name} in the model and {value.dtype.name} in the data",
        where=where,
        hint=f"convert it first, as with array.astype('{target.name}')",
    )
