"""Tensors inside bodies and functions become tensors of the main graph, and nothing else changes."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings

from surgeon_passes.errors import BadOptionError
from surgeon_passes.expose_tensors import ExposeTensors
from surgeon_passes.graph import to_proto
from surgeon_passes.observe_bodies import Observed, observe_bodies
from surgeon_passes.walk import scopes
from tests.numeric import assert_same_values, feeds_of, model_of, run
from tests.random_models import models

Feeds = dict[str, np.ndarray]


def text(body: str, opset: int = 17, functions: str = "", more: str = "") -> str:
    return f'<ir_version: 9, opset_import: ["": {opset}{more}]>\n{body}\n{functions}'


def exposed(observed: Observed) -> onnx.ModelProto:
    """The model with every inner tensor as an output."""
    model = observed.model.clone()
    if observed.tensors:
        ExposeTensors(names=tuple(tensor.name for tensor in observed.tensors))(model)
    return to_proto(model)


def by_onnxruntime(proto: onnx.ModelProto, feeds: Feeds, *, optimise: bool = False) -> Feeds:
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def by_reference(proto: onnx.ModelProto, feeds: Feeds) -> Feeds:
    names = [o.name for o in proto.graph.output]
    return dict(zip(names, onnx.reference.ReferenceEvaluator(proto).run(names, feeds), strict=True))


def by_openvino(proto: onnx.ModelProto, feeds: Feeds) -> Feeds:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(proto.SerializeToString()), "CPU", hint)
    result = compiled([feeds[i.name] for i in proto.graph.input])
    return {o.name: result[out] for o, out in zip(proto.graph.output, compiled.outputs, strict=True)}


ENGINES = {"onnxruntime": by_onnxruntime, "reference": by_reference, "openvino": by_openvino}


def observed_values(
    source: str, feeds: Feeds, *, engine: str = "onnxruntime", **options: object
) -> tuple[Observed, Feeds]:
    """Observe a model, check that its outputs keep their bits, and return the inner tensors' values."""
    before = to_proto(model_of(source))
    observed = observe_bodies(model_of(source), **options)  # type: ignore[arg-type]
    proto = exposed(observed)
    onnx.checker.check_model(proto, full_check=True)
    values = ENGINES[engine](proto, feeds)
    for name, value in ENGINES[engine](before, feeds).items():
        np.testing.assert_array_equal(values[name], value, err_msg=name)
    return observed, {tensor.name: values[tensor.name] for tensor in observed.tensors}


RNN = text("""
agraph (float[T,N,3] x, float[N,3] h0, int64 trips) => (float[N,3] last, float[T,N,3] all) {
  yes = Constant<value = bool {1}>()
  [rnn] last, all = Loop(trips, yes, h0) <body = step (int64 i, bool going, float[N,3] h) => (bool on, float[N,3] hn, float[N,3] out) {
    on = Identity(going)
    xi = Gather<axis = 0>(x, i)
    [sum] s = Add(xi, h)
    hn = Tanh(s)
    out = Mul(hn, hn)
  }>
}""")  # noqa: E501


def rnn_by_hand(feeds: Feeds) -> dict[str, list[np.ndarray]]:
    h, seen = feeds["h0"], {"xi": [], "s": [], "hn": []}
    for i in range(int(feeds["trips"])):
        s = feeds["x"][i] + h
        h = np.tanh(s)
        for name, value in (("xi", feeds["x"][i]), ("s", s), ("hn", h)):
            seen[name].append(value)
    return seen


def rnn_feeds(trips: int = 5) -> Feeds:
    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal((6, 2, 3)).astype(np.float32), rng.standard_normal((2, 3)).astype(np.float32)
    return {"x": x, "h0": h0, "trips": np.array(trips)}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("iterations", [3, None])
