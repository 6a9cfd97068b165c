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
_NODE_OUTPUT = 2
_NAME = 1  # of a value info
_EXTERNAL_DATA = 13  # of a tensor


@dataclasses.dataclass(frozen=True)
class Interface:
    """The names a model shows and could show, and where its weights are."""

    outputs: tuple[str, ...]
    """Graph outputs."""
    inner: frozenset[str]
    """Tensors computed in the main graph, graph outputs included."""
    locations: tuple[str, ...]
    """Files of external weights as the model names them, relative to its folder; each once."""

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
    locations: dict[str, None] = {}
    with _mapped(model_path) as view, memoryview(view) as data:
        for start, end in _children(data, 0, len(data), _GRAPH):
            for number, wire, _, content, stop in fields(data, start, end):
                if wire != _LENGTH_DELIMITED:
                    continue
                if number == _NODE:
                    inner += _texts(data, content, stop, _NODE_OUTPUT)
                elif number == _OUTPUT:
                    outputs += _texts(data, content, stop, _NAME)
                elif number == _INITIALIZER:
                    locations.update(dict.fromkeys(_locations(data, content, stop)))
    return Interface(tuple(filter(None, outputs)), frozenset(filter(None, inner)), tuple(locations))


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


def _locations(data: memoryview, start: int, end: int) -> Iterator[str]:
    for content, stop in _children(data, start, end, _EXTERNAL_DATA):
        entry = {number: bytes(data[a:b]) for number, _, _, a, b in fields(data, content, stop)}
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode("utf-8", "surrogateescape")


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

    The model itself if they are already; else a copy, with its external weights as hard links, or symbolic ones where
    those cannot be.

    Args:
        model_path: The model.
        wanted: Tensors of the main graph by name; other names are passed over.
        folder: Where a copy goes; made if there is one to make.

    Raises:
        FileError: The model cannot be read, or the copy cannot be written.
        BadModelError: It is not ONNX, or is truncated.
    """
    interface = interface_of(model_path)
    hidden = interface.hidden(wanted)
    if not hidden:
        return model_path
    # Weights that the model looks for above its own folder are to be found above the copy's folder too.
    ups = max((PurePosixPath(os.path.normpath(at)).parts.count("..") for at in interface.locations), default=0)
    home = folder.joinpath("model", *(["in"] * ups))
    copy = home / model_path.name
    try:
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model_path, copy)
        with copy.open("ab") as file:
            file.write(tail_of(hidden))
        for location in interface.locations:
            _link(model_path.parent / location, home / location)
    except OSError as error:
        raise FileError(f"cannot be copied to show its inner tensors: {error}", where=str(model_path)) from error
    return copy


def _link(source: Path, target: Path) -> None:
    if source == target or not source.exists() or target.exists():  # an absolute location stays what it is
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        target.symlink_to(source.resolve())


def linked_folder(model_path: Path, interface: Interface) -> Path | None:
    """The one real folder that all weights of a model are in, if some of them are symbolic links in the model's folder.

    Args:
        model_path: The model.
        interface: What it shows.

    Returns:
        The folder in which each weight file is found under the location that the model states; None if no weight
        is a link, or if there is no such folder.
    """
    folder = model_path.parent
    if not any((folder / location).is_symlink() for location in interface.locations):
        return None
    roots = set()
    for location in interface.locations:
        parts, real = Path(location).parts, (folder / location).resolve()
        if real.parts[-len(parts) :] != parts:
            return None
        roots.add(Path(*real.parts[: -len(parts)]))
    return roots.pop() if len(roots) == 1 else None
