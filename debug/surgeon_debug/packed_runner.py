"""A runner as it travels in a bundle: known by name with its options, or a user's own file with what it imports."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from surgeon_debug.cell import Cell
from surgeon_debug.find.versions import imported_files
from surgeon_debug.runners.catalogue import BUILT_IN
from surgeon_debug.runners.contract import Engine
from surgeon_debug.runners.runner_text import Confines, RunnerText, parse_runner
from surgeon_passes.errors import BadOptionError
from surgeon_passes.spec import unquote

FOLDER = "runner"
"""Where a user's files are in a bundle."""

_MOST_OPTION_FILE = 16 << 20
_HARMLESS: Mapping[str, frozenset[str]] = {
    "onnxruntime": frozenset({"providers", "optimize", "threads", "deterministic"}),
    "openvino": frozenset({"device", "precision"}),
    "reference": frozenset(),
}
"""Options of runners that can neither write a file nor load a library."""


@dataclasses.dataclass(frozen=True)
class PackedRunner:
    """Which runner, without anything that is only on one machine."""

    text: str
    """As it was typed."""
    name: str
    """A runner's name, or the class in :attr:`file`."""
    file: str
    """The member that holds the class; empty for a runner that is known by name."""
    options: Mapping[str, str]
    """Its options as text."""
    option_files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Members that options name, by option."""
    sources: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    """Where each member is copied from; empty once it is in a bundle."""
    foreign: tuple[str, ...] = ()
    """Packages that the user's file imports and that are not in the bundle."""

    @property
    def is_code(self) -> bool:
        """Whether to run it is to run what somebody wrote."""
        harmless = _HARMLESS.get(self.name)
        return bool(self.file) or harmless is None or any(key not in harmless for key in self.options)

    def engine(
        self, folder: Path, *, timeout: float | None, memory_cap: int | None, python: Path | None = None
    ) -> Engine:
        """A fresh engine in a process of its own.

        Args:
            folder: The bundle's folder.
            timeout: Seconds for one prepare or one run.
            memory_cap: Bytes for its process.
            python: The interpreter it runs in; None for this one. A bundle does not name one.

        Raises:
            BadOptionError: It is a user's file that is not there.
        """
        file = str(folder / self.file) if self.file else ""
        if file and not Path(file).is_file():
            raise BadOptionError(f"the runner's file {self.file} is not in the bundle")
        options = {**self.options, **{key: str(folder / member) for key, member in self.option_files.items()}}
        runner = RunnerText(self.text, self.name, file, options)
        return Engine(self.text, Cell(runner, Confines(python, timeout, memory_cap)))

    def to_json(self) -> dict[str, Any]:
        """The runner as JSON."""
        return {
            "text": self.text,
            "name": self.name,
            "file": self.file,
            "options": dict(self.options),
            "option_files": dict(self.option_files),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> PackedRunner:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError: A field is missing.
            TypeError: A field is not what it should be.
            ValueError: Likewise.
        """
        text, name, file = (found[key] for key in ("text", "name", "file"))
        tables = [found["options"], found["option_files"]]
        if not all(isinstance(part, str) for part in (text, name, file)):
            raise TypeError("a runner's names are text")
        if not all(isinstance(table, dict) and all(isinstance(v, str) for v in table.values()) for table in tables):
            raise TypeError("a runner's options are text")
        for member in (file, *tables[1].values()):
            if member and (PurePosixPath(member).parts[:1] != (FOLDER,) or ".." in PurePosixPath(member).parts):
                raise ValueError(f"{member} is not in {FOLDER}")
        return cls(text, name, file, tables[0], tables[1])


def pack_runner(text: str) -> PackedRunner:
    """Prepare a runner for a bundle.

    A user's file goes along with the modules beside it that it imports; so do files that options name, up to 16 MiB.
    The interpreter and the limits are of this machine, and stay here.

    Raises:
        BadOptionError: The text makes no sense.
    """
    runner, _ = parse_runner(text)
    options = dict(runner.options)
    if not runner.file:
        return PackedRunner(text, runner.name, "", options)
    path = Path(runner.file)
    if not path.is_file():
        raise BadOptionError("there is no such file", where=runner.file, hint="give the path of a Python file")
    files, packages = imported_files(path)
    folder = path.resolve().parent
    sources = {f"{FOLDER}/{file.relative_to(folder).as_posix()}": file for file in files}
    named: dict[str, str] = {}
    for key, value in runner.options.items():
        given = Path(unquote(value)).expanduser()
        try:
            fits = given.is_file() and given.stat().st_size <= _MOST_OPTION_FILE
        except (OSError, ValueError):
            fits = False
        if fits:
            named[key] = f"{FOLDER}/options/{len(named)}-{given.name}"
            sources[named[key]] = given.resolve()
            del options[key]
    known = {entry.package for entry in BUILT_IN.values()}
    foreign = tuple(sorted(packages - known - {"numpy", "onnx", "ml_dtypes"} - set(sys.stdlib_module_names)))
    return PackedRunner(text, runner.name, f"{FOLDER}/{path.name}", options, named, sources, foreign)
