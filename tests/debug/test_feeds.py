from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_debug.feeds import inputs_of, make_feeds
from surgeon_debug.values import same
from surgeon_passes.errors import BadModelError, BadOptionError
from tests.numeric import model_of, run

HEAD = '<ir_version: 9, opset_import: ["" : 19]>'


def bert() -> ir.Model:
    proto = onnx.parser.parse_model(f"""{HEAD}
        g (int64[batch, seq] input_ids, int64[batch, seq] attention_mask, int64[batch, seq] token_type_ids,
           int64[batch, seq] position_ids, float[batch, seq, 4] extra) => (float[batch, seq, 4] y)
        <int64[1] axis = {{0}}, int64[1] last = {{2}}> {{
            shifted = Unsqueeze (input_ids, axis)
            flat = Squeeze (shifted, axis)
            a = Gather (words, flat)
            b = Gather (places, position_ids)
            c = Gather (kinds, token_type_ids)
            m = Cast <to = 1> (attention_mask)
            m3 = Unsqueeze (m, last)
            ab = Add (a, b)
            abc = Add (ab, c)
            masked = Mul (abc, m3)
            y = Add (masked, extra)
        }}""")
    for name, rows in (("words", 7), ("places", 9), ("kinds", 2)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((rows, 4), np.float32), name))
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def test_a_language_model_gets_ids_masks_positions_and_types() -> None:
    model = bert()
    feeds = make_feeds(model)
    batch, seq = feeds["input_ids"].shape
    assert batch == 2 and 5 <= seq < 10
    assert feeds["input_ids"].max() < 7 and len(np.unique(feeds["input_ids"])) > 1
    assert (feeds["attention_mask"] == 1).all()
    assert feeds["position_ids"].tolist() == [list(range(seq))] * 2
    assert set(np.unique(feeds["token_type_ids"])) <= {0, 1}
    assert feeds["extra"].shape == (batch, seq, 4)
    run(ir.to_proto(model), feeds)


def test_another_sample_masks_a_tail_and_keeps_the_sizes() -> None:
    model = bert()
    first, second = make_feeds(model), make_feeds(model, sample=1)
    assert first["input_ids"].shape == second["input_ids"].shape
    assert not same(first["extra"], second["extra"])
    mask = second["attention_mask"]
    assert (mask[:, 0] == 1).all() and (mask[:, -1] == 0).all()


def test_the_same_seed_gives_the_same_values() -> None:
    one, two, other = make_feeds(bert()), make_feeds(bert()), make_feeds(bert(), seed=1)
    assert all(same(one[name], two[name]) for name in one)
    assert any(not same(one[name], other[name]) for name in one)


def test_sizes_by_symbol() -> None:
    model = bert()
    feeds = make_feeds(model, dims={"seq": 3})
    assert feeds["input_ids"].shape == (2, 3) and feeds["extra"].shape == (2, 3, 4)
    assert make_feeds(model, small=True)["extra"].shape == (1, 1, 4)
    assert make_feeds(model, dims={"seq": 0})["extra"].shape == (2, 0, 4)
    with pytest.raises(BadOptionError, match=r"no input has a dimension 'sequence'.*batch, seq"):
        make_feeds(model, dims={"sequence": 3})
    with pytest.raises(BadOptionError, match="negative"):
        make_feeds(model, dims={"seq": -1})


def test_expressions_in_dimensions_are_computed() -> None:
    model = model_of(f"""{HEAD} g (float[past, 2] a, float[seq, 2] b, float[total, 2] c) => (float[N, 2] y) {{
        y = Concat <axis = 0> (a, b, c) }}""")
    model.graph.inputs[2].shape = ir.Shape(["past + 2*seq", 2])
    feeds = make_feeds(model, dims={"past": 4, "seq": 3})
    assert feeds["c"].shape == (10, 2)


