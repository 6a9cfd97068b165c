"""Rewrite ONNX graphs, prove that an engine still computes the same, name the culprit when it does not.

The public names are imported when they are first used; ``import surgeon`` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from surgeon.version import __version__

if TYPE_CHECKING:
    from surgeon import find
    from surgeon.api import compare, extract, load, replay, rewrite, run, save, simplify, to_proto
    from surgeon_passes.contract import Change, ChangeLog, Pass, option
    from surgeon_passes.errors import SurgeonError
    from surgeon_passes.recipe import Recipe

_HOMES = {
    "compare": "surgeon.api",
    "extract": "surgeon.api",
    "load": "surgeon.api",
    "replay": "surgeon.api",
    "rewrite": "surgeon.api",
    "run": "surgeon.api",
    "save": "surgeon.api",
    "simplify": "surgeon.api",
    "to_proto": "surgeon.api",
    "Change": "surgeon_passes.contract",
    "ChangeLog": "surgeon_passes.contract",
    "Pass": "surgeon_passes.contract",
    "option": "surgeon_passes.contract",
    "Recipe": "surgeon_passes.recipe",
    "SurgeonError": "surgeon_passes.errors",
}

__all__ = [
    "Change",
    "ChangeLog",
    "Pass",
    "Recipe",
    "SurgeonError",
    "__version__",
    "compare",
    "extract",
    "find",
    "load",
    "option",
    "replay",
    "rewrite",
    "run",
    "save",
    "simplify",
    "to_proto",
]


def __getattr__(name: str) -> Any:
    if name == "find":  # a module that holds one function for each kind of culprit
        return importlib.import_module("surgeon.find")
    if name not in _HOMES:
        raise AttributeError(f"module 'surgeon' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
