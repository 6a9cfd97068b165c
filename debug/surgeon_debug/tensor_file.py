"""Many values in one file: a zip archive whose members are ``.npy``, aligned so that they can be mapped.

Why a zip archive and not a layout of our own: such a file is kept for years and opened by people who have nothing but
numpy (``numpy.load(path)["0/logits"]``) or ``unzip``; it can be written one tensor at a time without knowing the rest,
goes beyond 4 GB (zip64), and every member carries a checksum. The one thing that plain ``.npz`` lacks, data that can be
mapped, comes from storing members uncompressed and padding their headers to 64 bytes, as Android packages do.

What ``.npy`` cannot hold is said in ``index.json``, the last member, which alone decides how the others are read: types
that numpy lacks are stored as raw bytes of the item's size, text as a JSON list of strings, sequences and maps as lists
of members. The bits of every number survive, the payload of a NaN included. Equal bytes are stored once, under the name
that came first.
"""

from __future__ import annotations

import itertools
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir

from surgeon_debug.values import Value, is_foreign, kind_of, normalise, numpy_dtype
from surgeon_passes.errors import BadOptionError

Entry = Any
"""How the index describes a value: plain JSON."""

INDEX = "index.json"
"""The member that describes all others."""

ALIGNMENT = 64
"""The data of an uncompressed tensor start at a multiple of this."""

_ALIGN_FIELD = 0xD935  # the extra field by which zipalign pads; readers skip it
_HEADER, _ZIP64_FIELD = 30, 20  # bytes of a local header without name and extra fields, and of its zip64 field
_LARGE = 1 << 30  # members from this size on get a zip64 field
_LABEL_LENGTH = 200
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_./:()\[\]+,=@# -]|(?<![^/])\.\.?(?![^/])")
_SAMPLED = 4096  # bytes in each part of a first look at a tensor
_MOST_ALIKE = 4  # tensors with the same look that another is compared with


def stored_dtypes() -> dict[str, np.dtype[Any]]:
    """The dtypes such a file holds, by name: those of every element type of ONNX but text."""
    kinds = (kind for kind in ir.DataType if kind not in (ir.DataType.UNDEFINED, ir.DataType.STRING))
    return {dtype.name: dtype for dtype in (numpy_dtype(kind.value) for kind in kinds)}


