"""Passes of onnx_ir's protocol as steps."""

from __future__ import annotations

import dataclasses
import sys

import onnx
import onnx_ir as ir
import pytest

from surgeon_passes import graph
from surgeon_passes.contract import ChangeLog
from surgeon_passes.errors import BadOptionError, SurgeonError
from surgeon_passes.foreign_ir import OnnxIrPass, from_spec
from surgeon_passes.remove_dead import RemoveDead
from surgeon_passes.spec import build, spec_of, split_spec
from tests.numeric import assert_same_values, model_of

COMMON = "onnx_ir.passes.common"

IDENTITIES = """
<ir_version: 8, opset_import: ["" : 17]>
identities (float[N] x, bool flag) => (float[N] y) <float[1] unused = {1}> {
  [first] a = Identity(x)
  [neg] b = Neg(a)
  [choose] c = If(flag) <
    then_branch = t () => (float[N] u) { [inner] i = Identity(b)  [relu] u = Relu(i) },
    else_branch = e () => (float[N] v) { [abs] v = Abs(b) }
  >
  [last] y = Identity(c)
}
"""


class Functional(ir.passes.FunctionalPass):
    """Returns a copy with another name, a new node and a changed domain."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        proto = ir.to_proto(model)
        proto.domain = "changed"
        proto.metadata_props.add(key="by", value="functional")
        proto.graph.node.insert(0, onnx.helper.make_node("Neg", ["x"], ["nowhere"], name="added"))
        return ir.passes.PassResult(ir.from_proto(proto), True)


class Failing(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        raise KeyError("something inside")


class Options(ir.passes.InPlacePass):
    def __init__(self, size: int, *, names: tuple[str, ...] = (), fast: bool = False) -> None:
        self.seen = (size, names, fast)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        model.metadata_props["seen"] = repr(self.seen)
        return ir.passes.PassResult(model, True)


@dataclasses.dataclass(frozen=True)
class Quiet(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, False)


def test_a_pass_runs_as_one_change_that_names_what_went_and_came():
    model = model_of(IDENTITIES)
    before = ir.to_proto(model)
    log = ChangeLog()
    from_spec(f"{COMMON}.IdentityEliminationPass").run(model, log)
    (change,) = log.changes
    assert change.step == "onnx-ir"
    assert set(change.before) == {"first", "last", "choose/then_branch/inner"}
    assert change.after == ()
    assert_same_values(before, model)


def test_initializers_are_named_too():
    model = model_of(IDENTITIES)
    log = ChangeLog()
    from_spec(f"{COMMON}.RemoveUnusedNodesPass").run(model, log)
    assert log.changes[0].before == ("unused",)


@pytest.mark.parametrize(
    "name",
    [
        "CommonSubexpressionEliminationPass",
        "DeduplicateInitializersPass",
        "IdentityEliminationPass",
        "LiftConstantsToInitializersPass",
        "NameFixPass",
        "RemoveUnusedNodesPass",
        "ShapeInferencePass",
        "TopologicalSortPass",
        "CheckerPass",
    ],
)
def test_the_common_passes_work(name):
    model = model_of(IDENTITIES)
    before = ir.to_proto(model)
    from_spec(f"{COMMON}.{name}").run(model, ChangeLog())
    assert_same_values(before, model)


def test_a_limit_withholds_the_whole_step():
    model = model_of(IDENTITIES)
    before = ir.to_proto(model)
    log = ChangeLog(limit=0)
    from_spec(f"{COMMON}.IdentityEliminationPass").run(model, log)
    assert ir.to_proto(model) == before
    assert not log.changes


def test_a_pass_that_does_nothing_is_no_change():
    log = ChangeLog()
    from_spec(f"{__name__}.Quiet").run(model_of(IDENTITIES), log)
    assert not log.changes


def test_the_model_of_a_functional_pass_is_taken_over():
    model = model_of(IDENTITIES)
    model.functions[("a", "b", "")] = ir.Function("a", "b", graph=ir.Graph((), (), nodes=[]), attributes=[])
    log = ChangeLog()
    result = from_spec(f"{__name__}.Functional").run(model, log)
    assert result.model is model
    assert model.domain == "changed"
    assert model.metadata_props == {"by": "functional"}
    assert log.changes[0].after == ("added",)
    assert next(iter(model.graph)).name == "added"
    assert list(model.functions) == [("a", "b", "")]


def test_sparse_initializers_survive_a_functional_pass():
    proto = onnx.parser.parse_model(IDENTITIES)
    values = onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, [1], [5.0])
    indices = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0])
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [2]))
    proto.graph.node.append(onnx.helper.make_node("Neg", ["s"], ["negative"]))
    model = graph.from_proto(proto)
    from_spec(f"{__name__}.Functional").run(model, ChangeLog())
    assert [t.values.name for t in graph.to_proto(model).graph.sparse_initializer] == ["s"]


def test_arguments_are_literals():
    model = model_of(IDENTITIES)
    step = from_spec(f"{__name__}.Options:size=3,names=\"('a','b')\",fast=true")
    step.run(model, ChangeLog())
    assert model.metadata_props["seen"] == "(3, ('a', 'b'), True)"
    name, options = split_spec(spec_of(step))
    assert name == "onnx-ir"
    assert build(OnnxIrPass, options) == step


def test_a_pass_of_ours_by_its_path_is_one_of_ours():
    assert from_spec("surgeon_passes.remove_dead.RemoveDead") == RemoveDead()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.at.All", "cannot be imported"),
        (f"{COMMON}.IdentityEliminationPas", "IdentityEliminationPass"),
        ("onnx_ir.Model", "is not a pass"),
        ("onnx_ir..Model", "dotted path"),
        (f"{__name__}.Options:size=3,colour=red", "does not take these arguments"),
        (f"{__name__}.Options", "does not take these arguments"),
    ],
)
def test_what_is_no_pass_is_said_in_one_sentence(text, message):
    with pytest.raises(BadOptionError, match=message) as caught:
        from_spec(text).run(model_of(IDENTITIES), ChangeLog())
    assert "\n" not in str(caught.value)


def test_a_pass_that_fails_is_a_sentence_too():
    with pytest.raises(SurgeonError, match="Failing failed: KeyError: 'something inside'"):
        from_spec(f"{__name__}.Failing").run(model_of(IDENTITIES), ChangeLog())


def test_a_module_that_fails_on_import(tmp_path, monkeypatch):
    (tmp_path / "broken_on_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadOptionError, match="ZeroDivisionError"):
        from_spec("broken_on_import.Thing")
    assert "broken_on_import" not in sys.modules


def test_changing_the_interface_is_asked_for():
    assert not from_spec(f"{COMMON}.IdentityEliminationPass").changes_interface
    assert from_spec(f"{COMMON}.IdentityEliminationPass:new_interface=true").changes_interface
