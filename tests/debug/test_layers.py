from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_debug.comparison import Cause
from surgeon_debug.layer_plan import plan_layers
from surgeon_debug.layers import compare_models
from surgeon_debug.limits import Limits
from surgeon_debug.pair import LayerOptions
from surgeon_debug.verdict import Verdict
from surgeon_passes.errors import BadModelError, BadOptionError, EngineError
from tests.debug.wrong_runner import Wrong
from tests.models import FOLDER, index
from tests.numeric import model_of

USER = f"{Path(__file__).parent / 'wrong_runner.py'}"
ORT = "onnxruntime:optimize=none,threads=1"

BRANCHED = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z)
    <float[4, 4] w = {1,2,-3,4,5,-6,7,8,-9,1,1,2,1,-1,1,1}> {
        a = MatMul (x, w)
        left = Relu (a)
        right = Neg (a)
        left2 = Mul (left, left)
        right2 = Sigmoid (right)
        joined = Add (left2, right2)
        y = Sqrt (joined)
        z = Exp (right2)
    }"""


def branched() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(BRANCHED)
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}"
    return proto


@pytest.mark.parametrize("tensor", ["a", "left", "right", "left2", "right2", "joined", "y", "z"])
def test_a_planted_error_is_found_where_it_is(tensor: str) -> None:
    found = compare_models(branched(), reference=ORT, target=f"{USER}:Wrong:tensor={tensor}", layers=True, samples=2)
    assert found.verdict == "differ"
    assert found.first is not None and (found.first.tensor, found.first.node) == (tensor, f"/{tensor}")
    position = {result.tensor: i for i, result in enumerate(found.layers)}
    assert len(position) == 8 and position["a"] < position["left2"] < position["joined"] < position["y"]
    difference = found.first.difference
    assert difference is not None and difference.gain == pytest.approx(0.5)


def test_the_same_on_both_sides_is_equal_everywhere() -> None:
    found = compare_models(branched(), reference=ORT, target=ORT, layers=True)
    assert found.verdict == "agree" and found.first is None
    assert all(r.difference is not None and r.difference.equal for r in found.outputs)
    assert all(r.screen is not None and r.screen.equal and r.introduced == r.inherited == 0.0 for r in found.layers)
    assert not found.observations and not found.notes and not found.unobserved


@pytest.mark.parametrize("gain", ["nan", "inf"])
def test_a_poisoned_layer_is_found(gain: str) -> None:
    found = compare_models(branched(), reference=ORT, target=f"{USER}:Wrong:tensor=left2,gain={gain}", layers=True)
    assert found.first is not None and found.first.tensor == "left2"
    assert "on one side only" in found.first.judgement.reason


def test_an_error_that_hides_when_looked_at_is_reported_as_such() -> None:
    found = compare_models(branched(), reference=ORT, target=f"{USER}:Wrong:tensor=left,hidden=true", layers=True)
    assert found.verdict == "differ" and found.first is None
    (seen,) = found.observations
    assert seen.engine.endswith("hidden=true")
    assert seen.changed == ("y",) and seen.verdict_changed == ("y",)
    assert found.cause is Cause.FUSION


def test_segments_fit_the_memory_and_change_nothing() -> None:
    target = Wrong("right2")
    whole = compare_models(branched(), reference=ORT, target=f"{USER}:Wrong:tensor=right2", layers=True, samples=2)
    found = compare_models(branched(), reference=ORT, target=target, layers=LayerOptions(memory=300), samples=2)
    assert whole.segments == 1 and found.segments > 3
    assert found.first is not None and found.first.tensor == "right2"
    assert json.dumps(found.to_json()["layers"]) == json.dumps(whole.to_json()["layers"])
    assert target.prepared[0] == ["y", "z"] and max(len(names) for names in target.prepared) < 6


def test_a_tensor_that_an_engine_cannot_show_costs_only_itself() -> None:
    found = compare_models(branched(), reference=ORT, target=f"{USER}:Wrong:tensor=joined,refuse=left2", layers=True)
    assert found.first is not None and found.first.tensor == "joined"
    ((name, reason),) = found.unobserved
    assert name == "left2" and "no kernel can show left2" in reason
    found = compare_models(branched(), reference=ORT, target=f"{USER}:Wrong:lose=left2", layers=True)
    assert found.unobserved == (("left2", f"not delivered by {USER}:Wrong:lose=left2"),) and found.verdict == "agree"


def test_an_output_that_is_not_delivered_is_a_difference() -> None:
    found = compare_models(branched(), reference=ORT, target=f"{USER}:Wrong:lose=z")
    assert found.verdict == "differ"
    (missing,) = [r for r in found.outputs if r.verdict is Verdict.MISSING]
    assert missing.tensor == "z" and "not delivered by" in missing.judgement.reason


def test_outputs_of_two_models_are_paired_by_name_never_by_position() -> None:
    renamed = branched()
    renamed.graph.output[1].name = "zz"
    renamed.graph.node[7].output[0] = "zz"
    found = compare_models(branched(), renamed, reference=ORT, target=ORT)
    assert found.verdict == "differ"
    assert {r.tensor: r.verdict for r in found.outputs} == {
        "y": Verdict.AGREE, "z": Verdict.MISSING, "zz": Verdict.MISSING,
    }  # fmt: skip
    swapped = branched()
    outputs = [swapped.graph.output[1], swapped.graph.output[0]]
    copies = [onnx.ValueInfoProto.FromString(o.SerializeToString()) for o in outputs]
    del swapped.graph.output[:]
    swapped.graph.output.extend(copies)
    assert compare_models(branched(), swapped, reference=ORT, target=ORT).verdict == "agree"
    nothing = onnx.parser.parse_model(BRANCHED.replace("y", "p").replace("z", "q"))
    with pytest.raises(BadOptionError, match="no output in common: y, z against p, q"):
        compare_models(branched(), nothing, reference=ORT, target=ORT)


def test_two_models_with_different_inputs() -> None:
    other = branched()
    other.graph.input[0].name = "xx"
    other.graph.node[0].input[0] = "xx"
    with pytest.raises(BadOptionError, match="has an input 'xx' that the first lacks; did it rename 'x'"):
        compare_models(branched(), other, reference=ORT, target=ORT)
    lonely = branched()
    lonely.graph.input.append(onnx.helper.make_tensor_value_info("unused", 1, [2]))
    found = compare_models(lonely, branched(), reference=ORT, target=ORT)
    assert found.verdict == "agree" and found.notes == (
        "the other model has no input unused; only the first is fed with it",
    )


def half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float16 throughout, inputs and outputs too."""
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    for info in (*result.graph.input, *result.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for i, tensor in enumerate(result.graph.initializer):
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        result.graph.initializer[i].CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return result


def test_a_float16_model_is_judged_as_one() -> None:
    found = compare_models(branched(), half(branched()), reference=ORT, target="reference", layers=True)
    assert found.verdict == "agree"
    assert all(r.attribution is not None and r.attribution.precision == "float16" for r in found.layers)
    assert any("explained by float16" in r.judgement.reason for r in found.layers)
    assert "rounded to float16 for the other model" in found.notes[0]


def test_float16_inside_sets_the_tolerance_of_a_float32_output() -> None:
    inside = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) {
        h = Cast <to = 10> (x)
        h2 = Mul (h, h)
        y = Cast <to = 1> (h2)
    }"""
    plain = inside.replace("to = 10", "to = 1")
    found = compare_models(
        onnx.parser.parse_model(plain), onnx.parser.parse_model(inside), reference=ORT, target="reference"
    )
    assert found.verdict == "agree" and "float16" in found.outputs[0].judgement.reason
    back = compare_models(onnx.parser.parse_model(plain), onnx.parser.parse_model(plain), reference=ORT, target=ORT)
    assert back.outputs[0].judgement.reason == "equal"


def test_a_coarse_constant_does_not_loosen_anything() -> None:
    model = model_of("""<ir_version: 10, opset_import: ["" : 21]> g (float[N, 2] x) => (float[N, 2] y)
        <float16[2] w = {1, 2}, int8[2] q = {1, 2}, float scale = {0.5}> {
            wide = Cast <to = 1> (w)
            table = DequantizeLinear (q, scale)
            first = Mul (x, wide)
            y = Add (first, table)
        }""")
    plan = {layer.tensor: layer.precision for layer in plan_layers(model, {})}
    assert plan["y"] == plan["first"] == "float32"


def test_precision_is_followed_through_bodies_and_quantisation() -> None:
    model = model_of("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[N, 2] x, bool c) => (float[N, 2] y, float[N, 2] z, float[N, 2] plain)
        <float scale = {0.5}, uint8 zero = {3}> {
            y = If (c) <
                then_branch = t () => (float[N, 2] p) { h = Cast <to = 16> (x)  p = Cast <to = 1> (h) },
                else_branch = e () => (float[N, 2] q) { q = Identity (x) }>
            ints = QuantizeLinear (x, scale, zero)
            z = DequantizeLinear (ints, scale, zero)
            plain = Neg (x)
        }""")
    plan = {layer.tensor: layer for layer in plan_layers(model, {})}
    assert (plan["y"].precision, plan["z"].precision, plan["plain"].precision) == ("bfloat16", "quantised", "float32")
    assert plan["ints"].rounds_to_integers and not plan["plain"].rounds_to_integers


