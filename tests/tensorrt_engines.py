"""The TensorRT that a test runs on: simulated, or the one that is installed where there is a GPU.

A test that plants no fault and knows nothing of the simulator's numbers takes ``any_tensorrt`` or ``each_tensorrt``:
``pytest -m gpu`` runs it, unchanged, on the TensorRT of the machine.
"""

from __future__ import annotations

import functools
import importlib.util

import pytest

from surgeon_debug.runners.catalogue import make_engine
from surgeon_passes.errors import EngineError
from tests.debug.tensorrt_places import INSTALLED, VERSIONS

DEVICE = "device"
"""What the fixtures give where the installed TensorRT is used; else it is the simulated version."""

_HERE = pytest.param(DEVICE, marks=pytest.mark.gpu)
_NEWEST = VERSIONS[-1]


@pytest.fixture(params=[*VERSIONS, _HERE])
def each_tensorrt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Processes of this test find each simulated version, and with ``-m gpu`` the installed TensorRT."""
    return _use(str(request.param), monkeypatch)


@pytest.fixture(params=[_NEWEST, _HERE])
def any_tensorrt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Processes of this test find the newest simulated version, and with ``-m gpu`` the installed TensorRT."""
    return _use(str(request.param), monkeypatch)


@pytest.fixture(params=VERSIONS)
def each_simulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Processes of this test find each simulated version."""
    return _use(str(request.param), monkeypatch)


@pytest.fixture
def new_tensorrt(monkeypatch: pytest.MonkeyPatch) -> str:
    """Processes of this test find the newest simulated version."""
    return _use(_NEWEST, monkeypatch)


def _use(which: str, monkeypatch: pytest.MonkeyPatch) -> str:
    if which != DEVICE:
        monkeypatch.syspath_prepend(str(INSTALLED / which))
    elif reason := _why_not_here():
        pytest.skip(reason)
    return which


@functools.cache
def _why_not_here() -> str:
    """Why the installed TensorRT cannot be used; empty if it can, or if it should and that is for the test to say."""
    if importlib.util.find_spec("tensorrt") is None:
        return "the package tensorrt is not installed here"
    try:
        with make_engine("tensorrt", isolated=True, timeout=120) as engine:
            engine.ready()
    except EngineError as error:
        return str(error) if "finds no GPU" in str(error) else ""
    return ""
