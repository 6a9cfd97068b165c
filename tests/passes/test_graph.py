"""Loading reads no weights, saving loses nothing, and what cannot be read is refused with a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_passes import wire
from surgeon_passes.errors import BadModelError, FileError, SurgeonError
from surgeon_passes.graph import digest, load, to_proto
from surgeon_passes.save import Weights, save
from surgeon_passes.weight_file import MappedTensor
from tests.canonical import canonical, tree
from tests.models import FOLDER, index

NUMERIC = [
    kind
    for kind in ir.DataType
    if kind not in (ir.DataType.UNDEFINED, ir.DataType.STRING) and kind.name in onnx.TensorProto.DataType.keys()  # noqa: SIM118
]


def model_with(tensors: list[onnx.TensorProto], nodes: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    graph = onnx.helper.make_graph(
        nodes or [onnx.helper.make_node("Identity", ["x"], ["y"], name="id")],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["N", 3])],
        [onnx.helper.make_tensor_value_info("y", 1, ["N", 3])],
        tensors,
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)


def weight(name: str, shape: tuple[int, ...], seed: int = 0) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), name)


def write(path: Path, proto: onnx.ModelProto, **external: object) -> Path:
    onnx.save(proto, str(path), **external)
    return path


@pytest.mark.parametrize("row", [pytest.param(r, id=r["file"][-60:]) for r in index()])
def test_load_and_save_lose_nothing(row: dict[str, str], tmp_path: Path) -> None:
    try:
        model = load(FOLDER / row["file"])
    except SurgeonError as error:
        assert "\n" not in str(error)
        assert any(
            word in row["special"]
            for word in ("does not parse", "external path escapes the folder", "external data missing")
        )
        return
    save(model, tmp_path / "out.onnx")
    assert canonical(tmp_path / "out.onnx") == canonical(FOLDER / row["file"])


@pytest.mark.parametrize("kind", NUMERIC, ids=lambda k: k.name)
@pytest.mark.parametrize("layout", [Weights.INLINE, Weights.EXTERNAL])
def test_every_dtype_survives(kind: ir.DataType, layout: Weights, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for count in (3, 20_001):
        raw = rng.integers(0, 256, -(-count * kind.bitwidth // 8), dtype=np.uint8)
        if kind.bitwidth < 8 and count * kind.bitwidth % 8:
            raw[-1] &= (1 << (count * kind.bitwidth % 8)) - 1  # padding bits are zero
        tensor = onnx.TensorProto(name="w", data_type=kind.value, dims=[count], raw_data=raw.tobytes())
        source = write(tmp_path / "in.onnx", model_with([tensor]))
        model = load(source)
        held = model.graph.initializers["w"].const_value
        assert held is not None
        assert held.numpy().shape == (count,)
        save(model, tmp_path / "out.onnx", weights=layout)
        assert canonical(tmp_path / "out.onnx") == canonical(source)


def test_inline_weights_stay_in_the_file_and_look_inline(tmp_path: Path) -> None:
    proto = model_with([weight("w", (512, 512)), weight("small", (3,))])
    model = load(write(tmp_path / "m.onnx", proto))
    big = model.graph.initializers["w"].const_value
    assert isinstance(big, MappedTensor)
    np.testing.assert_array_equal(big.numpy(), onnx.numpy_helper.to_array(proto.graph.initializer[0]))
    assert tree(to_proto(model)) == tree(proto)
    assert (
        tree(ir.to_proto(model))["graph"]["initializer"] == tree(proto)["graph"]["initializer"]
    )  # onnx_ir's own way out


def test_weights_outlive_a_file_renamed_over_theirs(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", model_with([weight("w", (512, 512))]))
    model = load(path)
    other = write(tmp_path / "other.onnx", model_with([weight("w", (512, 512), seed=1)]))
    expected = canonical(path)
    other.replace(path)
    save(model, tmp_path / "out.onnx")
    assert canonical(tmp_path / "out.onnx") == expected


def test_weights_in_bodies_and_attributes_are_cut_and_spliced(tmp_path: Path) -> None:
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["w_inner", "w_inner"], ["out"])],
        "then",
        [],
        [onnx.helper.make_tensor_value_info("out", 1, [64, 64])],
        [weight("w_inner", (64, 64))],
    )
    other = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["out"], value=weight("", (64, 64), seed=3))],
        "else",
        [],
        [onnx.helper.make_tensor_value_info("out", 1, [64, 64])],
    )
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=other)
    proto = model_with([], [node])
    small, spans = wire.cut_weights(memoryview(proto.SerializeToString()), 1024)
    assert len(spans) == 2
    assert len(small) < 1500
    source = write(tmp_path / "m.onnx", proto)
    save(load(source), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() and canonical(tmp_path / "out.onnx") == canonical(source)


@pytest.mark.parametrize("one_file", [True, False])
@pytest.mark.parametrize("layout", list(Weights))
def test_external_weights_in_every_layout(one_file: bool, layout: Weights, tmp_path: Path) -> None:
    proto = model_with([weight(f"w{i}", (64, 64), i) for i in range(4)])
    expected = tree(proto)
    source = write(
        tmp_path / "m.onnx",
        proto,
        save_as_external_data=True,
        all_tensors_to_one_file=one_file,
        location="m.bin" if one_file else None,
    )
    files = save(load(source), tmp_path / "out.onnx", weights=layout)
    assert tree(onnx.load(str(tmp_path / "out.onnx"))) == expected
    assert len(files) == (2 if layout in (Weights.AUTO, Weights.EXTERNAL) else 1)
    if layout is not Weights.KEEP and one_file:
        (tmp_path / "m.bin").unlink()
        assert tree(onnx.load(str(tmp_path / "out.onnx"))) == expected


def test_shards_and_shared_regions(tmp_path: Path) -> None:
    proto = model_with([weight(f"w{i}", (64, 64), i) for i in range(4)])
    expected = tree(proto)
    write(tmp_path / "m.onnx", proto, save_as_external_data=True, location="m.bin")
    shared = onnx.load(str(tmp_path / "m.onnx"), load_external_data=False)
    del shared.graph.initializer[3].external_data[:]
    shared.graph.initializer[3].external_data.extend(shared.graph.initializer[0].external_data)
    write(tmp_path / "shared.onnx", shared)
    save(load(tmp_path / "shared.onnx"), tmp_path / "one.onnx")
    assert (tmp_path / "one.onnx.data").stat().st_size == 3 * 64 * 64 * 4
    files = save(load(tmp_path / "m.onnx"), tmp_path / "out.onnx", shard_size=40_000)
    assert [f.name for f in files] == ["out.onnx-00001-of-00002.data", "out.onnx-00002-of-00002.data", "out.onnx"]
    assert tree(onnx.load(str(tmp_path / "out.onnx"))) == expected


def test_text_format_is_read_and_written(tmp_path: Path) -> None:
    head = '<ir_version: 8, opset_import: ["" : 17]> agraph (float[N] x) => (float[N] y)'
    text = head + " <float[2] w = {1, 2}> { y = Add(x, w) }"
    (tmp_path / "m.onnxtxt").write_text(text)
    model = load(tmp_path / "m.onnxtxt")
    assert [node.op_type for node in model.graph] == ["Add"]
    for name in ("out.onnx", "out.onnxtxt", "out.textproto", "out.json"):
        save(model, tmp_path / name)
        assert digest(load(tmp_path / name)) == digest(model)


def test_digest_sees_a_small_weight_in_a_file_of_its_own(tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(np.arange(8, dtype=np.float32), "w")
    model = model_with([tensor])
    onnx.save_model(model, str(tmp_path / "a.onnx"), save_as_external_data=True, location="a.data", size_threshold=0)
    before = digest(load(tmp_path / "a.onnx"))
    data = bytearray((tmp_path / "a.data").read_bytes())
    data[5] ^= 1
    (tmp_path / "a.data").write_bytes(data)
    assert digest(load(tmp_path / "a.onnx")) != before


def test_digest_sees_one_bit_of_a_weight_and_not_its_place(tmp_path: Path) -> None:
    array = np.zeros((64, 64), np.float32)
    path = write(tmp_path / "a.onnx", model_with([onnx.numpy_helper.from_array(array, "w")]))
    model = load(path)
    save(model, tmp_path / "b.onnx", weights=Weights.EXTERNAL)
    assert digest(load(tmp_path / "b.onnx")) == digest(model)
    array[3, 4] = -0.0
    assert digest(load(write(tmp_path / "c.onnx", model_with([onnx.numpy_helper.from_array(array, "w")])))) != digest(
        model
    )


def test_escaping_paths_need_leave(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    proto = model_with([weight("w", (64, 64))])
    expected = tree(proto)["graph"]
    write(tmp_path / "model" / "m.onnx", proto, save_as_external_data=True, location="w.bin")
    (tmp_path / "model" / "w.bin").rename(tmp_path / "w.bin")
    moved = onnx.load(str(tmp_path / "model" / "m.onnx"), load_external_data=False)
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "w.bin")
    for location in ("../w.bin", str(tmp_path / "w.bin"), "link.bin"):
        moved.graph.initializer[0].external_data[0].value = location
        path = write(tmp_path / "model" / "evil.onnx", moved)
        with pytest.raises(BadModelError, match="outside the model's folder"):
            load(path)
        save(load(path, allow_external=True), tmp_path / "out.onnx", weights=Weights.INLINE)
        assert canonical(tmp_path / "out.onnx")["graph"] == expected


def test_hard_linked_data_are_ordinary_files(tmp_path: Path) -> None:
    proto = model_with([weight("w", (64, 64))])
    expected = tree(proto)
    write(tmp_path / "m.onnx", proto, save_as_external_data=True, location="m.bin")
    os.link(tmp_path / "m.bin", tmp_path / "again.bin")
    model = load(tmp_path / "m.onnx")
    assert model.graph.initializers["w"].const_value is not None
    model.graph.initializers["w"].const_value.numpy()
    assert tree(to_proto(model)) == expected


def test_missing_and_short_data_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", model_with([weight("w", (64, 64))]), save_as_external_data=True, location="m.bin")
    data = (tmp_path / "m.bin").read_bytes()
    (tmp_path / "m.bin").write_bytes(data[:-1])
    with pytest.raises(BadModelError, match=r"'m.bin' is too short for weight 'w'"):
        load(path)
    (tmp_path / "m.bin").unlink()
    with pytest.raises(BadModelError, match="missing"):
        load(path)
    assert load(path, check_weights=False).graph.initializers["w"].shape == [64, 64]


def test_what_is_no_model_gets_a_sentence(tmp_path: Path) -> None:
    whole = model_with([weight("w", (64, 64))]).SerializeToString()
    cases = {
        "empty.onnx": b"",
        "text.onnx": b"hello, this is no model\n",
        "zeros.onnx": bytes(100),
        "png.onnx": b"\x89PNG\r\n\x1a\n" + bytes(50),
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadModelError) as error:
            load(tmp_path / name)
        assert "\n" not in str(error.value) and name in str(error.value)
    for cut in range(1, len(whole), 97):
        (tmp_path / "cut.onnx").write_bytes(whole[:cut])
        with pytest.raises(BadModelError):
            load(tmp_path / "cut.onnx")
    for path in (tmp_path, tmp_path / "nothing.onnx", Path("/dev/null"), Path("a\x00b"), Path("x" * 5000)):
        with pytest.raises((FileError, BadModelError)):
            load(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(model_with([weight("w", (16, 17))]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(bytes(whole))
    try:
        load(path)
    except SurgeonError as error:
        assert "\n" not in str(error)


def test_a_name_defined_twice_is_named(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Identity", ["x"], ["y"], name=n) for n in "ab"]
    with pytest.raises(BadModelError, match="'y' is defined twice"):
        load(write(tmp_path / "m.onnx", model_with([], nodes)))


def test_a_value_info_of_the_interface_does_not_outlive_its_type(tmp_path: Path) -> None:
    """Files in the wild list inputs and outputs among the value infos too."""
    proto = model_with([])
    proto.graph.value_info.extend([*proto.graph.input, *proto.graph.output])
    model = load(write(tmp_path / "m.onnx", proto))
    assert {info.name for info in to_proto(model).graph.value_info} == {"x", "y"}
    model.graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)
    assert {info.name for info in to_proto(model).graph.value_info} == {"x"}