def test_a_loop_shows_every_iteration_as_unrolled_by_hand(engine, iterations):
    feeds, source = rnn_feeds(), RNN
    if engine == "reference":
        # onnx's evaluator stacks right only what has one dimension.
        source = RNN.replace("N,3", "3")
        feeds.update(x=feeds["x"][:, 0], h0=feeds["h0"][0])
    observed, values = observed_values(source, feeds, engine=engine, iterations=iterations)
    by_hand = rnn_by_hand(feeds)
    assert set(values) == {f"rnn/body/{name}" for name in by_hand}
    for name, expected in by_hand.items():
        kept = np.stack(expected)[:iterations]
        np.testing.assert_allclose(values[f"rnn/body/{name}"], kept, rtol=1e-6, err_msg=name)
    assert observed.declined == ()
    found = observed.find("rnn/body/s")
    assert found is not None and found.stacked and found.owner == "rnn" and found.path == "rnn/body"
    assert (found.tensor, found.node, found.op_type, found.branch) == ("s", "sum", "Add", "")
    assert found.words((3, 1, 0)) == "iteration 3 of rnn, tensor s (Add)"
    assert found.words() == "body of rnn, tensor s (Add)"
    assert found.whole == ("" if iterations is None else "rnn/body/s/all")
    assert [t.order for t in observed.tensors] == list(range(3))
    shown = {value.name for node in observed.model.graph for value in node.outputs}
    known = {"yes", "last", "all", *values}
    assert shown - known == observed.carriers


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_loop_without_iterations_gives_an_empty_stack(engine):
    _, values = observed_values(RNN, rnn_feeds(0), engine=engine)
    assert values["rnn/body/s"].shape[0] == 0


SCAN = text("""
agraph (float[N,4,2] x, float[2] c0) => (float[2] c, float[2,4] y) {
  [scan] c, y = Scan<num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
                     scan_output_axes = [1], scan_output_directions = [1], body = b (float[2] s, float[N,2] row) => (float[2] sn, float[2] out) {
    axes = Constant<value = int64[1] {0}>()
    total = ReduceSum<keepdims = 0>(row, axes)
    sn = Add(total, s)
    out = Neg(sn)
  }>(c0, x)
}""")  # noqa: E501


# onnx's evaluator has no Scan of other axes.
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_scan_shows_its_iterations_in_the_order_of_computation(engine):
    rng = np.random.default_rng(1)
    x, c0 = rng.standard_normal((3, 4, 2)).astype(np.float32), rng.standard_normal(2).astype(np.float32)
    feeds = {"x": x, "c0": c0}
    _, values = observed_values(SCAN, feeds, engine=engine, iterations=3)
    rows = feeds["x"].sum(0)[::-1]
    np.testing.assert_allclose(values["scan/body/total"], rows[:3], rtol=1e-5)
    np.testing.assert_allclose(values["scan/body/sn"], (feeds["c0"] + np.cumsum(rows, 0))[:3], rtol=1e-5)


BRANCHES = text("""
agraph (float[N,3] x, bool c) => (float[N,3] y) {
  [choice] y = If(c) <
    then_branch = t () => (float[N,3] a) {
      m = ReduceMax<keepdims = 0>(x)
      d = Sub(x, m)
      a = Exp(d)
    },
    else_branch = e () => (float[N,3] b) {
      d = Abs(x)
      b = Sqrt(d)
    }>
}""")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("taken", [True, False])
def test_a_branch_shows_what_it_computes_and_nothing_if_it_is_not_taken(engine, taken):
    x = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
    observed, values = observed_values(BRANCHES, {"x": x, "c": np.array(taken)}, engine=engine)
    assert [t.name for t in observed.tensors] == [
        "choice/then_branch/m",
        "choice/then_branch/d",
        "choice/else_branch/d",
    ]
    then, other = values["choice/then_branch/d"], values["choice/else_branch/d"]
    np.testing.assert_array_equal(then, x - 3 if taken else np.zeros((0, 0), np.float32))
    np.testing.assert_array_equal(other, np.zeros((0, 0), np.float32) if taken else np.abs(x))
    np.testing.assert_array_equal(values["choice/then_branch/m"], [3] if taken else [])
    first = observed.tensors[0]
    assert first.branch == "then_branch" and first.flat and not first.stacked
    assert first.words() == "then_branch of choice, tensor m (ReduceMax)"


