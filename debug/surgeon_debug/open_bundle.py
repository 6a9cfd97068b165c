"""Open a bundle that somebody sent: everything is checked before it is written, and only into a folder of our own."""

from __future__ import annotations

import dataclasses
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from surgeon_debug.bundle import SCHEMA
from surgeon_debug.bundle_values import ValueReader
from surgeon_debug.find.culprit_piece import DATA_SUFFIX
from surgeon_debug.find.piece_failure import PieceFailure
from surgeon_debug.find.seeded_weights import tensors_inside
from surgeon_debug.packed_runner import PackedRunner
from surgeon_debug.values import Value
from surgeon_passes.errors import BadModelError, FileError
from surgeon_passes.graph import load

MOST_BYTES = 16 << 30
"""Bytes that a bundle may unpack to."""

_MOST_MEMBERS = 10_000
_MOST_RATIO = 1100  # deflate cannot do better; what claims more is made to fill the disk
_MOST_DOCUMENT = 64 << 20
_CHUNK = 1 << 20
_KNOWN = re.compile(
    r"bundle\.json|README\.md|reproduce\.py|model\.onnx(?:\.data)?|(?:inputs|expected|seen)/[\w.-]+"
    r"|runner/(?:[\w .+-]+/)*[\w .+-]+"
)
_ADVICE = "get it again from who made it"


@dataclasses.dataclass(frozen=True)
class OpenBundle:
    """A bundle that has been unpacked."""

    path: Path
    """The zip."""
    folder: Path
    """Where it was unpacked."""
    document: Mapping[str, Any]
    """``bundle.json``."""
    failure: PieceFailure
    target: PackedRunner
    nodes: tuple[str, ...]
    outputs: tuple[str, ...]
    feeds: tuple[dict[str, Value], ...]
    expected: tuple[dict[str, Value], ...]
    seen: tuple[dict[str, Value], ...]

    @property
    def model(self) -> Path:
        """The model's file."""
        return self.folder / "model.onnx"


def open_bundle(path: Path, folder: Path, *, most_bytes: int = MOST_BYTES) -> OpenBundle:
    """Unpack a bundle and check all that is in it; nothing of it is executed.

    Args:
        path: The zip.
        folder: An empty folder of the caller's.
        most_bytes: Bytes that it may unpack to.

    Raises:
        FileError: It cannot be read, is no bundle, is damaged, or is made to do harm.
        BadModelError: The model in it cannot be used.
    """
    _unpack(path, folder, most_bytes)
    document = _document(path, folder)
    reader = [ValueReader(folder / part, str(path)) for part in ("inputs", "expected", "seen")]
    try:
        failure = PieceFailure.from_json(document["failure"])
        target = PackedRunner.from_json(document["target"])
        nodes, outputs = (_texts(value) for value in (document["culprit"]["nodes"], document["outputs"]))
        values = [r.read(document[part]) for r, part in zip(reader, ("inputs", "expected", "seen"), strict=True)]
        limits = document["limits"]
        if not all(
            value is None or isinstance(value, (int, float)) for value in (limits["timeout"], limits["memory_cap"])
        ):
            raise TypeError("limits are numbers")
        if not isinstance(document["reference"]["text"], str):
            raise TypeError("a runner's text is text")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"its bundle.json is malformed ({_words(error)})") from error
    feeds, expected, seen = values
    if not feeds or any(part and len(part) != len(feeds) for part in (expected, seen)):
        raise _damaged(path, "its samples do not belong together")
    _check_model(path, folder, feeds, outputs)
    parts = (tuple(part) for part in (feeds, expected, seen))
    return OpenBundle(path, folder, document, failure, target, nodes, outputs, *parts)


