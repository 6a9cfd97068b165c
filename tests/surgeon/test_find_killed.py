"""``surgeon find nodes --resume`` killed with SIGKILL at random moments, again and again, until it is through."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

RUNNER = """
    import time
    import numpy as np
    import onnx
    import onnxruntime

    class Slow:
        "onnxruntime that takes its time, and adds one to what node n37 computes."
        def prepare(self, model_path, outputs):
            time.sleep(0.1)
            model = onnx.load(str(model_path))
            for node in list(model.graph.node):
                if node.name == "n37":
                    right = node.output[0]
                    node.output[0] = "right"
                    one = onnx.numpy_helper.from_array(np.float32(1.0), "one")
                    model.graph.initializer.append(one)
                    add = onnx.helper.make_node("Add", ["right", "one"], [right])
                    model.graph.node.insert(list(model.graph.node).index(node) + 1, add)
            self._session = onnxruntime.InferenceSession(model.SerializeToString())
            self._outputs = [o.name for o in self._session.get_outputs()]

        def run(self, feeds):
            fed = {name: np.asarray(value) for name, value in feeds.items()}
            return dict(zip(self._outputs, self._session.run(None, fed)))
"""


def chain(path: Path) -> Path:
    lines = [f"[n{i}] t{i + 1} = {'Tanh' if i % 2 else 'Sin'}(t{i})" for i in range(60)]
    text = '<ir_version: 10, opset_import: ["": 20]>\nchain (float[4, 8] t0) => (float[4, 8] t60) {\n'
    onnx.save_model(onnx.parser.parse_model(text + "\n".join(lines) + "\n}"), str(path))
    return path


def command(folder: Path, *extra: str) -> list[str]:
    target = f"{folder / 'slow.py'}:Slow"
    return [
        sys.executable, "-m", "surgeon", "find", "nodes", str(folder / "model.onnx"), "--target", target,
        "--resume", str(folder / "journal"), "--json", *extra,
    ]  # fmt: skip


def ended(folder: Path) -> Counter[str]:
    """How often the journal says that each trial or step ended."""
    file = folder / "journal" / "journal.jsonl"
    found: Counter[str] = Counter()
    if not file.exists():
        return found
    for line in file.read_bytes().splitlines():
        try:
            content: Any = json.loads(line)["of"]
        except (ValueError, KeyError):
            continue  # torn by the kill
        if content.get("do") == "end":
            found[content["key"]] += 1
    return found


def killed_until_done(folder: Path, seed: int, most: int) -> tuple[dict[str, Any], int]:
    """The result of the run that nobody killed, and how many were."""
    rng = random.Random(seed)
    kills = 0
    while True:
        process = subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if kills < most:
            try:
                out, _ = process.communicate(timeout=rng.uniform(0.3, 4.0))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
                continue
        else:
            out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return json.loads(out), kills


def check(folder: Path, seed: int, most: int) -> int:
    folder.mkdir()
    (folder / "slow.py").write_text(textwrap.dedent(RUNNER))
    chain(folder / "model.onnx")
    found, kills = killed_until_done(folder, seed, most)
    assert found["culprits"] == [["n37"]]
    assert found["details"][0]["cured"] is True
    counts = ended(folder)
    assert counts
    assert set(counts.values()) == {1}, "a finished trial was made again"
    again = subprocess.run(command(folder), capture_output=True, timeout=120, check=False)
    assert again.returncode == 0
    second = json.loads(again.stdout)
    assert second["culprits"] == [["n37"]]
    assert second["trials"] == 0
    assert second["builds"] == 0
    assert ended(folder) == counts
    return kills


def test_killed_a_few_times(tmp_path: Path) -> None:
    check(tmp_path / "a", 1, 4)


@pytest.mark.slow
def test_killed_fifty_times(tmp_path: Path) -> None:
    kills = 0
    for seed in range(200):
        kills += check(tmp_path / f"{seed}", seed, 6)
        if kills >= 50:
            return
    pytest.fail(f"only {kills} kills hit")


def test_nothing_is_left_running_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(textwrap.dedent(RUNNER))
    chain(tmp_path / "model.onnx")
    process = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(2.0)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        others = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
        if not others.stdout.split():
            return
        time.sleep(0.2)
    pytest.fail(f"left running: {others.stdout}")
