"""The simulated TensorRT in the test's own process: quicker than one each, where nothing crashes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

import pytest

from surgeon_debug.find.tensorrt_builds import TensorrtBuilder


def loaded() -> list[str]:
    """Modules of the library that are imported."""
    return [name for name in sys.modules if name.partition(".")[0] in ("tensorrt", "cuda")]


@pytest.fixture
def forgotten() -> Iterator[None]:
    """The library reads its plan when it is imported; the next test has another."""
    yield
    for name in loaded():
        del sys.modules[name]


def here(made: TensorrtBuilder) -> TensorrtBuilder:
    """Engines in this process."""
    return dataclasses.replace(made, isolated=False, timeout=None)
