"""What a layer adds, what it was handed, and what becomes of engines that fail on the way."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon_debug.comparison import Comparison, TensorResult
from surgeon_debug.layers import as_engine, compare_models
from surgeon_debug.pair import LayerOptions
from surgeon_debug.runners.contract import Engine
from surgeon_debug.triple import Triple
from surgeon_debug.verdict import Verdict
from surgeon_passes.errors import EngineError
from tests.debug.test_layers import branched
from tests.debug.troubled_runners import Flaky
from tests.debug.widened import widened
from tests.debug.wrong_runner import Wrong
from tests.numeric import feeds_of
from tests.numeric import run as run_bare
from tests.random_models import models

ORT = "onnxruntime:optimize=none,threads=1"
TROUBLED = f"{Path(__file__).parent / 'troubled_runners.py'}:Troubled"

Array = np.ndarray


@functools.cache
def engine() -> Engine:
    return as_engine(ORT)


def by_name(found: Comparison) -> dict[str, TensorResult]:
    return {result.tensor: result for result in found.layers}


def shown(proto: onnx.ModelProto, names: list[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Tensors of the main graph under plain onnxruntime."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    present = {output.name for output in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    found = run_bare(copy, dict(feeds))
    return {name: found[name] for name in names}


def by_hand(proto: onnx.ModelProto, node: onnx.NodeProto, values: Mapping[str, Array]) -> Array:
    """What one node computes from given values."""
    weights = [tensor for tensor in proto.graph.initializer if tensor.name in node.input]
    fed = {name: values[name] for name in node.input if name in values}
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in fed.items()
    ]
    graph = onnx.helper.make_graph([node], "alone", inputs, [onnx.ValueInfoProto(name=node.output[0])], weights)
    model = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=8)
    return run_bare(model, fed)[node.output[0]]


def norm(arrays: list[Array]) -> float:
    return math.sqrt(sum(float(np.sum(np.square(array.astype(np.float64)))) for array in arrays))


@pytest.mark.parametrize("tensor", ["a", "left2", "right2", "joined", "z"])
@pytest.mark.parametrize("memory", [1, None])
def test_introduced_and_inherited_are_what_feeding_each_node_by_hand_gives(tensor: str, memory: int | None) -> None:
    proto, gain = branched(), 1.03
    feeds = [feeds_of(proto, {"N": 3}, seed) for seed in range(2)]
    names = [node.output[0] for node in proto.graph.node]
    spoiled = onnx.ModelProto.FromString(proto.SerializeToString())
    at = names.index(tensor)
    spoiled.graph.node[at].output[0] = "before"
    spoiled.graph.initializer.append(onnx.numpy_helper.from_array(np.array(gain, np.float32), "factor"))
    spoiled.graph.node.insert(at + 1, onnx.helper.make_node("Mul", ["before", "factor"], [tensor]))
    ours = [shown(proto, names, sample) for sample in feeds]
    theirs = [shown(spoiled, names, sample) for sample in feeds]
    found = by_name(
        compare_models(
            proto, reference=engine(), target=Wrong(tensor, gain), feeds=feeds, layers=LayerOptions(memory=memory)
        )
    )
    for node in proto.graph.node:
        name = node.output[0]
        alone = [by_hand(proto, node, {**sample, **fed}) for sample, fed in zip(ours, feeds, strict=True)]
        if name == tensor:
            alone = [value * np.float32(gain) for value in alone]
        r, t = [sample[name] for sample in ours], [sample[name] for sample in theirs]
        introduced = norm([i.astype(np.float64) - s for i, s in zip(alone, r, strict=True)]) / norm(r)
        inherited = norm([s.astype(np.float64) - i for i, s in zip(alone, t, strict=True)]) / norm(r)
        total = norm([s.astype(np.float64) - o for o, s in zip(r, t, strict=True)]) / norm(r)
        result = found[name]
        assert result.screen is not None
        assert result.introduced == pytest.approx(introduced, rel=1e-9), name
        assert result.inherited == pytest.approx(inherited, rel=1e-9), name
        assert result.screen.rel_l2 == pytest.approx(total, rel=1e-9), name


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(proto=models(20).map(widened), data=st.data())
def test_the_parts_of_every_error_fit_together(proto: onnx.ModelProto, data: st.DataObject) -> None:
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    floats = {v.name for v in (*inferred.value_info, *inferred.output) if v.type.tensor_type.elem_type == 1}
    tensor = data.draw(st.sampled_from([n for node in proto.graph.node for n in node.output if n in floats]))
    target = Wrong(tensor, data.draw(st.sampled_from([1.5, -1.0, 1.0001])))
    found = compare_models(proto, reference=engine(), target=target, feeds=[feeds_of(proto)], layers=True)
    for result in found.layers:
        assert result.screen is not None
        if result.introduced is None or result.screen.exact or not math.isfinite(result.screen.rel_l2):
            continue
        assert result.inherited is not None
        total, introduced, inherited = result.screen.rel_l2, result.introduced, result.inherited
        if math.isfinite(introduced + inherited):
            assert abs(introduced - inherited) * (1 - 1e-9) <= total <= (introduced + inherited) * (1 + 1e-9)
        if result.tensor != tensor:
            assert introduced == 0.0, result.tensor


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]), wide=st.booleans())
def test_the_energies_of_a_triple_are_those_of_the_differences(seed: int, scale: float, wide: bool) -> None:
    rng = np.random.default_rng(seed)
    dtype = np.float64 if wide else np.float32
    r, t, i = (np.asarray(rng.standard_normal((3, 5)) * scale, dtype) for _ in range(3))
    i[rng.random((3, 5)) < 0.5] = r[0, 0]
    triple = Triple()
    triple.add(r, t, i)
    for screen, one, two in ((triple.total, r, t), (triple.introduced, r, i), (triple.inherited, i, t)):
        difference = two.astype(np.float64) - one.astype(np.float64)
        assert screen.dd.value == pytest.approx(float(np.sum((difference / scale) ** 2)) * scale**2, rel=1e-12)
    mixed = np.sum(((t.astype(np.float64) - i) / scale) * ((i.astype(np.float64) - r) / scale)) * scale**2
    assert triple.total.dd.value == pytest.approx(
        triple.introduced.dd.value + triple.inherited.dd.value + 2 * mixed, rel=1e-9, abs=1e-9 * scale**2
    )


AMPLIFIERS = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 4] x) => (float[N, 4] square, float[N, 4] root, float[N, 4] ten, float[N, 4] small, float[N, 4] sum)
    <float[1] near = {99.0}, float[1] tenth = {0.1}> {
        a = Relu (x)
        square = Mul (a, a)
        root = Sqrt (a)
        b = Mul (a, tenth)
        ten = Exp (b)
        small = Sub (a, near)
        sum = Add (a, a)
    }"""


