"""Show tensors inside a model as outputs, without decoding the model.

Two serialised protobuf messages, one after the other, parse as their merge: repeated fields are appended, the last
scalar wins. So a model with more outputs, or a lower IR version, is the model's own bytes and a short tail; its
weights are neither parsed nor copied more than the engine does anyway. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from surgeon_passes.errors import FileError
from surgeon_passes.wire import encode_varint, fields

_LENGTH_DELIMITED = 2
_IR_VERSION, _GRAPH = 1, 7  # of a model
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12  # of a graph
_NODE_OUTPUT, _ATTRIBUTE = 2, 5  # of a node
_NAME = 1  # of a value info
_EXTERNAL_DATA = 13  # of a tensor
_TENSORS, _GRAPHS = (5, 10), (6, 11)  # of an attribute
_LARGE = 1 << 20  # bytes
_LONG = 4096  # bytes; what is longer is not copied to look for a word
_LOCATION = b"location"  # stands in every tensor whose data are outside
_SHORT = 24  # bytes; a shorter attribute holds no external tensor


@dataclasses.dataclass(frozen=True)
class External:
    """Where one external weight lies."""

    location: str
    """The file as the model names it, relative to its folder."""
    offset: int
    """First byte."""
    length: int | None
    """Number of bytes; None for all that follow."""


@dataclasses.dataclass(frozen=True)
class Interface:
    """The names a model shows and could show, and where its weights are."""

    outputs: tuple[str, ...]
    """Graph outputs."""
    inner: frozenset[str]
    """Tensors computed in the main graph, graph outputs included."""
    external: tuple[External, ...]
    """Where external weights lie, in the order of the model, those in nested graphs included."""

    @property
    def locations(self) -> list[str]:
        """Files of external weights as the model names them, relative to its folder; each once."""
        return list(dict.fromkeys(weight.location for weight in self.external))

    def hidden(self, wanted: Sequence[str]) -> list[str]:
        """Those of ``wanted`` that exist in the main graph and are not outputs yet, in the order given."""
        shown = set(self.outputs)
        return [name for name in dict.fromkeys(wanted) if name in self.inner and name not in shown]


def interface_of(model_path: Path) -> Interface:
    """Read the names of a model without its weights.

    Args:
        model_path: An ONNX file in binary form. Where its weights are is the engine's business: it is not checked here.

    Raises:
        FileError: The file cannot be read.
        BadModelError: It is not ONNX, or is truncated.
    """
    outputs: list[str] = []
    inner: list[str] = []
    external: list[External] = []
    with _mapped(model_path) as view, memoryview(view) as data:
        for start, end in _children(data, 0, len(data), _GRAPH):
            for number, wire, _, content, stop in fields(data, start, end):
                if number == _NODE and wire == _LENGTH_DELIMITED:
                    inner += _texts(data, content, stop, _NODE_OUTPUT)
                elif number == _OUTPUT and wire == _LENGTH_DELIMITED:
                    outputs += _texts(data, content, stop, _NAME)
            # Looking for the word would read the weights of a large file, which nothing else here does.
            if end - start > _LARGE or view.find(_LOCATION, start, end) >= 0:
                external += _externals(data, start, end)
    return Interface(tuple(filter(None, outputs)), frozenset(filter(None, inner)), tuple(external))


def _mapped(model_path: Path) -> mmap.mmap:
    try:
        with model_path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(f"cannot be read: {words}", where=str(model_path)) from error


def _children(data: memoryview, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Where the content of each length-delimited field of one number begins and ends."""
    for number, wire, _, content, stop in fields(data, start, end):
        if number == wanted and wire == _LENGTH_DELIMITED:
            yield content, stop


def _texts(data: memoryview, start: int, end: int, wanted: int) -> list[str]:
    return [str(data[a:b], "utf-8", "replace") for a, b in _children(data, start, end, wanted)]


def _externals(data: memoryview, start: int, end: int) -> Iterator[External]:
    """The external weights of a graph, those of its nodes' attributes and graphs within."""
    graphs = [(start, end)]
    while graphs:
        at, last = graphs.pop()
        for number, wire, _, content, stop in fields(data, at, last):
            if number == _INITIALIZER and wire == _LENGTH_DELIMITED:
                if stop - content > _LONG or _LOCATION in bytes(data[content:stop]):
                    yield from _external(data, content, stop)
            elif number == _NODE and wire == _LENGTH_DELIMITED:
                for a, b in _children(data, content, stop, _ATTRIBUTE):
                    if b - a < _SHORT:
                        continue
                    for inner, kind, _, c, d in fields(data, a, b):
                        if kind == _LENGTH_DELIMITED and inner in _TENSORS:
                            yield from _external(data, c, d)
                        elif kind == _LENGTH_DELIMITED and inner in _GRAPHS:
                            graphs.append((c, d))


