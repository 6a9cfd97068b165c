"""What the runner uses of TensorRT exists in both versions, or is in its table of capabilities."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from surgeon_debug.runners.tensorrt.module import CAPABILITIES
from tests.simulated_tensorrt import PROFILES, assemble, installed, manifest, models

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("profile", PROFILES)
def test_every_name_that_the_runner_uses_is_in_both_manifests_or_a_capability(profile: str, tmp_path: Path) -> None:
    onnx.save(models.mlp(2), tmp_path / "model.onnx")
    route = ",route=-copy_ppg=off" if profile == "11.4" else ""
    options = ["", f"editable=true,save_cache={tmp_path / 'c'},engine={tmp_path / 'e'},record={tmp_path / 'r'}{route}"]
    options += [f"cache={tmp_path / 'c'},strict=true", "debug=unfused", "observe=debug"]
    path = os.pathsep.join([str(installed(profile)), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulated_tensorrt.trace_uses", str(tmp_path / "model.onnx"), *options],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    used = set(json.loads(done.stdout.split("USED")[-1]))
    assert len(used) > 60
    optional = {one.path for one in CAPABILITIES if not one.needed}
    for other in PROFILES:
        known = set(manifest.flatten(assemble.manifest(other)))
        # Callbacks that the bindings look up in the subclass and do not list.
        assert {name for name in used - known - optional if not name.endswith((".name", ".value"))} == set()
