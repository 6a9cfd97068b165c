"""Values in a folder that anybody can read: ``.npz`` for what numpy holds, ONNX's own ``.pb`` for what it does not.

Numbers in types that numpy lacks and text are TensorProto files; sequences and maps are taken apart. A description in
JSON says for every tensor where it is, so that names need not be file names.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from surgeon_debug.element_types import element_type_of, encode, is_foreign
from surgeon_debug.values import Value, kind_of
from surgeon_passes.errors import BadOptionError, FileError

Entry = Any
"""Where a value is, as plain JSON: ``{"npz": KEY}``, ``{"pb": FILE}``, ``{"sequence": [...]}``, ``{"map": [[KEY,
ENTRY], ...]}``, or None for nothing."""

_MOST_HEADER = 1 << 16


def write_values(folder: Path, samples: Sequence[Mapping[str, Value]]) -> list[dict[str, Entry]]:
    """Write values; one ``N.npz`` a sample, and ``N-M.pb`` for what it cannot hold.

    Args:
        folder: Where; it is made if it is not there.
        samples: Values by name, one mapping a sample.

    Returns:
        Their description, one mapping a sample.

    Raises:
        BadOptionError: A value is of no kind that ONNX has.
        FileError: The folder cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        return [_Writer(folder, number).write(sample) for number, sample in enumerate(samples)]
    except OSError as error:
        raise FileError(f"cannot be written: {error.strerror}", where=str(folder)) from error


class _Writer:
    """Writes one sample."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._files = 0

    def write(self, sample: Mapping[str, Value]) -> dict[str, Entry]:
        described = {name: self._entry(name, value) for name, value in sample.items()}
        if self._arrays:
            with zipfile.ZipFile(self._folder / f"{self._number}.npz", "w") as archive:
                for key, array in self._arrays.items():
                    info = zipfile.ZipInfo(f"{key}.npy")  # a date of its own would make equal bundles differ
                    with archive.open(info, "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        return described

    def _entry(self, name: str, value: Value) -> Entry:
        if value is None:
            return None
        if isinstance(value, Mapping):
            return {"map": [[key, self._entry(f"{name}[{key}]", item)] for key, item in value.items()]}
        if isinstance(value, (list, tuple)):
            return {"sequence": [self._entry(f"{name}[{i}]", item) for i, item in enumerate(value)]}
        array = np.asarray(value)
        if kind_of(array) == "raw":
            raise BadOptionError(f"'{name}' is of no kind that a bundle can hold")
        if kind_of(array) == "text" or is_foreign(array.dtype):
            self._files += 1
            file = f"{self._number}-{self._files}.pb"
            (self._folder / file).write_bytes(_tensor(name, array).SerializeToString())
            return {"pb": file}
        key = name
        while key in self._arrays or "\0" in key or not key:
            key = f"{key.replace(chr(0), '')}_"
        self._arrays[key] = array
        return {"npz": key}


def _tensor(name: str, array: np.ndarray[Any, Any]) -> onnx.TensorProto:
    made = onnx.TensorProto(name=name, data_type=element_type_of(array), dims=array.shape)
    if kind_of(array) == "text":
        made.data_type = onnx.TensorProto.STRING
        made.string_data.extend(str(item).encode("utf-8", "surrogateescape") for item in array.reshape(-1))
    else:
        made.raw_data = encode(array, made.data_type)
    return made


@dataclasses.dataclass(frozen=True)
class ValueReader:
    """Reads what :func:`write_values` wrote and believes nothing unchecked."""

    folder: Path
    """Where the files are."""
    where: str
    """What they are part of, for messages."""

    def read(self, samples: Any) -> list[dict[str, Value]]:
        """The values.

        Args:
            samples: Their description.

        Raises:
            FileError: A file is missing or damaged, or the description is malformed.
        """
        if not isinstance(samples, list) or not all(isinstance(sample, dict) for sample in samples):
            raise self._damaged("the description of its values is malformed")
        found = []
        for number, sample in enumerate(samples):
            arrays = self._arrays(number) if _mentions(sample, "npz") else {}
            found.append({str(name): self._value(entry, arrays) for name, entry in sample.items()})
        return found

    def _value(self, entry: Entry, arrays: Mapping[str, Any]) -> Value:
        if entry is None:
            return None
        if not isinstance(entry, dict) or len(entry) != 1:
            raise self._damaged("the description of its values is malformed")
        [(kind, content)] = entry.items()
        if kind == "npz" and isinstance(content, str) and content in arrays:
            return arrays[content]
        if kind == "pb" and isinstance(content, str) and content == Path(content).name:
            return self._from_proto(content)
        if kind == "sequence" and isinstance(content, list):
            return [self._value(item, arrays) for item in content]
        if kind == "map" and isinstance(content, list) and all(isinstance(p, list) and len(p) == 2 for p in content):
            return {key: self._value(item, arrays) for key, item in content if isinstance(key, (str, int))}
        raise self._damaged(f"'{str(content)[:40]}' is missing in {self.folder.name}")

    def _from_proto(self, file: str) -> Value:
        tensor = onnx.TensorProto()
        try:
            tensor.ParseFromString((self.folder / file).read_bytes())
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise self._damaged(f"'{file}' has its data elsewhere")
            if tensor.data_type != onnx.TensorProto.STRING:
                return onnx.numpy_helper.to_array(tensor)
            flat = np.empty(len(tensor.string_data), object)  # onnx would cut a NUL at the end
            flat[:] = [item.decode("utf-8", "surrogateescape") for item in tensor.string_data]
            return flat.reshape(tuple(tensor.dims))
        except OSError as error:
            raise self._damaged(f"'{self.folder.name}/{file}' is missing") from error
        except FileError:
            raise
        except Exception as error:
            raise self._damaged(f"'{self.folder.name}/{file}' is no tensor") from error

    def _arrays(self, number: int) -> dict[str, np.ndarray[Any, Any]]:
        path = self.folder / f"{number}.npz"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise self._damaged(f"'{self.folder.name}/{path.name}' is missing") from error
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return {
                    info.filename.removesuffix(".npy"): self._array(archive, info)
                    for info in archive.infolist()
                    if info.filename.endswith(".npy")
                }
        except FileError:
            raise
        except Exception as error:
            raise self._damaged(f"'{self.folder.name}/{path.name}' is no .npz file") from error

    def _array(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
        # Only stored members: their size is that of the file itself, which nobody can make up.
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise self._damaged(f"'{info.filename[:40]}' is packed in an unknown way")
        raw = archive.read(info)
        head = io.BytesIO(raw[:_MOST_HEADER])
        version = np.lib.format.read_magic(head)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
        else:
            raise self._damaged(f"'{info.filename[:40]}' has an unknown header")
        size = dtype.itemsize
        for length in shape:
            size *= int(length)
        if dtype.hasobject or dtype.names or len(raw) - head.tell() != size:
            raise self._damaged(f"'{info.filename[:40]}' does not hold what its header says")
        flat = np.frombuffer(raw, dtype, offset=head.tell()) if size else np.empty(0, dtype)
        return flat.reshape(shape, order="F" if fortran else "C").copy()

    def _damaged(self, what: str) -> FileError:
        return FileError(f"is damaged: {what}", where=self.where, hint="get it again from who made it")


def _mentions(entry: Any, kind: str) -> bool:
    """Whether a description refers to a kind of file."""
    if isinstance(entry, dict):
        return kind in entry or any(_mentions(item, kind) for item in entry.values())
    return isinstance(entry, list) and any(_mentions(item, kind) for item in entry)