def _external(data: memoryview, start: int, end: int) -> Iterator[External]:
    """Where a tensor's data lie, if not in the tensor."""
    entries: dict[bytes, bytes] = {}
    for content, stop in _children(data, start, end, _EXTERNAL_DATA):
        entry = {number: bytes(data[a:b]) for number, _, _, a, b in fields(data, content, stop)}
        entries[entry.get(1, b"")] = entry.get(2, b"")
    if b"location" in entries:
        length = entries.get(b"length")
        yield External(
            entries[b"location"].decode("utf-8", "surrogateescape"),
            int(entries.get(b"offset") or 0),
            int(length) if length else None,
        )


class InterfaceMemory:
    """Remembers the interface of the model seen last, as long as its file stays the same."""

    def __init__(self) -> None:
        self._seen: tuple[Path, int, int] | None = None
        self._interface: Interface | None = None

    def of(self, model_path: Path) -> Interface:
        """The interface of a model; see :func:`interface_of`."""
        state = model_path.stat() if model_path.exists() else None
        now = None if state is None else (model_path.resolve(), state.st_mtime_ns, state.st_size)
        if self._interface is None or now is None or now != self._seen:
            self._interface, self._seen = interface_of(model_path), now
        return self._interface


def tail_of(outputs: Sequence[str], *, ir_version: int | None = None) -> bytes:
    """The bytes that, behind a serialised model, add outputs and set the IR version.

    The outputs have names and no types: engines infer them.

    Args:
        outputs: Tensors of the main graph that are not outputs yet.
        ir_version: The IR version to state instead of the model's; None to leave it.
    """
    tail = b"" if ir_version is None else encode_varint(_IR_VERSION << 3) + encode_varint(ir_version)
    infos = b"".join(_field(_OUTPUT, _field(_NAME, name.encode())) for name in outputs)
    return tail + _field(_GRAPH, infos) if infos else tail


def _field(number: int, content: bytes) -> bytes:
    return encode_varint(number << 3 | _LENGTH_DELIMITED) + encode_varint(len(content)) + content


def with_tail(model_path: Path, tail: bytes) -> bytes:
    """A model's bytes with a tail, in one copy."""
    with _mapped(model_path) as view:
        joined: bytes = b"".join((view, tail))
        return joined


def exposed(model_path: Path, wanted: Sequence[str], folder: Path) -> Path:
    """A path of a model in which all of ``wanted`` that its main graph has are graph outputs.

    It is the model itself if they are already and its weights are plain files beside it. Otherwise it is a copy, with
    copies of the weights it uses: onnx reads neither symbolic links nor files with several hard links, and so does
    whatever is built on it.

    Args:
        model_path: The model.
        wanted: Tensors of the main graph by name; other names are passed over.
        folder: Where a copy goes.

    Raises:
        FileError: The model cannot be read, or the copy cannot be written.
        BadModelError: It is not ONNX, or is truncated.
    """
    interface = interface_of(model_path)
    hidden = interface.hidden(wanted)
    if not hidden and not any(_is_linked(model_path.parent / at) for at in interface.locations):
        return model_path
    # Weights that the model looks for above its own folder are to be found above the copy's folder too.
    ups = max((PurePosixPath(os.path.normpath(at)).parts.count("..") for at in interface.locations), default=0)
    home = folder.joinpath("model", *(["in"] * ups))
    try:
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model_path, home / model_path.name)
        if hidden:
            with (home / model_path.name).open("ab") as file:
                file.write(tail_of(hidden))
        for location in interface.locations:
            if not PurePosixPath(location).is_absolute():
                used = [weight for weight in interface.external if weight.location == location]
                _copy_used(model_path.parent / location, home / location, used)
    except OSError as error:
        raise FileError(f"cannot be copied to show its inner tensors: {error}", where=str(model_path)) from error
    return home / model_path.name


def _is_linked(path: Path) -> bool:
    return path.is_symlink() or (path.is_file() and path.stat().st_nlink > 1)


def _copy_used(source: Path, target: Path, used: Sequence[External]) -> None:
    """Copy the parts of a weight file that a model uses to where they are in it; between them the copy is hollow."""
    if not source.is_file():  # the engine will say so in its own words
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as old, target.open("wb") as new:
        size = os.fstat(old.fileno()).st_size
        os.truncate(new.fileno(), size)
        for start, end in sorted({(w.offset, size if w.length is None else w.offset + w.length) for w in used}):
            os.lseek(new.fileno(), start, os.SEEK_SET)
            while copied := os.sendfile(new.fileno(), old.fileno(), start, max(0, min(end, size) - start)):
                start += copied


def linked_folder(model_path: Path, interface: Interface) -> Path | None:
    """The one real folder that all weights of a model are in, if some of them are symbolic links in the model's folder.

    Args:
        model_path: The model.
        interface: What it shows.

    Returns:
        The folder in which each weight file is found under the location that the model states; None if no weight
        is a link, or if there is no such folder.
    """
    folder, locations = model_path.parent, interface.locations
    if not any((folder / location).is_symlink() for location in locations):
        return None
    roots = set()
    for location in locations:
        parts, real = Path(location).parts, (folder / location).resolve()
        if real.parts[-len(parts) :] != parts:
            return None
        roots.add(Path(*real.parts[: -len(parts)]))
    return roots.pop() if len(roots) == 1 else None
