"""Pieces of a model compute to the bit what the whole model does, wherever its weights are."""

from __future__ import annotations

import concurrent.futures
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings

from surgeon_debug.differential import Walker
from surgeon_debug.feed_pieces import isolated_piece
from surgeon_debug.layer_plan import plan_layers
from surgeon_debug.layers import as_engine
from surgeon_debug.piece_source import Cut, PieceSource
from surgeon_debug.runners.contract import Engine
from surgeon_debug.segments import plan_segments
from surgeon_debug.values import Value
from surgeon_passes.errors import BadModelError
from surgeon_passes.graph import load
from tests.debug.widened import widened
from tests.numeric import feeds_of
from tests.random_models import models

ORT = "onnxruntime:optimize=none,threads=1"
ENGINES = [ORT, "reference"]

Samples = list[dict[str, Value]]


def source_of(proto: onnx.ModelProto, folder: Path, **saving: object) -> PieceSource:
    path = folder / "model.onnx"
    onnx.save(proto, str(path), **saving)
    pieces = folder / "pieces"
    pieces.mkdir(exist_ok=True)
    return PieceSource(load(path), pieces, "piece")


def shown_whole(engine: Engine, path: Path, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> dict[str, Value]:
    engine.prepare(path, names)
    return engine.run(feeds)


def by_pieces(engine: Engine, source: PieceSource, feeds: Mapping[str, np.ndarray], budget: int = 1) -> Samples:
    """Every layer, computed segment by segment."""
    layers = [layer for layer in plan_layers(source.model, feeds) if layer.tensor in source.producer]
    layers = [layer for layer in layers if layer.tensor not in source.non_tensors]
    walker = Walker(engine, source, [feeds])
    found: Samples = [{}]
    for segment in plan_segments(source, source, layers, budget):
        values = walker.chain(segment.reference)
        walker.keep(values, segment.reference.keeps)
        found[0].update(values[0])
    assert found[0].keys() >= {layer.tensor for layer in layers}
    return found


def alone(engine: Engine, source: PieceSource, golden: Mapping[str, Value], names: Sequence[str]) -> dict[str, Value]:
    """Tensors computed alone, each from the values of others."""
    piece = isolated_piece(source, names, set(names), [golden], {})
    return Walker(engine, source, []).run(piece)[0]


def assert_equal(seen: Mapping[str, Value], wanted: Mapping[str, Value]) -> None:
    for name, value in wanted.items():
        assert isinstance(value, np.ndarray), name
        other = seen[name]
        assert isinstance(other, np.ndarray), name
        assert (other.dtype, other.shape) == (value.dtype, value.shape), name
        np.testing.assert_array_equal(other, value, err_msg=name)


def check(proto: onnx.ModelProto, folder: Path, engine: str = ORT, **saving: object) -> PieceSource:
    """In pieces of one node, and every node alone, the same bits as the whole model with all tensors shown."""
    source = source_of(proto, folder, **saving)
    feeds = feeds_of(proto)
    with as_engine(engine) as running:
        found = by_pieces(running, source, feeds)[0]
        whole = shown_whole(running, folder / "model.onnx", list(found), feeds)
        assert_equal(found, whole)
        names = [name for name in found if name not in source.non_tensors]
        assert_equal(alone(running, source, {**feeds, **whole}, names), {name: whole[name] for name in names})
    assert not list(folder.glob("pieces/*.piece.onnx"))
    return source


WEIGHTED = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 4] x, bool c) => (float[N, 4] y, float[N, 4] z) {
        half = Constant <value_float = 0.5> ()
        a = MatMul (x, w)
        b = Add (a, odd)
        d = Mul (b, half)
        e = If (c) <
            then_branch = t () => (float[N, 4] p) { p = MatMul (d, w2) },
            else_branch = f () => (float[N, 4] q) { inner = MatMul (d, w)  q = Neg (inner) }>
        y = Tanh (e)
        z = MatMul (d, w2)
    }"""


def weighted() -> onnx.ModelProto:
    """Weights of odd sizes, so that they lie at odd offsets; one is read by the main graph and by a body."""
    proto = onnx.parser.parse_model(WEIGHTED)
    rng = np.random.default_rng(3)
    shapes = {"w": (4, 4), "odd": (4,), "w2": (4, 4), "byte": (3,)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["byte"] = arrays["byte"].astype(np.int8)
    order = ("byte", "w", "odd", "w2")
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(arrays[name], name) for name in order)
    return proto


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_inside_the_file(tmp_path: Path, engine: str) -> None:
    check(weighted(), tmp_path, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_in_files_of_their_own(tmp_path: Path, engine: str) -> None:
    saving = {"save_as_external_data": True, "size_threshold": 0, "all_tensors_to_one_file": False}
    source = check(weighted(), tmp_path, engine, **saving)
    assert not [name for name in (tmp_path / "pieces").rglob("*") if name.is_symlink()]
    assert source.constant_shape("w2") == (4, 4) and source.constant("odd") is not None


def packed(folder: Path, offset: int) -> onnx.ModelProto:
    """The model with all weights in one file, behind some bytes that belong to nobody, and next to each other."""
    proto = weighted()
    (folder / "weights").mkdir()
    data = bytearray(b"\xff" * offset)
    for tensor in proto.graph.initializer:
        raw = onnx.numpy_helper.to_array(tensor).tobytes()
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entries = {"location": "weights/all.bin", "offset": len(data), "length": len(raw)}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        data += raw
    (folder / "weights" / "all.bin").write_bytes(bytes(data))
    return proto


@pytest.mark.parametrize("offset", [0, 1, 4099])
def test_weights_at_odd_offsets_of_one_file(tmp_path: Path, offset: int) -> None:
    proto = packed(tmp_path, offset)
    source = source_of(proto, tmp_path)
    feeds = feeds_of(weighted())
    for engine in ENGINES:
        with as_engine(engine) as running:
            found = by_pieces(running, source, feeds)[0]
            onnx.save(weighted(), str(tmp_path / "inline.onnx"))
            assert_equal(found, shown_whole(running, tmp_path / "inline.onnx", list(found), feeds))


def test_files_that_cannot_be_hard_linked_are_linked_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise OSError("another device")

    monkeypatch.setattr(os, "link", refuse)
    source = source_of(packed(tmp_path, 7), tmp_path)
    (index,) = (i for i, node in enumerate(source.nodes) if "z" in node.writes)
    path = source.write(Cut([index], {}, ["z"]))
    assert (path.parent / "all.bin").is_symlink()
    path.unlink()
    feeds = feeds_of(weighted())
    with as_engine("reference") as running:
        found = by_pieces(running, source, feeds)[0]
        onnx.save(weighted(), str(tmp_path / "inline.onnx"))
        assert_equal(found, shown_whole(running, tmp_path / "inline.onnx", list(found), feeds))


@pytest.mark.parametrize("isolated", [False, True])
def test_an_engine_reads_weights_through_links_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolated: bool
) -> None:
    """The usual case where the temporary folder is on another disk."""
    monkeypatch.setattr(os, "link", lambda *args, **more: (_ for _ in ()).throw(OSError("another device")))
    source = source_of(packed(tmp_path, 7), tmp_path)
    feeds = feeds_of(weighted())
    with as_engine(ORT, isolated=isolated) as running:
        found = by_pieces(running, source, feeds)[0]
        onnx.save(weighted(), str(tmp_path / "inline.onnx"))
        assert_equal(found, shown_whole(running, tmp_path / "inline.onnx", list(found), feeds))


def test_files_of_the_same_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) {
        a = Add (x, w)
        y = Mul (a, v)
    }""")
    for name, number in (("w", 3.0), ("v", 5.0)):
        (tmp_path / name).mkdir()
        raw = np.full(4, number, np.float32).tobytes()
        (tmp_path / name / "data.bin").write_bytes(raw)
        tensor = proto.graph.initializer.add(name=name, data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=f"{name}/data.bin")
    source = source_of(proto, tmp_path)
    feeds = {"x": np.ones(4, np.float32)}
    with as_engine(ORT) as running:
        found = by_pieces(running, source, feeds)[0]
    np.testing.assert_array_equal(found["y"], np.full(4, 20, np.float32))