@pytest.mark.parametrize("optimise", [False, True])
@pytest.mark.parametrize("taken", ["1", "0"])
def test_a_constant_condition_is_no_trouble(taken, optimise):
    source = BRANCHES.replace(", bool c)", ")").replace(
        "[choice]", f"c = Constant<value = bool {{{taken}}}>()\n[choice]"
    )
    x = np.ones((2, 3), np.float32)
    observed = observe_bodies(model_of(source))
    values = by_onnxruntime(exposed(observed), {"x": x}, optimise=optimise)
    assert values["choice/else_branch/d"].shape == ((0, 0) if taken == "1" else (2, 3))
    np.testing.assert_array_equal(values["y"], by_onnxruntime(to_proto(model_of(source)), {"x": x})["y"])


NESTED = text("""
agraph (float[N,3] x, int64 n) => (float[N,3] y) {
  yes = Constant<value = bool {1}>()
  one = Constant<value = int64 {1}>()
  [outer] y = Loop(n, yes, x) <body = o (int64 i, bool c, float[N,3] h) => (bool co, float[N,3] hn) {
    co = Identity(c)
    even = Constant<value = int64 {2}>()
    rest = Mod(i, even)
    odd = Equal(rest, one)
    [pick] p = If(odd) <
      then_branch = t () => (float[N,3] a) { s = Sin(h)  a = Add(s, s) },
      else_branch = e () => (float[N,3] b) { k = Cos(h)  b = Mul(k, k) }>
    [inner] q = Loop(i, yes, p) <body = b (int64 j, bool d, float[N,3] g) => (bool dn, float[N,3] gn) {
      dn = Identity(d)
      e = Neg(g)
      gn = Tanh(e)
    }>
    hn = Add(p, q)
  }>
}""")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_bodies_in_bodies_give_an_axis_for_each_loop(engine):
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    trips, keep = 4, 3
    # OpenVINO loses track of sizes that are only known at run time where the inner loop makes no iteration.
    source = NESTED.replace("N,3", "2,3") if engine == "openvino" else NESTED
    observed, values = observed_values(source, {"x": x, "n": np.array(trips)}, engine=engine, iterations=keep)
    sines, cosines = np.zeros((2, keep, 2, 3), np.float32)
    inner = np.zeros((keep, keep, 2, 3), np.float32)
    h = x
    for i in range(trips):
        p = 2 * np.sin(h) if i % 2 else np.cos(h) ** 2
        if i < keep:
            (sines if i % 2 else cosines)[i] = np.sin(h) if i % 2 else np.cos(h)
        g = p
        for j in range(i):
            if i < keep and j < keep:
                inner[i, j] = -g
            g = np.tanh(-g)
        h = p + g
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(values["outer/body/pick/then_branch/s"], sines, **close)
    np.testing.assert_allclose(values["outer/body/pick/else_branch/k"], cosines, **close)
    np.testing.assert_allclose(values["outer/body/inner/body/e"], inner, **close)
    found = observed.find("outer/body/inner/body/e")
    assert found is not None and found.iteration_axes == 2 and found.padded
    assert found.words((2, 1)) == "iteration 2 of outer, iteration 1 of inner, tensor e (Neg)"
    branch = observed.find("outer/body/pick/then_branch/s")
    assert branch is not None and branch.words((1,)) == "iteration 1 of outer, then_branch of pick, tensor s (Sin)"


def test_a_constant_number_of_inner_iterations_needs_no_padding():
    source = NESTED.replace("Loop(i, yes, p)", "Loop(two, yes, p)").replace(
        "one =", "two = Constant<value = int64 {2}>()\none ="
    )
    x = np.ones((2, 3), np.float32)
    for iterations in (None, 1, 8):
        observed, values = observed_values(source, {"x": x, "n": np.array(3)}, iterations=iterations)
        found = observed.find("outer/body/inner/body/e")
        assert found is not None and not found.padded
        assert values[found.name].shape == (min(3, iterations or 8), min(2, iterations or 8), 2, 3)
    observed = observe_bodies(model_of(NESTED), iterations=None)
    assert observed.find("outer/body/inner/body/e") is None
    assert (
        "outer/body/inner",
        "a loop around it may run it for another number of iterations each time",
    ) in observed.declined


