"""Functions on onnx-graphsurgeon graphs as steps: nothing lost where it survived, errors in one sentence."""

from __future__ import annotations

import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper, numpy_helper

from surgeon_passes import graph, save
from surgeon_passes.conditions import broken_conditions
from surgeon_passes.contract import ChangeLog, PassResult
from surgeon_passes.errors import BadOptionError, RefusalError, SurgeonError
from surgeon_passes.foreign_gs import GraphSurgeonFunction, from_spec
from surgeon_passes.spec import spec_of
from tests.numeric import assert_same_values, model_of
from tests.random_models import models


def write(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text("import numpy as np\nimport onnx_graphsurgeon as gs\n" + textwrap.dedent(text))
    return str(path)


def apply(model: ir.Model, folder: Path, text: str, function: str = "f", limit: int | None = None) -> PassResult:
    return from_spec(f"gs:{write(folder, text)}:{function}").run(model, ChangeLog(limit=limit))


RENAME = """
    def f(graph):
        for node in graph.nodes:
            if node.op == "Relu":
                node.op = "Sigmoid"
"""
"""Changes one node and leaves the rest."""


def rich_model() -> onnx.ModelProto:
    """One of everything that graphsurgeon loses."""
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 17, "pkg" : 1, "custom" : 2], producer_name: "maker",
         producer_version: "1.2", domain: "here", model_version: 7, doc_string: "a model">
        rich (float[N, 4] x, float[4] bias, bool flag, optional(float[2]) maybe, seq(float[2]) many) =>
          (float[N, 4] y, float[N, 4] w)
        <float[4] scale = {1, 2, 3, 4}, float[4] unread = {5, 6, 7, 8}, float[4] captured = {1, 1, 2, 2}> {
          [mul] a = Mul(x, scale)
          [relu] r = Relu(a)
          [add] b = Add(a, bias)
          [call] c = pkg.Twice <k = 3.0> (b)
          [choose] d = If(flag) <
            then_branch = t () => (float[N, 4] u) { [in_then] u = Mul(c, captured) },
            else_branch = e () => (float[N, 4] v) { [in_else] v = Add(c, captured) }
          >
          [has] present = OptionalHasElement(maybe)
          [length] size = SequenceLength(many)
          [last] y = Add(d, r)
          [dangling] w = Neg(r)
        }
        <domain: "pkg", opset_import: ["" : 17], doc_string: "a function">
        Twice <k> (p) => (q) {
          [inside] k_value = Constant <value_float: float = @k> ()
          [twice] q = Mul(p, k_value)
        }""")
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1, 1], np.float32), "bias"))
    proto.metadata_props.add(key="model", value="meta")
    proto.graph.metadata_props.add(key="graph", value="meta")
    proto.graph.doc_string = "a graph"
    for node in proto.graph.node:
        node.doc_string = f"doc of {node.name}"
        node.metadata_props.add(key="stack", value=f"trace of {node.name}")
    proto.graph.input[0].doc_string = "the input"
    proto.graph.input[0].type.denotation = "IMAGE"
    proto.graph.input[0].type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
    proto.graph.value_info.add(name="a", doc_string="between").type.CopyFrom(proto.graph.output[0].type)
    annotation = proto.graph.quantization_annotation.add(tensor_name="a")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    odd = helper.make_node("Odd", ["r"], ["odd"], "odd", domain="custom")
    odd.attribute.append(helper.make_attribute("types", [helper.make_tensor_type_proto(1, [2])]))
    odd.attribute.append(helper.make_attribute("tensors", [numpy_helper.from_array(np.array([1, 2], np.float32), "t")]))
    odd.attribute.append(helper.make_attribute("empty", [], attr_type=onnx.AttributeProto.FLOATS))
    odd.attribute.append(helper.make_attribute("documented", 3, doc_string="why three"))
    fnuz = numpy_helper.from_array(np.array([0.5, 1], ml_dtypes.float8_e4m3fnuz), "fnuz")
    proto.graph.initializer.append(fnuz)
    odd.input.append("fnuz")
    proto.graph.node.append(odd)
    proto.functions[0].node[1].doc_string = "doc of twice"
    proto.functions[0].metadata_props.add(key="function", value="meta")
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("sparse", TensorProto.FLOAT, [1], [9.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [2]),
        [4],
    )
    proto.graph.sparse_initializer.append(sparse)
    proto.graph.node.append(helper.make_node("Neg", ["sparse"], ["reads_sparse"], "reads_sparse"))
    return proto


def normal(proto: onnx.ModelProto) -> onnx.ModelProto:
    """With everything whose order means nothing in a fixed order."""
    for holder in (proto.graph.initializer, proto.graph.value_info, proto.metadata_props, proto.opset_import):
        items = sorted(holder, key=lambda item: item.SerializeToString(deterministic=True))
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        del holder[:]
        holder.extend(copies)
    for node in proto.graph.node:
        for holder in (node.attribute,):
            copies = sorted((type(a).FromString(a.SerializeToString()) for a in holder), key=lambda a: a.name)
            del holder[:]
            holder.extend(copies)
    return proto


def test_what_the_function_did_not_touch_comes_back_as_it_was(tmp_path):
    model = graph.from_proto(rich_model())
    before = normal(graph.to_proto(model))
    result = apply(model, tmp_path, RENAME)
    after = normal(graph.to_proto(model))
    (change,) = result.changes
    assert (change.before, change.after) == (("relu",), ("relu",))
    assert result.declined == ()
    expected = onnx.ModelProto.FromString(before.SerializeToString())
    next(node for node in expected.graph.node if node.name == "relu").op_type = "Sigmoid"
    for field in ("node", "input", "output", "initializer", "sparse_initializer", "value_info"):
        assert list(getattr(after.graph, field)) == list(getattr(expected.graph, field)), field
    assert after == expected
    assert broken_conditions(model) == []


def test_a_function_that_changes_nothing_is_no_change(tmp_path):
    model = graph.from_proto(rich_model())
    before = graph.to_proto(model)
    kept = model.graph
    result = apply(
        model, tmp_path, "def f(graph):\n    [t.values for t in graph.tensors().values() if hasattr(t, 'values')]"
    )
    assert result.changes == ()
    assert model.graph is kept
    assert graph.to_proto(model) == before


def test_a_limit_withholds_the_whole_step(tmp_path):
    model = graph.from_proto(rich_model())
    before = graph.to_proto(model)
    assert apply(model, tmp_path, RENAME, limit=0).changes == ()
    assert graph.to_proto(model) == before


def test_values_are_right_after_real_surgery(tmp_path):
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        surgery (float[N, 3] x, bool flag) => (float[N, 3] y)
        <float[3] w = {1, 2, 3}, float[3] k = {0.5, 0.25, 4}> {
          [a] a = Mul(x, w)
          [drop] b = Identity(a)
          [choose] c = If(flag) <
            then_branch = t () => (float[N, 3] u) { [m] u = Mul(b, k) },
            else_branch = e () => (float[N, 3] v) { [p] q = Add(b, k)  [s] v = Sub(q, w) }
          >
          [z] y = Neg(c)
        }""")
    before = ir.to_proto(model)
    result = apply(
        model,
        tmp_path,
        """
        def f(graph):
            (identity,) = [node for node in graph.nodes if node.op == "Identity"]
            source, target = identity.inputs[0], identity.outputs[0]
            for node in graph.nodes:
                bodies = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
                for each in [node, *(inner for body in bodies for inner in body.nodes)]:
                    each.inputs = [source if t is target else t for t in each.inputs]
            graph.cleanup().toposort()
            return graph
        """,
    )
    assert_same_values(before, model)
    assert {"drop"} <= set(result.changes[0].before)
    assert {node.op_type for node in model.graph} == {"Mul", "If", "Neg"}
    # What bodies share stands outside of them once, as it did before.
    assert set(model.graph.initializers) == {"w", "k"}


