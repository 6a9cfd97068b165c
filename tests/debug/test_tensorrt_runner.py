"""The runner ``tensorrt``, each engine in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.layers import compare_models
from surgeon_debug.observe_ladder import climb
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.self_test import self_test
from surgeon_debug.runners.tensorrt.failures import builder_refused, parser_refused
from surgeon_debug.verdict import Verdict
from surgeon_passes.errors import BadOptionError, EngineError
from tests.debug.tensorrt_places import INSTALLED, net, play, run, saved, x
from tests.simulated_tensorrt.plan import Fault, Where
from tests.tensorrt_engines import DEVICE


def expected(model: Path, outputs: list[str], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with make_engine("onnxruntime:optimize=none") as engine:
        engine.prepare(model, outputs)
        return engine.run(feeds)


def test_it_passes_the_self_test(each_tensorrt: str) -> None:
    with make_engine("tensorrt", isolated=True) as engine:
        self_test(engine)


def test_outputs_and_inner_tensors_by_either_means(each_tensorrt: str, tmp_path: Path) -> None:
    model, names = net(tmp_path), ["y", "c", "a"]
    right = expected(model, names, x())
    for means in ("debug", "output"):
        found = run(model, x(), [*names, "nowhere"], f"tf32=false,observe={means}")
        assert list(found) == names  # what the model lacks is missing, never replaced
        for name in names:
            np.testing.assert_allclose(found[name], right[name], rtol=1e-4, atol=1e-5)


def test_unfused_tensors_are_shown_under_the_models_names(any_tensorrt: str, tmp_path: Path) -> None:
    model = net(tmp_path)
    right = expected(model, ["a", "b", "c", "d", "y"], x())
    found = run(model, x(), ["y", "a", "b", "c", "d"], "tf32=false,debug=unfused")
    assert "y" in found
    if any_tensorrt != DEVICE:
        assert 1 < len(found) < 5  # what is fused away is not there
    for name, value in found.items():
        np.testing.assert_allclose(value, right[name], rtol=1e-4, atol=1e-5)


def through(kind: str, way: str) -> str:
    return f'<ir_version: 11, opset_import: ["" : 23]> g ({kind} x) => ({kind} y) {way}'


@pytest.mark.parametrize(
    ("kind", "dtype", "way"),
    [
        ("float16[2,3]", np.float16, "{ y = Identity (x) }"),
        ("bfloat16[2,3]", ml_dtypes.bfloat16, "{ y = Identity (x) }"),
        ("int32[2,3]", np.int32, "{ y = Identity (x) }"),
        ("int64[2,3]", np.int64, "{ y = Identity (x) }"),
        ("bool[2,3]", np.bool_, "{ y = Identity (x) }"),
        ("uint8[2,3]", np.uint8, "{ f = Cast <to = 1> (x) y = Cast <to = 2> (f) }"),
        (
            "int8[2,3]",
            np.int8,
            "<float s = {0.5}, int8 z = {0}> { f = DequantizeLinear (x, s, z) y = QuantizeLinear (f, s, z) }",
        ),
    ],
)
def test_types(any_tensorrt: str, tmp_path: Path, kind: str, dtype: type, way: str) -> None:
    value = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    found = run(saved(tmp_path, through(kind, way)), {"x": value}, ["y"])["y"]
    assert found.dtype == value.dtype and (found == value).all()


def test_numbers_beyond_32_bits_stay_what_they_are(any_tensorrt: str, tmp_path: Path) -> None:
    value = np.array([1 << 40, -(1 << 62), 3])
    found = run(saved(tmp_path, through("int64[3]", "{ y = Identity (x) }")), {"x": value}, ["y"])["y"]
    assert found.dtype == np.int64 and (found == value).all()


@pytest.mark.parametrize(("kind", "dtype"), [("int4", ml_dtypes.int4), ("float4e2m1", ml_dtypes.float4_e2m1fn)])
def test_two_numbers_to_a_byte(new_tensorrt: str, tmp_path: Path, kind: str, dtype: type) -> None:
    rng = np.random.default_rng(3)
    with make_engine("tensorrt", isolated=True) as engine:
        for shape in ((5,), (3, 5), (1,), (0,), (4, 2)):  # odd numbers of them, too
            sizes = ",".join(map(str, shape))
            text = f"""<ir_version: 11, opset_import: ["" : 23]>
                g ({kind}[{sizes}] x, float[{sizes}] f) => ({kind}[{sizes}] y, float[{sizes}] d, {kind}[{sizes}] same)
                <float s = {{0.5}}, {kind} z = {{0}}>
                {{ d = DequantizeLinear (x, s) y = QuantizeLinear (f, s, z) same = QuantizeLinear (d, s, z) }}"""
            engine.prepare(saved(tmp_path, text), ["y", "d", "same"])
            exact = rng.integers(-4, 5, shape).astype(dtype)
            numbers = exact.astype(np.float32)
            found = engine.run({"x": exact, "f": numbers[::-1] * np.float32(0.5)})
            assert found["y"].dtype == found["same"].dtype == dtype and found["y"].shape == found["d"].shape == shape
            assert (found["d"] == numbers * 0.5).all() and (found["same"].astype(np.float32) == numbers).all()
            assert (found["y"].astype(np.float32) == numbers[::-1]).all()


def test_types_that_tensorrt_lacks_are_said_to_be_so(new_tensorrt: str, tmp_path: Path) -> None:
    for kind, name in (("uint4", "UINT4"), ("string", "STRING"), ("uint16", "UINT16"), ("float8e5m2", "FLOAT8E5M2")):
        with pytest.raises(EngineFailure, match=f"UNSUPPORTED_NODE_DATATYPE.*{name}"):
            run(saved(tmp_path, through(f"{kind}[3]", "{ y = Identity (x) }")), {}, ["y"])


def test_double_is_computed_in_float_and_its_range_is_minded(any_tensorrt: str, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (double[2] x) => (double[2] y) { y = Neg (x) }'
    model = saved(tmp_path, text)
    with make_engine("tensorrt:tf32=false", isolated=True) as engine:
        engine.prepare(model, ["y"])
        third = engine.run({"x": np.array([1 / 3, -2.0])})["y"]
        # The model's type; the numbers are no better than float32, which the engine says.
        assert third.dtype == np.float64 and third.tolist() == [-float(np.float32(1 / 3)), 2.0]
        assert engine.precision == "float32"
        for value in ([np.inf, np.nan], [-1e-300, 0.0]):
            np.testing.assert_array_equal(engine.run({"x": np.array(value)})["y"], -np.float32(value))
        with pytest.raises(EngineFailure, match=r"input 'x' holds float64 numbers that are beyond the .* float32"):
            engine.run({"x": np.array([1e300, 0.0])})


def test_double_models_are_compared_as_float(any_tensorrt: str, tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (double[4, 8] x) => (double[4, 8] y)
        { a = Exp (x) b = Add (a, x) y = Tanh (b) }"""
    found = compare_models(saved(tmp_path, text), target="tensorrt:tf32=false", layers=True)
    assert found.verdict == "agree", found.to_json()
    assert {result.difference.target_dtype for result in found.outputs if result.difference} == {"float64"}
    exact = compare_models(saved(tmp_path, text), target="onnxruntime", layers=False)
    assert exact.outputs[0].judgement.reason != found.outputs[0].judgement.reason  # another tolerance


