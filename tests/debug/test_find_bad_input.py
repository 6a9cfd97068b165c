"""What cannot be searched is said in one sentence; what cannot be decided accuses nobody; nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.nodes import find_nodes
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.search.budget import Budget
from surgeon_passes.errors import BadModelError, BadOptionError, EngineError, FileError, SurgeonError
from tests.bench.planted_layers.random_graphs import random_dag

ENDING = f"{Path(__file__).with_name('ending_runner.py')}:Ending"
REFERENCE = "onnxruntime:optimize=none,threads=1"


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return random_dag(3, 24)(seed=1)


def parsed(body: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y) {{ {body} }}'
    )
    for i, node in enumerate(proto.graph.node):
        node.name = f"/{i}"
    return proto


def assert_one_sentence(error: SurgeonError) -> None:
    assert "\n" not in str(error) and "Traceback" not in str(error)


def truncated(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(random_dag(3, 24)(seed=1).SerializeToString()[:2000])
    return path


def weightless(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(random_dag(3, 24)(seed=1), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").unlink()
    return path


def cyclic(folder: Path) -> onnx.ModelProto:
    return parsed("a = Add (x, b) b = Abs (a) y = Neg (b)")


def absent(folder: Path) -> Path:
    return folder / "absent.onnx"


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (truncated, BadModelError, "truncated"),
        (weightless, SurgeonError, "w.bin"),
        (cyclic, BadModelError, "cycle"),
        (absent, FileError, "absent.onnx"),
    ],
)
def test_a_model_that_cannot_be_used(make: Any, kind: type[SurgeonError], words: str, tmp_path: Path) -> None:
    for how in ({"target": REFERENCE}, {"check": "true {model}"}):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        with pytest.raises(kind) as caught:
            find_nodes(make(tmp_path), **how)
        assert words in str(caught.value)
        assert_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "x"),
        ({"x": np.zeros(2, np.float32), "stranger": np.zeros(2)}, "stranger"),
        ({"x": np.zeros((2, 2), np.float32)}, "x"),
        ({"x": np.array(["a", "b"])}, "x"),
    ],
)
def test_inputs_that_do_not_fit(feeds: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOptionError) as caught:
        find_nodes(parsed("y = Abs (x)"), target=REFERENCE, feeds=[feeds])
    assert words in str(caught.value)
    assert_one_sentence(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target": REFERENCE, "check": "true {model}"},
        {"target": REFERENCE, "feeds": []},
        {"target": REFERENCE, "jobs": 0},
        {"target": "nonesuch"},
        {"target": "onnxruntime:nonesuch=1"},
        {"target": REFERENCE, "reference": "nonesuch"},
        {"target": f"{ENDING}x"},
        {"target": "absent.py:Runner"},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(BadOptionError) as caught:
        find_nodes(parsed("y = Abs (x)"), **options)
    assert_one_sentence(caught.value)


@pytest.mark.parametrize("how", ["refuse", "kill", "hang"])
@pytest.mark.parametrize("where", ["prepare", "run"])
def test_a_reference_that_fails_is_no_finding(graph: onnx.ModelProto, how: str, where: str) -> None:
    """It is believed; if it cannot run the model there is nothing to hold the target against."""
    at = graph.graph.node[5].name
    with pytest.raises(EngineError) as caught:
        find_nodes(graph, reference=f"{ENDING}:at={at},how={how},where={where}", target=REFERENCE, timeout=3.0)
    assert "Ending" in str(caught.value)
    assert_one_sentence(caught.value)


def test_inputs_that_were_made_up_wrong_are_said_to_be() -> None:
    """The engine refuses them, and so does the reference; the node is named, and what to do is said."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N] x, float[M] z) => (float[K] y) { [sum] y = Add (x, z) }'
    )
    found = find_nodes(model, target=REFERENCE, reference=REFERENCE)
    assert found.signature is not None and found.signature.kind is FailureKind.REFUSED
    assert any("reference cannot run" in note and "--feeds" in note for note in found.notes), found.notes
    healthy = find_nodes(model, target=REFERENCE, reference=REFERENCE, dims={"N": 3, "M": 3})
    assert healthy.outcome is FindOutcome.NOTHING and not healthy.notes


def test_random_nodes_are_said_to_be_random() -> None:
    model = parsed("r = RandomNormalLike (x) s = Add (x, r) y = Abs (s)")
    found = find_nodes(model, target=REFERENCE, reference=REFERENCE)
    assert any("random" in note for note in found.notes)
    assert all(node == "/0" for one in found.culprits for node in one.nodes), found