def test_the_plan_knows_sizes_and_leaves_out_what_nobody_reads() -> None:
    model = model_of("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 8] x) => (float[M, 8] y) {
            c = Constant <value_float = 1.0> ()
            a = Add (x, c)
            kept, mask = Dropout (a)
            y = Relu (kept)
        }""")
    plan = plan_layers(model, {"x": np.zeros((5, 8), np.float32)})
    assert [(layer.tensor, layer.nbytes) for layer in plan] == [("a", 160), ("kept", 160), ("y", 160)]
    assert model.graph.inputs[0].shape is not None and model.graph.inputs[0].shape[0] != 5


def test_random_nodes_are_named() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) {
        [dice] r = RandomNormalLike (x)
        y = Add (x, r)
    }""")
    found = compare_models(model, reference=ORT, target=ORT, layers=True)
    assert found.notes == ("the model draws random numbers (in dice); what follows from them cannot agree",)


def test_a_wrong_layer_is_named_even_where_the_outputs_do_not_show_it() -> None:
    latent = branched()
    latent.graph.node[6].CopyFrom(onnx.helper.make_node("Clip", ["joined", "", "zero"], ["y"], name="/y"))
    latent.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.float32), "zero"))
    found = compare_models(latent, reference=ORT, target=f"{USER}:Wrong:tensor=left2", layers=True)
    assert found.first is not None and found.first.tensor == "left2"
    assert found.verdict == "differ" and found.cause is Cause.LAYER
    assert all(r.verdict is Verdict.AGREE for r in found.outputs)


