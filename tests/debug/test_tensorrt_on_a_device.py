"""What ``pytest -m gpu`` runs of the TensorRT tests, with a simulated one installed in the place of the real one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.debug.tensorrt_places import INSTALLED, play

ROOT = Path(__file__).parent.parent.parent
FOLDER = "tests/debug/test_tensorrt_"
TESTS = (f"{FOLDER}runner.py", f"{FOLDER}builds.py", "tests/surgeon/test_tensorrt_cli.py")


def with_installed(version: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process that finds a TensorRT of this version as if it were installed; none if it is empty."""
    path = [str(INSTALLED / version)] if version else []
    inherited = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, *inherited])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_they_pass_where_tensorrt_is_installed() -> None:
    done = with_installed("11.4", *TESTS)
    count = re.search(r"^(\d+) passed", done.stdout.splitlines()[-1])
    assert done.returncode == 0 and count and int(count[1]) > 25, done.stdout
    assert "skipped" not in done.stdout


def test_without_tensorrt_they_are_skipped_and_say_why() -> None:
    done = with_installed("", TESTS[0], "-k", "test_types")
    assert done.returncode == 0 and "the package tensorrt is not installed here" in done.stdout
    assert re.search(r"\d+ skipped", done.stdout) and "passed" not in done.stdout


def test_without_a_gpu_they_are_skipped_and_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, devices=0)
    done = with_installed("11.4", TESTS[0], "-k", "test_types")
    assert done.returncode == 0 and "finds no GPU" in done.stdout
    assert re.search(r"\d+ skipped", done.stdout) and "passed" not in done.stdout