FUNCTIONS = text(
    """
agraph (float[N,3] x, int64 n) => (float[N,3] y) {
  [one] a = local.Twice(x)
  b = local.Twice(a)
  [rec] y = local.Repeat(b, n)
}""",
    more=', "local": 1',
    functions="""
<domain: "local", opset_import: ["": 17]> Twice (v) => (w) { [mid] m = Exp(v)  w = Neg(m) }
<domain: "local", opset_import: ["": 17, "local": 1]> Repeat (v, n) => (w) {
  yes = Constant<value = bool {1}>()
  [loop] w = Loop(n, yes, v) <body = b (int64 i, bool c, h) => (bool co, hn) {
    co = Identity(c)
    s = Sin(h)
    [again] hn = local.Twice(s)
  }>
}""",
)


def test_functions_are_inlined_and_their_tensors_named_after_the_call():
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    observed, values = observed_values(FUNCTIONS, {"x": x, "n": np.array(2)})
    names = [t.name for t in observed.tensors]
    assert names == [
        "one/m",
        "Twice/m",
        "rec/loop/body/s",
        "rec/loop/body/again/m",
        "rec/loop/body/hn",
    ]
    np.testing.assert_allclose(values["one/m"], np.exp(x), rtol=1e-6)
    first = observed.tensors[0]
    assert first.words() == "call one of Twice, tensor m (Exp)" and first.node == "mid"
    assert (first.owner, first.path, first.stacked) == ("one", "one", False)
    again = observe_bodies(model_of(FUNCTIONS.replace("agraph", "other")))
    assert [t.name for t in again.tensors] == names


def declined(source: str, **options: object) -> dict[str, str]:
    return dict(observe_bodies(model_of(source), **options).declined)  # type: ignore[arg-type]


def test_what_changes_its_shape_is_left_alone_unless_the_caller_tries():
    source = text("""
agraph (float[N,3] x, int64 n) => (float[M,3] y) {
  yes = Constant<value = bool {1}>()
  [grow] y = Loop(n, yes, x) <body = b (int64 i, bool c, float[K,3] h) => (bool co, float[K2,3] hn) {
    co = Identity(c)
    e = Exp(h)
    s = Sin(x)
    hn = Concat<axis = 0>(e, s)
  }>
}""")
    reasons = declined(source)
    assert set(reasons) == {"grow/body/e", "grow/body/hn"}
    assert set(reasons.values()) == {"its shape may change from one iteration to the next"}
    x = np.ones((2, 3), np.float32)
    _, values = observed_values(source, {"x": x, "n": np.array(3)})
    assert values["grow/body/s"].shape == (3, 2, 3)
    observed = observe_bodies(model_of(source), unproven=True)
    assert {t.tensor: t.proven for t in observed.tensors} == {"e": False, "s": True, "hn": False}
    with pytest.raises(Exception, match=r"shape|SHAPE|dim"):
        by_onnxruntime(exposed(observed), {"x": x, "n": np.array(3)})


def test_declared_shapes_of_a_body_are_not_believed():
    # The body says [2,3], yet its value grows.
    source = text("""
agraph (float[2,3] x, int64 n) => (float[M,3] y) {
  yes = Constant<value = bool {1}>()
  [grow] y = Loop(n, yes, x) <body = b (int64 i, bool c, float[2,3] h) => (bool co, float[2,3] hn) {
    co = Identity(c)
    e = Exp(h)
    hn = Concat<axis = 0>(e, x)
  }>
}""")
    assert set(declined(source)) == {"grow/body/e", "grow/body/hn"}


