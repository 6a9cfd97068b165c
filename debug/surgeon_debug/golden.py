"""Golden files: what an engine computed, kept to compare later runs with.

A golden file holds, for each sample, the inputs and every tensor that was saved, with what is needed to know whether a
comparison with it means something: the model's digest, the runner, versions, seed. The layout is that of
:mod:`surgeon_debug.tensor_file`; numpy reads the tensors as ``SAMPLE/NAME`` and the inputs as ``feeds/SAMPLE/NAME``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from surgeon_debug.read_tensor_file import TensorFileReader
from surgeon_debug.tensor_file import Entry, TensorFileWriter
from surgeon_debug.values import Feeds, Value
from surgeon_passes.atomic_write import Staged, reason_of
from surgeon_passes.errors import BadOptionError, FileError

SUFFIX = ".golden"
"""The ending by which the command line knows golden files."""

SCHEMA = "surgeon.golden/1"
"""The ``schema`` field of the index; the number changes when an older reader would misunderstand."""

_MOST_SAMPLES = 1 << 24


class GoldenWriter:
    """Writes a golden file one tensor at a time, in any order; it appears under its name when it is closed.

    As a context manager it is closed at the end of the block, and abandoned if the block fails.

    Args:
        path: The file.
        meta: Plain JSON values that say where the tensors come from; see :func:`surgeon_debug.recorded.describe`.
        compress: Deflate each tensor. Smaller for text, masks and integers, hardly for floats, and several times
            slower; such tensors cannot be mapped.

    Raises:
        FileError: The file cannot be written.
    """

    def __init__(self, path: str | Path, meta: Mapping[str, Any] | None = None, *, compress: bool = False) -> None:
        self._path = Path(path)
        self._meta = dict(meta or {})
        self._samples: dict[int, dict[str, dict[str, Entry]]] = {}
        self._staged = Staged()
        self._stack = contextlib.ExitStack()
        self._open = True
        try:
            file = self._stack.enter_context(self._staged.open(self._path))
            self._tensors = TensorFileWriter(file, compress=compress)
        except BaseException:
            self._stack.close()
            self._staged.discard()
            raise

    def add_feeds(self, sample: int, feeds: Feeds) -> None:
        """Save the inputs of a sample.

        Args:
            sample: Its number, from 0.
            feeds: Values by input name.

        Raises:
            BadOptionError: The sample has inputs already, or a value has elements that ONNX has no type for.
            FileError: The file cannot be written.
        """
        self._part(sample, "feeds")
        for name, value in feeds.items():
            self._put(sample, "feeds", name, value)

    def add(self, sample: int, name: str, value: Value) -> None:
        """Save a tensor; it is not held on to.

        Args:
            sample: The number of the sample, from 0.
            name: The tensor's name.
            value: The value.

        Raises:
            BadOptionError: The sample has that tensor already, or it has elements that ONNX has no type for.
            FileError: The file cannot be written.
        """
        self._put(sample, "values", name, value)

    def has(self, sample: int, name: str) -> bool:
        """Whether a tensor was saved already."""
        return sample in self._samples and name in self._samples[sample]["values"]

    def _put(self, sample: int, where: str, name: str, value: Value) -> None:
        entries = self._part(sample, where)
        if name in entries:
            raise BadOptionError(f"'{name}' of sample {sample} is saved already", where=str(self._path))
        label = f"feeds/{sample}/{name}" if where == "feeds" else f"{sample}/{name}"
        with self._words():
            entries[name] = self._tensors.add(label, value)

    def close(self) -> None:
        """Complete the file and put it under its name. Nothing to do if it is closed or abandoned already.

        Raises:
            FileError: The file cannot be written; nothing is left of it, and an older one is as it was.
        """
        if not self._open:
            return
        count = 1 + max(self._samples, default=-1)
        nothing: dict[str, dict[str, Entry]] = {"feeds": {}, "values": {}}
        samples = [self._samples.get(number, nothing) for number in range(count)]
        try:
            with self._words():
                self._tensors.finish({"schema": SCHEMA, "meta": self._meta, "samples": samples})
                self._stack.close()
                self._staged.commit()
        finally:
            self.abort()

    def abort(self) -> None:
        """Leave nothing behind. Nothing to do if the file is closed already."""
        if not self._open:
            return
        self._open = False
        self._tensors.abandon()
        with contextlib.suppress(OSError, FileError):
            self._stack.close()
        self._staged.discard()

    def _part(self, sample: int, where: str) -> dict[str, Entry]:
        if not self._open:
            raise BadOptionError("is closed; nothing more can be saved in it", where=str(self._path))
        if not 0 <= sample < _MOST_SAMPLES:
            raise BadOptionError(f"there is no sample number {sample}", where=str(self._path))
        return self._samples.setdefault(sample, {"feeds": {}, "values": {}})[where]

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileError(
                f"cannot be written: {reason_of(error)}", where=str(self._path), hint="nothing was changed"
            ) from error

    def __enter__(self) -> GoldenWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class GoldenReader:
    """Reads a golden file, one tensor at a time.

    Args:
        path: The file.

    Raises:
        FileError: It cannot be opened, is no golden file, is damaged, or is of a newer kind.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._tensors = TensorFileReader(self._path, "a golden file")
        try:
            self.meta, self._samples = self._parse(self._tensors.index)
        except BaseException:
            self._tensors.close()
            raise

    def _parse(self, index: Any) -> tuple[dict[str, Any], list[dict[str, dict[str, Entry]]]]:
        schema = index.get("schema") if isinstance(index, dict) else None
        if schema != SCHEMA:
            ours = isinstance(schema, str) and schema.startswith("surgeon.golden/")
            raise FileError(
                f"is of the kind {str(schema)[:40]}, which this version does not read" if ours else "is no golden file",
                where=str(self._path),
                hint=f"this version reads {SCHEMA}" if ours else "save one with --save-reference",
            )
        meta, samples = index.get("meta"), index.get("samples")
        parts = [s.get(key) for s in samples if isinstance(s, dict) for key in ("feeds", "values")] if samples else []
        whole = isinstance(samples, list) and len(parts) == 2 * len(samples)
        if not isinstance(meta, dict) or not whole or not all(isinstance(part, dict) for part in parts):
            raise FileError("is damaged: its index is malformed", where=str(self._path), hint="save it again")
        return meta, samples

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self._samples)

    def feeds(self, sample: int) -> dict[str, Value]:
        """The inputs of a sample, by name; empty if they were not saved."""
        return {name: self._tensors.read(entry) for name, entry in self._part(sample, "feeds").items()}

    def has_feeds(self, sample: int) -> bool:
        """Whether the inputs of a sample were saved."""
        return bool(self._part(sample, "feeds"))

    def names(self, sample: int) -> list[str]:
        """The tensors of a sample, in the order in which they were saved."""
        return list(self._part(sample, "values"))

    def has(self, sample: int, name: str) -> bool:
        """Whether a sample has a tensor."""
        return 0 <= sample < self.samples and name in self._samples[sample]["values"]

    def get(self, sample: int, name: str) -> Value:
        """A tensor; see :meth:`surgeon_debug.read_tensor_file.TensorFileReader.read`.

        Raises:
            BadOptionError: There is no such sample or tensor.
            FileError: The data are damaged.
        """
        values = self._part(sample, "values")
        if name not in values:
            raise BadOptionError(f"sample {sample} has no tensor '{name}'", where=str(self._path))
        return self._tensors.read(values[name])

    def _part(self, sample: int, where: str) -> dict[str, Entry]:
        if not 0 <= sample < self.samples:
            raise BadOptionError(f"there is no sample number {sample} of {self.samples}", where=str(self._path))
        return self._samples[sample][where]

    def close(self) -> None:
        """Close the file; arrays that are mapped stay valid."""
        self._tensors.close()

    def __enter__(self) -> GoldenReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
