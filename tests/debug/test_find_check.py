"""A search in which a command decides: real processes, every way in which they can end."""

from __future__ import annotations

import math
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.find.finding import Finding, FindOutcome
from surgeon_debug.find.nodes import find_nodes
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.search.budget import Budget
from surgeon_passes.errors import BadOptionError

CHECK = f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).with_name('check_model.py')))} {{model}}"
OPS = ["Abs", "Neg", "Tanh", "Sin", "Cos", "Softplus", "Sigmoid", "Elu", "Erf", "Atan", "Selu", "Gelu", "Celu"]


def chain(ops: list[str] = OPS) -> onnx.ModelProto:
    """One node of each operator, one after the other, and a second output from the middle."""
    lines = [f"t{i + 1} = {op} (t{i})" for i, op in enumerate(ops)]
    last, middle = f"t{len(ops)}", f"t{len(ops) // 2}"
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[N, 3] t0) => (float[N, 3] {last}, float[N, 3] {middle}) '
        f"{{ {' '.join(lines)} }}"
    )
    for node in proto.graph.node:
        node.name = f"/{node.op_type}"
    return proto


def named(found: Finding) -> list[tuple[str, ...]]:
    return [culprit.nodes for culprit in found.culprits]


def asked(log: Path) -> int:
    return len(log.read_text().splitlines())


LEAST = math.ceil(math.log2(len(OPS))) + 2  # beyond the probe: the bisection, the culprit alone, all without it


