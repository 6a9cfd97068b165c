"""Read the files of :mod:`surgeon_debug.tensor_file`: large tensors are mapped, nothing is believed unchecked."""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.tensor_file import INDEX, Entry, is_npy_header, stored_dtypes
from surgeon_debug.values import Value
from surgeon_passes.errors import FileError

_MAPPED = 1 << 20  # smaller tensors are read: a mapping costs more, and a process may have only so many
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, and the lengths of the name and of the extra fields
_MOST_RATIO = 1100  # deflate cannot do better; what claims more is made to fill the memory


class TensorFileReader:
    """Reads values from a tensor file, one at a time.

    Args:
        path: The file. It is held open: another file renamed over it changes nothing.
        what: What the reader expects, for messages.

    Raises:
        FileError: It cannot be opened, is no such file, or is damaged.
    """

    def __init__(self, path: Path, what: str = "a file of tensors") -> None:
        self._path, self._what = path, what
        self._checked: set[str] = set()
        self._dtypes = stored_dtypes()
        try:
            self._file = path.open("rb")
        except (OSError, ValueError) as error:
            words = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise FileError(f"cannot be read: {words.lower()}", where=str(path)) from error
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._archive = self._opened()
            self.index: Any = self._json(INDEX)
        except BaseException:
            self._file.close()
            raise

    def _opened(self) -> zipfile.ZipFile:
        try:
            archive = zipfile.ZipFile(self._file)
            archive.getinfo(INDEX)
        except Exception as error:
            raise FileError(
                f"is not {self._what}, or is cut short", where=str(self._path), hint="save it again"
            ) from error
        return archive

    def read(self, entry: Entry) -> Value:
        """The value that an entry of the index describes.

        Returns:
            Read-only arrays; those of 1 MiB and more are mapped and let go of their memory when they are dropped.

        Raises:
            FileError: The entry or its data are damaged.
        """
        if entry is None:
            return None
        if not isinstance(entry, dict):
            raise self._damaged("its index is malformed")
        if isinstance(items := entry.get("sequence"), list):
            return [self.read(item) for item in items]
        if isinstance(pairs := entry.get("map"), list):
            return dict(self._pairs(pairs))
        member, shape = entry.get("member"), entry.get("shape")
        fits = isinstance(shape, list) and all(type(size) is int and 0 <= size < 1 << 62 for size in shape)
        if not isinstance(member, str) or not isinstance(shape, list) or not fits or len(shape) > 64:
            raise self._damaged("its index is malformed")
        if entry.get("dtype") == "string":
            return self._text(member, shape)
        dtype = self._dtypes.get(str(entry.get("dtype")))
        if dtype is None:
            raise self._damaged(f"'{member}' has the unknown type {str(entry.get('dtype'))[:40]}")
        return self._data(member, dtype, math.prod(shape)).reshape(shape)

    def _pairs(self, pairs: list[Any]) -> Iterator[tuple[str | int, Value]]:
        for pair in pairs:
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], (str, int))):
                raise self._damaged("its index is malformed")
            yield pair[0], self.read(pair[1])

    def _text(self, member: str, shape: list[int]) -> np.ndarray[Any, Any]:
        items = self._json(member)
        if not isinstance(items, list) or len(items) != math.prod(shape) or not all(isinstance(i, str) for i in items):
            raise self._damaged(f"'{member}' is not {math.prod(shape)} strings")
        flat = np.empty(len(items), dtype=object)
        flat[:] = items
        return flat.reshape(shape)

    def _json(self, member: str) -> Any:
        try:
            data = self._bytes(self._info(member))
            return json.loads(data.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"'{member}' is not JSON") from error

    def _data(self, member: str, dtype: np.dtype[Any], count: int) -> np.ndarray[Any, Any]:
        """The elements in one dimension; the last bytes of the member, whatever header stands before them."""
        info = self._info(member)
        size = count * dtype.itemsize
        head = info.file_size - size
        whole = self._mapped(info) if self._is_mapped(info) else np.frombuffer(self._bytes(info), np.uint8)
        if not 0 <= head < 1 << 16 or not is_npy_header(whole[:head].tobytes()):
            raise self._damaged(f"'{member}' holds {info.file_size} bytes, not {count} elements of {dtype.name}")
        return whole[head:].view(dtype)

    def _is_mapped(self, info: zipfile.ZipInfo) -> bool:
        return info.compress_type == zipfile.ZIP_STORED and info.file_size >= _MAPPED

    def _mapped(self, info: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
        start = self._start(info)
        base = start - start % mmap.ALLOCATIONGRANULARITY
        try:
            region = mmap.mmap(self._file.fileno(), start + info.file_size - base, access=mmap.ACCESS_READ, offset=base)
        except (OSError, ValueError) as error:
            raise self._damaged(f"'{info.filename}' cannot be mapped") from error
        whole = np.frombuffer(region, np.uint8, info.file_size, start - base)
        self._check(info, whole.data)
        return whole

    def _bytes(self, info: zipfile.ZipInfo) -> bytes:
        if info.compress_type != zipfile.ZIP_STORED:
            if info.file_size > _MOST_RATIO * info.compress_size + _MOST_RATIO:
                raise self._damaged(f"'{info.filename}' states a size that it cannot have")
            try:
                return self._archive.read(info)
            except Exception as error:
                raise self._damaged(f"'{info.filename}' cannot be unpacked") from error
        data = os.pread(self._file.fileno(), info.file_size, self._start(info))
        self._check(info, data)
        return data

    def _info(self, member: str) -> zipfile.ZipInfo:
        try:
            info = self._archive.getinfo(member)
        except KeyError:
            raise self._damaged(f"'{member}' is missing") from None
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._damaged(f"'{member}' is packed in an unknown way")
        return info

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Where the bytes of an uncompressed member start."""
        head = os.pread(self._file.fileno(), _LOCAL_HEADER.size, info.header_offset) if info.header_offset >= 0 else b""
        if len(head) < _LOCAL_HEADER.size:
            raise self._damaged("it is cut short")
        signature, name, extra = _LOCAL_HEADER.unpack(head)
        start: int = info.header_offset + _LOCAL_HEADER.size + name + extra
        if signature != b"PK\x03\x04" or info.compress_size != info.file_size or start + info.file_size > self._size:
            raise self._damaged(f"'{info.filename}' is not where it should be")
        return start

    def _check(self, info: zipfile.ZipInfo, data: bytes | memoryview) -> None:
        """Hold data against their checksum, the first time they are read."""
        if info.filename in self._checked:
            return
        if zlib.crc32(data) != info.CRC:
            raise self._damaged(f"the data of '{info.filename}' do not fit their checksum")
        self._checked.add(info.filename)

    def _damaged(self, what: str) -> FileError:
        return FileError(f"is damaged: {what}", where=str(self._path), hint="save it again")

    def close(self) -> None:
        """Close the file; arrays that are mapped stay valid."""
        self._archive.close()
        self._file.close()
