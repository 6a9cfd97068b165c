from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from surgeon_debug.find.culprit_piece import CulpritPiece, cut_culprit
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.values import same
from surgeon_passes.errors import BadOptionError
from surgeon_passes.graph import load
from tests.numeric import feeds_of
from tests.random_models import models

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(0)


def declared(name: str, shape: list[Any] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[str],
    weights: list[onnx.TensorProto] = [],  # noqa: B006
    **more: Any,
) -> onnx.ModelProto:
    shown = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, shown, list(weights))
    more.setdefault("opset_imports", [helper.make_opsetid("", 19)])
    return helper.make_model(graph, ir_version=10, **more)


def source_of(model: onnx.ModelProto, folder: Path) -> PieceSource:
    path = folder / "whole.onnx"
    onnx.save(model, str(path))
    return PieceSource(load(path), folder, "pieces")


def position(source: PieceSource, tensor: str) -> int:
    return source.producer[tensor]


def run(piece: CulpritPiece, engine: Engine, folder: Path) -> list[dict[str, Any]]:
    engine.prepare(piece.write(folder, "again.onnx"), piece.outputs)
    return [engine.run(sample) for sample in piece.feeds]


@pytest.fixture
def reference() -> Engine:
    return make_engine("onnxruntime:optimize=none")


def whole(model: onnx.ModelProto, names: list[str], feeds: Any, engine: Engine, folder: Path) -> list[dict[str, Any]]:
    path = folder / "asked.onnx"
    onnx.save(model, str(path))
    engine.prepare(path, names)
    return [engine.run(sample) for sample in feeds]


def perceptron() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["d"]),
        helper.make_node("Mul", ["c", "d"], ["y"]),
    ]
    return model_of(nodes, [declared("x", ["n", 6])], ["y"], [weight("w1", 6, 8), weight("w2", 8, 4)])


def samples(*sizes: int) -> list[dict[str, Any]]:
    return [{"x": RNG.normal(size=(n, 6)).astype(np.float32)} for n in sizes]


def test_a_piece_holds_the_nodes_their_weights_and_nothing_else(tmp_path: Path, reference: Engine) -> None:
    source = source_of(perceptron(), tmp_path)
    piece = cut_culprit(source, [position(source, "c")], samples(3), reference)
    assert piece.ops == ("MatMul",)
    assert piece.outputs == ("c",)
    assert list(piece.weights) == ["w2"]
    assert [list(sample) for sample in piece.feeds] == [["b"]]


def test_samples_of_several_sizes_leave_their_axis_open(tmp_path: Path, reference: Engine) -> None:
    feeds = samples(3, 5)
    source = source_of(perceptron(), tmp_path)
    piece = cut_culprit(source, [position(source, "c")], feeds, reference)
    dims = piece.model.graph.input[0].type.tensor_type.shape.dim
    assert not dims[0].HasField("dim_value")
    assert dims[1].dim_value == 8
    right = whole(perceptron_again(source, tmp_path), ["c"], feeds, reference, tmp_path)
    for ours, theirs in zip(run(piece, reference, tmp_path), right, strict=True):
        assert np.array_equal(ours["c"], theirs["c"])


def perceptron_again(source: PieceSource, folder: Path) -> onnx.ModelProto:
    return onnx.load(str(folder / "whole.onnx"))


def test_outputs_are_what_others_read(tmp_path: Path, reference: Engine) -> None:
    source = source_of(perceptron(), tmp_path)
    chosen = [position(source, name) for name in ("a", "b", "c")]
    piece = cut_culprit(source, chosen, samples(2), reference)
    assert piece.outputs == ("c",)
    assert list(piece.feeds[0]) == ["x"]


def test_nodes_that_lie_apart_get_the_reference_between_them(tmp_path: Path, reference: Engine) -> None:
    source = source_of(perceptron(), tmp_path)
    piece = cut_culprit(source, [position(source, "a"), position(source, "c")], samples(2), reference)
    assert set(piece.feeds[0]) == {"x", "b"}
    assert piece.outputs == ("a", "c")


