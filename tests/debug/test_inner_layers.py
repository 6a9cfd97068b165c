"""Layers inside loops, branches and functions: which tensor, in which iteration."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.comparison import Comparison, TensorResult
from surgeon_debug.layers import as_engine, compare_models
from surgeon_debug.pair import LayerOptions
from surgeon_debug.runners.contract import Engine
from surgeon_debug.verdict import Verdict
from tests.debug.wrong_runner import Wrong
from tests.numeric import feeds_of

ORT = "onnxruntime:optimize=none,threads=1"
REFERENCE = "reference"


@functools.cache
def one() -> Engine:
    return as_engine(ORT)


@functools.cache
def two() -> Engine:
    return as_engine(ORT)


@functools.cache
def evaluator() -> Engine:
    return as_engine(REFERENCE)


WEIGHT = np.array([[0.5, -1, 0.25, 1], [1, 0.5, -0.5, 0.25], [-1, 1, 0.5, 0.5], [0.25, 0.5, 1, -1]], np.float32)


def parsed(text: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    onnx.checker.check_model(proto)
    return proto


def by_name(found: Comparison) -> dict[str, TensorResult]:
    return {result.tensor: result for result in found.layers}


def wrong(found: Comparison) -> list[str]:
    return [result.tensor for result in found.layers if result.verdict is Verdict.WRONG]


LOOP = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 4] x) => (float[2, 4] y, float[6, 2, 4] all) <int64 trips = {6}, bool go = {1}, float half = {0.5}> {
        start = Tanh (x)
        [loop] last, all = Loop (trips, go, start) <body = b (int64 i, bool c, float[2, 4] h)
            => (bool on, float[2, 4] next, float[2, 4] seen) {
                on = Identity (c)
                m = MatMul (h, w)
                n = Tanh (m)
                scaled = Mul (n, FACTOR)
                next = Add (scaled, x)
                seen = Neg (next)
            }>
        y = Exp (last)
    }"""


def loop(at: int | None = None) -> onnx.ModelProto:
    """A loop; in iteration ``at`` something is multiplied by another number."""
    if at is None:
        return parsed(LOOP.replace("FACTOR", "half"))
    other = f"""at = Constant <value_int = {at}> ()
        hit = Equal (i, at)
        off = Constant <value_float = 0.8> ()
        factor = Where (hit, off, half)
        scaled = Mul (n, factor)"""
    return parsed(LOOP.replace("scaled = Mul (n, FACTOR)", other))


@pytest.mark.parametrize(("at", "memory"), [(0, None), (2, 1), (2, None), (5, None)])
def test_a_fault_in_one_iteration_is_named_with_that_iteration(at: int, memory: int | None) -> None:
    found = compare_models(loop(), loop(at), reference=one(), target=two(), layers=LayerOptions(memory=memory))
    assert found.verdict == "differ"
    assert wrong(found) == ["loop/body/scaled"]
    assert found.first is not None and (found.first.tensor, found.first.op) == ("loop/body/scaled", "Mul")
    assert found.first.node.startswith("loop/body/")
    assert found.first.attribution is not None and found.first.attribution.onset == (at,)
    assert found.first.judgement.reason.endswith(f"; first in iteration {at} of loop")
    assert found.first.difference is not None and found.first.difference.worst is not None
    assert at <= found.first.difference.worst.index[0] < 6
    layers = by_name(found)
    for name in ("last", "all"):
        assert layers[name].verdict is Verdict.INHERITS
        assert "loop/body/scaled inside loop is wrong before it" in layers[name].judgement.reason
    assert layers["start"].verdict is Verdict.AGREE and layers["y"].verdict is Verdict.INHERITS


@pytest.mark.parametrize("runner", [ORT, REFERENCE])
def test_a_right_loop_is_right_inside(runner: str) -> None:
    """In processes of their own, as usual."""
    found = compare_models(loop(), reference=ORT, target=runner, layers=True)
    assert found.verdict == "agree" and not found.wrong
    inner = [r.tensor for r in found.layers if "/" in r.tensor]
    assert inner == ["loop/body/m", "loop/body/n", "loop/body/scaled", "loop/body/next"] and not found.unobserved


