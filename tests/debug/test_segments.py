"""Where models are cut: at whole prefixes, within the budget, and without any effect on what is found."""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon_debug.comparison import Comparison
from surgeon_debug.layer_plan import Layer, plan_layers
from surgeon_debug.layers import as_engine, compare_models
from surgeon_debug.pair import LayerOptions
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.runners.contract import Engine
from surgeon_debug.segments import MAX_NODES, Part, Segment, plan_segments
from surgeon_debug.verdict import Verdict
from surgeon_passes.graph import load
from tests.debug.widened import widened
from tests.debug.wrong_runner import Wrong
from tests.numeric import feeds_of
from tests.random_models import models, random_model

ORT = "onnxruntime:optimize=none,threads=1"

Planned = tuple[PieceSource, list[Layer]]


def planned(proto: onnx.ModelProto, folder: Path, label: str = "piece") -> Planned:
    path = folder / f"{label}.onnx"
    onnx.save(proto, str(path))
    source = PieceSource(load(path), folder, label)
    layers = plan_layers(source.model, feeds_of(proto))
    return source, [layer for layer in layers if layer.tensor in source.producer.keys() - source.non_tensors]


def assert_prefixes(source: PieceSource, parts: Sequence[Part], judged: Sequence[Sequence[str]]) -> None:
    """Every node at most once and after what it waits for; everything read is fed by hand or was kept."""
    done: set[int] = set()
    kept: set[str] = set()
    seen: set[str] = set()
    for part, names in zip(parts, judged, strict=True):
        assert done.isdisjoint(part.nodes)
        done.update(part.nodes)
        written = {name for i in part.nodes for name in source.nodes[i].writes}
        for index in part.nodes:
            assert set(source.nodes[index].before) <= done
            assert set(source.nodes[index].reads) <= {*part.reads, *written}
        assert {name for name in part.reads if source.constant(name) is None} <= kept | source.inputs.keys()
        # Other layers of the segment may have been computed for an earlier one, where they are no layers.
        assert set(names) <= written | seen
        assert part.keeps <= set(part.shows)
        assert kept.isdisjoint(source.non_tensors) and part.keeps.isdisjoint(source.non_tensors)
        kept |= part.keeps
        seen |= written


def assert_whole(source: PieceSource, layers: Sequence[Layer], segments: Sequence[Segment]) -> None:
    assert [layer.tensor for segment in segments for layer in segment.layers] == [layer.tensor for layer in layers]
    assert sorted(i for segment in segments for i in segment.reference.nodes) == list(range(len(source.nodes)))
    judged = [[layer.tensor for layer in segment.layers] for segment in segments]
    assert_prefixes(source, [segment.reference for segment in segments], judged)
    earlier: set[str] = set()
    for segment, names in zip(segments, judged, strict=True):
        assert set(segment.golden) <= earlier
        earlier.update(name for name in names if name in segment.reference.keeps)


def estimate(source: PieceSource, layers: Sequence[Layer], start: int, end: int) -> int:
    """Bytes at the last node of a segment: three of each of its tensors, two of its weights and of what crosses."""
    sizes = {layer.tensor: layer.nbytes for layer in layers}
    nodes = range(start, end)
    used = 3 * sum(sizes.get(name, 0) for i in nodes for name in source.nodes[i].writes)
    used += 2 * sum(source.weight_bytes(name) for name in {name for i in nodes for name in source.nodes[i].weights})
    later = {name for i in range(end - 1, len(source.nodes)) for name in source.nodes[i].reads}
    before = {name for i in range(end - 1) for name in source.nodes[i].writes}
    return used + 2 * sum(sizes.get(name, 0) for name in later & before)


@settings(max_examples=20, deadline=None)
@given(proto=models(30), budget=st.integers(1, 3000))
def test_random_graphs_are_cut_at_prefixes_within_the_budget(
    tmp_path_factory: pytest.TempPathFactory, proto: onnx.ModelProto, budget: int
) -> None:
    source, layers = planned(proto, tmp_path_factory.mktemp("m"))
    segments = plan_segments(source, source, layers, budget)
    assert_whole(source, layers, segments)
    for segment in segments:
        nodes = segment.reference.nodes
        assert nodes == tuple(range(nodes[0], nodes[-1] + 1))
        if len(nodes) > 1:
            assert estimate(source, layers, nodes[0], nodes[-1] + 1) <= budget
    # None is cut earlier than it must be.
    for segment, after in itertools.pairwise(segments):
        assert estimate(source, layers, segment.reference.nodes[0], after.reference.nodes[0] + 1) > budget


def chain(length: int, width: int = 4) -> onnx.ModelProto:
    nodes = [onnx.helper.make_node("Neg", [f"t{i}" if i else "x"], [f"t{i + 1}"], name=f"n{i}") for i in range(length)]
    ends = [onnx.helper.make_tensor_value_info(name, 1, [width]) for name in ("x", f"t{length}")]
    return onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )


