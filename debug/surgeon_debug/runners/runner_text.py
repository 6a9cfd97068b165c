"""The text of a runner taken apart: which runner, its own options, and where and within what limits it shall run."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon_passes.errors import BadOptionError
from surgeon_passes.spec import parse_size, split_spec, unquote

_BY_NAME = re.compile(r"^[\w-]+:[\w.-]+=")  # the value of an option may be the path of a Python file
_IN_FILE = re.compile(r"^(?P<path>.+?\.py)(?::(?P<name>[A-Za-z_]\w*))?(?P<options>:.*)?$", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class RunnerText:
    """Which runner, and its own options."""

    text: str
    """All of it, as it was typed."""
    name: str
    """The name of a runner, or of a class in ``file``; empty if the text names no class."""
    file: str
    """The Python file of the class; empty for a runner that is known by name."""
    options: Mapping[str, str]
    """The runner's own options as text."""


@dataclasses.dataclass(frozen=True)
class Confines:
    """Where a runner runs and what it may use; the options that every runner takes."""

    python: Path | None = None
    """The interpreter of the environment it runs in; None for this one."""
    timeout: float | None = None
    """Seconds for one prepare or one run; None for as long as it takes."""
    memory_cap: int | None = None
    """Bytes of memory for its process; None for no limit."""

    @property
    def asked(self) -> bool:
        """Whether any of it can only be had in a process of its own."""
        return self != Confines()


def parse_runner(text: str) -> tuple[RunnerText, Confines]:
    """Take ``NAME[:KEY=VALUE,...]`` or ``path/to/file.py:CLASS[:KEY=VALUE,...]`` apart.

    The keys ``python`` (an interpreter, or the folder of a virtual environment), ``timeout`` (seconds) and
    ``memory_cap`` (a size such as ``4GB``) are taken out of the options: they are the same for every runner.

    Raises:
        BadOptionError: The text follows neither form, or one of those three makes no sense.
    """
    in_file = None if _BY_NAME.match(text) else _IN_FILE.match(text)
    if in_file:
        name, file = in_file["name"] or "", in_file["path"]
        options = split_spec(f"x{in_file['options'] or ''}")[1]
    else:
        (name, options), file = split_spec(text), ""
    confines = Confines(
        _interpreter(options.pop("python", None)),
        _seconds(options.pop("timeout", None)),
        _bytes(options.pop("memory_cap", options.pop("memory-cap", None))),
    )
    return RunnerText(text, name, file, options), confines


def _interpreter(text: str | None) -> Path | None:
    if text is None:
        return None
    path = Path(unquote(text)).expanduser().absolute()  # a link to an interpreter may be what makes an environment
    if path.is_dir():
        path = path / "bin" / "python"
    if not path.is_file() or not os.access(path, os.X_OK):
        raise BadOptionError(f"python={unquote(text)} is no interpreter", hint="give the path of a python executable")
    return path


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return checked_timeout(float(unquote(text)))
    except ValueError:
        raise BadOptionError(f"timeout={text} is not a number of seconds", hint="write timeout=60") from None


def _bytes(text: str | None) -> int | None:
    return None if text is None else checked_cap(parse_size(unquote(text)))


def checked_timeout(seconds: Any) -> float:
    """A time limit that is one.

    Raises:
        BadOptionError: It is zero, negative or no number.
    """
    if not seconds > 0:
        raise BadOptionError(f"within {seconds} seconds nothing can be done", hint="give a timeout of more than 0")
    return float(seconds)


def checked_cap(size: int) -> int:
    """A memory limit that is one.

    Raises:
        BadOptionError: It is zero or negative.
    """
    if size <= 0:
        raise BadOptionError(f"nothing runs in {size} bytes of memory", hint="give a size such as 4GB")
    return size


def names_tensorrt(text: str | None) -> bool:
    """Whether a runner's text names TensorRT, whose fused layers can be looked into without taking them apart."""
    return text is not None and text.partition(":")[0].strip() == "tensorrt"
