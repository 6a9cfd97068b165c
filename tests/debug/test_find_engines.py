"""Who is to blame, found on engines in real processes that compute wrongly, crash, hang, refuse or eat memory."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from surgeon_debug.find.finding import Finding, FindOutcome
from surgeon_debug.find.nodes import find_nodes
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.runners.catalogue import make_engine
from tests.bench.planted_layers.random_graphs import random_dag
from tests.debug.test_real_cases import ONES, SATURATING, quantised

ENDING = f"{Path(__file__).with_name('ending_runner.py')}:Ending"
OTHER = "SURGEON_OTHER_PYTHON"
REFERENCE = "onnxruntime:optimize=none,threads=1"


def named(found: Finding) -> list[tuple[str, ...]]:
    return [culprit.nodes for culprit in found.culprits]


def after_probe(found: Finding) -> int:
    return found.trials - next(step.trials for step in found.steps if step.name == "probe")


def most(found: Finding) -> int:
    """Trials that a bisection needs, the culprit alone, and all without it."""
    return math.ceil(math.log2(found.elements)) + 2


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return random_dag(3, 24)(seed=1)


def node_at(proto: onnx.ModelProto, share: float) -> str:
    """A node at some place of the model that is not a constant."""
    return str(proto.graph.node[int(share * (len(proto.graph.node) - 1))].name)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_a_users_runner_that_computes_one_node_wrong(graph: onnx.ModelProto, share: float) -> None:
    products = [node.name for node in graph.graph.node if node.op_type in ("MatMul", "Mul", "Tanh")]
    culprit = products[int(share * len(products))]
    found = find_nodes(graph, target=f"{ENDING}:at={culprit},gain=1.5", reference=REFERENCE)
    everyone = [*named(found), *(one.nodes for one in found.latent)]
    assert everyone == [(culprit,)], found.steps
    one = (*found.culprits, *found.latent)[0]
    assert one.kind is FailureKind.WRONG_NUMBERS and one.found_by == "census"
    assert found.builds - found.steps[0].builds <= 1 + 1  # the census, the model without the culprit


@pytest.mark.parametrize(
    ("how", "where", "kind", "detail"),
    [
        ("segfault", "prepare", FailureKind.CRASHED, "SIGSEGV"),
        ("kill", "run", FailureKind.CRASHED, "SIGSEGV"),
        ("abort", "prepare", FailureKind.CRASHED, "SIGABRT"),
        ("exit", "run", FailureKind.CRASHED, "exit code 9"),
        ("refuse", "prepare", FailureKind.REFUSED, "no kernel of this kind for the device (error )"),
        ("refuse", "run", FailureKind.REFUSED, "no kernel of this kind for the device (error )"),
    ],
)
def test_an_engine_that_does_not_deliver(
    graph: onnx.ModelProto, how: str, where: str, kind: FailureKind, detail: str
) -> None:
    culprit = node_at(graph, 0.6)
    found = find_nodes(graph, target=f"{ENDING}:at={culprit},how={how},where={where}", reference=REFERENCE)
    assert found.outcome is FindOutcome.FOUND and named(found) == [(culprit,)], found
    assert found.signature is not None and (found.signature.kind, found.signature.detail) == (kind, detail)
    one = found.culprits[0]
    assert one.kind is kind and one.alone and one.cured and one.found_by == "cut"
    assert after_probe(found) <= most(found), found.steps


def test_an_engine_that_hangs(graph: onnx.ModelProto) -> None:
    culprit = node_at(graph, 0.2)
    found = find_nodes(graph, target=f"{ENDING}:at={culprit},how=hang", reference=REFERENCE, timeout=3.0)
    assert named(found) == [(culprit,)], found
    assert found.culprits[0].kind is FailureKind.HUNG and "within 3 s" in found.culprits[0].reason
    assert after_probe(found) <= most(found), found.steps


def test_an_engine_that_eats_memory(graph: onnx.ModelProto) -> None:
    culprit = node_at(graph, 0.5)
    found = find_nodes(
        graph, target=f"{ENDING}:at={culprit},how=eat", reference=REFERENCE, timeout=60, memory_cap=600 << 20
    )
    assert named(found) == [(culprit,)], found
    assert found.culprits[0].kind is FailureKind.OUT_OF_MEMORY
    assert after_probe(found) <= most(found), found.steps


def test_an_engine_that_crashes_where_two_nodes_meet(graph: onnx.ModelProto) -> None:
    """Neither alone does any harm."""
    a, b = node_at(graph, 0.4), node_at(graph, 0.6)
    found = find_nodes(graph, target=f"{ENDING}:at={a};{b},how=kill,together=true", reference=REFERENCE)
    assert named(found) == [(a, b)], (found.culprits, found.reason, found.steps)
    assert found.culprits[0].kind is FailureKind.CRASHED and found.culprits[0].found_by == "window"


def test_an_engine_that_refuses_everything_accuses_no_node(graph: onnx.ModelProto) -> None:
    everyone = ";".join(node.name for node in graph.graph.node)
    found = find_nodes(graph, target=f"{ENDING}:at={everyone},how=refuse", reference=REFERENCE)
    assert found.outcome is FindOutcome.UNDECIDED and not found.culprits
    assert found.reason and found.advice


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another environment, with the same onnxruntime, and onnx for runners that want it."""
    home = tmp_path_factory.mktemp("other") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    site = next((home / "lib").glob("python*")) / "site-packages"
    wanted = ("numpy", "onnxruntime", "onnx", "google", "protobuf", "ml_dtypes", "typing_extensions", "flatbuffers")
    for folder in {Path(package.__file__).parent.parent for package in (np, onnxruntime, onnx)}:
        for entry in folder.iterdir():
            if re.split(r"[.-]", entry.name)[0] in wanted:
                (site / entry.name).symlink_to(entry)
    return home / "bin" / "python"