def test_tensors_of_double_models_that_fusion_has_left_are_known(new_tensorrt: str, tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (double[4, 8] x) => (double[4, 4] y)
        <double[8, 4] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8,
                           0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8}>
        { a = Exp (x) b = MatMul (a, w) y = Tanh (b) }"""
    found = climb(saved(tmp_path, text), target="tensorrt", timeout=60)
    assert found.ladder is not None
    assert {name: row.verdict for row in found.ladder.rows for name in row.tensors} == {
        "a": Verdict.AGREE,
        "y": Verdict.AGREE,
    }


def test_outputs_on_the_host(new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, on_host=("size", "where"))
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (int64[2] size, int64[2, M] where)
        { size = Shape (x) where = NonZero (x) }"""
    with make_engine("tensorrt", isolated=True) as engine:
        engine.prepare(saved(tmp_path, text), ["size", "where"])
        for value in (np.eye(3), np.ones((5, 3)), np.zeros((2, 3)), np.eye(3)):
            found = engine.run({"x": value.astype(np.float32)})
            assert found["size"].tolist() == list(value.shape)
            assert (found["where"] == np.array(np.nonzero(value))).all()


def test_sizes_that_only_the_run_tells(any_tensorrt: str, tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[3,3] x) => (int64[2,M] y, float[3,3] z) { y = NonZero (x) z = Neg (x) }"""
    model = saved(tmp_path, text)
    with make_engine("tensorrt", isolated=True) as engine:
        engine.prepare(model, ["y", "z"])
        for value in (np.eye(3), np.zeros((3, 3)), np.ones((3, 3))):  # the memory for the output grows
            found = engine.run({"x": value.astype(np.float32)})
            assert (found["y"] == np.array(np.nonzero(value))).all() and (found["z"] == -value).all()


def test_sizes_come_from_the_inputs_and_widen(any_tensorrt: str, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) { y = Neg (x) }'
    model = saved(tmp_path, text)
    with make_engine(f"tensorrt:record={tmp_path / 'rec'}", isolated=True) as engine:
        engine.prepare(model, ["y"])
        for rows in (3, 1, 3, 7, 0):
            value = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
            assert (engine.run({"x": value})["y"] == -value).all()
    spans = json.loads((tmp_path / "rec" / "build.json").read_text())["ranges"]
    assert spans == {"x": {"least": [0, 4], "best": [3, 4], "most": [7, 4]}}


def test_given_sizes_are_kept_and_others_refused(any_tensorrt: str, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) { y = Neg (x) }'
    model = saved(tmp_path, text)
    (tmp_path / "p.json").write_text('{"x": {"min": [1, 4], "max": [2, 4]}}')
    for options in ("dims=N=1..2", f"profile={tmp_path / 'p.json'}"):
        with make_engine(f"tensorrt:{options}", isolated=True) as engine:
            engine.prepare(model, ["y"])
            assert engine.run({"x": np.ones((2, 4), np.float32)})["y"].shape == (2, 4)
            with pytest.raises(EngineFailure, match=r"input 'x' of 3x4 is outside the engine's sizes"):
                engine.run({"x": np.ones((3, 4), np.float32)})
            assert engine.run({"x": np.ones((1, 4), np.float32)})["y"].shape == (1, 4)


def test_an_input_that_holds_a_shape(any_tensorrt: str, tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 6] x, int64[2] s) => (float[A, B] y) { y = Reshape (x, s) }"""
    model = saved(tmp_path, text)
    value = np.arange(12, dtype=np.float32).reshape(2, 6)
    with make_engine("tensorrt", isolated=True) as engine:
        engine.prepare(model, ["y"])
        for shape in ((3, 4), (4, 3), (12, 1)):
            assert (engine.run({"x": value, "s": np.array(shape)})["y"] == value.reshape(shape)).all()