def test_amplification_is_the_condition_of_the_operator() -> None:
    """All of x is 100, and off by a millionth: the gain is that of the derivative."""
    found = by_name(
        compare_models(
            onnx.parser.parse_model(AMPLIFIERS), reference=engine(), target=Wrong("a", 1.0001),
            feeds=[{"x": np.full((2, 4), 100, np.float32)}], layers=True,
        )
    )  # fmt: skip
    assert found["a"].introduced == pytest.approx(1e-4, rel=0.01) and found["a"].amplification is None
    expected = {"square": 2.0, "root": 0.5, "ten": 10.0, "small": 100.0, "sum": 1.0, "b": 1.0}
    assert {name: found[name].amplification for name in expected} == {
        name: pytest.approx(gain, rel=0.02) for name, gain in expected.items()
    }
    assert all(found[name].introduced == 0.0 for name in expected)


def test_samples_of_different_shapes() -> None:
    proto = branched()
    feeds = [feeds_of(proto, {"N": size}, seed) for seed, size in enumerate((2, 7, 1))]
    feeds[1] = {name: value * np.float32(3) for name, value in feeds[1].items()}
    for memory in (1, None):
        found = compare_models(
            proto, reference=engine(), target=Wrong("right2", 1.01), feeds=feeds, layers=LayerOptions(memory=memory)
        )
        assert found.samples == 3 and found.first is not None and found.first.tensor == "right2"
        assert [r.tensor for r in found.layers if r.introduced] == ["right2"]
        wrong = by_name(found)["right2"]
        assert wrong.screen is not None and wrong.screen.elements == 40
        assert wrong.attribution is not None
        assert wrong.attribution.introduced_mean == pytest.approx(0.01, rel=1e-3)
    assert by_name(found)["left2"].screen is not None