def _unpack(path: Path, folder: Path, most_bytes: int) -> None:
    if not path.is_file():
        raise FileError("there is no such file", where=str(path), hint="name a bundle that find --bundle wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_members(path, infos, most_bytes)
            for info in infos:
                if not info.is_dir():
                    _copy(archive, info, folder / info.filename)
    except zipfile.BadZipFile as error:
        cut = path.read_bytes()[:4] == b"PK\x03\x04"
        raise FileError(
            "is damaged or cut short" if cut else "is no bundle: it is no zip file", where=str(path), hint=_ADVICE
        ) from error
    except (zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _damaged(path, "a member cannot be unpacked") from error
    except OSError as error:
        raise FileError(f"cannot be unpacked: {error.strerror or error}", where=str(path)) from error


def _check_members(path: Path, infos: list[zipfile.ZipInfo], most_bytes: int) -> None:
    names = [info.filename for info in infos]
    if len(names) > _MOST_MEMBERS or len(set(names)) < len(names):
        raise _damaged(path, "it has too many members, or two of one name")
    for info in infos:
        name = info.filename
        parts = name.rstrip("/").split("/")
        if name.startswith("/") or "\\" in name or ":" in name or ".." in parts or "." in parts or "" in parts:
            raise FileError(f"is refused: its member '{name[:80]}' would be written elsewhere", where=str(path))
        if stat.S_ISLNK(info.external_attr >> 16):
            raise FileError(f"is refused: its member '{name[:80]}' is a link", where=str(path))
        if not info.is_dir() and not _KNOWN.fullmatch(name):
            raise FileError(f"is no bundle: nobody knows its member '{name[:80]}'", where=str(path), hint=_ADVICE)
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _damaged(path, f"'{name[:80]}' is packed in an unknown way")
        if info.file_size > _MOST_RATIO * (info.compress_size + 1):
            raise FileError(f"is refused: '{name[:80]}' states a size that it cannot have", where=str(path))
    total = sum(info.file_size for info in infos)
    if total > most_bytes:
        raise FileError(f"is refused: it would unpack to {total:,} bytes, more than {most_bytes:,}", where=str(path))
    for needed in ("bundle.json", "model.onnx"):
        if needed not in names:
            raise FileError(f"is no bundle: it has no {needed}", where=str(path), hint=_ADVICE)


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = info.file_size
    with archive.open(info) as source, target.open("xb") as out:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise zipfile.BadZipFile("longer than it says")
            out.write(chunk)


def _document(path: Path, folder: Path) -> dict[str, Any]:
    file = folder / "bundle.json"
    if file.stat().st_size > _MOST_DOCUMENT:
        raise _damaged(path, "its bundle.json is too long")
    try:
        document = json.loads(file.read_bytes().decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its bundle.json is not JSON") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        ours = isinstance(schema, str) and schema.startswith("surgeon.bundle/")
        raise FileError(
            f"is of the kind {str(schema)[:40]}, which this version does not read" if ours else "is no bundle",
            where=str(path),
            hint=f"this version reads {SCHEMA}",
        )
    return dict(document)


def _check_model(path: Path, folder: Path, feeds: list[dict[str, Value]], outputs: tuple[str, ...]) -> None:
    """Make sure that the model is one, keeps its weights in the bundle, and is the one that the values are for."""
    file = folder / "model.onnx"
    try:
        load(file)
        proto = onnx.load(str(file), load_external_data=False)
    except BadModelError as error:
        raise BadModelError(f"the model in it cannot be used: {error.what}", where=str(path)) from error
    inside = [tensor for _, tensor in tensors_inside(proto)]
    for tensor in (*proto.graph.initializer, *inside):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value != f"model.onnx{DATA_SUFFIX}":
                raise BadModelError("the model in it has weights outside the bundle", where=str(path))
    own = {value.name for value in proto.graph.input}
    shown = {value.name for value in proto.graph.output}
    if any(set(sample) - own for sample in feeds) or not shown.issuperset(outputs):
        raise _damaged(path, "its values are not for its model")


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("names are a list of text")
    return tuple(value)


def _words(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)[:80]


def _damaged(path: Path, what: str) -> FileError:
    return FileError(f"is damaged: {what}", where=str(path), hint=_ADVICE)