def test_long_chains_are_cut_although_they_take_no_memory(tmp_path: Path) -> None:
    source, layers = planned(chain(2 * MAX_NODES + 5), tmp_path)
    segments = plan_segments(source, source, layers, 1 << 40)
    assert [len(segment.reference.nodes) for segment in segments] == [MAX_NODES, MAX_NODES, 5]
    assert [len(segment.reference.keeps) for segment in segments] == [1, 1, 0]


def test_a_weight_that_is_read_twice_counts_once_in_a_segment(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[4, 4] x) => (float[4, 4] y) {
        a = MatMul (x, w)
        b = MatMul (a, w)
        y = MatMul (b, v)
    }""")
    for name in "wv":
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), name))
    source, layers = planned(proto, tmp_path)
    weight, tensor = source.weight_bytes("w"), 64
    # Two nodes take: w twice, three of a and of b each, and two of a, which is read by the second.
    two = 2 * weight + 8 * tensor
    for budget, sizes in ((2 * two, [3]), (two, [2, 1]), (two - 1, [1, 1, 1]), (1, [1, 1, 1])):
        segments = plan_segments(source, source, layers, budget)
        assert [len(segment.reference.nodes) for segment in segments] == sizes, budget


def test_sequences_are_never_cut(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 4] x) => (float[N, 4] y, float[M, 4] z) <int64 one = {1}> {
            a = Neg (x)
            pair = SequenceConstruct (a, x)
            b = Exp (a)
            three = SequenceInsert (pair, b)
            c = SequenceAt (three, one)
            y = Add (c, b)
            z = ConcatFromSequence <axis = 0> (three)
        }""")
    source, layers = planned(proto, tmp_path)
    assert {layer.tensor for layer in layers} == {"a", "b", "c", "y", "z"}
    segments = plan_segments(source, source, layers, 1)
    assert_whole(source, layers, segments)
    assert [len(segment.reference.nodes) for segment in segments] == [1, 6]
    found = [compare_models(proto, reference=ORT, target=Wrong("b"), layers=LayerOptions(memory=m)) for m in (1, None)]
    assert found[0].segments == 2
    assert found[0].first is not None and found[0].first.tensor == "b"
    assert numbers(found[0]) == numbers(found[1])


def numbers(found: Comparison) -> str:
    return json.dumps(found.to_json()["layers"])


@functools.cache
def engine() -> Engine:
    return as_engine(ORT)


@functools.cache
def other_engine() -> Engine:
    return as_engine(ORT)


def compared(proto: onnx.ModelProto, target: object, memory: int | None, samples: int = 1) -> Comparison:
    return compare_models(
        proto,
        reference=engine(),
        target=target,  # type: ignore[arg-type]
        feeds=[feeds_of(proto, seed=s) for s in range(samples)],
        layers=LayerOptions(memory=memory),
    )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(proto=models(20).map(widened), budget=st.integers(1, 2000))
def test_the_budget_changes_nothing_where_both_agree(proto: onnx.ModelProto, budget: int) -> None:
    whole, found = (compared(proto, other_engine(), memory) for memory in (1 << 30, budget))
    assert numbers(found) == numbers(whole)
    assert not found.wrong and found.verdict == whole.verdict == "agree"
    assert whole.segments == 1


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_budget_changes_nothing_where_the_target_is_wrong(data: st.DataObject) -> None:
    proto = widened(data.draw(models(20)))
    budget = data.draw(st.integers(1, 2000))
    floats = float_tensors(proto)
    tensor = data.draw(st.sampled_from(floats))
    gain = data.draw(st.sampled_from([1.5, 1.00001, 1 + 2e-7, float("nan")]))
    whole, found = (compared(proto, Wrong(tensor, gain), memory, samples=2) for memory in (1 << 30, budget))
    assert numbers(found) == numbers(whole)
    assert [(r.tensor, r.verdict) for r in found.outputs] == [(r.tensor, r.verdict) for r in whole.outputs]


@pytest.mark.parametrize("seed", range(2))
def test_the_budget_changes_no_noise_floor(seed: int) -> None:
    """Every layer of a float16 network is given a floor, whose perturbations must not depend on its neighbours."""
    rng = np.random.default_rng(seed)
    single = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[5, 8] x) => (float[5, 8] y) {
        a = MatMul (x, w)
        b = Add (a, bias)
        left = Softmax (b)
        right = Tanh (a)
        joined = Mul (left, right)
        c = MatMul (joined, w)
        y = Sub (c, x)
    }""")
    for name, shape in (("w", (8, 8)), ("bias", (8,))):
        array = rng.standard_normal(shape).astype(np.float16).astype(np.float32)
        single.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    narrow = onnx.ModelProto.FromString(single.SerializeToString())
    for info in (*narrow.graph.input, *narrow.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for tensor in narrow.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    found = [
        compare_models(single, narrow, reference=engine(), target=as_engine("reference"), samples=2,
                       layers=LayerOptions(memory=memory))
        for memory in (1 << 30, 1000, 1)
    ]  # fmt: skip
    assert [comparison.segments for comparison in found][::2] == [1, 7]
    assert sum(result.floor is not None for result in found[0].layers) >= 6
    assert numbers(found[0]) == numbers(found[1]) == numbers(found[2])


def float_tensors(proto: onnx.ModelProto) -> list[str]:
    """Tensors of the main graph that are float32."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    floats = {v.name for v in (*inferred.value_info, *inferred.output) if v.type.tensor_type.elem_type == 1}
    return [name for node in proto.graph.node for name in node.output if name in floats]