def test_the_callers_tolerance_goes_everywhere() -> None:
    target = f"{USER}:Wrong:tensor=left,gain=1.00001"
    loose = compare_models(branched(), reference=ORT, target=target)
    assert loose.verdict == "agree" and loose.tolerance == "table"
    strict = compare_models(branched(), reference=ORT, target=target, layers=True, limits=Limits.parse(rtol=1e-7))
    assert strict.verdict == "differ" and strict.tolerance == "rtol=1e-07, atol=0"
    assert strict.first is not None and strict.first.tensor == "left"


def test_what_cannot_run_says_so() -> None:
    with pytest.raises(EngineError, match="its inputs were made up: give real ones with --feeds, or sizes with --dims"):
        compare_models(
            onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[A, B] x) => (float[A, C] y)
            <float[3, 3] w = {1,2,3,4,5,6,7,8,9}> { y = MatMul (x, w) }"""),
            reference=ORT, target=ORT,
        )  # fmt: skip
    with pytest.raises(BadOptionError, match="0 samples show nothing"):
        compare_models(branched(), reference=ORT, target=ORT, samples=0)
    with pytest.raises(BadOptionError, match="no sample to run"):
        compare_models(branched(), reference=ORT, target=ORT, feeds=[])
    with pytest.raises(BadOptionError, match="no input 'X'; did you mean 'x'"):
        compare_models(branched(), reference=ORT, target=ORT, feeds=[{"X": np.zeros((1, 4), np.float32)}])
    with pytest.raises(BadOptionError, match="memory budget of 0"):
        compare_models(branched(), reference=ORT, target=ORT, layers=LayerOptions(memory=0))
    empty = branched()
    del empty.graph.output[:]
    with pytest.raises(BadModelError, match="no outputs"):
        compare_models(empty, reference=ORT, target=ORT)


def test_a_path_a_model_and_a_proto_are_all_models(tmp_path: Path) -> None:
    proto = branched()
    onnx.save(proto, str(tmp_path / "m.onnx"))
    (tmp_path / "m.onnxtxt").write_text(BRANCHED)
    for model in (proto, ir.from_proto(proto), tmp_path / "m.onnx", str(tmp_path / "m.onnxtxt")):
        assert compare_models(model, reference=ORT, target=ORT).verdict == "agree"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnxtxt"]


def test_the_json_document() -> None:
    found = compare_models(branched(), reference=ORT, target=f"{USER}:Wrong:tensor=left2,gain=nan", layers=True)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["schema"] == "surgeon.compare/2" and document["verdict"] == "differ"
    assert document["first"] == {"tensor": "left2", "node": "/left2", "op": "Mul"}
    layer = document["layers"][0]
    assert layer["tensor"] and layer["introduced"] == 0.0 and layer["verdict"] in ("agree", "inherits")
    assert document["cause"] == "layer"
    worst = next(r for r in document["layers"] if r["tensor"] == "left2")["difference"]["worst"]
    assert worst["target"] == "nan"


ROWS = [row for row in index() if row["ort"] == "loads" and row["bytes"] < 40_000]


@pytest.mark.skipif(not ROWS, reason="the public models are not here")
@pytest.mark.parametrize("offset", range(4))
def test_public_models_agree_with_themselves_whatever_their_types(offset: int) -> None:
    """onnxruntime against itself, every tensor shown: equal, or a clear sentence why not."""
    done = 0
    for row in ROWS[offset::24]:
        try:
            found = compare_models(FOLDER / row["file"], reference=ORT, target=ORT, layers=True)
        except (EngineError, BadOptionError, BadModelError) as error:
            assert "\n" not in str(error)
            continue
        done += 1
        if not found.notes:
            assert found.verdict == "agree" and found.first is None, row["file"]
            assert all(r.screen is not None and r.screen.equal for r in found.layers), row["file"]
            # Without float16 kernels onnxruntime computes chains in float32, until a tensor between is shown.
            half_types = any("float16" in (r.screen.reference_dtype if r.screen else "") for r in found.layers)
            assert half_types or not any(seen.changed for seen in found.observations), row["file"]
    assert done >= 10


PAIRS = {
    "reference": ["onnx/backend__test__data__light__light_squeezenet.onnx", "onnx-node/test_scan9_scalar.onnx"],
    "openvino": [
        "onnx/backend__test__data__light__light_bvlc_alexnet.onnx",
        "onnx-mlir/docs__mnist_example__mnist.onnx",
    ],
    "onnxruntime": [
        "onnxruntime/onnxruntime__test__testdata__transform__fusion__gelu.onnx",
        "onnxruntime/onnxruntime__test__testdata__transform__fusion__embed_layer_norm_format5.onnx",
    ],
}


@pytest.mark.skipif(not ROWS, reason="the public models are not here")
@pytest.mark.parametrize(("target", "file"), [(target, file) for target, files in PAIRS.items() for file in files])
def test_engines_agree_on_public_models(target: str, file: str) -> None:
    if importlib.util.find_spec(target) is None and target == "openvino":
        pytest.skip("openvino is not installed")
    found = compare_models(FOLDER / file, target=target, layers=True)
    assert found.verdict == "agree" and found.first is None
    assert len(found.layers) >= 1


def test_two_models_in_files_of_one_name_keep_their_own_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for folder, scale in (("one", 1.0), ("two", 1.001)):
        weights = onnx.numpy_helper.from_array((rng.standard_normal((64, 64)) * scale).astype(np.float32), "w")
        text = '<ir_version: 8, opset_import: ["" : 17]> g (float[4, 64] x) => (float[4, 64] y) { y = MatMul (x, w) }'
        model = onnx.parser.parse_model(text)
        model.graph.initializer.append(weights)
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "model.onnx")
        onnx.save(model, str(paths[-1]))
    found = compare_models(*paths, reference=ORT, target=ORT, layers=True)
    assert found.verdict == "differ"
    (layer,) = found.layers
    assert layer.screen is not None and layer.screen.rel_l2 > 0.5  # other numbers altogether