def test_only_so_many_iterations_and_tensors_are_compared() -> None:
    feeds = [feeds_of(loop())]
    late, early = (
        compare_models(loop(), loop(at), reference=one(), target=two(), feeds=feeds, layers=LayerOptions(iterations=3))
        for at in (4, 1)
    )
    shapes = {r.tensor: r.screen.shape for r in early.layers if r.screen is not None}
    assert shapes["loop/body/m"] == (3, 2, 4) and shapes["all"] == (6, 2, 4)
    assert wrong(early) == ["loop/body/scaled"]
    # Beyond the iterations that are looked at the blame stays with the node.
    assert set(wrong(late)) == {"last", "all"}
    single = compare_models(loop(), loop(1), reference=one(), target=two(), feeds=feeds, layers=LayerOptions(inner=1))
    assert sum("/" in r.tensor for r in single.layers) == 1
    assert any("more than the limit" in why for _, why in single.unobserved)
    none = compare_models(loop(), loop(1), reference=one(), target=two(), feeds=feeds, layers=LayerOptions(inner=0))
    assert not any("/" in r.tensor for r in none.layers) and set(wrong(none)) == {"last", "all"}


def test_the_interface_and_the_outputs_stay_as_they_are() -> None:
    found = compare_models(loop(), loop(2), reference=one(), target=two(), layers=True)
    plain = compare_models(loop(), loop(2), reference=one(), target=two())
    assert [r.tensor for r in found.outputs] == ["y", "all"]
    shown, bare = (c.to_json()["outputs"] for c in (found, plain))
    assert [r["difference"] for r in shown] == [r["difference"] for r in bare]


BRANCH = """<ir_version: 8, opset_import: ["" : 17]> g (float[2, 4] x, bool c) => (float[2, 4] y) <float half = {0.5}> {
        a = Tanh (x)
        [pick] b = If (c) <
            then_branch = t () => (float[2, 4] p) {
                m = MatMul (a, w)
                n = Sigmoid (THEN)
                p = Mul (n, half)
            },
            else_branch = e () => (float[2, 4] q) {
                k = Exp (ELSE)
                q = Add (k, a)
            }>
        y = Neg (b)
    }"""


def branch(then: str = "m", other: str = "a") -> onnx.ModelProto:
    return parsed(BRANCH.replace("THEN", then).replace("ELSE", other))