def test_a_model_that_is_called_like_a_piece_is_not_overwritten(tmp_path: Path) -> None:
    proto = weighted()
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4096), np.float32), "big"))
    proto.graph.node.append(onnx.helper.make_node("MatMul", ["z", "big"], ["wide"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("wide", 1, ["N", 4096]))
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    for number in range(4):
        path = tmp_path / f"piece-{number}.onnx"
        onnx.save(proto, str(path))
        before = path.read_bytes()
        source = PieceSource(load(path), pieces, str(number))
        with as_engine(ORT) as running:
            by_pieces(running, source, feeds_of(proto))
        assert path.read_bytes() == before


def test_two_threads_may_cut_the_same_model_at_the_same_time(tmp_path: Path) -> None:
    """As both sides of a comparison of one model do."""
    source = source_of(packed(tmp_path, 7), tmp_path)
    cuts = [Cut([index], {}, node.writes) for index, node in enumerate(source.nodes)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            paths = list(pool.map(source.write, cuts * 100))
    finally:
        sys.setswitchinterval(before)
    assert len(set(paths)) == len(cuts) * 100
    for path, cut in zip(paths, cuts * 100, strict=True):
        graph = onnx.load(str(path), load_external_data=False).graph
        assert tuple(output.name for output in graph.output) == cut.outputs
    assert [p.name for p in paths[0].parent.iterdir() if not p.name.startswith("piece-")] == ["all.bin"]


OLD = """<ir_version: 3, opset_import: ["" : 9]>
    g (float[N, 4] x, float[4] w) => (float[N, 4] y) <float[4] w = {1, 2, 3, 4}> {
        a = Add (x, w)
        b = Upsample <mode = "nearest"> (a, scales)
        y = Sub (b, w)
    }"""


def test_an_old_model_whose_weights_are_inputs_too(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(OLD)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, np.float32), "scales"))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("scales", 1, [2]))
    source = check(proto, tmp_path)
    assert list(source.inputs) == ["x"]