def shuffled(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same nodes in another order that works."""
    rng = random.Random(seed)
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    nodes = list(result.graph.node)
    known = {name for node in nodes for name in node.output}
    ordered: list[onnx.NodeProto] = []
    while nodes:
        ready = [node for node in nodes if not known.intersection(_read(node))]
        node = rng.choice(ready)
        nodes.remove(node)
        ordered.append(node)
        known.difference_update(node.output)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del result.graph.node[:]
    result.graph.node.extend(copies)
    return result


def _read(node: onnx.NodeProto) -> set[str]:
    found = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.update(info.name for info in attribute.g.output)
            for inner in attribute.g.node:
                found |= _read(inner)
    return found


@pytest.mark.parametrize(("seed", "budget"), [(0, 1), (1, 300), (2, 1 << 30), (3, 300), (4, 1)])
def test_two_models_whose_nodes_are_in_another_order(tmp_path: Path, seed: int, budget: int) -> None:
    proto = widened(random_model(seed, 25))
    other = shuffled(proto, seed)
    source, layers = planned(proto, tmp_path, "one")
    target, _ = planned(other, tmp_path, "two")
    segments = plan_segments(source, target, layers, budget)
    assert_whole(source, layers, segments)
    judged = [[layer.tensor for layer in segment.layers] for segment in segments]
    assert_prefixes(target, [segment.target for segment in segments], judged)
    found = compare_models(
        proto, other, reference=engine(), target=other_engine(), feeds=[feeds_of(proto)],
        layers=LayerOptions(memory=budget),
    )  # fmt: skip
    assert found.verdict == "agree" and not found.unmatched and not found.unobserved
    assert all(r.introduced == r.inherited == 0.0 for r in found.layers)


ORIGINAL = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z)
    <float[4, 4] w = {1,2,-3,4,5,-6,7,8,-9,1,1,2,1,-1,1,1}, float[4] bias = {1,-1,2,-2}, float half = {0.5}> {
        product = MatMul (x, w)
        sum = Add (product, bias)
        gate = Sigmoid (sum)
        gated = Mul (sum, gate)
        twin = Mul (gated, half)
        y = Tanh (twin)
        z = Neg (gate)
    }"""
FUSED = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z)
    <float[4, 4] w = {1,2,-3,4,5,-6,7,8,-9,1,1,2,1,-1,1,1}, float[4] bias = {1,-1,2,-2}, float half = {0.5}> {
        sum = Gemm (x, w, bias)
        other_gate = Sigmoid (sum)
        z = Neg (other_gate)
        small = Mul (other_gate, half)
        twin = Mul (sum, small)
        y = Tanh (twin)
    }"""


@pytest.mark.parametrize("budget", [1, 500, None])
@pytest.mark.parametrize("wrong", ["", "sum", "twin", "small"])
def test_a_rewritten_model_pairs_by_the_names_that_are_left(budget: int | None, wrong: str) -> None:
    """``gate`` and ``gated`` are gone; what is between ``sum`` and ``twin`` counts as one layer of the target."""
    found = compare_models(
        onnx.parser.parse_model(ORIGINAL), onnx.parser.parse_model(FUSED), reference=ORT, target=Wrong(wrong),
        layers=LayerOptions(memory=budget), samples=2,
    )  # fmt: skip
    assert [r.tensor for r in found.layers] == ["sum", "twin", "y", "z"]
    assert set(found.unmatched) == {"product", "gate", "gated"} and not found.unobserved
    named = {"": None, "small": "twin"}.get(wrong, wrong)
    assert [r.tensor for r in found.layers if r.verdict is Verdict.WRONG] == ([named] if named else [])
    assert (found.first.tensor if found.first else None) == named


@pytest.mark.parametrize("budget", [1, None])
def test_a_difference_from_before_a_rewrite_is_inherited_behind_it(budget: int | None) -> None:
    found = compare_models(
        onnx.parser.parse_model(FUSED), onnx.parser.parse_model(ORIGINAL), reference=ORT, target=Wrong("gate"),
        layers=LayerOptions(memory=budget),
    )  # fmt: skip
    # What computes twin and z in the target holds the gate, so the fault is theirs; y only inherits it.
    verdicts = {r.tensor: r.verdict for r in found.layers}
    assert verdicts == {
        "sum": Verdict.AGREE, "z": Verdict.WRONG, "twin": Verdict.WRONG, "y": Verdict.INHERITS,
    }  # fmt: skip
