"""The layout of ``surgeon doctor``."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from surgeon.version import __version__
from surgeon_debug.package_versions import package_versions
from surgeon_debug.runners.self_test import RunnerStatus

_PACKAGES = (
    "onnx",
    "onnx-ir",
    "numpy",
    "ml-dtypes",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "cuda-python",
    "onnx-graphsurgeon",
    "polygraphy",
    "sympy",
    "click",
    "rich",
)


def document(runners: Sequence[RunnerStatus]) -> dict[str, Any]:
    """The JSON document."""
    return {
        "schema": "surgeon.doctor/1",
        "surgeon": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "packages": package_versions(_PACKAGES),
        "runners": [{"name": r.name, "version": r.version, "works": r.works, "reason": r.reason} for r in runners],
    }


def print_doctor(console: Console, runners: Sequence[RunnerStatus]) -> None:
    """Versions, then one row for each engine."""
    console.print(
        f"[bold]surgeon {__version__}[/], Python {platform.python_version()}, {platform.platform()}, "
        f"{os.cpu_count()} processors"
    )
    versions = package_versions(_PACKAGES)
    console.print("packages: " + ", ".join(f"{name} {version}" for name, version in versions.items() if version))
    absent = [name for name, version in versions.items() if not version]
    if absent:
        console.print("not installed: " + ", ".join(absent))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("runner", "version", "works", ""):
        table.add_column(title, overflow="fold")
    for runner in runners:
        table.add_row(runner.name, runner.version, "yes" if runner.works else "no", escape(runner.reason))
    console.print(table)