def test_a_computed_shape_becomes_a_constant(tmp_path: Path, reference: Engine) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Reshape", ["r", "s"], ["y"]),
    ]
    source = source_of(model_of(nodes, [declared("x", ["n", 6])], ["y"]), tmp_path)
    piece = cut_culprit(source, [position(source, "y")], samples(2), reference)
    assert [list(sample) for sample in piece.feeds] == [["r"]]
    [setting] = piece.weights.values()
    assert setting.tolist() == [2, 6]


def test_a_body_takes_outer_tensors_and_weights_along(tmp_path: Path, reference: Engine) -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["v", "w"], ["m"]),
            helper.make_node("Add", ["m", "outer"], ["v_out"]),
            helper.make_node("Identity", ["c_in"], ["c_out"]),
        ],
        "body",
        [declared("i", [], 7), declared("c_in", [], 9), declared("v", None)],
        [declared("c_out", [], 9), declared("v_out", None)],
    )
    trips = numpy_helper.from_array(np.array(3, np.int64), "trips")
    nodes = [
        helper.make_node("Relu", ["x"], ["outer"]),
        helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body),
    ]
    model = model_of(nodes, [declared("x", [2, 6])], ["y"], [trips, weight("w", 6, 6)])
    source = source_of(model, tmp_path)
    feeds = samples(2)
    piece = cut_culprit(source, [position(source, "y")], feeds, reference)
    assert "w" in piece.weights
    right = whole(model, ["y"], feeds, reference, tmp_path)
    assert np.array_equal(run(piece, reference, tmp_path)[0]["y"], right[0]["y"])


def test_a_function_comes_along_and_others_do_not(tmp_path: Path, reference: Engine) -> None:
    opset = [helper.make_opsetid("", 19)]
    twice = helper.make_function("own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opset)
    other = helper.make_function("other", "Half", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], opset)
    nodes = [
        helper.make_node("Half", ["x"], ["h"], domain="other"),
        helper.make_node("Twice", ["h"], ["y"], domain="own"),
    ]
    imports = [*opset, helper.make_opsetid("own", 1), helper.make_opsetid("other", 1)]
    model = model_of(nodes, [declared("x", [2, 6])], ["y"], functions=[twice, other], opset_imports=imports)
    source = source_of(model, tmp_path)
    feeds = samples(2)
    piece = cut_culprit(source, [position(source, "y")], feeds, reference)
    assert [function.name for function in piece.model.functions] == ["Twice"]
    assert np.array_equal(run(piece, reference, tmp_path)[0]["y"], 2 * np.abs(feeds[0]["x"]))


