"""Weights outside the model file: find them, refuse paths that leave the model's folder, stream them elsewhere."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from surgeon_passes.errors import BadModelError
from surgeon_passes.weight_file import MappedTensor, WeightFile

_COPY_STEP = 64 << 20  # bytes between two requests to start writing to the disk
_NO_KERNEL_COPY = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV}
ALIGNMENT = 4096
"""Offsets of tensors of at least one page start on a page, so that engines can map them."""


def locate(location: str, folder: Path, *, allow_external: bool) -> Path:
    """The file that an external tensor's ``location`` names.

    Args:
        location: The path in the model; ONNX wants it relative to the model's folder.
        folder: The model's folder.
        allow_external: Accept absolute paths, ``..`` and links that leave the folder.

    Raises:
        BadModelError: The path is empty, impossible, or leaves the folder without leave.
    """
    if not location or "\x00" in location:
        raise BadModelError("an external tensor names no file", where=str(folder))
    path = folder / location
    if allow_external:
        return path
    base = folder.resolve()
    escapes = Path(location).is_absolute() or ".." in Path(location).parts
    if escapes or not path.resolve().is_relative_to(base):
        raise BadModelError(
            f"its weights are in '{location}', outside the model's folder",
            hint="pass --allow-external if you trust the model",
        )
    return path


def check_region(tensor: ir.ExternalTensor, path: Path, size: int | None) -> None:
    """Make sure that the file holds the tensor's data.

    Args:
        tensor: The tensor.
        path: The file it names.
        size: Bytes in that file, None if it does not exist.

    Raises:
        BadModelError: The file is missing or too short, or the stated length does not fit shape and dtype.
    """
    if size is None:
        raise BadModelError(
            f"weights of '{tensor.name}' are missing: no file '{path.name}' beside the model", where=str(path)
        )
    need = tensor.nbytes
    if tensor.length is not None and tensor.length != need:
        dims = "x".join(str(d) for d in tensor.shape)
        raise BadModelError(
            f"weight '{tensor.name}' states {tensor.length} bytes but {dims} {tensor.dtype.name} has {need}"
        )
    offset = tensor.offset or 0
    if offset < 0 or offset + need > size:
        raise BadModelError(
            f"'{path.name}' is too short for weight '{tensor.name}'", where=str(path), hint="copy it again"
        )


def file_size(path: Path) -> int | None:
    """Bytes of a regular file, None if there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


@dataclasses.dataclass(frozen=True)
class Region:
    """Where the data of one tensor is on the disk."""

    file: WeightFile
    """The open file."""
    offset: int
    """First byte."""
    length: int
    """Number of bytes."""


class OpenFiles:
    """Weight files opened once each while a model is written."""

    def __init__(self) -> None:
        self._files: dict[str, WeightFile] = {}

    def region(self, tensor: ir.TensorProtocol) -> Region | None:
        """Where a tensor's data is on the disk; None if it is in memory."""
        if isinstance(tensor, MappedTensor):
            return Region(tensor.file, tensor.offset, tensor.length)
        if not isinstance(tensor, ir.ExternalTensor):
            return None
        path = tensor.path
        if path not in self._files:
            self._files[path] = WeightFile(Path(path))
        return Region(self._files[path], tensor.offset or 0, tensor.nbytes)


def copy_region(region: Region, out: BinaryIO) -> None:
    """Append a region of a file to ``out``, inside the kernel where the file systems allow it."""
    out.flush()
    done = 0
    while done < region.length:
        try:
            count = os.copy_file_range(
                region.file.fileno, out.fileno(), min(_COPY_STEP, region.length - done), region.offset + done
            )
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
            break
        if count == 0:
            break
        done += count
        _start_writing(out, count)
    out.seek(0, os.SEEK_END)
    for chunk in region.file.chunks(region.offset + done, region.length - done):
        out.write(chunk)


def _start_writing(out: BinaryIO, length: int) -> None:
    """Ask the system to begin writing the last ``length`` bytes to the disk.

    The flush at the end, which makes the file safe, then finds little left to do: copying and writing overlap. Pages
    that are still being written stay in memory.
    """
    if hasattr(os, "posix_fadvise"):
        end = os.fstat(out.fileno()).st_size
        os.posix_fadvise(out.fileno(), max(0, end - length), length, os.POSIX_FADV_DONTNEED)


def copy_tensors(tensors: Iterable[tuple[int, ir.TensorProtocol]], out: BinaryIO, files: OpenFiles) -> None:
    """Write tensors at their offsets, in ascending order; gaps become zeros, neighbours one copy.

    Args:
        tensors: (offset in ``out``, tensor), by ascending offset.
        out: A new file, positioned at its start.
        files: The source files opened so far.
    """
    for offset, part in _joined(tensors, files):
        gap = offset - out.tell()
        if gap:
            out.write(b"\x00" * gap)
        if isinstance(part, Region):
            copy_region(part, out)
        else:
            write_tensor(part, out)


def write_tensor(tensor: ir.TensorProtocol, out: BinaryIO) -> None:
    """Write the data of a tensor in memory, in pieces where its class can."""
    if hasattr(tensor, "tofile"):
        tensor.tofile(out)
    else:
        out.write(tensor.tobytes())


def _joined(
    tensors: Iterable[tuple[int, ir.TensorProtocol]], files: OpenFiles
) -> Iterator[tuple[int, Region | ir.TensorProtocol]]:
    """Join regions that follow one another both in their source and in the target."""
    waiting: tuple[int, Region] | None = None
    for offset, tensor in tensors:
        region = files.region(tensor)
        if waiting is not None:
            at, before = waiting
            follows = region is not None and region.file is before.file
            if region is not None and follows and offset - at == before.length == region.offset - before.offset:
                waiting = (at, Region(before.file, before.offset, before.length + region.length))
                continue
            yield waiting
            waiting = None
        if region is None:
            yield offset, tensor
        else:
            waiting = (offset, region)
    if waiting is not None:
        yield waiting


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where one tensor's data will be."""

    shard: int
    """Index of the data file."""
    offset: int
    """First byte in it."""
    length: int
    """Number of bytes."""


def place(tensors: Sequence[ir.TensorProtocol], files: OpenFiles, *, shard_size: int | None) -> list[Placement]:
    """Lay tensors out in data files, in order; tensors that share a region of a file share their place.

    Args:
        tensors: What to write.
        files: The source files opened so far.
        shard_size: Start a new file before one grows beyond this many bytes; None for one file.
    """
    placed: dict[tuple[int, int, int], Placement] = {}
    result: list[Placement] = []
    shard = end = 0
    for tensor in tensors:
        region = files.region(tensor)
        key = (id(region.file), region.offset, region.length) if region else (id(tensor), 0, 0)
        if key not in placed:
            length = region.length if region else tensor.nbytes
            start = -(-end // ALIGNMENT) * ALIGNMENT if length >= ALIGNMENT else end
            if shard_size is not None and end and start + length > shard_size:
                shard, start = shard + 1, 0
            placed[key] = Placement(shard, start, length)
            end = start + length
        result.append(placed[key])
    return result
