"""Which versions of which packages a runner stands on, in this environment or in another."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from surgeon_debug.runners.catalogue import BUILT_IN, GROUP
from surgeon_passes.errors import EngineError

# Distributions are looked up by the packages they hold: there are several of onnxruntime, for several devices.
_ASK = """
import importlib.metadata as m, json, platform, sys
packages, group, name = json.loads(sys.argv[1])
found, owners = {"python": platform.python_version()}, {}
try:
    owners = m.packages_distributions() if packages else {}
except Exception:
    pass
for package in packages:
    for owner in owners.get(package, [package]):
        try:
            found[owner] = m.version(owner)
        except m.PackageNotFoundError:
            pass
for entry in m.entry_points(group=group, name=name) if name else ():
    if entry.dist is not None:
        found[entry.dist.name] = entry.dist.version
sys.stdout.write(json.dumps(found))
"""
_PATIENCE = 60.0


def versions_of(name: str, packages: Iterable[str], python: Path | None) -> dict[str, str]:
    """Versions by distribution: Python, numpy, this package, and what holds a runner's packages.

    Args:
        name: A runner that is known by name; empty for none.
        packages: Import names of further packages; those of the standard library do no harm.
        python: The interpreter that the runner runs in, which is asked; None for this one.

    Raises:
        EngineError: The interpreter does not answer.
    """
    wanted = {"numpy", *packages} - set(sys.stdlib_module_names)
    built_in = BUILT_IN.get(name)
    if built_in is not None and built_in.package:
        wanted.add(built_in.package)
    entry_point = name if built_in is None else ""
    found = _of_other(sorted(wanted), entry_point, python) if python else _of_this(sorted(wanted), entry_point)
    return {**found, "onnx-surgeon": importlib.metadata.version("onnx-surgeon")}


def _of_this(packages: list[str], entry_point: str) -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    owners = importlib.metadata.packages_distributions()
    for package in packages:
        for owner in owners.get(package, ()):
            found[owner] = importlib.metadata.version(owner)
    for entry in importlib.metadata.entry_points(group=GROUP, name=entry_point) if entry_point else ():
        if entry.dist is not None:
            found[entry.dist.name] = entry.dist.version
    return found


def _of_other(packages: list[str], entry_point: str, python: Path) -> dict[str, str]:
    charge = json.dumps([packages, GROUP, entry_point])
    try:
        done = subprocess.run(
            [str(python), "-E", "-c", _ASK, charge],
            cwd=python.parent,  # where no file of a user's stands in for a module of Python's
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
        )
        answer: Any = json.loads(done.stdout)
        return {str(key): str(value) for key, value in answer.items()}
    except (OSError, subprocess.SubprocessError, ValueError, AttributeError) as error:
        raise EngineError(
            f"{python} does not say which packages it has: {_reason(error)}", hint="see whether it is a Python, 3.10 up"
        ) from error


def _reason(error: Exception) -> str:
    said: bytes = getattr(error, "stderr", None) or b""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else str(error)


def imported_files(path: Path) -> tuple[list[Path], set[str]]:
    """What a Python file imports, read from its text, not by running it.

    Args:
        path: The file.

    Returns:
        The file itself and the modules that it imports from its own folder, and that these import in turn; and the
        names of the other packages that are imported.
    """
    folder = path.resolve().parent
    files, packages = [path.resolve()], set()
    for file in files:
        for name in _imports(file):
            beside = [folder / f"{name}.py", folder / name / "__init__.py"]
            near = next((place for place in beside if place.is_file()), None)
            if near is None:
                packages.add(name)
            elif near.name == "__init__.py":
                files += [inner for inner in sorted(near.parent.rglob("*.py")) if inner not in files]
            elif near not in files:
                files.append(near)
    return files, packages


def _imports(file: Path) -> list[str]:
    """Top-level names of what a file imports, each once, in order; none if it is no Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(dict.fromkeys(alias.name.split(".")[0] for alias in node.names))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names[node.module.split(".")[0]] = None
    return list(names)
