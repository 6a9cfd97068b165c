"""A model shared between two engines computes what one engine would whose chosen nodes are the other's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from surgeon_debug.feeds import make_feeds
from surgeon_debug.find.elements import Elements
from surgeon_debug.find.lab_spec import LabSpec
from surgeon_debug.find.oracle import FRESH, FailureKind, Signature
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.user_functions import Postprocess
from surgeon_passes.graph import load
from tests.bench.planted_layers.corrupt import Fault
from tests.bench.planted_layers.faults import FaultyEngine, Plan
from tests.bench.planted_layers.random_graphs import random_dag
from tests.debug.small_graphs import Skewed, SmallGraph, computed, skew, small_graph

REFERENCE = "onnxruntime:optimize=none,threads=1"
WAYS = ("all", "prefix", "alternating", "random", "single", "all but one", "middle")


@pytest.fixture(scope="module")
def reference() -> Iterator[Engine]:
    with make_engine(REFERENCE) as engine:
        yield engine


def chosen(way: str, elements: Elements, pick: int) -> frozenset[int]:
    count = len(elements)
    one = pick % count
    numbers = range(count)
    rng = np.random.default_rng(pick)
    return frozenset(
        {
            "all": numbers,
            "prefix": range(one + 1),
            "alternating": range(pick % 2, count, 2),
            "random": [i for i in numbers if rng.random() < 0.5],
            "single": [one],
            "all but one": [i for i in numbers if i != one],
            "middle": range(one // 2, one + 1),
        }[way]
    )


class Trying:
    """A lab whose compared outputs can be looked at."""

    def __init__(self, graph: SmallGraph, reference: Engine, target: Engine, folder: Path) -> None:
        path = folder / "model.onnx"
        onnx.save(graph.proto, str(path))
        self.seen: list[dict[str, Any]] = []
        self.samples = len(graph.feeds)
        look = Postprocess("look", self.look)
        feeds = graph.feeds
        self.spec = LabSpec(path, feeds, reference="-", target="-", postprocess=look, engines=(reference, target))
        self.lab = self.spec.make()

    def look(self, outputs: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(outputs)
        return outputs

    def outputs(self, elements: frozenset[int]) -> list[dict[str, Any]]:
        """Outputs of a trial, one mapping a sample; None if nothing was computed."""
        self.seen.clear()
        record = self.lab.evaluate(elements, 0)
        assert not record.unresolved
        self.record = record
        if not self.seen:  # it is known without a run that nothing changes
            return self.lab.truth()
        return self.seen[-self.samples :]


def assert_same(found: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    for ours, theirs in zip(found, right, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name].dtype == value.dtype and ours[name].shape == value.shape, name
            np.testing.assert_array_equal(ours[name], value, err_msg=name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(3, 25),
    way=st.sampled_from(WAYS),
    pick=st.integers(0, 10**6),
)
def test_a_shared_model_computes_what_one_engine_would(
    reference: Engine, seed: int, size: int, way: str, pick: int
) -> None:
    """Every node of the suspect is wrong, so a value that should be the suspect's and is not shows."""
    graph = small_graph(seed, size)
    with tempfile.TemporaryDirectory() as name:
        trying = Trying(graph, reference, Engine("skewed", Skewed()), Path(name))
        elements = trying.spec.ground().elements
        inside = chosen(way, elements, pick)
        found = trying.outputs(inside)
        trying.spec.close()
    model = onnx.ModelProto.FromString(graph.proto.SerializeToString())
    skew(model.graph, set(elements.titles(inside)))
    assert_same(found, [computed(model, sample) for sample in graph.feeds])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), way=st.sampled_from(WAYS), pick=st.integers(0, 10**6))
def test_two_engines_that_agree_are_never_found_to_differ(reference: Engine, seed: int, way: str, pick: int) -> None:
    graph = small_graph(seed, 15, samples=3)
    with tempfile.TemporaryDirectory() as name, make_engine(REFERENCE) as same:
        trying = Trying(graph, reference, same, Path(name))
        found = trying.outputs(chosen(way, trying.spec.ground().elements, pick))
        assert trying.record.signature is None and trying.record.error in (None, 0.0)
        trying.spec.close()
    assert_same(found, [computed(graph.proto, sample) for sample in graph.feeds])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.integers(0, 40), place=st.integers(0, 10**6), way=st.sampled_from(WAYS), pick=st.integers(0, 10**6))