def test_an_output_may_lie_over_an_input(new_tensorrt: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, aliased=(("y", "x"),))
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) { y = Neg (x) }'
    value = np.arange(4, dtype=np.float32)
    with make_engine("tensorrt", isolated=True) as engine:
        engine.prepare(saved(tmp_path, text), ["y"])
        for _ in range(2):
            assert (engine.run({"x": value})["y"] == -value).all()


def test_the_parser_names_node_operator_code_and_functions(any_tensorrt: str, tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "my" : 1]> g (float[2,2] x) => (float y) { y = my.Outer (x) }
        <domain: "my", opset_import: ["" : 17, "my" : 1]> Outer (a) => (b) { b = my.Inner (a) }
        <domain: "my", opset_import: ["" : 17]> Inner (a) => (b) { c = Relu (a) b = Det (c) }"""
    with pytest.raises(EngineFailure) as failed:
        run(saved(tmp_path, text), {"x": np.eye(2, dtype=np.float32)}, ["y"])
    words = str(failed.value)
    assert parser_refused(words) and not builder_refused(words) and failed.value.ending is Ending.REFUSED
    assert "(Det) in function Outer > Inner is refused with UNSUPPORTED_NODE" in words


def test_nodes_without_a_name_and_outputs_without_a_type(any_tensorrt: str, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (y, z) { y = Neg (x) z = Neg (x) }'
    model = saved(tmp_path, text)
    before = model.read_bytes()
    assert set(run(model, {"x": np.ones(2, np.float32)}, ["y", "z"], f"record={tmp_path / 'r'}")) == {"y", "z"}
    layers = json.loads((tmp_path / "r" / "build.json").read_text())["layers"]
    assert {node for layer in layers for node in layer["nodes"]} == {"Neg(y)", "Neg(z)"}
    assert model.read_bytes() == before


def test_bad_options(any_tensorrt: str, tmp_path: Path) -> None:
    for options, words in (
        ("level=7", "no optimisation level 7"),
        ("strict=true", "no timing cache"),
        ("pins=p.json", "no timing cache|add cache=FILE"),
        ("level=0,cache=a.cache", "at level 0 tensorrt ignores timing caches"),
        ("observe=closely", "no observe=closely"),
        ("dims=N=3..1", "is no range"),
        ("route=what", "is no knob"),
        ("workspace=much", "not a size"),
        ("colour=red", "no option 'colour'"),
    ):
        with make_engine(f"tensorrt:{options}", isolated=True) as engine, pytest.raises(BadOptionError, match=words):
            engine.ready()


def test_no_gpu_and_a_version_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"needs the package tensorrt, which is not installed; run pip install"):
        make_engine("tensorrt", isolated=True).ready()
    (tmp_path / "tensorrt.py").write_text("__version__ = '10.9.0.34'\nclass IOutputAllocator: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EngineError, match=r"TensorRT 10\.9\.0\.34 lacks .* exists since 10\.0; run pip install"):
        make_engine("tensorrt", isolated=True).ready()
    monkeypatch.syspath_prepend(str(INSTALLED / "11.4"))
    play(monkeypatch, tmp_path, devices=0)
    with pytest.raises(EngineError, match=r"finds no GPU that it can use here.*nvidia-smi"):
        make_engine("tensorrt", isolated=True).ready()


def test_layers_are_compared_and_the_wrong_one_is_named(
    each_simulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node="/c"), amount=0.2))
    found = compare_models(net(tmp_path), target="tensorrt:tf32=false", layers=True)
    assert found.verdict == "differ" and [result.node for result in found.wrong] == ["/c"]


def test_layers_of_a_healthy_engine_agree(any_tensorrt: str, tmp_path: Path) -> None:
    found = compare_models(net(tmp_path), target="tensorrt", layers=True)
    assert found.verdict == "agree" and not found.wrong