def test_images_bytes_booleans_and_text() -> None:
    model = model_of(f"""{HEAD} g (float[N, 3, H, W] image, uint8[4] bytes, int8[64] signed, bool[9] flags,
        string[3] words, double[2] d, float16[2] h) => (float[N, 3, H, W] y) {{ y = Identity (image) }}""")
    feeds = make_feeds(model)
    assert feeds["image"].shape == (2, 3, 64, 64) and abs(feeds["image"].std() - 1) < 0.1
    assert feeds["signed"].min() < -50 and feeds["signed"].max() > 50
    assert {name: value.dtype.name for name, value in feeds.items()} == {
        "image": "float32", "bytes": "uint8", "signed": "int8", "flags": "bool", "words": "object", "d": "float64",
        "h": "float16",
    }  # fmt: skip
    assert all(isinstance(word, str) for word in feeds["words"])


@pytest.mark.parametrize("kind", ["bfloat16", "float8e4m3fn", "float8e5m2", "int4", "uint4"])
def test_types_numpy_lacks(kind: str) -> None:
    model = model_of(
        f"{HEAD.replace('19', '21').replace('9,', '10,')} g ({kind}[64] x) => (float[64] y) {{ y = Cast <to = 1> (x) }}"
    )
    value = make_feeds(model)["x"]
    assert value.dtype == np.dtype(model.graph.inputs[0].dtype.numpy())
    assert len(set(value.astype(np.float64).tolist())) > 5


def test_integers_that_are_shapes_axes_and_counts_get_legal_numbers() -> None:
    model = model_of(f"""{HEAD} g (float[4, 6] x, int64[3] shape, int64[2] reps, int64[1] k, int64[1] axes,
        int64[2] fill) => (float[a, b, c] r, float[d, e] t, float[f, g] v, int64[f, g] i, float[h] s, float[l, m] z) {{
            r = Reshape (x, shape)
            t = Tile (x, reps)
            v, i = TopK (x, k)
            s = ReduceSum <keepdims = 0> (x, axes)
            z = ConstantOfShape (fill)
        }}""")
    run(ir.to_proto(model), make_feeds(model))


def test_a_vocabulary_is_found_inside_a_body_and_behind_a_dequantised_table() -> None:
    model = model_of(f"""{HEAD} g (int64[N] ids, bool c) => (float[N, 2] y)
        <int8[5, 2] table = {{1,2,3,4,5,6,7,8,9,10}}, float scale = {{0.5}}> {{
            floats = DequantizeLinear (table, scale)
            y = If (c) <
                then_branch = t () => (float[N, 2] p) {{ p = Gather (floats, ids) }},
                else_branch = e () => (float[N, 2] q) {{ q = Gather (floats, ids) }}>
        }}""")
    for seed in range(5):
        assert make_feeds(model, seed=seed)["ids"].max() < 5
        run(ir.to_proto(model), make_feeds(model, seed=seed))


def test_an_input_with_a_default_is_not_fed() -> None:
    model = model_of(f"{HEAD} g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {{1, 2}}> {{ y = Add (x, w) }}")
    assert [value.name for value in inputs_of(model)] == ["x"]
    assert list(make_feeds(model)) == ["x"]


def test_sequences_optionals_and_what_cannot_be_made_up() -> None:
    model = model_of(f"{HEAD} g (seq(float[2]) s) => (float[2] y) <int64 i = {{0}}> {{ y = SequenceAt (s, i) }}")
    assert [item.dtype.name for item in make_feeds(model)["s"]] == ["float32", "float32"]
    model = model_of(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Neg (x) }}")
    model.graph.inputs[0].type = None
    with pytest.raises(BadModelError, match="input 'x' has no type"):
        make_feeds(model)
    model.graph.inputs[0].type = ir.SparseTensorType(ir.DataType.FLOAT)
    with pytest.raises(BadOptionError, match="cannot be made up"):
        make_feeds(model)


def test_a_missing_shape_and_a_dimension_of_minus_one() -> None:
    model = model_of(f"{HEAD} g (float[2] x, float[2] y) => (float[2] z) {{ z = Add (x, y) }}")
    model.graph.inputs[0].shape = None
    model.graph.inputs[1].shape = ir.Shape([-1, None])
    feeds = make_feeds(model)
    assert feeds["x"].ndim == 2 and feeds["x"].shape == feeds["y"].shape
