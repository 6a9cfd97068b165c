from __future__ import annotations

import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from surgeon_debug.find.bundle_culprit import BundleRequest, bundle_culprit
from surgeon_debug.find.oracle import FailureKind, Signature
from surgeon_debug.open_bundle import open_bundle
from surgeon_debug.replay import replay
from surgeon_debug.search.trial import Outcome
from surgeon_passes.errors import BadModelError, BadOptionError, FileError, SurgeonError
from tests.debug.test_bundle import ORT, RUNNERS, feeds, perceptron

Members = dict[str, bytes]


def made(folder: Path, options: str, signature: Signature, **more: Any) -> Path:
    out = folder / "culprit.zip"
    target = f"{RUNNERS}:AtOperator:{options}"
    info = bundle_culprit(out, BundleRequest(perceptron(folder), [2], feeds(), ORT, target, signature, **more))
    assert info.made, info.reason
    return out


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("made"), "op=Gemm,gain=1.01", Signature(FailureKind.WRONG_NUMBERS))


def members_of(bundle: Path) -> Members:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def with_document(bundle: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    members = members_of(bundle)
    document = json.loads(members["bundle.json"])
    change(document)
    return zipped(path, {**members, "bundle.json": json.dumps(document).encode()})


def test_code_in_a_bundle_is_not_executed_unless_allowed(bundle: Path, tmp_path: Path) -> None:
    members = members_of(bundle)
    flag = tmp_path / "executed"
    name = f"runner/{RUNNERS.name}"
    members[name] += f"\nPath({str(flag)!r}).touch()\n".encode()
    hostile = zipped(tmp_path / "hostile.zip", members)
    with pytest.raises(BadOptionError, match=r"code and was not executed.*--allow-code"):
        replay(hostile)
    assert replay(hostile, target=ORT).outcome is Outcome.CLEAN
    assert not flag.exists()
    result = replay(hostile, allow_code=True)
    assert flag.exists()
    assert result.outcome is Outcome.REPRODUCES
    assert result.notes == ("Code that is in the bundle was executed.",)


def test_the_failure_of_then(bundle: Path) -> None:
    result = replay(bundle, allow_code=True, reference="reference")
    assert result.outcome is Outcome.REPRODUCES
    assert result.same_bits is True
    assert result.reference_agrees is True
    assert result.changes == ()
    assert result.nodes == ("Gemm(c)",)
    [output] = result.outputs
    assert output.wrong
    assert output.rel_l2 == pytest.approx(0.01, rel=1e-3)
    document = result.to_json()
    assert document["schema"] == "surgeon.replay/1"
    assert document["outcome"] == "reproduces"
    json.dumps(document, allow_nan=False)


def test_another_failure_is_not_this_one(bundle: Path) -> None:
    result = replay(bundle, target=f"{RUNNERS}:AtOperator:op=Gemm,how=crash")
    assert result.outcome is Outcome.UNRESOLVED
    assert "another way" in result.words
    assert result.same_bits is None


def test_what_has_changed_since_is_named(bundle: Path, tmp_path: Path) -> None:
    def older(document: dict[str, Any]) -> None:
        document["versions"]["target"]["onnxruntime"] = "1.0.0"

    result = replay(with_document(bundle, tmp_path / "older.zip", older), allow_code=True)
    assert any(change.startswith("onnxruntime 1.0.0 then") for change in result.changes)


def test_a_crash_and_a_cure(tmp_path: Path) -> None:
    path = made(tmp_path, "op=Gemm,how=crash", Signature(FailureKind.CRASHED, "SIGSEGV"), trials=2)
    assert replay(path, allow_code=True).outcome is Outcome.REPRODUCES
    assert replay(path, target=f"{RUNNERS}:AtOperator:op=Gemm,how=abort").outcome is Outcome.UNRESOLVED
    assert replay(path, target=ORT).outcome is Outcome.CLEAN


def test_a_hang(tmp_path: Path) -> None:
    path = made(tmp_path, "op=Gemm,how=hang", Signature(FailureKind.HUNG), timeout=1.0, trials=0)
    result = replay(path, allow_code=True, timeout=1.5)
    assert result.outcome is Outcome.REPRODUCES


def test_a_known_engine_needs_no_permission(bundle: Path, tmp_path: Path) -> None:
    def known(document: dict[str, Any]) -> None:
        document["target"] = {
            "text": ORT, "name": "onnxruntime", "file": "", "options": {"optimize": "none"}, "option_files": {}
        }  # fmt: skip

    assert replay(with_document(bundle, tmp_path / "known.zip", known)).outcome is Outcome.CLEAN


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("onnxruntime", {"option.optimized_model_filepath": "FLAG"}),
        ("onnxruntime", {"option.enable_profiling": "1"}),
        ("command", {"run": "touch FLAG"}),
    ],
)
def test_options_that_touch_files_need_permission(
    name: str, options: dict[str, str], bundle: Path, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"

    def change(document: dict[str, Any]) -> None:
        own = {key: value.replace("FLAG", str(flag)) for key, value in options.items()}
        document["target"] = {"text": name, "name": name, "file": "", "options": own, "option_files": {}}

    with pytest.raises(BadOptionError, match="not executed"):
        replay(with_document(bundle, tmp_path / "asks.zip", change))
    assert not flag.exists()


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/tmp/evil",
        "inputs/../../evil",
        "..\\evil",
        "C:evil",
        "runner/../../evil.py",
        "inputs//evil",
        "stranger",
    ],
)
def test_members_that_lead_elsewhere_are_refused(name: str, bundle: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "in" / "hostile.zip"
    hostile.parent.mkdir()
    zipped(hostile, {**members_of(bundle), name: b"evil"})
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(FileError):
        open_bundle(hostile, inside)
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]
    assert not Path("/tmp/evil").exists()