def test_constants_that_are_changed_or_made_arrive_with_their_type(tmp_path):
    model = graph.from_proto(rich_model())
    apply(
        model,
        tmp_path,
        """
        import ml_dtypes

        def f(graph):
            tensors = graph.tensors()
            tensors["scale"].values = tensors["scale"].values * 2
            tensors["fnuz"].values = tensors["fnuz"].values * 2
            made = [
                gs.Constant("bf16", np.array([1.5], ml_dtypes.bfloat16)),
                gs.Constant("int4", np.array([1, -2, 3], ml_dtypes.int4)),
                gs.Constant("text", np.array(["a", "bc"], object)),
                gs.Constant("scalar", np.array(2.5, np.float64)),
            ]
            graph.nodes.append(gs.Node("Use", "use", domain="custom", inputs=made, outputs=[gs.Variable("used")]))
        """,
    )
    stored = {t.name: t for t in graph.to_proto(model).graph.initializer}
    assert stored["fnuz"].data_type == TensorProto.FLOAT8E4M3FNUZ
    np.testing.assert_array_equal(numpy_helper.to_array(stored["fnuz"]).astype(np.float32), [1, 2])
    np.testing.assert_array_equal(numpy_helper.to_array(stored["scale"]), [2, 4, 6, 8])
    assert stored["bf16"].data_type == TensorProto.BFLOAT16
    assert stored["int4"].data_type == TensorProto.INT4
    np.testing.assert_array_equal(numpy_helper.to_array(stored["int4"]).astype(np.int8), [1, -2, 3])
    assert list(stored["text"].string_data) == [b"a", b"bc"]
    assert (list(stored["scalar"].dims), numpy_helper.to_array(stored["scalar"])) == ([], 2.5)


