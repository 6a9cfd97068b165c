"""Weights that stay in their file: opened once, mapped when read as an array, streamed when copied.

The file is held open, not looked up again by name, so that a model keeps its weights when another file is renamed
over theirs.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir

from surgeon_passes.errors import FileError

_CHUNK = 1 << 22


class WeightFile:
    """A file that holds weights, open for reading until the last tensor that needs it is gone.

    Args:
        path: The file.

    Raises:
        FileError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
        self.size = os.fstat(self._file.fileno()).st_size
        self._map: mmap.mmap | None = None

    @property
    def fileno(self) -> int:
        """The descriptor, for copies inside the kernel."""
        return self._file.fileno()

    def map(self) -> mmap.mmap:
        """The whole file as read-only memory; pages come in as they are read and may be dropped again."""
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of a region in pieces of at most 4 MiB, without adding pages to the resident memory."""
        while length > 0:
            data = os.pread(self._file.fileno(), min(_CHUNK, length), offset)
            if not data:
                raise FileError(f"ended {length} bytes early while its weights were read", where=str(self.path))
            yield data
            offset, length = offset + len(data), length - len(data)

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()


class MappedTensor(ir.LazyTensor):
    """A tensor whose data are a region of an open file. To onnx_ir it is an ordinary inline tensor.

    Args:
        file: The open file.
        offset: First byte of the data.
        length: Bytes of the data.
        dtype: The element type.
        shape: The dimensions.
        name: The tensor's name.
        doc_string: Its documentation.
        metadata_props: Its metadata.
    """

    __slots__ = ("file", "length", "offset")

    def __init__(
        self,
        file: WeightFile,
        offset: int,
        length: int,
        dtype: ir.DataType,
        shape: ir.Shape,
        *,
        name: str | None = None,
        doc_string: str | None = None,
        metadata_props: dict[str, str] | None = None,
    ) -> None:
        super().__init__(
            self._materialise, dtype, shape, name=name, doc_string=doc_string, metadata_props=metadata_props
        )
        self.file = file
        self.offset = offset
        self.length = length

    @property
    def path(self) -> str:
        """The file that holds the data."""
        return str(self.file.path)

    def _materialise(self) -> ir.TensorProtocol:
        dims = self.shape.numpy()
        if self.length == 0:
            return ir.Tensor(np.empty(dims, self.dtype.numpy()), dtype=self.dtype, shape=ir.Shape(dims))
        if self.dtype.bitwidth < 8:
            packed = np.frombuffer(self.file.map(), np.uint8, self.length, self.offset)
            return ir.PackedTensor(packed, self.dtype, shape=ir.Shape(dims))
        kind = np.dtype(self.dtype.numpy()).newbyteorder("<")
        array = np.frombuffer(self.file.map(), kind, self.size, self.offset).reshape(dims)
        return ir.Tensor(array, dtype=self.dtype, shape=ir.Shape(dims))

    def tobytes(self) -> bytes:
        """The data as bytes; a copy in memory."""
        return b"".join(self.file.chunks(self.offset, self.length))

    def chunks(self) -> Iterator[bytes]:
        """The data in pieces of at most 4 MiB."""
        return self.file.chunks(self.offset, self.length)

    def tofile(self, file: BinaryIO) -> None:
        """Write the data to a file object in pieces."""
        for chunk in self.chunks():
            file.write(chunk)
