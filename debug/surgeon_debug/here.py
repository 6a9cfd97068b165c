"""What an engine stands on: versions of packages in its own environment, the system, the processor, the driver."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from surgeon_debug.find.versions import imported_files, versions_of
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_passes.errors import SurgeonError

_CPU = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")


def environment(text: str) -> dict[str, str]:
    """Versions that a runner depends on, by name; what cannot be found out is left out.

    Args:
        text: The runner's text.
    """
    found = {"system": platform.platform(), "processor": _processor()}
    if driver := _first_line(_DRIVER):
        found["nvidia driver"] = driver
    try:
        runner, confines = parse_runner(text)
        packages = imported_files(Path(runner.file))[1] if runner.file else set()
        name = "" if runner.file else runner.name
        found.update(versions_of(name, {*packages, "onnx", "ml_dtypes"}, confines.python))
    except SurgeonError as error:
        found["unknown"] = str(error)
    return found


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is not as it was, each as a phrase."""
    keys = dict.fromkeys((*then, *now))
    return [
        f"{key} {then.get(key, 'not there')} then, {now.get(key, 'not there')} now"
        for key in keys
        if then.get(key) != now.get(key)
    ]


def _processor() -> str:
    try:
        lines = _CPU.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").splitlines()[0]
    except (OSError, IndexError):
        return ""