def test_links_are_refused(bundle: Path, tmp_path: Path) -> None:
    path = zipped(tmp_path / "link.zip", members_of(bundle))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("inputs/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(FileError, match="is a link"):
        replay(path)


def test_bombs_are_refused_by_what_they_state(bundle: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(FileError, match="would unpack to"):
        open_bundle(bundle, inside, most_bytes=100)
    assert not list(inside.iterdir())


def test_a_member_that_unpacks_to_more_than_it_says(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "liar.zip"
    members = members_of(bundle)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**members, "seen/9.npz": b"\0" * (1 << 20)}.items():
            archive.writestr(name, data)
    data = bytearray(path.read_bytes())
    size = (1 << 20).to_bytes(4, "little")
    while (at := data.find(size)) >= 0:
        data[at : at + 4] = (64).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FileError):
        replay(path, target=ORT)


def test_a_small_file_cannot_hold_a_huge_array(bundle: Path, tmp_path: Path) -> None:
    members = members_of(bundle)
    inner = tmp_path / "inner.npz"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(inner, "w") as archive:
        with zipfile.ZipFile(zipped(tmp_path / "x.zip", {"a": members["inputs/0.npz"]})) as outer:
            names = zipfile.ZipFile(outer.open("a")).namelist()
        for name in names:
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(FileError, match="does not hold what its header says"):
        replay(zipped(tmp_path / "huge.zip", {**members, "inputs/0.npz": inner.read_bytes()}), target=ORT)


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx", "inputs/0.npz", "expected/0.npz", "seen/0.npz"])
def test_a_missing_member_is_said(name: str, bundle: Path, tmp_path: Path) -> None:
    members = members_of(bundle)
    del members[name]
    with pytest.raises(FileError, match=name.split("/")[0]):
        replay(zipped(tmp_path / "less.zip", members), target=ORT)


def test_any_cut_is_said(bundle: Path, tmp_path: Path) -> None:
    data = bundle.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.9, 0.999):
        path = tmp_path / "cut.zip"
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(FileError, match=r"cut short|no zip"):
            replay(path, target=ORT)
    with pytest.raises(FileError, match="no such file"):
        replay(tmp_path / "none.zip")


def test_flipped_bytes_are_noticed_or_harmless(bundle: Path, tmp_path: Path) -> None:
    data = bytearray(bundle.read_bytes())
    path = tmp_path / "flipped.zip"
    for at in range(0, len(data), 211):
        changed = bytearray(data)
        changed[at] ^= 0x41
        path.write_bytes(changed)
        inside = tmp_path / "inside"
        inside.mkdir()
        try:
            open_bundle(path, inside)
        except (FileError, BadModelError):
            pass
        finally:
            shutil.rmtree(inside)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(schema="surgeon.bundle/9"), "this version reads surgeon.bundle/1"),
        (lambda d: d.update(schema="other"), "is no bundle"),
        (lambda d: d.pop("failure"), "malformed"),
        (lambda d: d["failure"].update(kind="bad luck"), "malformed"),
        (lambda d: d["failure"].update(rules=[]), "malformed"),
        (lambda d: d.update(outputs="c"), "malformed"),
        (lambda d: d.update(outputs=["nobody"]), "not for its model"),
        (lambda d: d.update(inputs=[]), "do not belong together"),
        (lambda d: d.update(inputs=[{"b": {"npz": "b"}}] * 2), "missing|together"),
        (lambda d: d.update(inputs=[{"b": {"pb": "../../../etc/passwd"}}]), "missing"),
        (lambda d: d["target"].update(file="/etc/passwd"), "malformed"),
        (lambda d: d["target"].update(option_files={"x": "runner/../../x"}), "malformed"),
        (lambda d: d["limits"].update(timeout="soon"), "malformed"),
        (lambda d: d["limits"].update(timeout=-1), "nothing can be done"),
    ],
)
def test_a_malformed_description_is_one_sentence(
    change: Callable[[dict[str, Any]], None], words: str, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(SurgeonError, match=words) as caught:
        replay(with_document(bundle, tmp_path / "odd.zip", change), target=ORT)
    assert "\n" not in str(caught.value)


def test_a_model_that_reads_other_files_is_refused(bundle: Path, tmp_path: Path) -> None:
    members = members_of(bundle)
    model = onnx.ModelProto()
    model.ParseFromString(members["model.onnx"])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "../../../../../etc/passwd", "offset": "0", "length": "4"}.items():
        tensor.external_data.add(key=key, value=value)
    with pytest.raises(BadModelError):
        replay(zipped(tmp_path / "reads.zip", {**members, "model.onnx": model.SerializeToString()}), target=ORT)
    tensor.external_data[0].value = "bundle.json"
    with pytest.raises(BadModelError, match="outside the bundle"):
        replay(zipped(tmp_path / "reads.zip", {**members, "model.onnx": model.SerializeToString()}), target=ORT)
    with pytest.raises(BadModelError):
        replay(zipped(tmp_path / "junk.zip", {**members, "model.onnx": b"junk"}), target=ORT)


def test_a_body_that_reads_other_files_is_refused(bundle: Path, tmp_path: Path) -> None:
    members = members_of(bundle)
    model = onnx.ModelProto()
    model.ParseFromString(members["model.onnx"])
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": "bundle.json", "offset": "0", "length": "4"}.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.node.append(helper.make_node("Constant", [], ["k"], value=tensor))
    with pytest.raises(BadModelError):
        replay(zipped(tmp_path / "reads.zip", {**members, "model.onnx": model.SerializeToString()}), target=ORT)