def test_folding_with_graphsurgeon_works_on_lazy_weights(tmp_path):
    model = model_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        fold (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {3, 4}> {
          [sum] c = Add(a, b)  [use] y = Mul(x, c) }""")
    before = ir.to_proto(model)
    apply(model, tmp_path, "def f(graph):\n    return graph.fold_constants().cleanup().toposort()")
    assert [node.op_type for node in model.graph] == ["Mul"]
    assert_same_values(before, model)


def test_weights_in_files_stay_in_files(tmp_path):
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        stored (float[N, 64] x) => (float[N, 64] y) { [m] m = MatMul(x, w)  [n] n = MatMul(m, v)  [r] y = Relu(n) }""")
    rng = np.random.default_rng(0)
    for name in ("w", "v"):
        array = rng.standard_normal((64, 64)).astype(np.float32) / 8
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save_model(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    proto = onnx.load(tmp_path / "m.onnx")
    model = graph.load(tmp_path / "m.onnx")
    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    apply(
        model,
        tmp_path,
        """
        def f(graph):
            graph.nodes[-1].op = "Sigmoid"
            weight = graph.tensors()["v"]
            assert weight.values.shape == (64, 64)
            weight.name = "renamed"
        """,
    )
    assert model.graph.initializers["w"].const_value is weights["w"]
    assert isinstance(model.graph.initializers["renamed"].const_value, type(weights["v"]))
    save.save(model, tmp_path / "out.onnx")
    later = onnx.load(tmp_path / "out.onnx")
    for node in proto.graph.node:
        node.op_type = node.op_type.replace("Relu", "Sigmoid")
    assert_same_values(proto, later)


def test_a_copy_of_the_graph_is_matched_by_name(tmp_path):
    model = graph.from_proto(rich_model())
    apply(
        model,
        tmp_path,
        """
        def f(graph):
            copied = graph.copy()
            copied.nodes[1].op = "Sigmoid"
            return copied
        """,
    )
    by_name = {node.name: node for node in model.graph}
    assert by_name["add"].doc_string == "doc of add"
    assert by_name["choose"].metadata_props == {"stack": "trace of choose"}
    assert broken_conditions(model) == []


def test_what_cannot_be_put_back_is_reported(tmp_path):
    model = graph.from_proto(rich_model())
    result = apply(
        model,
        tmp_path,
        """
        def f(graph):
            by_name = {node.name: node for node in graph.nodes}
            by_name["odd"].op = "Another"
            by_name["add"].inputs[1] = gs.Constant("other", np.zeros(4, np.float32))
            by_name["mul"].inputs[1] = gs.Constant("fresh", np.ones(4, np.float32))
        """,
    )
    losses = {d.node: d.reason for d in result.declined}
    assert "input with a default" in losses["bias"]
    assert "'scale', which is gone" in losses["a"]
    assert "lost with its operator" in losses["odd"]


def test_overloaded_functions_stay_apart(tmp_path):
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 17, "pkg" : 1]>
        overloads (float[2] x) => (float[2] y) { [one] a = pkg.F(x)  [two] b = pkg.F(a)  [three] y = Relu(b) }
        <domain: "pkg", opset_import: ["" : 17]> F (p) => (q) { q = Neg(p) }
        <domain: "pkg", opset_import: ["" : 17]> F (p) => (q) { q = Exp(p) }""")
    for item, overload in [*zip(proto.functions, "ab", strict=True), *zip(proto.graph.node[:2], "ab", strict=True)]:
        item.overload = overload
    model = graph.from_proto(proto)
    apply(model, tmp_path, RENAME)
    after = graph.to_proto(model)
    assert [(f.overload, f.node[0].op_type) for f in after.functions] == [("a", "Neg"), ("b", "Exp")]
    assert [node.overload for node in after.graph.node] == ["a", "b", ""]


def test_an_unsorted_result_is_sorted_and_a_cycle_refused(tmp_path):
    text = '<ir_version: 8, opset_import: ["" : 17]> m (float[2] x) => (float[2] y) { [a] a = Neg(x)  [b] y = Relu(a) }'
    model = model_of(text)
    apply(model, tmp_path, "def f(graph):\n    graph.nodes.reverse()\n    graph.nodes[0].op = 'Exp'")
    assert [node.name for node in model.graph] == ["a", "b"]
    with pytest.raises(SurgeonError, match="cycle"):
        apply(model_of(text), tmp_path, "def f(graph):\n    graph.nodes[0].inputs[0] = graph.nodes[1].outputs[0]")


def test_arguments_and_the_text_of_a_step(tmp_path):
    path = write(tmp_path, "def f(graph, times, name='n'):\n    graph.name = f'{name}{times + 1}'")
    step = from_spec(f"gs:{path}:f:times=2,name=abc")
    model = model_of('<ir_version: 8, opset_import: ["" : 17]> m (float[2] x) => (float[2] y) { y = Neg(x) }')
    step.run(model, ChangeLog())
    assert model.graph.name == "abc3"
    assert from_spec(spec_of(step)) == step
    assert GraphSurgeonFunction.changes_interface


def test_neighbours_of_the_file_can_be_imported(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("OP = 'Exp'\n")
    model = model_of('<ir_version: 8, opset_import: ["" : 17]> m (float[2] x) => (float[2] y) { y = Neg(x) }')
    apply(model, tmp_path, "import neighbour_of_mine\ndef f(graph):\n    graph.nodes[0].op = neighbour_of_mine.OP")
    assert [node.op_type for node in model.graph] == ["Exp"]


SMALL = '<ir_version: 8, opset_import: ["" : 17]> m (float[2] x) => (float[2] y) { [n] y = Neg(x) }'


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("def g(graph):\n    pass", BadOptionError, "has no function 'f'; it has g"),
        ("def f(graph):\n    return (", BadOptionError, r"mine.py:4: is not valid Python"),
        ("1 / 0", SurgeonError, r"mine.py:3: failed while it was imported: ZeroDivisionError"),
        (
            "def f(graph):\n    x = 1\n    graph.nothing",
            SurgeonError,
            r"mine.py:5: function 'f' failed: AttributeError",
        ),
        ("def f(graph):\n    return 3", SurgeonError, "returned int"),
        ("def f(graph):\n    graph.outputs[0].dtype = None", SurgeonError, "output 'y' has no type"),
    ],
)
def test_errors_are_one_sentence_with_the_line(tmp_path, text, error, message):
    model = model_of(SMALL)
    before = ir.to_proto(model)
    with pytest.raises(error, match=message) as caught:
        apply(model, tmp_path, text)
    assert "\n" not in str(caught.value)
    assert ir.to_proto(model) == before


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BadOptionError, match="no such file"):
        from_spec(f"gs:{tmp_path}/none.py:f").run(model_of(SMALL), ChangeLog())
    for text in ("gs:", "gs:file.txt:f", "gs:./file.py"):
        with pytest.raises(BadOptionError, match="names no function"):
            from_spec(text)


def test_lists_of_graphs_are_refused(tmp_path):
    proto = onnx.parser.parse_model(SMALL)
    body = helper.make_graph([], "body", [], [])
    attribute = helper.make_attribute("bodies", [body, body])
    proto.graph.node.append(helper.make_node("Many", ["x"], ["m"], "many", domain="custom"))
    proto.graph.node[-1].attribute.append(attribute)
    proto.opset_import.add(domain="custom", version=1)
    with pytest.raises(RefusalError, match="'many' holds a list of graphs"):
        apply(graph.from_proto(proto), tmp_path, RENAME)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(models(25))
def test_random_models_go_there_and_back(tmp_path, proto):
    model = graph.from_proto(proto)
    path = write(tmp_path, "def f(graph):\n    graph.name = 'changed'")
    from_spec(f"gs:{path}:f").run(model, ChangeLog())
    assert broken_conditions(model) == []
    assert model.graph.name == "changed"
    assert_same_values(proto, graph.to_proto(model), seeds=range(1))