def test_one_engine_in_two_environments_is_right(graph: onnx.ModelProto, other_python: Path) -> None:
    found = find_nodes(graph, target=f"{REFERENCE},python={other_python}", reference=REFERENCE)
    assert found.outcome is FindOutcome.NOTHING and not found.latent, found


def test_two_versions_of_one_engine_are_right(graph: onnx.ModelProto) -> None:
    python = os.environ.get(OTHER)
    if python is None:
        pytest.skip(f"{OTHER} names no Python with another onnxruntime")
    with make_engine(f"onnxruntime:python={python}") as engine:
        engine.ready()
    for target in (f"{REFERENCE},python={python}", f"onnxruntime:python={python}"):
        found = find_nodes(graph, target=target, reference=REFERENCE, samples=2)
        assert found.outcome is FindOutcome.NOTHING and not found.latent, found


def test_an_engine_that_is_wrong_in_one_environment_only(graph: onnx.ModelProto, other_python: Path) -> None:
    culprit = next(node.name for node in graph.graph.node if node.op_type == "MatMul")
    found = find_nodes(graph, target=f"{ENDING}:at={culprit},gain=0.5,python={other_python}", reference=REFERENCE)
    assert named(found) == [(culprit,)], found


def test_products_that_saturate() -> None:
    """onnxruntime on x86 without VNNI, played: the product that is cut off is the culprit, fused in the file."""
    found = find_nodes(quantised(fused=True), target=SATURATING, reference=REFERENCE, feeds=[ONES])
    assert named(found) == [("/1/product",)] and found.culprits[0].ops == ("QLinearMatMul",), found
    assert found.culprits[0].kind is FailureKind.WRONG_NUMBERS and found.culprits[0].cured


def test_products_that_saturate_where_they_are_fused() -> None:
    """The same where the engine does the fusing: it takes all nodes of the fused product together."""
    found = find_nodes(quantised(fused=False), target=SATURATING, reference=REFERENCE, feeds=[ONES])
    assert found.outcome is FindOutcome.FOUND, (found.reason, found.steps)
    (nodes,) = named(found)
    assert "/1/product" in nodes and set(nodes) <= {"/1/values", "/1/weights", "/1/product", "/1/quantise"}
    assert found.culprits[0].found_by == "window" and found.culprits[0].cured


def test_the_processors_own_products_that_saturate() -> None:
    try:
        flags = set(re.findall(r"avx\w*vnni", Path("/proc/cpuinfo").read_text()))
    except OSError:
        pytest.skip("what this processor can do is not known here")
    if flags:
        pytest.skip(f"this processor has {', '.join(sorted(flags))}, whose sums are exact")
    found = find_nodes(quantised(fused=True), target="onnxruntime:threads=1", reference="reference", feeds=[ONES])
    assert named(found) == [("/1/product",)], found