def test_a_trial_fails_if_and_only_if_the_faulty_node_is_the_suspects(
    reference: Engine, index: int, place: int, way: str, pick: int
) -> None:
    proto = random_dag(index, 30)(seed=index)
    model = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    culprit = products[place % len(products)]
    shapes = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    sizes = [d.dim_value or 2 for d in shapes[culprit.output[0]].type.tensor_type.shape.dim]
    fault = Fault(culprit.output[0], "gain", TensorProto.FLOAT, tuple(sizes), size=0.5)
    target = Engine("faulty", FaultyEngine(Plan(REFERENCE, (fault,))))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        onnx.save(proto, str(path))
        feeds = [make_feeds(load(path), sample=i) for i in range(2)]
        spec = LabSpec(path, feeds, reference="-", target="-", engines=(reference, target))
        lab, elements = spec.make(), spec.ground().elements
        shows = lab.evaluate(elements.everything, 0).signature is not None
        inside = chosen(way, elements, pick)
        record = lab.evaluate(inside, 0)
        spec.close()
    target.close()
    guilty = culprit.name in elements.titles(inside)
    assert not record.unresolved
    assert (record.signature is not None) == (guilty and shows)


UNREAD = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[2] x, float[2] unread, float[2] handed) => (float[2] y, float[2] handed) {
        h = Abs (x)
        y = Neg (h)
    }"""


def test_the_whole_model_is_given_inputs_that_no_node_reads(reference: Engine, tmp_path: Path) -> None:
    feeds = [{name: np.ones(2, np.float32) for name in ("x", "unread", "handed")}]
    with make_engine(REFERENCE) as same:
        trying = Trying(SmallGraph(onnx.parser.parse_model(UNREAD), feeds), reference, same, tmp_path)
        trying.outputs(frozenset([0, 1]))
        assert trying.record.signature is None and trying.record.builds == 1
        trying.spec.close()


def test_values_that_go_to_and_fro_cost_one_compilation_of_each(reference: Engine, tmp_path: Path) -> None:
    """A chain whose every other node is the suspect's: as many runs as changes of engines, one compilation."""
    nodes = [helper.make_node("Tanh", [f"f{i}"], [f"f{i + 1}"], name=f"/{i}") for i in range(9)]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("f0", "f9")]
    proto = helper.make_model(
        helper.make_graph(nodes, "chain", info[:1], info[1:]),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    skewed = Skewed()
    graph = SmallGraph(proto, [{"f0": np.array([0.5, -2], np.float32)}])
    trying = Trying(graph, reference, Engine("skewed", skewed), tmp_path)
    found = trying.outputs(frozenset(range(1, 9, 2)))
    assert (trying.record.builds, trying.record.runs, skewed.prepared) == (1, 4, 1)
    again = trying.lab.evaluate(frozenset(range(1, 9, 2)), 1)
    assert (again.builds, again.runs) == (0, 4)
    whole = frozenset(range(9))
    builds = [trying.lab.evaluate(whole, attempt).builds for attempt in (0, 1, FRESH, FRESH + 1, FRESH + 2)]
    assert builds == [1, 0, 1, 0, 0]
    skew(proto.graph, {f"/{i}" for i in range(1, 9, 2)})
    assert_same(found, [computed(proto, graph.feeds[0])])
    trying.spec.close()


def test_what_nobody_reads_still_can_make_an_engine_refuse(reference: Engine, tmp_path: Path) -> None:
    """A node without readers is in no output's way; alone it must be shown, or it is not there to be refused."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[2] f_x) => (float[2] f_y) { f_dead = Abs (f_x) f_y = Neg (f_x) }"""
    graph = SmallGraph(onnx.parser.parse_model(text), [{"f_x": np.ones(2, np.float32)}])

    class Picky(Skewed):
        def prepare(self, model_path: Path, outputs: Any) -> None:
            if any(node.op_type == "Abs" for node in onnx.load(str(model_path)).graph.node):
                raise RuntimeError("no kernel for Abs")
            super().prepare(model_path, outputs)

    trying = Trying(graph, reference, Engine("picky", Picky()), tmp_path)
    trying.lab.close()
    lab = trying.spec.following(by_values=False).make()
    assert lab.evaluate(frozenset([0, 1]), 0).signature == Signature(FailureKind.REFUSED, "no kernel for Abs")
    assert lab.evaluate(frozenset([0]), 0).signature == Signature(FailureKind.REFUSED, "no kernel for Abs")
    assert lab.evaluate(frozenset([1]), 0).signature is None
    trying.spec.close()
