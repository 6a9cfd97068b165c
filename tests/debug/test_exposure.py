from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError

from surgeon_debug.runners.exposure import exposed, interface_of, linked_folder, tail_of, with_tail
from surgeon_passes.errors import BadModelError, FileError
from tests.models import FOLDER, index

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x, bool c) => (float[2] y, float[2] x2) <float[2] w = {1, 2}> {
    h = Add (x, w)
    y, unused = If (c) <
        then_branch = t () => (float[2] a, float[2] a2) <float[2] v = {3, 4}> { a = Add (h, v) a2 = Neg (h) },
        else_branch = e () => (float[2] b, float[2] b2) {
            k = Constant <value = float[2] {5, 6}> ()
            b = Mul (h, k)
            b2 = Neg (h)
        }
    >
    x2 = Identity (x)
}"""


def external(tensor: onnx.TensorProto, location: str, values: list[float], at: Path, offset: int = 0) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    with at.open("r+b" if at.exists() else "wb") as file:
        file.seek(offset)
        file.write(np.array(values, np.float32).tobytes())
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": location, **({"offset": offset, "length": 4 * len(values)} if offset else {})}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def scattered(folder: Path) -> Path:
    """Weights in a file above the model, in one below it, and beside it, in bodies and attributes too."""
    proto = onnx.parser.parse_model(TEXT)
    home = folder / "home"
    branches = proto.graph.node[1].attribute
    external(proto.graph.initializer[0], "../up.bin", [10, 20], folder / "up.bin", 1 << 20)
    external(branches[0].g.initializer[0], "deep/er.bin", [30, 40], home / "deep" / "er.bin")
    external(branches[1].g.node[0].attribute[0].t, "beside.bin", [50, 60], home / "beside.bin", 64)
    (home / "m.onnx").write_bytes(proto.SerializeToString())
    return home / "m.onnx"


def test_the_interface_is_read_without_onnx(tmp_path: Path) -> None:
    found = interface_of(scattered(tmp_path))
    assert found.outputs == ("y", "x2") and found.inner == {"h", "y", "unused", "x2"}
    assert [(w.location, w.offset, w.length) for w in found.external] == [
        ("../up.bin", 1 << 20, 8),
        ("beside.bin", 64, 8),
        ("deep/er.bin", 0, None),
    ]
    assert found.hidden(["h", "y", "nowhere", "h", "unused", "a"]) == ["h", "unused"]


@pytest.mark.skipif(not index(), reason="the public models are not here")
def test_the_interface_of_public_models_is_what_onnx_says() -> None:
    for row in index():
        path = FOLDER / row["file"]
        if path.suffix != ".onnx":
            continue
        try:
            proto = onnx.load(str(path), load_external_data=False)
        except DecodeError:
            with pytest.raises(BadModelError):
                interface_of(path)
            continue
        found = interface_of(path)
        assert list(found.outputs) == [o.name for o in proto.graph.output if o.name], path
        assert found.inner == {name for node in proto.graph.node for name in node.output if name}, path


def test_a_copy_holds_what_it_uses_and_onnx_reads_it(tmp_path: Path) -> None:
    path = scattered(tmp_path)
    with (tmp_path / "up.bin").open("ab") as file:
        file.write(b"not used" * 1000)
    before = path.read_bytes()
    copy = exposed(path, ["h", "y"], tmp_path / "copy")
    assert path.read_bytes() == before and copy.name == "m.onnx"
    proto = onnx.load(str(copy), load_external_data=False)
    assert [o.name for o in proto.graph.output] == ["y", "x2", "h"]
    up = copy.parent / "../up.bin"
    assert up.stat().st_size == (tmp_path / "up.bin").stat().st_size and up.stat().st_blocks < 100
    assert up.read_bytes()[1 << 20 :][:8] == np.array([10, 20], np.float32).tobytes()
    assert set(up.read_bytes()[(1 << 20) + 8 :]) == {0}
    assert (copy.parent / "beside.bin").read_bytes()[64:] == np.array([50, 60], np.float32).tobytes()
    assert (copy.parent / "deep" / "er.bin").read_bytes() == np.array([30, 40], np.float32).tobytes()


@pytest.mark.parametrize("how", ["hard", "symbolic"])
def test_links_are_copied_for_those_who_do_not_read_them(tmp_path: Path, how: str) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> '
        "{ y = Add (x, w) }"
    )
    external(proto.graph.initializer[0], "w.bin", [1, 2], tmp_path / "source" / "w.bin")
    piece = tmp_path / "piece" / "m.onnx"
    piece.parent.mkdir()
    piece.write_bytes(proto.SerializeToString())
    link = piece.parent / "w.bin"
    link.hardlink_to(tmp_path / "source" / "w.bin") if how == "hard" else link.symlink_to(tmp_path / "source" / "w.bin")
    found = linked_folder(piece, interface_of(piece))
    assert found == (tmp_path / "source" if how == "symbolic" else None)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.load(str(piece))
    copy = exposed(piece, ["y"], tmp_path / "copy")
    assert onnx.numpy_helper.to_array(onnx.load(str(copy)).graph.initializer[0]).tolist() == [1, 2]
    link.unlink()
    link.write_bytes((tmp_path / "source" / "w.bin").read_bytes())
    assert exposed(piece, ["y"], tmp_path / "copy") == piece


def test_links_into_two_folders_have_no_folder_in_common(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) <float[2] w = {1, 2}, float[2] v = '
        "{1, 2}> { h = Add (x, w) y = Add (h, v) }"
    )
    for i, tensor in enumerate(proto.graph.initializer):
        external(tensor, f"{i}.bin", [1, 2], tmp_path / f"source{i}" / f"{i}.bin")
        (tmp_path / f"{i}.bin").symlink_to(tmp_path / f"source{i}" / f"{i}.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    assert linked_folder(path, interface_of(path)) is None


def test_a_tail_adds_outputs_and_lowers_the_ir_version(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(TEXT).SerializeToString())
    proto = onnx.ModelProto.FromString(with_tail(path, tail_of(["h", "é" * 100], ir_version=7)))
    assert [o.name for o in proto.graph.output] == ["y", "x2", "h", "é" * 100] and proto.ir_version == 7
    assert tail_of([]) == b"" and len(proto.graph.node) == 3


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.onnx: cannot be read: No such file"):
        interface_of(tmp_path / "none.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(FileError, match="cannot be read"):
        interface_of(tmp_path / "empty.onnx")
    (tmp_path / "bad.onnx").write_bytes(onnx.parser.parse_model(TEXT).SerializeToString()[:-5])
    with pytest.raises(BadModelError, match="truncated"):
        interface_of(tmp_path / "bad.onnx")