def test_the_worst_sample_is_named() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) {
        a = Relu (x)
        b = Exp (a)
        y = Neg (b)
    }""")
    feeds = [{"x": np.full(4, size, np.float32)} for size in (0.5, 0.25, 2.0, 0.125)]
    found = by_name(compare_models(proto, reference=engine(), target=AddsTo("b", 0.5), feeds=feeds, layers=True))
    wrong = found["b"].attribution
    assert found["b"].verdict is Verdict.WRONG and wrong is not None
    errors = [0.5 / math.exp(float(sample["x"][0])) for sample in feeds]
    assert wrong.worst_sample == int(np.argmax(errors)) == 3
    assert wrong.introduced_mean == pytest.approx(np.mean(errors), rel=1e-5)


class AddsTo(Wrong):
    """Adds a number to what comes out instead of multiplying it."""

    def __init__(self, tensor: str, number: float) -> None:
        super().__init__()
        self.to, self.number = tensor, number

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = super().run(feeds)
        return {name: v + np.float32(self.number) if name == self.to else v for name, v in found.items()}


def test_a_target_that_never_gives_the_same_twice_is_called_flaky() -> None:
    for layers in (False, True):
        found = compare_models(branched(), reference=engine(), target=Flaky(), layers=layers)
        flaky = dict(found.flaky)
        assert set(flaky) == {"y", "z"} and all(1e-6 < error < 1e-3 for error in flaky.values())
        assert {entry["tensor"] for entry in found.to_json()["flaky"]} == {"y", "z"}
    assert not compare_models(branched(), reference=engine(), target=Wrong("y"), layers=True).flaky


@pytest.mark.parametrize(("trouble", "words"), [("crash", "crashed"), ("refuse", "no kernel for left2")])
def test_a_layer_in_which_the_target_fails_costs_only_itself(trouble: str, words: str) -> None:
    target = f"{TROUBLED}:trouble={trouble},at=left2,tensor=right2"
    found = compare_models(branched(), reference=engine(), target=target, layers=True)
    assert found.first is not None and found.first.tensor == "right2"
    lost = [r for r in found.layers if r.introduced is None]
    assert [r.tensor for r in found.layers] == ["a", "left", "right", "left2", "right2", "joined", "y", "z"]
    assert [r.tensor for r in lost] == ["left2"]
    assert lost[0].attribution is not None and words in lost[0].attribution.unjudged
    assert lost[0].verdict is Verdict.AGREE
    assert [r.tensor for r in found.layers if r.verdict is Verdict.INHERITS] == ["joined", "y", "z"]


def test_a_segment_in_which_the_target_fails_is_judged_layer_by_layer() -> None:
    """``left2`` is first in its segment, which the target cannot run; all the others of it stand alone."""
    target = f"{TROUBLED}:trouble=refuse,at=left2,tensor=right2"
    found = compare_models(branched(), reference=engine(), target=target, layers=LayerOptions(memory=600))
    assert [name for name, _ in found.unobserved] == ["left2"]
    assert found.first is not None and found.first.tensor == "right2"
    assert [r.tensor for r in found.layers] == ["a", "left", "right", "right2", "joined", "y", "z"]
    assert [r.tensor for r in found.layers if r.verdict is not Verdict.AGREE] == ["right2"]
    assert len(found.notes) == 1 and "did not show right2, joined, y" in found.notes[0]
    assert not found.observations


def test_a_layer_in_which_the_target_hangs_costs_its_time_and_nothing_else() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) {
        a = Relu (x)
        y = Sigmoid (a)
    }""")
    target = f"{TROUBLED}:trouble=hang,at=y,tensor=a"
    found = compare_models(proto, reference=engine(), target=target, layers=LayerOptions(memory=1000), timeout=3)
    assert found.first is not None and found.first.tensor == "a" and found.segments == 1
    last = by_name(found)["y"]
    assert last.introduced is None and last.attribution is not None
    assert "3 s" in last.attribution.unjudged or "hang" in last.attribution.unjudged


