# ruff: noqa: E501  (one case, one line)
"""sort: any order becomes a computable one, a computable one stays, a cycle is named."""

from __future__ import annotations

import random
import time

import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_passes.conditions import broken_conditions
from surgeon_passes.contract import ChangeLog
from surgeon_passes.errors import BadModelError
from surgeon_passes.graph import from_proto, to_proto
from surgeon_passes.sort import Sort
from surgeon_passes.walk import scopes
from tests.numeric import assert_same_values
from tests.random_models import models

BODIES = """
<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
main (float[3] x, bool c) => (float[3] y)
{
  y = pkg.F(b)
  b = If (c) <
    then_branch = t () => (float[3] t2) { t2 = Add(t1, late) t1 = Exp(x) },
    else_branch = e () => (float[3] e1) { e1 = Relu(x) }
  >
  late = Neg(x)
  other = Abs(x)
}
<domain: "pkg", opset_import: ["" : 17]>
F (v) => (r) { r = Neg(a) a = Exp(v) }
"""


def names(graph):
    return [node.outputs[0].name for node in graph]


def test_bodies_functions_and_what_bodies_capture():
    model = from_proto(onnx.parser.parse_model(BODIES))
    log = ChangeLog()
    Sort().run(model, log)
    assert broken_conditions(model) == []
    assert [names(s.graph) for s in scopes(model)] == [["late", "b", "y", "other"], ["t1", "t2"], ["e1"], ["a", "r"]]
    assert [c.where for c in log.changes] == ["", "If(b)/then_branch", "function:pkg::F"]
    assert log.changes[0].before == ("F(y)", "If(b)")
    onnx.checker.check_model(to_proto(model))
    again = ChangeLog()
    Sort().run(model, again)
    assert not again.changes


def test_each_graph_is_a_change_of_its_own():
    for limit in range(4):
        model = from_proto(onnx.parser.parse_model(BODIES))
        log = ChangeLog(limit=limit)
        Sort().run(model, log)
        assert len(log.changes) == limit
        assert len(broken_conditions(model)) == (4, 2, 1, 0)[limit]


@pytest.mark.parametrize(
    ("body", "cycle"),
    [
        ("a = Add(x, b) b = Neg(a) y = Relu(b)", "Add(a) -> Neg(b) -> Add(a)"),
        ("a = Add(a, x) y = Relu(a)", "Add(a) -> Add(a)"),
        (
            "b = If (c) <then_branch = t () => (float[3] p) { p = Neg(d) }, else_branch = e () => (float[3] q) { q = Neg(x) }> d = Exp(b) y = Relu(d)",
            "If(b) -> Exp(d) -> If(b)",
        ),
        (
            "y = If (c) <then_branch = t () => (float[3] p) { p = Neg(y) }, else_branch = e () => (float[3] q) { q = Neg(x) }>",
            "If(y) -> If(y)",
        ),
    ],
)
def test_a_cycle_is_named_and_nothing_changes(body, cycle):
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> main (float[3] x, bool c) => (float[3] y) {{ {body} last = Exp(u) u = Exp(x) }}'
    )
    model = from_proto(proto)
    order = names(model.graph)
    with pytest.raises(BadModelError) as caught:
        Sort().run(model, ChangeLog())
    turned = cycle.split(" -> ")[:-1]
    turns = [" -> ".join([*turned[i:], *turned[:i], turned[i]]) for i in range(len(turned))]
    assert any(turn in str(caught.value) for turn in turns), str(caught.value)
    assert names(model.graph) == order


def test_a_cycle_inside_a_body_says_where():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]> main (float[3] x, bool c) => (float[3] y) {
          y = If (c) <then_branch = t () => (float[3] p) { p = Neg(q) q = Neg(p) },
                      else_branch = e () => (float[3] r) { r = Neg(x) }> }""")
    with pytest.raises(BadModelError, match=r"If\(y\)/then_branch: has a cycle: Neg"):
        Sort().run(from_proto(proto), ChangeLog())


@settings(max_examples=25, deadline=None)
@given(models(25), st.integers(0, 2**32 - 1))
def test_shuffled_models_compute_the_same(proto, seed):
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(proto)
    nodes = list(proto.graph.node)
    random.Random(seed).shuffle(nodes)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    model = from_proto(shuffled)
    Sort().run(model, ChangeLog())
    assert broken_conditions(model) == []
    assert_same_values(proto, to_proto(model), seeds=range(1))
    untouched, log = from_proto(proto), ChangeLog()
    Sort().run(untouched, log)
    assert not log.changes


def test_twenty_thousand_nodes_backwards():
    times = []
    for count in (2_000, 20_000):
        x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
        nodes, last = [], x
        for i in range(count):
            nodes.append(ir.node("Neg", [last], outputs=[ir.Value(name=f"v{i}")], name=f"n{i}"))
            last = nodes[-1].outputs[0]
        model = ir.Model(ir.Graph([x], [last], nodes=nodes[::-1], opset_imports={"": 17}), ir_version=8)
        started = time.process_time()
        Sort().run(model, ChangeLog())
        times.append(time.process_time() - started)
        assert list(model.graph) == nodes
    assert times[1] < 25 * times[0] + 0.5