def test_shapes_that_two_loops_keep_for_each_other_are_proven():
    source = text("""
agraph (float[N,3] x, float[N,3] z, int64 n) => (float[N,3] y) {
  yes = Constant<value = bool {1}>()
  [a] p, q = Loop(n, yes, x, z) <body = b (int64 i, bool c, float[N,3] u, float[N,3] v) => (bool co, float[N,3] v2, float[N,3] u2) {
    co = Identity(c)
    v2 = Sin(v)
    u2 = Cos(u)
  }>
  [b] y = Loop(n, yes, p) <body = b2 (int64 i2, bool c2, float[N,3] w) => (bool co2, float[N,3] w2) {
    co2 = Identity(c2)
    [in] r = Loop(n, yes, w) <body = b3 (int64 i3, bool c3, float[N,3] g) => (bool co3, float[N,3] g2) {
      co3 = Identity(c3)
      g2 = Tanh(g)
    }>
    w2 = Neg(r)
  }>
}""")  # noqa: E501
    observed, _ = observed_values(
        source, {"x": np.ones((2, 3), np.float32), "z": np.zeros((2, 3), np.float32), "n": np.array(2)}
    )
    assert observed.declined == ()
    assert {"a/body/v2", "b/body/w2", "b/body/r", "b/body/in/body/g2"} <= {t.name for t in observed.tensors}


def test_other_kinds_of_values_are_left_alone_and_said_so():
    source = text("""
agraph (float[2,3] x, int64 n, string[2] words, bool c) => (float[2,3] y) {
  yes = Constant<value = bool {1}>()
  [l] y = Loop(n, yes, x) <body = b (int64 i, bool g, float[2,3] h) => (bool go, float[2,3] hn) {
    go = Identity(g)
    noise = RandomNormal<shape = [2, 3]>()
    list = SequenceConstruct(h, noise)
    sum = ConcatFromSequence<axis = 0>(list)
    said = Identity(words)
    same = Equal(said, words)
    low = ReduceSum<keepdims = 0>(sum)
    zero = Sub(low, low)
    hn = Add(h, zero)
  }>
}""")
    reasons = declined(source)
    assert reasons["l/body/noise"] == "it is drawn at random"
    assert reasons["l/body/list"] == "it is no tensor"
    assert reasons["l/body/said"] == "engines do not carry STRING out of a body"


def test_bodies_of_other_operators_are_left_alone():
    source = text("""
agraph (seq(float[2]) x) => (seq(float[2]) y) {
  [map] y = SequenceMap(x) <body = b (float[2] v) => (float[2] w) { u = Exp(v)  w = Neg(u) }>
}""")
    assert declined(source) == {"map": "nothing may be added to the bodies of SequenceMap"}


def test_the_scan_of_opset_8_is_left_alone():
    source = text(
        """
agraph (float[1,2] c0, float[1,4,2] x) => (float[1,2] c, float[1,4,2] y) {
  [old] c, y = Scan<num_scan_inputs = 1, body = b (float[2] s, float[2] r) => (float[2] sn, float[2] o) {
    t = Exp(r)  sn = Add(s, t)  o = Neg(sn) }>("", c0, x)
}""",
        opset=8,
    )
    assert declined(source) == {"old": "the Scan of opset 8 has a batch dimension of its own"}


def test_limit_skip_and_wrong_options():
    everything = [t.name for t in observe_bodies(model_of(NESTED)).tensors]
    observed = observe_bodies(model_of(NESTED), limit=3)
    assert [t.name for t in observed.tensors] == everything[:3]
    assert observed.declined == ((f"{len(everything) - 3} more tensors", "there are more than the limit"),)
    assert observe_bodies(model_of(NESTED), limit=0).tensors == ()
    assert len(observe_bodies(model_of(FUNCTIONS), limit=1).tensors) == 1
    skipped = observe_bodies(model_of(NESTED), skip={"outer/body/inner", "outer/body/p"})
    assert set(everything) - {t.name for t in skipped.tensors} == {
        "outer/body/inner/body/e",
        "outer/body/inner/body/gn",
        "outer/body/p",
    }
    with pytest.raises(BadOptionError, match="keeps nothing"):
        observe_bodies(model_of(NESTED), iterations=0)
    with pytest.raises(BadOptionError, match="negative"):
        observe_bodies(model_of(NESTED), limit=-1)