@pytest.mark.parametrize("taken", [True, False])
def test_a_fault_in_a_branch_is_named_if_the_branch_is_taken(taken: bool) -> None:
    feeds = [{"x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4), "c": np.array(taken)}]
    found = compare_models(branch(), branch(then="x"), reference=one(), target=two(), feeds=feeds, layers=True)
    layers = by_name(found)
    assert "pick/then_branch/m" not in wrong(found)
    if taken:
        assert wrong(found) == ["pick/then_branch/n"]
        assert layers["b"].verdict is Verdict.INHERITS
    else:
        assert found.verdict == "agree" and not found.wrong
        # What is not computed has no elements, and nobody is to blame for it.
        assert all(r.verdict is Verdict.AGREE for r in found.layers)


def test_both_branches_over_two_samples() -> None:
    """What has elements in one sample and none in the other is judged by what there is."""
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    feeds = [{"x": x, "c": np.array(taken)} for taken in (True, False)]
    for memory in (1, None):
        right = compare_models(branch(), reference=one(), target=two(), feeds=feeds, layers=LayerOptions(memory=memory))
        assert right.verdict == "agree" and not right.wrong and not right.unobserved
        found = compare_models(
            branch(), branch(other="x"), reference=one(), target=two(), feeds=feeds, layers=LayerOptions(memory=memory)
        )
        assert wrong(found) == ["pick/else_branch/k"]
        assert by_name(found)["pick/else_branch/k"].attribution is not None


SCAN = """<ir_version: 8, opset_import: ["" : 17]> g (float[5, 4] x) => (float[4] y, float[5, 4] all) {
        zero = Constant <value = float[4] {0, 0, 0, 0}> ()
        [scan] y, all = Scan <num_scan_inputs = 1, body = b (float[4] h, float[4] row) => (float[4] next, float[4] o) {
            s = Add (h, row)
            next = OP (s)
            t = MatMul (next, w)
            o = Neg (t)
        }> (zero, x)
    }"""


def test_a_fault_in_a_scan() -> None:
    proto, other = (parsed(SCAN.replace("OP", op)) for op in ("Tanh", "Sigmoid"))
    found = compare_models(proto, other, reference=one(), target=two(), layers=True)
    assert wrong(found) == ["scan/body/next"]
    assert found.first is not None and found.first.node == "scan/body/Tanh(next)"


FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]> g (float[2, 4] x) => (float[2, 4] y) {
        a = Tanh (x)
        [first] b = local.Block (a)
        [second] d = local.Block (b)
        y = Neg (d)
    }
    <domain: "local", opset_import: ["" : 17]> Block (v) => (r) {
        e = Exp (v)
        s = Sqrt (e)
        r = Sub (s, v)
    }"""


@pytest.mark.parametrize("tensor", ["first/e", "second/s", "d"])
@pytest.mark.parametrize("memory", [1, None])
def test_a_fault_in_one_call_of_a_function(tensor: str, memory: int | None) -> None:
    proto = onnx.parser.parse_model(FUNCTION)
    found = compare_models(proto, reference=one(), target=Wrong(tensor), layers=LayerOptions(memory=memory))
    assert wrong(found) == [tensor]
    assert {"first/e", "first/s", "second/e", "second/s"} <= set(by_name(found))
    assert by_name(found)["first/e"].node.startswith("first/") and by_name(found)["first/e"].op == "Exp"


def test_a_loop_in_a_branch_in_a_loop() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2, 4] x) => (float[2, 4] y)
        <int64 trips = {3}, int64 two = {2}, bool go = {1}> {
            [outer] y = Loop (trips, go, x) <body = b (int64 i, bool c, float[2, 4] h) => (bool on, float[2, 4] o) {
                on = Identity (c)
                last = Equal (i, two)
                [pick] o = If (last) <
                    then_branch = t () => (float[2, 4] p) {
                        [inner] p = Loop (two, go, h) <body = d (int64 j, bool k, float[2, 4] g2)
                            => (bool more, float[2, 4] z) { more = Identity (k)  u = MatMul (g2, w)  z = OP (u) }>
                    },
                    else_branch = e () => (float[2, 4] q) { q = Sigmoid (h) }>
            }>
        }"""
    proto, other = (parsed(text.replace("OP", op)) for op in ("Tanh", "Sin"))
    found = compare_models(proto, other, reference=one(), target=two(), layers=True)
    assert found.verdict == "differ" and found.first is not None
    assert found.first.tensor.startswith("outer/body/pick/then_branch/inner/body/") or found.first.tensor == "y"
    assert len(wrong(found)) == 1


LOOPS = """<ir_version: 8, opset_import: ["" : 17]>
    g (int64 trips, float[3] x) => (float[3] y, float[N] sums, float[N, 3] all)
    <bool go = {START}> {
        h = Neg (x)
        [loop] y, sums, all = Loop (TRIPS, COND, h) <body = b (int64 i, bool c, float[3] CARRIED)
            => (bool on, float[3] next, float s, float[3] o) {
                limit = Constant <value_float = 3.0> ()
                s = ReduceSum <keepdims = 0> (CARRIED)
                on = Less (s, limit)
                one = Constant <value_float = 1.0> ()
                next = Add (CARRIED, one)
                o = Sub (next, x)
            }>
    }"""


@pytest.mark.parametrize(
    ("count", "trips", "condition", "start", "carried"),
    [
        (3, "trips", "go", 1, "v"), (0, "trips", "go", 1, "v"), (3, "trips", "", 1, "v"), (1, "", "go", 1, "v"),
        (3, "trips", "go", 0, "v"), (2, "trips", "go", 1, "h"),
    ],
)  # fmt: skip
def test_the_reference_evaluator_runs_loops_as_onnxruntime_does(
    count: int, trips: str, condition: str, start: int, carried: str
) -> None:
    text = LOOPS.replace("TRIPS", trips).replace("COND", condition).replace("START", str(start))
    proto = onnx.parser.parse_model(text.replace("CARRIED", carried))
    feeds = [{"trips": np.array(count), "x": np.array([0.5, -1, 2], np.float32)}]
    found = compare_models(proto, reference=one(), target=evaluator(), feeds=feeds, layers=True)
    assert found.verdict == "agree" and not found.wrong and not found.unobserved
    assert all(r.difference is not None and not r.difference.mismatch for r in found.outputs)


def test_a_fault_that_the_reference_evaluator_has_in_a_loop() -> None:
    found = compare_models(loop(), loop(2), reference=one(), target=evaluator(), layers=True)
    assert wrong(found) == ["loop/body/scaled"]


def test_bodies_may_use_names_of_the_graph_around_them() -> None:
    """The loop carries its own ``start``, and has a ``y``, which are not those of the main graph."""

    def named(proto: onnx.ModelProto) -> onnx.ModelProto:
        body = next(a.g for node in proto.graph.node for a in node.attribute if a.name == "body")
        body.input[2].name = "start"
        for node in body.node:
            for side in (node.input, node.output):
                for i, name in enumerate(side):
                    side[i] = {"h": "start", "m": "y"}.get(name, name)
        return proto

    right = compare_models(named(loop()), reference=one(), target=two(), layers=True)
    assert right.verdict == "agree" and not right.wrong
    assert all(r.screen is not None and r.screen.equal for r in right.layers)
    found = compare_models(named(loop()), named(loop(2)), reference=one(), target=two(), layers=True)
    assert wrong(found) == ["loop/body/scaled"]


def test_the_file_is_never_changed(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(loop(), str(path))
    before = path.read_bytes()
    assert compare_models(path, reference=one(), target=two(), layers=True).verdict == "agree"
    assert path.read_bytes() == before
