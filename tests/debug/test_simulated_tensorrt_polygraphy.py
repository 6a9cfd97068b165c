"""Polygraphy's own loaders and TrtRunner run on the simulator and agree with onnxruntime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.simulated_tensorrt import PROFILES, installed, models

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("profile", PROFILES)
def test_trt_runner_agrees_with_onnxruntime(profile: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    cases = {
        "conv": (models.conv_net(), rng.standard_normal((2, 3, 8, 8)).astype(np.float32)),
        "mlp": (models.mlp(), rng.standard_normal((4, 16)).astype(np.float32)),
        "nonzero": (models.nonzero(), rng.standard_normal((3, 4)).astype(np.float32)),
    }
    for name, (model, x) in cases.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
        np.savez(tmp_path / f"{name}.npz", x=x)
    path = os.pathsep.join([str(installed(profile)), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulated_tensorrt.polygraphy_run", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name, (model, x) in cases.items():
        session = onnxruntime.InferenceSession(model.SerializeToString())
        expected = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"x": x}), strict=True))
        with np.load(tmp_path / f"{name}.out.npz") as got:
            assert set(got.files) == set(expected)
            for key, value in expected.items():
                assert got[key].dtype == value.dtype
                np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-6)
