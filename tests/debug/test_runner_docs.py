"""What docs/runners.md shows is run as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.runners.catalogue import BUILT_IN, make_engine

PAGE = Path(__file__).parent.parent.parent / "docs" / "runners.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL) if PAGE.exists() else []
TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { h = Sin (x) y = Abs (h) }'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(TEXT), str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def test_the_runner_of_thirty_lines(tmp_path: Path, model: Path) -> None:
    assert BLOCKS[0].count("\n") <= 30
    (tmp_path / "mine.py").write_text(BLOCKS[0])
    x = np.array([0.5, -1], np.float32)
    for isolated in (False, True):
        with make_engine(f"{tmp_path / 'mine.py'}:Mine:decimals=2", isolated=isolated) as engine:
            engine.prepare(model, ["y", "h"])
            assert engine.run({"x": x})["h"].tolist() == np.float32([0.48, -0.84]).tolist()


def test_the_program_of_a_command(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(BLOCKS[1])
    monkeypatch.chdir(tmp_path)
    line = re.search(r"--target '(command:.*)'", PAGE.read_text())
    assert line is not None
    with make_engine(line[1].replace("python mine.py", f"{sys.executable} mine.py")) as engine:
        engine.prepare(model, ["y", "h"])
        np.testing.assert_allclose(engine.run({"x": np.float32([0.5, -1])})["y"], np.sin([0.5, 1]), rtol=1e-6)


def test_every_runner_is_on_the_page() -> None:
    for name in BUILT_IN:
        assert f"| `{name}` |" in PAGE.read_text()