def test_odd_outputs_names_and_nodes():
    # Unnamed nodes, one value as two outputs of a body, names used twice.
    source = text("""
agraph (float[2] x, int64 n, bool c) => (float[2] y, float[2] z) {
  yes = Constant<value = bool {1}>()
  y, y2 = Loop(n, yes, x) <body = b (int64 i, bool g, float[2] h) => (bool go, float[2] h2, float[2] h2) {
    go = Identity(g)
    t = Sin(h)
    h2 = Cos(t)
  }>
  z = If(c) <then_branch = t () => (float[2] t) { u = Sin(x)  t = Neg(u) },
             else_branch = e () => (float[2] w) { u = Cos(y)  w = Neg(u) }>
}""")
    model = onnx.parser.parse_model(source)
    proto = to_proto(observe_bodies(ir.from_proto(model)).model)
    onnx.checker.check_model(proto)
    observed = observe_bodies(ir.from_proto(model))
    names = [t.name for t in observed.tensors]
    assert names == [
        "Loop(y)/body/t",
        "If(z)/then_branch/u",
        "If(z)/else_branch/u",
    ]
    feeds = {"x": np.ones(2, np.float32), "n": np.array(2), "c": np.array(True)}
    values = by_onnxruntime(exposed(observed), feeds)
    np.testing.assert_allclose(values["Loop(y)/body/t"][0], np.sin(feeds["x"]), rtol=1e-6)
    for name, value in by_onnxruntime(model, feeds).items():
        np.testing.assert_array_equal(values[name], value)


TYPES = ["float", "double", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]
TYPES += ["uint64", "bool"]


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_gets_out_of_every_body(kind, opset):
    number = getattr(onnx.TensorProto, kind.upper())
    source = text(
        f"""
agraph (float[N,3] x, int64 n, bool c) => (float[N,3] y, float[N,3] z) {{
  yes = Constant<value = bool {{1}}>()
  [l] y = Loop(n, yes, x) <body = b (int64 i, bool g, float[N,3] h) => (bool go, float[N,3] hn) {{
    go = Identity(g)
    [f] h1 = If(c) <then_branch = t () => (float[N,3] tt) {{ ta = Cast<to = {number}>(h)  tt = Cast<to = 1>(ta) }},
                    else_branch = e () => (float[N,3] ee) {{ ea = Cast<to = {number}>(x)  ee = Cast<to = 1>(ea) }}>
    [m] hn = Loop(i, yes, h1) <body = b2 (int64 j, bool g2, float[N,3] k) => (bool go2, float[N,3] kn) {{
      go2 = Identity(g2)
      ka = Cast<to = {number}>(k)
      kn = Cast<to = 1>(ka)
    }}>
  }}>
  [o] z = If(c) <then_branch = t2 () => (float[N,3] t2t) {{ t2a = Cast<to = {number}>(x)  t2t = Cast<to = 1>(t2a) }},
                 else_branch = e2 () => (float[N,3] e2e) {{ e2e = Neg(x) }}>
}}""",
        opset=opset,
    )
    observed = observe_bodies(model_of(source), iterations=2)
    proto = exposed(observed)
    # onnxruntime cannot hand bfloat16 to numpy: what is looked at is cast, as a reader would.
    for i, tensor in enumerate(observed.tensors):
        proto.graph.node.append(onnx.helper.make_node("Cast", [tensor.name], [f"seen_{i}"], to=11))
        rank = len(next(o for o in proto.graph.output if o.name == tensor.name).type.tensor_type.shape.dim)
        proto.graph.output.append(onnx.helper.make_tensor_value_info(f"seen_{i}", 11, [None] * rank))
    kept = [o for o in proto.graph.output if observed.find(o.name) is None]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    for taken in (True, False):
        feeds = {"x": np.ones((2, 3), np.float32), "n": np.array(3), "c": np.array(taken)}
        values = by_onnxruntime(proto, feeds)
        shapes = {t.name: values[f"seen_{i}"].shape for i, t in enumerate(observed.tensors)}
        assert shapes["l/body/f/then_branch/ta"] == shapes["l/body/f/else_branch/ea"] == (2, 2, 3)
        assert shapes["l/body/m/body/ka"] == (2, 2, 2, 3)
        assert shapes["o/then_branch/t2a"] == ((2, 3) if taken else (0, 0))
        for name, value in run(to_proto(model_of(source)), feeds).items():
            np.testing.assert_array_equal(values[name], value)


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 16, 22])
def test_older_and_newer_opsets(opset):
    source = text(
        """
agraph (float[2,3] x, bool c, int64 n, bool yes) => (float[2,3] y, float[2,3] z) {
  [l] y = Loop(n, yes, x) <body = b (int64 i, bool g, float[2,3] h) => (bool go, float[2,3] hn) {
    go = Identity(g)
    t = Tanh(h)
    hn = Neg(t)
  }>
  [f] z = If(c) <then_branch = t1 () => (float[2,3] a) { s = Tanh(x)  a = Neg(s) },
                 else_branch = e1 () => (float[2,3] b) { b = Exp(x) }>
}""",
        opset=opset,
    )
    x = np.ones((2, 3), np.float32)
    for taken in (True, False):
        feeds = {"x": x, "c": np.array(taken), "n": np.array(3), "yes": np.array(True)}
        observed, values = observed_values(source, feeds, iterations=2)
        assert values["l/body/t"].shape == (2, 2, 3)
        if opset < 8:
            assert observed.declined == (("f", "opset 7 has no Expand to fill what is not computed"),)
        else:
            # Branches have to agree in shape before opset 11.
            nothing = (0, 0) if opset >= 11 else (2, 3)
            assert values["f/then_branch/s"].shape == ((2, 3) if taken else nothing)
            assert taken or not values["f/then_branch/s"].any()