def test_a_target_that_fails_as_a_whole_says_so() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) {
        y = Sigmoid (x)
    }""")
    with pytest.raises(EngineError, match="crashed"):
        compare_models(proto, reference=engine(), target=f"{TROUBLED}:trouble=crash,at=y", layers=True)


def test_the_target_goes_on_from_the_references_values_where_it_shows_none() -> None:
    """``left`` is read by a later segment, and the target will not say what it was."""
    target = Wrong("joined", refuse="left")
    found = compare_models(branched(), reference=engine(), target=target, layers=LayerOptions(memory=1))
    assert found.first is not None and found.first.tensor == "joined"
    assert [name for name, _ in found.unobserved] == ["left"]
    assert not found.observations
    assert found.notes == ("the target did not show left; what follows was computed from the reference's values",)
    assert [r.tensor for r in found.layers] == ["a", "right", "left2", "right2", "joined", "y", "z"]


@pytest.mark.parametrize("how", ["refuse", "lose"])
def test_layers_reach_further_where_the_reference_shows_nothing(how: str) -> None:
    """Without ``left2`` the layer ``joined`` is computed from ``left``."""
    for wrong, named in (("joined", "joined"), ("left2", "joined"), ("left", "left")):
        reference = Wrong(refuse="left2") if how == "refuse" else Wrong(lose="left2")
        found = compare_models(branched(), reference=reference, target=Wrong(wrong), layers=True)
        assert [name for name, _ in found.unobserved] == ["left2"]
        assert found.first is not None and found.first.tensor == named
        assert [r.tensor for r in found.layers if r.verdict is Verdict.WRONG] == [named]


def test_what_the_reference_cannot_hand_to_later_segments_is_said_to_be_unobserved() -> None:
    options = LayerOptions(memory=1)
    found = compare_models(branched(), reference=Wrong(lose="left2"), target=Wrong("right2"), layers=options)
    assert [name for name, _ in found.unobserved] == ["left2", "joined", "y"]
    assert found.first is not None and found.first.tensor == "right2"
    assert {r.tensor: r.verdict for r in found.outputs} == {"y": Verdict.MISSING, "z": Verdict.DIFFER}


def test_following_alone_tells_nothing_about_blame() -> None:
    found = compare_models(
        branched(), reference=engine(), target=Wrong("left2"), layers=LayerOptions(isolate=False, whole=False)
    )
    assert all(r.introduced is None and r.inherited is None for r in found.layers)
    assert {r.tensor for r in found.layers if r.verdict is Verdict.DIFFER} == {"left2", "joined", "y"}
    assert found.first is not None and found.first.tensor == "left2"
    assert found.notes == ("the target's whole model was not run at once; its outputs are those of the segments",)
    assert {r.tensor: r.verdict for r in found.outputs} == {"y": Verdict.DIFFER, "z": Verdict.AGREE}


def test_progress_counts_layers() -> None:
    seen: list[tuple[int, int]] = []
    options = LayerOptions(memory=1)
    compare_models(
        branched(), reference=engine(), target=Wrong(), layers=options, progress=lambda *step: seen.append(step)
    )
    assert seen == [(i, 8) for i in range(1, 9)]


CHAIN = """
import sys, threading
import numpy as np, onnx
from pathlib import Path
from surgeon_debug.layers import compare_models
from surgeon_debug.pair import LayerOptions

LAYERS, SIDE, BUDGET = 200, 1448, 64 << 20

def chain(layers, side):
    nodes = [onnx.helper.make_node("Neg", [f"t{i}"], [f"t{i + 1}"]) for i in range(layers)]
    ends = [onnx.helper.make_tensor_value_info(name, 1, [side, side]) for name in ("t0", f"t{layers}")]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)

def taken():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem")) << 10

ENGINE = "onnxruntime:optimize=none,threads=1"
compare_models(chain(3, 8), reference=ENGINE, target=ENGINE, layers=True)
before, peak, done = taken(), [0], threading.Event()

def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], taken())

thread = threading.Thread(target=watch)
thread.start()
options = LayerOptions(memory=BUDGET)
found = compare_models(chain(LAYERS, SIDE), reference=ENGINE, target=ENGINE, layers=options)
done.set()
thread.join()
assert found.verdict == "agree" and len(found.layers) == LAYERS, found.verdict
print(found.segments, peak[0] - before)
"""


def test_memory_stays_within_the_budget_however_many_layers_there_are() -> None:
    """200 layers of 8 MB: 1.6 GB pass through this process, three times."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", CHAIN], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    segments, grown = map(int, done.stdout.split())
    assert segments > 30
    # Beside the budget: what the engines are fed, and the inputs and outputs of the model, which are held to the end.
    assert grown < 2 * (64 << 20), grown >> 20
