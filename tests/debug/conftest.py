"""Fixtures for engines that are not installed: the simulated TensorRT."""

from __future__ import annotations

import pytest

from tests.debug.tensorrt_places import INSTALLED, VERSIONS


@pytest.fixture(params=VERSIONS)
def each_tensorrt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Processes of this test find the simulated TensorRT, one version after the other."""
    monkeypatch.syspath_prepend(str(INSTALLED / request.param))
    return str(request.param)


@pytest.fixture
def new_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of this test find the simulated TensorRT 11.4."""
    monkeypatch.syspath_prepend(str(INSTALLED / "11.4"))