class TensorFileWriter:
    """Writes values one at a time; memory is that of one tensor.

    Args:
        file: An empty file that can be sought in, with a ``name``. Errors of the system pass through as OSError.
        compress: Deflate the members; they can then not be mapped, and equal ones are stored again.
    """

    def __init__(self, file: BinaryIO, *, compress: bool = False) -> None:
        self._file = file
        self._dtypes = stored_dtypes()
        self._method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        self._archive = zipfile.ZipFile(file, "w", self._method, allowZip64=True, compresslevel=1)
        self._used: set[str] = {INDEX}
        self._seen: dict[tuple[int, ...], list[tuple[str, int]]] = {}

    def add(self, label: str, value: Value) -> Entry:
        """Write a value.

        Args:
            label: What its members are called, as far as a zip archive allows; need not be unique.
            value: A tensor, text, a sequence, a map, or None.

        Returns:
            What the index must hold for :meth:`TensorFileReader.read` to find it.

        Raises:
            BadOptionError: It holds elements that ONNX has no type for.
        """
        value = normalise(value)
        if value is None:
            return None
        if isinstance(value, Mapping):
            pairs = ((_key(key, label), self.add(f"{label}[{key}]", item)) for key, item in value.items())
            return {"map": [list(pair) for pair in pairs]}
        if isinstance(value, list):
            return {"sequence": [self.add(f"{label}[{i}]", item) for i, item in enumerate(value)]}
        if kind_of(value) == "text":
            text = json.dumps(value.reshape(-1).tolist(), ensure_ascii=False).encode("utf-8", "surrogatepass")
            member = self._write(f"{label}.json", b"", memoryview(text))
            return {"dtype": "string", "shape": list(value.shape), "member": member}
        return self._add_array(label, value)

    def _add_array(self, label: str, value: np.ndarray[Any, Any]) -> Entry:
        dtype = self._dtypes.get(value.dtype.name)
        if dtype is None:
            raise BadOptionError(f"'{label}' holds elements of type {value.dtype}, which ONNX does not have")
        array = np.asarray(value, dtype, order="C")
        header = npy_header(array.dtype, array.shape)
        data = memoryview(array.reshape(-1).view(np.uint8).data) if array.size else memoryview(b"")
        return {"dtype": dtype.name, "shape": list(array.shape), "member": self._stored(label, header, data)}

    def _stored(self, label: str, header: bytes, data: memoryview) -> str:
        """The member that holds these bytes: an earlier one if there is one, else a new one."""
        if self._method != zipfile.ZIP_STORED or not data.nbytes:
            return self._write(f"{label}.npy", header, data)
        # A digest of everything would cost more than writing it; what looks alike is compared with what was written.
        sampled = data[:: max(1, data.nbytes // _SAMPLED)].tobytes()
        look = (data.nbytes, zlib.crc32(sampled), zlib.crc32(data[:_SAMPLED]), zlib.crc32(data[-_SAMPLED:]))
        alike = self._seen.setdefault(look, [])
        for member, start in alike:
            if self._holds(start, data):
                return member
        member = self._write(f"{label}.npy", header, data)
        if len(alike) < _MOST_ALIKE:
            alike.append((member, self._file.tell() - data.nbytes))
        return member

    def _holds(self, start: int, data: memoryview) -> bool:
        """Whether the bytes at a place of the file are these."""
        self._file.flush()
        chunk = 1 << 20
        with Path(self._file.name).open("rb", buffering=0) as back:
            back.seek(start)
            for at in range(0, data.nbytes, chunk):
                wanted = data[at : at + chunk]
                if back.read(wanted.nbytes) != wanted:
                    return False
        return True

    def _write(self, label: str, header: bytes, data: memoryview) -> str:
        name = self._member_name(label)
        large = len(header) + data.nbytes >= _LARGE
        info: str | zipfile.ZipInfo = name
        if self._method == zipfile.ZIP_STORED:
            info = zipfile.ZipInfo(name)
            info.extra = _padding(self._file.tell() + _HEADER + len(name) + (_ZIP64_FIELD if large else 0))
        with self._archive.open(info, "w", force_zip64=large) as member:
            member.write(header)
            member.write(data)
        return name

    def _member_name(self, label: str) -> str:
        stem, dot, ending = label.rpartition(".")
        plain = _NOT_PLAIN.sub(_escaped, stem)[:_LABEL_LENGTH]
        for number in itertools.count():
            name = f"{plain}{f'~{number}' if number else ''}{dot}{ending}"
            if name not in self._used:
                break
        self._used.add(name)
        return name

    def finish(self, index: Any) -> None:
        """Write the index and the directory; the file is then complete.

        Args:
            index: A document of plain JSON values.
        """
        text = json.dumps(index, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._archive.writestr(zipfile.ZipInfo(INDEX), text.encode("utf-8", "surrogatepass"))
        self._archive.close()

    def abandon(self) -> None:
        """Let go of the file; what it holds is worth nothing."""
        # Without this, the archive would try to complete the file when it is collected.
        self._archive.fp = None


def _key(key: Any, label: str) -> str | int:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return key
    if isinstance(key, np.integer):
        return int(key)
    raise BadOptionError(f"'{label}' is a map with the key {key!r}; keys are text or integers")


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found.group().encode("utf-8", "surrogatepass"))


def _padding(start: int) -> bytes:
    """An extra field after which data that would start at ``start`` start at a multiple of the alignment."""
    missing = -(start + 6) % ALIGNMENT
    return struct.pack("<HHH", _ALIGN_FIELD, 2 + missing, ALIGNMENT) + bytes(missing)


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What stands before the data in a ``.npy`` file of version 1.0; its length is a multiple of the alignment."""
    descr = f"|V{dtype.itemsize}" if is_foreign(dtype) else np.lib.format.dtype_to_descr(dtype)
    text = repr({"descr": descr, "fortran_order": False, "shape": tuple(map(int, shape))}).encode()
    padding = -(len(_NPY_MAGIC) + 2 + len(text) + 1) % ALIGNMENT
    text += b" " * padding + b"\n"
    return _NPY_MAGIC + len(text).to_bytes(2, "little") + text


def is_npy_header(head: bytes) -> bool:
    """Whether bytes are the whole of such a header, as far as that decides where the data start."""
    return head[: len(_NPY_MAGIC)] == _NPY_MAGIC and int.from_bytes(head[8:10], "little") == len(head) - 10