def test_a_sequence_brings_the_node_that_makes_it(tmp_path: Path, reference: Engine) -> None:
    at = numpy_helper.from_array(np.array(1, np.int64), "at")
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("SplitToSequence", ["r"], ["s"], axis=1, keepdims=1),
        helper.make_node("SequenceAt", ["s", "at"], ["y"]),
    ]
    source = source_of(model_of(nodes, [declared("x", [2, 6])], ["y"], [at]), tmp_path)
    piece = cut_culprit(source, [position(source, "y")], samples(2), reference)
    assert piece.ops == ("SplitToSequence", "SequenceAt")
    assert list(piece.feeds[0]) == ["r"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int4", "string", "float16"])
def test_types_beyond_numpy(dtype: str, tmp_path: Path, reference: Engine) -> None:
    if dtype == "string":
        array = np.array([["a", "\N{SNOWMAN}"], ["", "b\0"]], object)
        tensor = helper.make_tensor("w", TensorProto.STRING, [2, 2], [t.encode() for t in array.ravel()])
    else:
        kind = np.dtype(dtype) if dtype == "float16" else np.dtype(getattr(ml_dtypes, dtype))
        array = RNG.normal(size=(2, 6)).astype(np.float32).astype(kind)
        tensor = numpy_helper.from_array(array, "w")
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Identity", ["w"], ["v"])]
    nodes.append(helper.make_node("Concat", ["v", "v"], ["y"], axis=0) if dtype == "string" else
                 helper.make_node("Cast", ["w"], ["y"], to=FLOAT))  # fmt: skip
    model = model_of(nodes, [declared("x", [2, 6])], ["y"], [tensor], opset_imports=[helper.make_opsetid("", 21)])
    source = source_of(model, tmp_path)
    piece = cut_culprit(source, [position(source, "y")], samples(2), reference)
    expected = np.concatenate([array, array]) if dtype == "string" else array.astype(np.float32)
    if dtype == "string":
        assert same({**piece.weights, **piece.feeds[0]}.get("w", array), array)
        expected[[1, 3], 1] = "b"  # onnxruntime gives out text without the NUL
    assert same(run(piece, reference, tmp_path)[0]["y"], expected)


def test_weights_in_files_are_mapped_and_others_not_touched(tmp_path: Path, reference: Engine) -> None:
    size = 40 << 20
    data = tmp_path / "whole.data"
    with data.open("wb") as file:
        file.truncate(8 * size)  # holes: nothing is on the disk
        file.seek(6 * size)
        file.write(np.full(1024, 0.5, np.float32).tobytes())
    graph_weights = []
    for i in range(8):
        tensor = onnx.TensorProto(name=f"w{i}", data_type=FLOAT, dims=[32, size // 128])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": data.name, "offset": i * size, "length": size}.items():
            tensor.external_data.add(key=key, value=str(value))
        graph_weights.append(tensor)
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"]) for i in range(8)]
    model = model_of(nodes, [declared("x", [1, 32])], [f"y{i}" for i in range(8)], graph_weights)
    (tmp_path / "whole.onnx").write_bytes(model.SerializeToString())
    source = PieceSource(load(tmp_path / "whole.onnx"), tmp_path, "pieces")
    feeds = [{"x": np.ones((1, 32), np.float32)}]
    piece = cut_culprit(source, [position(source, "y6")], feeds, reference)
    assert list(piece.weights) == ["w6"]
    assert not piece.weights["w6"].flags.owndata
    assert piece.weights["w6"][0, 0] == 0.5
    assert piece.model.ByteSize() < 1000


def test_nodes_that_are_not_there_are_refused(tmp_path: Path, reference: Engine) -> None:
    source = source_of(perceptron(), tmp_path)
    for positions in ([], [99], [-1]):
        with pytest.raises(BadOptionError):
            cut_culprit(source, positions, samples(1), reference)


def random_chain(choice: list[int], model_seed: int) -> onnx.ModelProto:
    """A graph whose nodes read any two tensors before them."""
    rng = np.random.default_rng(model_seed)
    names = ["x"]
    nodes = []
    for i, op in enumerate(choice):
        one, other = (names[int(rng.integers(len(names)))] for _ in range(2))
        kinds = ("Add", "Mul", "Sub", "Relu", "Tanh")
        reads = [one, other] if op < 3 else [one]
        nodes.append(helper.make_node(kinds[op], reads, [f"t{i}"]))
        names.append(f"t{i}")
    return model_of(nodes, [declared("x", ["n", 6])], [names[-1]])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 4), min_size=2, max_size=9), st.integers(0, 99), st.data())
def test_a_piece_computes_what_the_whole_does(
    tmp_path_factory: pytest.TempPathFactory, choice: list[int], seed: int, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("piece")
    engine = make_engine("onnxruntime:optimize=none")
    model = random_chain(choice, seed)
    source = source_of(model, folder)
    chosen = data.draw(st.lists(st.integers(0, len(choice) - 1), min_size=1, unique=True))
    feeds = samples(2, 3)
    piece = cut_culprit(source, chosen, feeds, engine)
    right = whole(model, list(piece.outputs), feeds, engine, folder)
    for ours, theirs in zip(run(piece, engine, folder), right, strict=True):
        assert all(np.array_equal(ours[name], theirs[name]) for name in piece.outputs)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(models(12), st.data())
def test_any_node_of_any_model_can_be_cut_out(
    tmp_path_factory: pytest.TempPathFactory, model: onnx.ModelProto, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("piece")
    engine = make_engine("onnxruntime:optimize=none,threads=1")
    source = source_of(model, folder)
    if not source.nodes:
        return
    index = data.draw(st.integers(0, len(source.nodes) - 1))
    feeds = [feeds_of(model)]
    piece = cut_culprit(source, [index], feeds, engine)
    right = whole(model, list(piece.outputs), feeds, engine, folder)
    assert all(same(run(piece, engine, folder)[0][name], right[0][name]) for name in piece.outputs)