def test_a_value_that_overrides_a_weight_is_used(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(OLD.replace("ir_version: 3", "ir_version: 8").replace(
        'b = Upsample <mode = "nearest"> (a, scales)', "b = Relu (a)"))  # fmt: skip
    source = source_of(proto, tmp_path)
    feeds = {"x": np.ones((2, 4), np.float32), "w": np.full(4, -3, np.float32)}
    with as_engine(ORT) as running:
        found = by_pieces(running, source, feeds)[0]
        assert_equal(found, shown_whole(running, tmp_path / "model.onnx", list(found), feeds))
    assert found["y"][0, 0] == 3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("opset", [13, 21])
def test_constant_nodes_of_every_form(tmp_path: Path, opset: int, engine: str) -> None:
    proto = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[N, 4] x) => (float[N, 4] y) {{
            f = Constant <value_float = 0.25> ()
            fs = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> ()
            t = Constant <value = float[4] {{4, 3, 2, 1}}> ()
            i = Constant <value_int = 2> ()
            shape = Constant <value_ints = [-1, 4]> ()
            a = Mul (x, f)
            b = Add (a, fs)
            d = Sub (b, t)
            e = Reshape (d, shape)
            whole = Cast <to = 1> (i)
            h = Add (e, whole)
            y = Cast <to = 1> (h)
        }}""")
    source = check(proto, tmp_path, engine)
    assert source.producer.keys() >= {"a", "b", "d", "e", "whole", "h", "y"}
    assert source.producer.keys().isdisjoint({"f", "fs", "t", "i", "shape"})
    assert source.constant("shape") is not None and source.constant("x") is None


@pytest.mark.parametrize("engine", ENGINES)
def test_functions_come_along(tmp_path: Path, engine: str) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N, 4] x) => (float[N, 4] y) {
            a = local.Twice (x)
            b = Tanh (a)
            y = local.Outer (b)
        }
        <domain: "local", opset_import: ["" : 17]> Twice (v) => (r) { r = Add (v, v) }
        <domain: "local", opset_import: ["" : 17, "local" : 1]> Outer (v) => (r) { s = local.Twice (v)  r = Neg (s) }
    """)
    check(proto, tmp_path, engine)


