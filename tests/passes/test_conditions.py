"""What is checked around every pass: each rule broken by hand, and each legal oddity let through."""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_passes.conditions import (
    broken_conditions,
    clashing_names,
    dangling_values,
    interface_changes,
    interface_of,
)
from surgeon_passes.graph import from_proto
from surgeon_passes.walk import scopes
from tests.numeric import model_of

BODIES = """
<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
main (float[N,3] x, bool c, float[3] w) => (float[N,3] y)
<float[3] w = {1, 2, 3}, float k = {2}>
{
  a = Add(x, w)
  b = If (c) <
    then_branch = then_graph () => (float[N,3] t) { u = Mul(a, k) t = Relu(u) },
    else_branch = else_graph () => (float[N,3] e) { u = Mul(a, a) e = pkg.Twice(u) }
  >
  y = Identity(b)
}
<domain: "pkg", opset_import: ["" : 17]>
Twice (v) => (r) { u = Constant<value_float = 2.0>() r = Mul(v, u) }
"""


def nodes_by_op(model):
    return {node.op_type: node for scope in scopes(model) for node in scope.graph}


def test_a_good_model_has_no_sentences():
    assert broken_conditions(model_of(BODIES)) == []


def test_names_may_repeat_in_branches_that_do_not_see_each_other():
    model = model_of(BODIES)
    names = [v.name for s in scopes(model) for n in s.graph for v in n.outputs]
    assert names.count("u") == 3
    assert broken_conditions(model) == []


def test_interface_knows_defaults_types_and_symbols():
    ports = interface_of(model_of(BODIES)).inputs
    assert [(p.name, p.has_default) for p in ports] == [("x", False), ("c", False), ("w", True)]
    assert ports[0].shape == ("N", 3)
    assert ports[0].type == "FLOAT"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda g: g.inputs.pop(), "inputs were"),
        (lambda g: setattr(g.outputs[0], "name", "z"), "outputs were"),
        (lambda g: g.initializers.pop("w"), "lost its default"),
        (lambda g: setattr(g.inputs[0], "shape", ir.Shape([2, 3])), "had shape"),
        (lambda g: setattr(g.outputs[0], "type", ir.TensorType(ir.DataType.DOUBLE)), "was FLOAT"),
        (lambda g: setattr(g.outputs[0], "shape", ir.Shape([None, 3])), "had shape"),
    ],
)
def test_a_changed_interface_is_named(change, word):
    model = model_of(BODIES)
    before = interface_of(model)
    change(model.graph)
    (sentence,) = interface_changes(before, interface_of(model))
    assert word in sentence


def test_an_output_may_become_better_known():
    model = model_of(BODIES)
    before = interface_of(model)
    model.graph.outputs[0].shape = ir.Shape([7, 3])
    assert interface_changes(before, interface_of(model)) == []


def swap_first_two(graph):
    first = graph[0]
    graph.remove(first)
    graph.insert_after(graph[0], first)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda m, n: m.graph.initializers.pop("k"),
            ["in If(b)/then_branch: node Mul(u)", "reads 'k', which nothing defines"],
        ),
        (lambda m, n: setattr(n["Add"].outputs[0], "name", "x"), ["'x' is given twice"]),
        (lambda m, n: setattr(m.graph.initializers["k"], "const_value", None), ["'k' has no data"]),
        (lambda m, n: swap_first_two(m.graph), ["reads 'a' before node Add(a) has made it"]),
        (lambda m, n: m.graph.remove(n["Add"]), ["reads 'a', whose node is no longer in the model"]),
        (lambda m, n: n["Identity"].replace_input_with(0, n["Relu"].inputs[0]), ["reads 'u' of another graph"]),
        (lambda m, n: setattr(n["Add"].outputs[0], "name", ""), ["reads a value without a name"]),
        (lambda m, n: m.graph.remove(n["Identity"]), ["nothing makes the output 'y'"]),
        (lambda m, n: n["Add"].replace_input_with(0, n["If"].outputs[0]), ["there is a cycle"]),
        (
            lambda m, n: n["Relu"].replace_input_with(0, n["Identity"].outputs[0]),
            ["there is a cycle: Identity(y) -> If(b) -> Identity(y)"],
        ),
        (lambda m, n: m.graph.outputs.__setitem__(0, ir.Value(name="q")), ["nothing makes the output 'q'"]),
    ],
)
def test_damage_is_named(damage, words):
    model = model_of(BODIES)
    damage(model, nodes_by_op(model))
    sentences = broken_conditions(model)
    for word in words:
        assert any(word in s for s in sentences), sentences


def test_a_value_hidden_by_name_is_found_although_every_name_resolves():
    model = model_of(BODIES)
    then_graph = nodes_by_op(model)["Relu"].graph
    first = then_graph[0]
    first.outputs[0].name = "a"  # the branch now reads its own 'a' where it meant the outer one
    second = then_graph[1]
    second.replace_input_with(0, nodes_by_op(model)["Add"].outputs[0])
    sentences = broken_conditions(model)
    assert any("reads 'a', but another value of that name stands in between" in s for s in sentences), sentences


def test_names_that_clash_are_no_damage_but_are_named():
    model = model_of(BODIES)
    assert clashing_names(model) == []
    by_op = nodes_by_op(model)
    by_op["Relu"].outputs[0].name = "a"
    by_op["Add"].name = by_op["Identity"].name = "n"
    path = "If(b)/then_branch"
    assert clashing_names(model) == [
        f"in {path}: the name 'a' hides a value of an enclosing graph",
        "the node name 'n' is given twice",
    ]
    assert broken_conditions(model) == []


def test_a_branch_may_return_an_outer_value_by_name():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[3] x, bool c) => (float[3] y) {
          a = Relu(x)
          y = If (c) < then_branch = t () => (float[3] a) { }, else_branch = e () => (float[3] n) { n = Neg(x) } >
        }""")
    model = from_proto(proto)
    assert [v.name for v in dangling_values(model)] == ["a"]
    assert broken_conditions(model) == []


def test_sparse_and_known_names_are_not_reported():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]> main (float[3] x) => (float[3] y) { y = Add(x, s) }""")
    assert broken_conditions(from_proto(proto)) == ["node Add(y) reads 's', which nothing defines"]
    assert broken_conditions(from_proto(proto), known_dangling=["s"]) == []
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "i")
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [3]))
    assert broken_conditions(from_proto(proto)) == []


def test_deep_nesting_and_long_graphs_are_linear():
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    nodes, last = [], x
    for i in range(20_000):
        node = ir.node("Add", [last, x], outputs=[ir.Value(name=f"v{i}")], name=f"n{i}")
        nodes.append(node)
        last = node.outputs[0]
    model = ir.Model(ir.Graph([x], [last], nodes=nodes, opset_imports={"": 17}), ir_version=8)
    started = time.process_time()
    assert broken_conditions(model) == []
    assert time.process_time() - started < 0.5
