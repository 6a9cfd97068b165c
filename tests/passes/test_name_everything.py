# ruff: noqa: E501  (one case, one line)
"""name-everything: every name is unique, the model means the same, and the old names can be found again."""

from __future__ import annotations

import collections
import json

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given, settings

from surgeon_passes.conditions import broken_conditions, clashing_names, interface_changes, interface_of
from surgeon_passes.contract import ChangeLog
from surgeon_passes.graph import from_proto, to_proto
from surgeon_passes.name_everything import NAMES_KEY, NameEverything, original_names
from surgeon_passes.walk import function_scope, main_scope, scopes, scopes_in
from tests.numeric import assert_same_values
from tests.random_models import models

SHADOWS = """
<ir_version: 8, opset_import: ["" : 17, "pkg" : 1]>
main (float[3] x, bool c) => (float[3] y)
<float[3] w = {1, 2, 3}>
{
  [same] a = Neg(x)
  b = If (c) <
    then_branch = t () => (float[3] o) <float[3] k = {1, 1, 1}> { [same] u = Exp(a) o = Add(u, k) },
    else_branch = e () => (float[3] o) <float[3] k = {2, 2, 2}> { s = Constant<value_float = 1.0>() u = Neg(x) v = Add(u, k) o = Clip(v, , s) }
  >
  h = Constant<value_ints = [1, 1, 3]>()
  q = Reshape(b, h)
  m, i = MaxPool<kernel_shape = [1]>(q)
  y = pkg.F(b)
}
<domain: "pkg", opset_import: ["" : 17]>
F (v) => (r) { a = Exp(v) [same] r = Neg(a) }
"""


def shadows():
    return onnx.parser.parse_model(SHADOWS)


def named(proto, limit=None):
    model = from_proto(proto)
    log = ChangeLog(limit=limit)
    before = interface_of(model)
    NameEverything().run(model, log)
    assert interface_changes(before, interface_of(model)) == []
    assert broken_conditions(model) == clashing_names(model) == []
    return model, log


def assert_unique(model):
    for root in (main_scope(model), *map(function_scope, model.functions.values())):
        tensors, nodes = collections.Counter(), collections.Counter()
        for scope in scopes_in(root):
            tensors.update(v.name for v in scope.graph.inputs)
            tensors.update(n for n, v in scope.graph.initializers.items() if not v.is_graph_input())
            tensors.update(v.name for node in scope.graph for v in node.outputs if v.name)
            nodes.update(node.name for node in scope.graph)
        assert set(tensors.values()) <= {1}
        assert set(nodes.values()) <= {1}
        assert "" not in nodes
        assert None not in nodes


def test_names_are_unique_and_the_old_ones_are_remembered():
    proto = shadows()
    model, log = named(shadows())
    assert_unique(model)
    assert_same_values(proto, to_proto(model))
    found = original_names(model)
    assert found["tensors"] == {"o_1": "o", "k_1": "k", "u_1": "u"}
    assert found["nodes"]["same_1"] == "same"  # the one in a branch
    assert found["nodes"]["MaxPool_m"] == ""
    assert found["nodes"]["function:pkg::F/Exp_a"] == ""
    assert "function:pkg::F/same" not in found["nodes"]
    assert len(log.changes) == sum(len(names) for names in found.values())
    assert json.loads(to_proto(model).metadata_props[0].value) == found


def test_nodes_of_one_name_in_one_graph_which_onnxruntime_refuses():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[3] x) => (float[3] y) { [n] a = Neg(x) [n] b = Exp(a) [n_1] y = Abs(b) }""")
    model = from_proto(proto)
    assert clashing_names(model) == ["the node name 'n' is given twice"]
    NameEverything().run(model, ChangeLog())
    assert [node.name for node in model.graph] == ["n", "n_2", "n_1"]
    assert clashing_names(model) == []


def test_a_second_run_changes_nothing_and_keeps_the_map():
    model, _ = named(shadows())
    stored = model.metadata_props[NAMES_KEY]
    log = ChangeLog()
    NameEverything().run(model, log)
    assert not log.changes
    assert model.metadata_props[NAMES_KEY] == stored


def test_the_first_originals_survive_a_second_renaming():
    model, _ = named(shadows())
    inner = next(v for s in scopes(model) for n in s.graph for v in n.outputs if v.name == "u_1")
    inner.name = "u"
    model.metadata_props[NAMES_KEY] = json.dumps({"tensors": {"u": "first"}, "nodes": {}})
    NameEverything().run(model, ChangeLog())
    assert inner.name == "u_1"
    assert original_names(model)["tensors"]["u_1"] == "first"


def test_a_broken_map_is_no_map():
    model, _ = named(shadows())
    for text in ("not json", "[]", '{"nodes": 3}'):
        model.metadata_props[NAMES_KEY] = text
        assert original_names(model) == {"nodes": {}, "tensors": {}}


def test_every_prefix_of_renames_is_a_model_of_equal_values():
    proto = shadows()
    total = len(named(shadows())[1].changes)
    for limit in range(total + 1):
        model = from_proto(shadows())
        NameEverything().run(model, ChangeLog(limit=limit))
        assert_same_values(proto, to_proto(model), seeds=range(1))
        assert sum(len(names) for names in original_names(model).values()) == limit


def test_outputs_left_out_and_names_that_something_refers_to_stay():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[3] x, bool c) => (float[3] y) {
          a = Neg(x) b = Exp(s)
          z = If (c) < then_branch = t () => (float[3] a) { },
                       else_branch = e () => (float[3] n) { a = Abs(x) n = Neg(a) } >
          y = Add(z, b) }""")
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "i")
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [3]))
    model = from_proto(proto)
    log = ChangeLog()
    NameEverything().run(model, log)
    assert {v.name for n in model.graph for v in n.inputs} == {"x", "s", "c", "z", "b"}
    assert [d.node for d in log.declined] == ["a"]
    lstm = ir.node("LSTM", [None] * 3, outputs=[ir.Value(name=""), ir.Value(name="h")], name="lstm")
    model.graph.append(lstm)
    NameEverything().run(model, log)
    assert [v.name for v in lstm.outputs] == ["", "h"]


def test_bodies_of_custom_operators_keep_their_ports():
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "my" : 1]>
        main (float[3] x) => (float[3] y) {
          a = Neg(x)
          y = my.Search <encoder = e (float[3] x) => (float[3] a) { b = Exp(x) a = Abs(b) },
                         decoder = d (float[3] x) => (float[3] a) { b = Exp(x) a = Abs(b) }> (a) }""")
    model = from_proto(proto)
    log = ChangeLog()
    NameEverything().run(model, log)
    bodies = [scope.graph for scope in scopes(model) if scope.owner is not None]
    assert [(g.inputs[0].name, g[0].outputs[0].name, g.outputs[0].name) for g in bodies] == [
        ("x", "b", "a"),
        ("x", "b_1", "a"),
    ]
    assert {d.reason for d in log.declined} == {"its name occurs twice, but a custom operator may rely on it"}


@settings(max_examples=25, deadline=None)
@given(models(25))
def test_random_models(proto):
    # onnx_ir renames the tensors of the ModelProto that it was given.
    model, _ = named(onnx.ModelProto.FromString(proto.SerializeToString()))
    assert_unique(model)
    assert_same_values(proto, to_proto(model), seeds=range(1))