def test_what_is_dropped_at_random_is_said_to_be_random() -> None:
    body = "t = Constant <value = bool {1}> () r = Constant <value = float {0.5}> () d = Dropout (x, r, t) y = Abs (d)"
    model = parsed(body)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 64  # never the same twice
    found = find_nodes(model, target=REFERENCE, reference=REFERENCE)
    assert any("random" in note for note in found.notes)
    assert all(one.found_by != "census" and one.nodes == ("/2",) for one in (*found.culprits, *found.latent)), found


def test_a_target_whose_outputs_are_missing(tmp_path: Path) -> None:
    runner = tmp_path / "lossy.py"
    runner.write_text(
        textwrap.dedent(
            """
            import onnxruntime
            class Lossy:
                def prepare(self, path, outputs):
                    self.session = onnxruntime.InferenceSession(str(path))
                    self.names = [o.name for o in self.session.get_outputs()]
                def run(self, feeds):
                    found = dict(zip(self.names, self.session.run(self.names, dict(feeds))))
                    return {name: value for name, value in found.items() if name != "y"}
            """
        )
    )
    found = find_nodes(parsed("a = Abs (x) b = Neg (a) y = Tanh (b)"), target=f"{runner}:Lossy", reference=REFERENCE)
    assert found.signature is not None and "y" in found.failure and "not delivered" in found.failure
    assert found.outcome is not FindOutcome.NOTHING
    assert all(one.nodes == ("/2",) for one in found.culprits), found


def test_a_small_budget_is_undecided_and_says_what_would_help(graph: onnx.ModelProto) -> None:
    at = graph.graph.node[9].name
    found = find_nodes(graph, target=f"{ENDING}:at={at},how=refuse", reference=REFERENCE, budget=Budget(trials=3))
    assert found.outcome is FindOutcome.UNDECIDED and not found.culprits and not found.latent
    assert found.trials == 3 and "3 trials" in found.reason and "--resume" in found.advice


def test_pieces_that_are_refused_everywhere_accuse_nobody(tmp_path: Path) -> None:
    """An engine that takes the whole model and nothing else, and computes it wrong."""
    runner = tmp_path / "whole.py"
    runner.write_text(
        textwrap.dedent(
            """
            import onnx, onnxruntime
            class Whole:
                def prepare(self, path, outputs):
                    graph = onnx.load(str(path)).graph
                    if len(graph.node) != 6 or len(graph.output) != 1:
                        raise RuntimeError("only whole models")
                    self.session = onnxruntime.InferenceSession(str(path))
                def run(self, feeds):
                    return {"y": 2 * self.session.run(["y"], dict(feeds))[0]}
            """
        )
    )
    model = parsed("a = Abs (x) b = Tanh (a) c = Sin (b) d = Sigmoid (c) e = Cos (d) y = Neg (e)")
    found = find_nodes(model, target=f"{runner}:Whole", reference=REFERENCE)
    assert found.outcome is FindOutcome.UNDECIDED and not found.culprits, found
    assert found.reason and found.advice


SEARCH = """
import sys
from pathlib import Path
from surgeon_debug.find.nodes import find_nodes
from surgeon_debug.find.oracle import FailureKind
found = find_nodes(Path(sys.argv[1]), target=sys.argv[2], reference=sys.argv[3], jobs=int(sys.argv[4]), census=False)
print(found.outcome)
"""


def children(pid: int) -> set[int]:
    """Processes that a process has started, and those that these have."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == pid:
                found |= {int(entry.name)} | children(int(entry.name))
    return found


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_in_mid_search_leaves_nothing_behind(graph: onnx.ModelProto, jobs: int, tmp_path: Path) -> None:
    path, scratch, log = tmp_path / "model.onnx", tmp_path / "scratch", tmp_path / "log"
    scratch.mkdir()
    onnx.save(graph, str(path))
    target = f"{ENDING}:at={graph.graph.node[7].name},how=refuse,seconds=1.5,log={log}"
    search = subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(path), target, REFERENCE, str(jobs)],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().splitlines()) < 4:  # the probe is over
        assert search.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    started = children(search.pid)
    assert started
    search.send_signal(signal.SIGINT)
    _, said = search.communicate(timeout=30)
    assert search.returncode != 0 and b"KeyboardInterrupt" in said
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    ours = [path for path in scratch.iterdir() if path.name != ".ses"]  # which onnxruntime leaves
    assert not ours
