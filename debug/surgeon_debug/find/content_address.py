"""A digest of all that the outcome of a trial depends on besides its elements.

Two searches with the same digest may use each other's records; so what is not known to be irrelevant goes in.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from surgeon_debug import values
from surgeon_debug.find.versions import imported_files, versions_of
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_passes.graph import load, tensors_of
from surgeon_passes.spec import unquote
from surgeon_passes.weight_file import WeightFile

_SIZE = 32
_NVIDIA = Path("/proc/driver/nvidia")


def content_address(
    model_path: Path,
    feeds: Sequence[Mapping[str, values.Value]],
    *,
    runners: Sequence[str] = (),
    commands: Sequence[str] = (),
    texts: Sequence[str] = (),
    allow_external: bool = False,
) -> str:
    """The digest of a model, its inputs, and who computes with them.

    It covers every byte of the model's file and of its weights elsewhere; the inputs' types, shapes and elements;
    the texts of runners and commands, the files that these name, a user's Python file with those beside it that it
    imports, the versions of their packages, in their own environment if they have one; this package's version, and
    the machine's processor and devices.

    Args:
        model_path: The model's file.
        feeds: Its inputs, one mapping a sample.
        runners: Texts of runners.
        commands: Command lines.
        texts: Whatever else outcomes depend on, in words.
        allow_external: Accept weights outside the model's folder.

    Returns:
        64 hexadecimal digits.

    Raises:
        FileError: A file cannot be read.
        BadModelError: The model cannot be loaded.
        BadOptionError: A runner's text makes no sense.
    """
    content = hashlib.blake2b(digest_size=_SIZE)
    for part in _parts(model_path, feeds, runners, commands, texts, allow_external):
        data = part.encode("utf-8", "surrogatepass")
        content.update(b"%d:" % len(data) + data)
    return content.hexdigest()


def _parts(
    model_path: Path,
    feeds: Sequence[Mapping[str, values.Value]],
    runners: Sequence[str],
    commands: Sequence[str],
    texts: Sequence[str],
    allow_external: bool,
) -> Iterator[str]:
    yield "model"
    yield model_address(model_path, allow_external=allow_external)
    for sample in feeds:
        yield f"sample of {len(sample)}"
        for name in sorted(sample):
            yield name
            yield values.digest(values.normalise(sample[name]))
    for text in runners:
        yield "runner"
        yield from runner_facts(text)
    for text in commands:
        yield "command"
        yield text
        yield from _named_files(_words(text))
    yield "texts"
    yield from texts
    yield "here"
    yield from machine_facts()


def model_address(path: Path, *, allow_external: bool = False) -> str:
    """A digest of a model's file and of the weights it keeps elsewhere, which are read in pieces of a few MiB.

    Args:
        path: The model's file.
        allow_external: Accept weights outside its folder.

    Raises:
        FileError: It cannot be read.
        BadModelError: It cannot be loaded, or its weights are missing, short or outside the folder.
    """
    regions = _regions(path, allow_external)
    content = hashlib.blake2b(file_digest(path).encode(), digest_size=_SIZE)
    file: WeightFile | None = None
    # Which tensor has which region is said in the model's file; here each is read once, by the names of their files.
    for (location, offset, length), where in sorted(regions.items()):
        if file is None or file.path != where:
            file = WeightFile(where)
        name = location.encode("utf-8", "surrogateescape")
        content.update(b"%d:%s:%d:%d:" % (len(name), name, offset, length))
        for chunk in file.chunks(offset, length):
            content.update(chunk)
    return content.hexdigest()


def files_of(path: Path, *, allow_external: bool = False) -> list[Path]:
    """A model's file and the files of its weights, for who has to see whether they are there.

    Raises:
        FileError: It cannot be read.
        BadModelError: It cannot be loaded, or its weights are missing, short or outside the folder.
    """
    return [path, *dict.fromkeys(where for _, where in sorted(_regions(path, allow_external).items()))]


def _regions(path: Path, allow_external: bool) -> dict[tuple[str, int, int], Path]:
    """(location in the model, first byte, bytes) of every weight outside a model's file, and the file it is in."""
    model = load(path, allow_external=allow_external)
    folder = path.parent.resolve()
    found = {}
    for tensor in tensors_of(model):
        if isinstance(tensor, ir.ExternalTensor):
            where = Path(tensor.path).resolve()
            found[os.path.relpath(where, folder), tensor.offset or 0, tensor.nbytes] = where
    return found


def file_digest(path: Path) -> str:
    """A digest of a file's content, read in pieces.

    Raises:
        FileError: It cannot be read.
    """
    content = hashlib.blake2b(digest_size=_SIZE)
    file = WeightFile(path)
    for chunk in file.chunks(0, file.size):
        content.update(chunk)
    return content.hexdigest()


def runner_facts(text: str) -> Iterator[str]:
    """What a runner's outcomes depend on: its text, its own files, files its options name, versions of its packages.

    Raises:
        BadOptionError: The text makes no sense.
        FileError: A file cannot be read.
    """
    runner, confines = parse_runner(text)
    yield text
    packages: set[str] = set()
    if runner.file and Path(runner.file).is_file():
        files, packages = imported_files(Path(runner.file))
        for path in files:
            yield path.name
            yield file_digest(path)
    yield from _named_files(word for value in runner.options.values() for word in _words(unquote(value)))
    name = "" if runner.file else runner.name
    for package, version in sorted(versions_of(name, packages, confines.python).items()):
        yield f"{package} {version}"


def machine_facts() -> Iterator[str]:
    """This machine's kind, its processor and its NVIDIA driver and devices, as far as the system tells."""
    yield platform.machine()
    lines = _lines(Path("/proc/cpuinfo"))
    yield from sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    yield from _lines(_NVIDIA / "version")[:1]
    for path in sorted(_NVIDIA.glob("gpus/*/information")):
        yield from (line for line in _lines(path) if line.startswith("Model"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


def _named_files(words: Iterable[str]) -> Iterator[str]:
    """Digests of the files that some words name."""
    for word in words:
        path = Path(word).expanduser()
        try:
            found = bool(word) and path.is_file()
        except (OSError, ValueError):
            continue
        if found:
            yield word
            yield file_digest(path)
