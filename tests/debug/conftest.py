"""Fixtures for engines that may not be installed."""

from __future__ import annotations

from tests.tensorrt_engines import any_tensorrt, each_simulated, each_tensorrt, new_tensorrt

__all__ = ["any_tensorrt", "each_simulated", "each_tensorrt", "new_tensorrt"]