@settings(max_examples=40, deadline=None)
@given(models())
def test_random_models_keep_their_outputs(model):
    observed = observe_bodies(ir.from_proto(model), iterations=2)
    later = assert_same_values(model, observed.model, seeds=range(1))
    assert all(tensor.proven for tensor in observed.tensors)
    again = observe_bodies(ir.from_proto(model), iterations=2)
    assert [t.name for t in again.tensors] == [t.name for t in observed.tensors]
    names = [value.name for scope in scopes(observed.model) for node in scope.graph for value in node.outputs]
    assert set(observed.carriers) <= set(names)
    # Everything can really be computed, and looking changes nothing.
    proto = exposed(observed)
    typed = [o for o in proto.graph.output if o.type.tensor_type.elem_type]
    del proto.graph.output[:]
    proto.graph.output.extend(typed)
    feeds = feeds_of(later, seed=0)
    seen, expected = run(proto, feeds), run(model, feeds)
    for name, value in expected.items():
        np.testing.assert_array_equal(seen[name], value, err_msg=name)


def long_loop(count: int) -> ir.Model:
    nodes = "\n".join(f"    t{i + 1} = Tanh(t{i})" for i in range(count))
    return model_of(
        text(f"""
agraph (float[2] x, int64 n) => (float[2] y) {{
  yes = Constant<value = bool {{1}}>()
  [l] y = Loop(n, yes, x) <body = b (int64 i, bool g, float[2] t0) => (bool go, float[2] t{count}) {{
    go = Identity(g)
{nodes}
  }}>
}}""")
    )


def test_work_is_linear_in_nodes():
    """Calls of functions are counted, for a clock depends on what else is going on."""
    calls = []
    for count in (300, 1200):
        model = long_loop(count)
        seen = 0

        def note(frame, event, argument):
            nonlocal seen
            seen += 1

        sys.setprofile(note)
        try:
            observed = observe_bodies(model, limit=10_000)
        finally:
            sys.setprofile(None)
        assert len(observed.tensors) == count
        calls.append(seen)
    assert calls[1] < 4 * 1.5 * calls[0]