def test_the_names_of_pieces_do_not_clash_with_those_of_the_model(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y)
        <float[4] w = {1, 2, 3, 4}> {
            a = Add (x, w)
            gold = Mul (a, w)
            shape = Shape (gold)
            back = Reshape (gold, shape)
            y = Add (back, a)
        }""")
    for node in proto.graph.node:
        for side in (node.input, node.output):
            for i, name in enumerate(side):
                side[i] = {"gold": "surgeon.golden/a"}.get(name, name)
    check(proto, tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("carried", ["c", "a", "y"])
def test_bodies_may_use_names_of_the_graph_around_them(tmp_path: Path, carried: str, engine: str) -> None:
    """The body's own ``a`` is not the main graph's, from which the loop starts."""
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 4] x) => (float[N, 4] y, float[2, N, 4] z) <int64 trips = {2}, bool start = {1}> {
            a = Neg (x)
            last, z = Loop (trips, start, a) <body = b (int64 i, bool go, float[N, 4] carried)
                => (bool on, float[N, 4] n, float[N, 4] s) {
                    on = Identity (go)
                    n = Tanh (carried)
                    s = If (go) <
                        then_branch = t () => (float[N, 4] p) { p = Exp (carried) },
                        else_branch = e () => (float[N, 4] q) { q = Add (carried, x) }>
                }>
            y = Add (last, a)
        }""")
    body = proto.graph.node[1].attribute[0].g
    body.input[2].name = carried
    for node in (body.node[1], *(a.g.node[0] for a in body.node[2].attribute)):
        node.input[0] = carried
    onnx.checker.check_model(proto)
    source = check(proto, tmp_path, engine)
    assert [node.reads for node in source.nodes] == [("x",), ("a", "x"), ("a", "last")]


def test_sparse_weights_come_along(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) {
        a = Neg (x)
        b = MatMul (a, sparse)
        y = Relu (b)
    }""")
    values = onnx.numpy_helper.from_array(np.array([2, -3, 5], np.float32), "sparse")
    indices = onnx.numpy_helper.from_array(np.array([0, 6, 11], np.int64), "sparse_indices")
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4, 4]))
    check(proto, tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_unsorted_nodes_scalars_and_empty_tensors(tmp_path: Path, engine: str) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[0, 4] y)
        <int64[1] zero = {0}, int64[1] axes = {0}, float s = {2}> {
            sum = ReduceSum <keepdims = 0> (x)
            scalar = Mul (sum, s)
            none = Slice (x, zero, zero, axes)
            y = Mul (none, scalar)
        }""")
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    source = source_of(proto, tmp_path)
    feeds = feeds_of(proto)
    with as_engine(engine) as running:
        found = by_pieces(running, source, feeds)[0]
    assert [node.writes[0] for node in source.nodes][-1] == "y"
    assert found["scalar"] == pytest.approx(2 * feeds["x"].sum(), rel=1e-6)
    assert getattr(found["y"], "shape", None) == (0, 4)


def test_a_cycle_is_named(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) {
        [first] a = Add (x, b)
        [second] b = Relu (a)
        y = Neg (b)
    }""")
    with pytest.raises(BadModelError, match=r"a cycle through .*first"):
        source_of(proto, tmp_path)


@pytest.mark.parametrize(
    "saving", [{}, {"save_as_external_data": True, "size_threshold": 0, "location": "w.bin"}], ids=["inside", "outside"]
)
def test_the_whole_model_with_its_weights_left_in_their_file(tmp_path: Path, saving: dict[str, object]) -> None:
    proto = weighted()
    big = onnx.numpy_helper.from_array(np.ones((4, 4096), np.float32), "big")
    proto.graph.initializer.append(big)
    proto.graph.node.append(onnx.helper.make_node("MatMul", ["z", "big"], ["wide"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("wide", 1, ["N", 4096]))
    source = source_of(proto, tmp_path, **saving)
    written = source.write_whole()
    if saving:
        assert written is None
        return
    assert written is not None and written.stat().st_size < 10_000
    feeds = feeds_of(weighted())
    with as_engine(ORT) as running:
        assert_equal(
            shown_whole(running, written, ["y", "wide"], feeds),
            shown_whole(running, tmp_path / "model.onnx", ["y", "wide"], feeds),
        )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(proto=models(20))
def test_random_models(tmp_path_factory: pytest.TempPathFactory, proto: onnx.ModelProto) -> None:
    check(widened(proto), tmp_path_factory.mktemp("random"))
