"""Culprits inside loops, branches and functions, and faults that one shape or one sample of several shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from surgeon_debug.find.finding import Finding, FindOutcome
from surgeon_debug.find.nodes import find_nodes

INNER = f"{Path(__file__).with_name('inner_runner.py')}:Inner"
REFERENCE = "onnxruntime:optimize=none,threads=1"
WEIGHT = np.array([[0.5, -1, 0.25, 1], [1, 0.5, -0.5, 0.25], [-1, 1, 0.5, 0.5], [0.25, 0.5, 1, -1]], np.float32)

MODEL = """<ir_version: 9, opset_import: ["" : 19, "local" : 1]>
    g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) <int64 trips = {6}, bool go = {1}, float half = {0.5}> {
        start = Tanh (x)
        first = MatMul (start, w)
        [loop] last = Loop (trips, go, first) <body = b (int64 i, bool c, float[n, 4] h)
            => (bool on, float[n, 4] next) {
                on = Identity (c)
                [product] m = MatMul (h, w)
                [squash] t = Tanh (m)
                [scale] scaled = Mul (t, half)
                [add] next = Add (scaled, first)
            }>
        normed = Softmax <axis = -1> (last)
        most = ReduceMax <keepdims = 0> (normed)
        yes = Less (most, half)
        [branch] either = If (yes) <
            then_branch = a () => (float[n, 4] p) {
                [then_add] q = Add (normed, start)
                [then_abs] p = Abs (q)
            },
            else_branch = b () => (float[n, 4] r) {
                [else_sub] s = Sub (normed, start)
                [else_neg] r = Neg (s)
            }>
        [call] called = local.twice (either)
        zero = Constant <value_floats = [0.0, 0.0, 0.0, 0.0]> ()
        [scan] sum, z = Scan <num_scan_inputs = 1, body = e (float[4] carried, float[4] row)
            => (float[4] more, float[4] seen) {
                [scan_add] more = Add (carried, row)
                [scan_sin] seen = Sin (more)
            }> (zero, called)
        y = Exp (called)
    }
    <domain: "local", opset_import: ["" : 19]> twice (a) => (b) {
        [fun_cos] f = Cos (a)
        [fun_abs] g = Abs (f)
        b = Sqrt (g)
    }"""


def model() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(MODEL)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    for node in proto.graph.node:
        node.name = node.name or f"/{node.output[0]}"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def feeds(rows: list[int] | None = None, scale: float = 1.0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"x": (scale * rng.standard_normal((n, 4))).astype(np.float32)} for n in rows or [3]]


def named(found: Finding) -> list[tuple[str, ...]]:
    return [culprit.nodes for culprit in found.culprits]


@pytest.mark.parametrize(
    ("tensor", "node", "inside"),
    [
        ("scaled", "loop", "loop/body/scale"),
        ("m", "loop", "loop/body/product"),
        ("s", "branch", "branch/else_branch/else_sub"),
        ("r", "branch", ""),
        ("more", "scan", "scan/body/scan_add"),
        ("g", "call", "call/fun_abs"),
    ],
)
def test_a_fault_in_a_body_is_the_nodes_that_has_it(tensor: str, node: str, inside: str) -> None:
    target = f"{INNER}:tensor={tensor},gain=1.2,inlined={str(node == 'call').lower()}"
    found = find_nodes(model(), target=target, reference=REFERENCE, feeds=feeds())
    assert found.outcome is FindOutcome.FOUND and named(found) == [(node,)], (found.reason, found.steps)
    assert inside in found.culprits[0].inside, found.culprits[0]
    assert found.culprits[0].found_by == "census" and found.culprits[0].cured


@pytest.mark.parametrize("since", [1, 4])
def test_the_iteration_in_which_it_begins_is_named(since: int) -> None:
    target = f"{INNER}:tensor=scaled,gain=0.5,since={since}"
    found = find_nodes(model(), target=target, reference=REFERENCE, feeds=feeds())
    assert named(found) == [("loop",)], (found.reason, found.steps)
    assert "loop/body/scale" in found.culprits[0].inside
    assert f"iteration {since}" in f"{found.culprits[0].inside} {found.culprits[0].reason}", found.culprits[0]


@pytest.mark.parametrize("census", [True, False])
def test_a_fault_that_one_sample_of_five_shows(census: bool) -> None:
    """And samples of different sizes."""
    samples = feeds([1, 3, 2, 5, 3], scale=0.1)
    samples[3]["x"] *= 30
    target = f"{INNER}:tensor=start,gain=1.5,above=0.9"
    found = find_nodes(model(), target=target, reference=REFERENCE, feeds=samples, census=census)
    assert named(found) == [("/start",)], (found.reason, found.steps)
    assert found.samples == 5 and found.culprits[0].cured
    healthy = find_nodes(model(), target=target, reference=REFERENCE, feeds=samples[:3], census=census)
    assert healthy.outcome is FindOutcome.NOTHING and not healthy.latent


@pytest.mark.parametrize("tensor", ["scaled", "s", "more", "g", "first"])
def test_cuts_alone_name_the_same_nodes(tensor: str) -> None:
    """Without the census, and so without what is inside."""
    owner = {"scaled": "loop", "s": "branch", "more": "scan", "g": "call", "first": "/first"}[tensor]
    target = f"{INNER}:tensor={tensor},gain=1.2"
    found = find_nodes(model(), target=target, reference=REFERENCE, feeds=feeds([2, 4]), census=False)
    assert named(found) == [(owner,)], (found.reason, found.steps)
    assert found.culprits[0].alone and found.culprits[0].cured and found.culprits[0].found_by == "cut"


def test_a_fault_that_goes_away_when_a_function_is_put_into_the_graph_is_no_rounding() -> None:
    """Looking inside replaces the call by its nodes. Each is right to the last bit; so rounding explains nothing."""
    target = f"{INNER}:tensor=g,gain=1.2"
    found = find_nodes(model(), target=target, reference=REFERENCE, feeds=feeds())
    assert named(found) == [("call",)], (found.reason, found.steps)
    assert found.culprits[0].found_by == "cut" and found.culprits[0].cured