@pytest.mark.parametrize("op", ["Abs", "Cos", "Sigmoid", "Celu"])
def test_a_command_names_a_node_in_as_few_trials_as_a_bisection_needs(op: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = find_nodes(chain(), check=f"{CHECK} --op {op} --log {log}")
    assert found.outcome is FindOutcome.FOUND and named(found) == [(f"/{op}",)]
    culprit = found.culprits[0]
    assert culprit.kind is FailureKind.CHECK and culprit.alone and culprit.cured and culprit.found_by == "cut"
    assert f"{op} is wrong" in culprit.reason and "exit code 1" in culprit.reason
    assert found.trials == asked(log) <= 2 + LEAST


def test_the_inputs_and_what_is_expected_can_be_used(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = f"{CHECK} --op Sigmoid --log {log} --inputs {{inputs}} --expected {{expected}}"
    found = find_nodes(chain(), check=command)
    assert named(found) == [("/Sigmoid",)]
    assert "differs" in found.culprits[0].reason


@pytest.mark.parametrize("external", [False, True])
def test_weights_are_in_the_file_that_a_command_gets(external: bool, tmp_path: Path) -> None:
    """The check reads every piece with ``onnx.load``, which refuses weights behind links, and has it checked."""
    proto = chain(["Tanh", "Sigmoid", "Elu"])
    weight = np.random.default_rng(0).standard_normal((3, 400)).astype(np.float32)
    back = weight.T.copy() / 400
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(w, n) for n, w in (("w", weight), ("b", back)))
    proto.graph.node[1].input[0] = "wide"
    at = [onnx.helper.make_node("MatMul", ["t1", "w"], ["h"]), onnx.helper.make_node("MatMul", ["h", "b"], ["wide"])]
    nodes = [proto.graph.node[0], *at, *proto.graph.node[1:]]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    path = tmp_path / "model.onnx"
    onnx.save(proto, str(path), save_as_external_data=external, location="weights.bin")
    before = sorted((file.name, file.read_bytes()) for file in tmp_path.iterdir())
    command = f"{CHECK} --op Sigmoid --inputs {{inputs}} --expected {{expected}}"
    found = find_nodes(path, check=command, samples=3)
    assert named(found) == [("/Sigmoid",)]
    assert "differs" in found.culprits[0].reason
    assert sorted((file.name, file.read_bytes()) for file in tmp_path.iterdir()) == before


@pytest.mark.parametrize("code", ["2", "77", "200", "255"])
def test_any_other_code_is_bad(code: str) -> None:
    found = find_nodes(chain(OPS[:4]), check=f"{CHECK} --op Tanh --code {code}")
    assert named(found) == [("/Tanh",)]


def test_a_command_that_is_ended_by_a_signal_is_a_crash() -> None:
    found = find_nodes(chain(OPS[:6]), check=f"{CHECK} --op Tanh --code signal")
    assert named(found) == [("/Tanh",)]
    assert found.signature is not None and found.signature.kind is FailureKind.CRASHED
    assert found.signature.detail == "SIGSEGV" and "SIGSEGV" in found.culprits[0].reason


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    found = find_nodes(chain(OPS[:4]), check=f"{CHECK} --op Tanh --code hang & wait $!", timeout=2.0)
    assert named(found) == [("/Tanh",)]
    assert found.culprits[0].kind is FailureKind.HUNG and "within 2 s" in found.culprits[0].reason
    assert time.monotonic() - began < 40


def test_what_cannot_be_told_is_not_taken_for_the_failure() -> None:
    """Without Elu nobody can tell; so the smallest set that was seen to fail holds it."""
    found = find_nodes(chain(), check=f"{CHECK} --op Sigmoid --cannot Elu")
    assert named(found) == [("/Sigmoid", "/Elu")] and found.culprits[0].alone
    assert found.culprits[0].cured is None and any("this piece says nothing" in note for note in found.notes)


def test_where_too_little_can_be_told_nobody_is_accused() -> None:
    found = find_nodes(chain(), check=f"{CHECK} --op Abs --cannot Celu")
    assert found.outcome is FindOutcome.UNDECIDED or named(found) == [("/Abs", "/Celu")], found


def test_a_command_that_never_fails_leaves_nothing_to_find() -> None:
    found = find_nodes(chain(OPS[:4]), check=f"{CHECK} --op Missing")
    assert found.outcome is FindOutcome.NOTHING and found.trials == 2
    assert found.reason and found.advice


def test_a_command_that_never_can_tell_is_undecided() -> None:
    found = find_nodes(chain(OPS[:4]), check=f"{CHECK} --cannot Missing")
    assert found.outcome is FindOutcome.UNDECIDED and not found.culprits
    assert "this piece says nothing" in found.reason and found.advice


def test_a_command_that_fails_whatever_it_is_given_accuses_one_node_at_most() -> None:
    """It would call every node bad; that the model without the culprit is still bad is said."""
    found = find_nodes(chain(OPS[:4]), check=f"{CHECK} --op Missing --otherwise 3", budget=Budget(trials=40))
    assert not any(culprit.cured for culprit in found.culprits)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-command-anywhere {model}", "was not found"),
        ("/etc/passwd {model}", "cannot be executed"),
        ("true", "{model}"),
        ("true {model} {modle}", "{modle}"),
        ("", "{model}"),
    ],
)
def test_a_command_that_cannot_be_run_is_one_sentence(command: str, words: str) -> None:
    with pytest.raises(BadOptionError) as caught:
        find_nodes(chain(OPS[:4]), check=command)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_flaky_command_is_found_out(tmp_path: Path) -> None:
    """The two trials of the whole model differ; every question is then asked more than once."""
    log = tmp_path / "log"
    found = find_nodes(chain(), check=f"{CHECK} --op Sigmoid --code flaky --log {log}")
    assert found.rate is not None
    assert found.outcome is FindOutcome.UNDECIDED or named(found) == [("/Sigmoid",)]


def test_a_budget_ends_the_search_and_nobody_is_accused() -> None:
    found = find_nodes(chain(), check=f"{CHECK} --op Sigmoid", budget=Budget(trials=4))
    assert found.outcome is FindOutcome.UNDECIDED and not found.culprits
    assert found.trials == 4 and "4 trials" in found.reason and found.advice


def test_two_jobs_name_the_same_node() -> None:
    found = find_nodes(chain(), check=f"{CHECK} --op Elu", jobs=2)
    assert named(found) == [("/Elu",)]


def test_an_interrupt_ends_the_command_too(tmp_path: Path) -> None:
    path, pids = tmp_path / "model.onnx", tmp_path / "pids"
    onnx.save(chain(OPS[:3]), str(path))
    command = f"echo $$ >> {pids}; sleep 600; true {{model}}"
    script = "import sys; from surgeon_debug.find.nodes import find_nodes; find_nodes(sys.argv[1], check=sys.argv[2])"
    search = subprocess.Popen([sys.executable, "-c", script, str(path), command], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not pids.exists() or not pids.read_text().strip():
        assert search.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    search.send_signal(signal.SIGINT)
    _, said = search.communicate(timeout=30)
    assert search.returncode != 0 and b"KeyboardInterrupt" in said
    started = [int(line) for line in pids.read_text().split()]
    assert len(started) == 1 and not Path(f"/proc/{started[0]}").exists()
