from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from surgeon_debug.element_types import Buffer
from surgeon_debug.golden import GoldenReader, GoldenWriter
from surgeon_debug.tensor_file import ALIGNMENT, stored_dtypes
from surgeon_debug.values import normalise
from surgeon_passes.errors import BadOptionError, FileError

DTYPES = stored_dtypes()
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def assert_identical(seen: Any, wanted: Any) -> None:
    """Equal to the bit, in the same form."""
    wanted = normalise(wanted)
    assert type(seen) is type(wanted)
    if isinstance(wanted, dict):
        assert list(seen) == list(wanted)
        for key in wanted:
            assert_identical(seen[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(seen) == len(wanted)
        for one, other in zip(seen, wanted, strict=True):
            assert_identical(one, other)
    elif wanted is not None:
        assert seen.dtype == wanted.dtype
        assert seen.shape == wanted.shape
        assert seen.tolist() == wanted.tolist() if wanted.dtype == object else seen.tobytes() == wanted.tobytes()


def round_trip(path: Path, values: dict[str, Any], **options: bool) -> dict[str, Any]:
    with GoldenWriter(path, **options) as writer:
        writer.add_feeds(0, {})  # a model without inputs has samples all the same
        for name, value in values.items():
            writer.add(0, name, value)
    with GoldenReader(path) as reader:
        assert reader.names(0) == list(values)
        return {name: reader.get(0, name) for name in values}


def any_array(dtype: np.dtype[Any]) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    """Arrays of arbitrary bits, so that every NaN payload, infinity and subnormal occurs."""

    def made(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray[Any, Any]]:
        size = int(np.prod(shape)) * dtype.itemsize
        if dtype == np.bool_:
            return arrays.arrays(np.bool_, shape)
        return st.binary(min_size=size, max_size=size).map(
            lambda raw: np.frombuffer(raw, np.uint8).copy().view(dtype).reshape(shape)
        )

    return arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4).flatmap(made)


TENSORS = st.sampled_from(sorted(DTYPES)).flatmap(lambda name: any_array(DTYPES[name]))
ANY_TEXT = st.text(st.characters(), max_size=6)  # surrogates, NUL and everything else that a str may hold
TEXTS = arrays.arrays(object, arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3), elements=ANY_TEXT)
VALUES = st.recursive(
    TENSORS | TEXTS | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT | st.integers(-(2**63), 2**63 - 1), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(st.dictionaries(ANY_TEXT, VALUES, max_size=4), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_survives_to_the_bit(tmp_path: Path, values: dict[str, Any], compress: bool) -> None:
    seen = round_trip(tmp_path / "a.golden", values, compress=compress)
    for name, value in values.items():
        assert_identical(seen[name], value)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", sorted(DTYPES))
def test_large_tensors_of_every_type(tmp_path: Path, name: str, compress: bool) -> None:
    raw = np.random.default_rng(0).integers(0, 2 if name == "bool" else 256, (3 << 20) // 2, np.uint8)
    value = raw[: raw.size // DTYPES[name].itemsize * DTYPES[name].itemsize].view(DTYPES[name]).reshape(2, -1)
    assert_identical(round_trip(tmp_path / "a.golden", {"x": value}, compress=compress)["x"], value)


def test_arrays_in_any_layout(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    values = {
        "transposed": base.T,
        "strided": base[:, ::2, ::-1],
        "broadcast": np.broadcast_to(base[0], (5, 3, 4)),
        "big-endian": base.astype(">f4"),
        "scalar": np.float32(3),
        "number": 7,
        "fixed width": np.array([["ab", ""], ["é", "abcdef"]]),
        "bytes": np.array([b"a", b"\xff"]),
    }
    low = base.astype(ml_dtypes.int4)
    seen = round_trip(tmp_path / "a.golden", {**values, "packed": Buffer.of(low)})
    assert_identical(seen["packed"], low)
    assert_identical(seen["big-endian"], base)
    for name in set(values) - {"big-endian"}:
        assert_identical(seen[name], values[name])


def test_samples_feeds_and_meta_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "a.golden"
    meta = {"runner": "onnxruntime:optimize=none", "seed": 3, "dims": {"N": 2}, "nested": [1, None, "é"]}
    with GoldenWriter(path, meta) as writer:
        writer.add(2, "y", np.ones(3))
        writer.add_feeds(0, {"x": np.arange(4), "text": np.array(["a"])})
        writer.add(0, "z", [np.zeros(1)])
        assert writer.has(0, "z") and not writer.has(0, "y") and not writer.has(7, "y")
        writer.add(0, "y", None)
    with GoldenReader(path) as reader:
        assert reader.meta == meta
        assert reader.samples == 3
        assert [reader.names(i) for i in range(3)] == [["z", "y"], [], ["y"]]
        assert reader.has(2, "y") and not reader.has(1, "y") and not reader.has(9, "y")
        assert list(reader.feeds(0)) == ["x", "text"]
        assert reader.feeds(0)["text"].tolist() == ["a"]
        assert reader.feeds(1) == {}
        with pytest.raises(BadOptionError, match="sample 0 has no tensor 'nothing'"):
            reader.get(0, "nothing")
        with pytest.raises(BadOptionError, match="no sample number 3 of 3"):
            reader.names(3)


def test_a_writer_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    path = tmp_path / "a.golden"
    with GoldenWriter(path) as writer:
        writer.add(0, "x", np.ones(1))
        with pytest.raises(BadOptionError, match="'x' of sample 0 is saved already"):
            writer.add(0, "x", np.ones(1))
        with pytest.raises(BadOptionError, match="no sample number -1"):
            writer.add(-1, "x", np.ones(1))
        for odd in (np.zeros(2, "V3"), np.zeros(2, "M8[s]"), np.zeros(2, np.longdouble)):
            with pytest.raises(BadOptionError, match="which ONNX does not have"):
                writer.add(0, "odd", odd)
        with pytest.raises(BadOptionError, match="a map with the key"):
            writer.add(0, "odd", {1.5: np.ones(1)})
    with pytest.raises(BadOptionError, match="is closed"):
        writer.add(0, "y", np.ones(1))
    writer.close()
    with GoldenReader(path) as reader:
        assert reader.names(0) == ["x"]


def test_numpy_and_zip_read_it_without_us(tmp_path: Path) -> None:
    path = tmp_path / "a.golden"
    names = ["logits", "/encoder/layer.0/MatMul_output_0", "a/../b", "é%"]
    with GoldenWriter(path) as writer:
        writer.add_feeds(0, {"x": np.arange(3)})
        for i, name in enumerate(names):
            writer.add(0, name, np.full(5, i, np.float32))
        writer.add(0, "low", np.ones(2, ml_dtypes.bfloat16))
    with np.load(path, allow_pickle=False) as archive:
        assert archive["0/logits"].tolist() == [0] * 5
        assert archive["0//encoder/layer.0/MatMul_output_0"].tolist() == [1] * 5
        assert archive["0/a/%2E%2E/b"].tolist() == [2] * 5
        assert archive["0/%C3%A9%25"].tolist() == [3] * 5
        assert archive["feeds/0/x"].tolist() == [0, 1, 2]
        assert archive["0/low"].view(ml_dtypes.bfloat16).tolist() == [1, 1]
    assert zipfile.ZipFile(path).testzip() is None


def test_names_that_look_alike_as_members_stay_apart(tmp_path: Path) -> None:
    values = {"é": np.ones(1), "%C3%A9": np.ones(2), "x" * 300: np.ones(3), "x" * 300 + "y": np.ones(4), "": np.ones(5)}
    values |= {"../../etc/passwd": np.ones(6), "a\\b\x00c\n": np.ones(7), "index": np.array(["t"], object)}
    path = tmp_path / "a.golden"
    for name, value in round_trip(path, values).items():
        assert_identical(value, values[name])
    for member in zipfile.ZipFile(path).namelist():
        assert ".." not in member.split("/") and member.isascii() and member.isprintable()


def test_large_tensors_are_mapped_and_aligned(tmp_path: Path) -> None:
    path = tmp_path / "a.golden"
    values = {f"x{'y' * i}": np.random.default_rng(i).standard_normal((1 << 18) + i) for i in range(9)}
    with GoldenWriter(path) as writer:
        for name, value in values.items():
            writer.add(0, name, value)
    reader = GoldenReader(path)
    maps = [reader.get(0, name) for name in values]
    assert Path("/proc/self/maps").read_text().count("a.golden") == len(maps)
    for value in maps:
        assert value.ctypes.data % ALIGNMENT == 0 and value.flags.aligned and not value.flags.writeable
    path.unlink()  # what is open stays readable
    reader.close()
    for value, wanted in zip(maps, values.values(), strict=True):
        assert_identical(value, wanted)
    del maps, value
    assert "a.golden" not in Path("/proc/self/maps").read_text()


def test_equal_tensors_are_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "a.golden"
    value = np.random.default_rng(0).standard_normal(1 << 16)
    other = value.copy()
    other[12345] += 1  # not among the bytes that are sampled for a first look
    with GoldenWriter(path) as writer:
        for sample in range(5):
            writer.add(sample, "a", value)
            writer.add(sample, "b", other)
        writer.add(0, "shaped", value.reshape(256, 256))
    assert path.stat().st_size < 4 * value.nbytes
    with GoldenReader(path) as reader:
        for sample in range(5):
            assert_identical(reader.get(sample, "a"), value)
            assert_identical(reader.get(sample, "b"), other)
        assert_identical(reader.get(0, "shaped"), value.reshape(256, 256))


def test_writing_and_reading_need_the_memory_of_one_tensor(tmp_path: Path) -> None:
    script = f"""
import resource, sys
import numpy as np
from surgeon_debug.golden import GoldenReader, GoldenWriter
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
value = np.zeros(4 << 20)
value += 1
before = peak()
with GoldenWriter({str(tmp_path / "a.golden")!r}) as writer:
    for i in range(20):
        value[i] = 2
        writer.add(0, str(i), value)
reader = GoldenReader({str(tmp_path / "a.golden")!r})
total = sum(float(reader.get(0, str(i)).sum()) for i in range(20))
print(peak() - before, total)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENV)
    grown, total = done.stdout.split()
    assert float(total) == 20 * (4 << 20) + sum(range(1, 21))
    assert (tmp_path / "a.golden").stat().st_size > 20 * (32 << 20)
    assert int(grown) < 48  # MiB; one tensor has 32, the file 640


def test_ten_thousand_tensors_take_linear_time(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        started = time.process_time()
        with GoldenWriter(tmp_path / "a.golden") as writer:
            for i in range(count):
                writer.add(0, f"/layer.{i}/out", np.full(16, i, np.float32))
        with GoldenReader(tmp_path / "a.golden") as reader:
            assert all(reader.get(0, name)[0] == i for i, name in enumerate(reader.names(0)))
        return time.process_time() - started

    small, large = seconds(1_500), seconds(12_000)
    assert large < 8 * 2.5 * small


@pytest.mark.slow
def test_tensors_and_files_beyond_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.golden"
    big = np.zeros((1 << 32) + 7, np.uint8)
    big[-1] = 3
    with GoldenWriter(path) as writer:
        writer.add(0, "big", big)
        writer.add(0, "after", np.arange(5))
    with GoldenReader(path) as reader:
        assert np.array_equal(reader.get(0, "big"), big)
        assert reader.get(0, "big").ctypes.data % ALIGNMENT == 0
        assert reader.get(0, "after").tolist() == [0, 1, 2, 3, 4]


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.golden"
    path.write_bytes(b"older")
    with pytest.raises(ZeroDivisionError), GoldenWriter(path) as writer:
        writer.add(0, "x", np.ones(10))
        raise ZeroDivisionError
    writer.abort()
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_bad_targets_are_said_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="folder does not exist"):
        GoldenWriter(tmp_path / "no" / "a.golden")
    with pytest.raises(FileError, match="it is a folder"):
        GoldenWriter(tmp_path)


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    script = f"""
import numpy as np
from surgeon_debug.golden import GoldenWriter
from surgeon_passes.errors import FileError
try:
    with GoldenWriter({str(tmp_path / "a.golden")!r}) as writer:
        for i in range(9):
            writer.add(0, str(i), np.random.default_rng(i).standard_normal(1 << 16))
except FileError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENV, preexec_fn=limited
    )
    assert "larger than allowed" in done.stdout and done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("older", [None, b"older"])
def test_kill_in_the_middle_leaves_the_target_as_it_was(tmp_path: Path, older: bytes | None) -> None:
    path = tmp_path / "a.golden"
    if older is not None:
        path.write_bytes(older)
    script = f"""
import numpy as np
from surgeon_debug.golden import GoldenWriter
writer = GoldenWriter({str(path)!r})
for i in range(10**9):
    writer.add(0, str(i), np.full(1 << 18, i))
    print(i, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=ENV) as process:
        assert process.stdout is not None
        assert "5\n" in iter(process.stdout.readline, "")
        os.kill(process.pid, signal.SIGKILL)
    assert (path.read_bytes() if path.exists() else None) == older


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "a.golden"
    with GoldenWriter(path, {"runner": "r"}) as writer:
        writer.add_feeds(0, {"x": np.arange(3)})
        writer.add(0, "small", np.ones(5, np.float32))
        writer.add(0, "large", np.random.default_rng(0).standard_normal(1 << 18))
        writer.add(0, "text", np.array(["a", "b"]))
    return path


def read_all(path: Path) -> None:
    with GoldenReader(path) as reader:
        for sample in range(reader.samples):
            reader.feeds(sample)
            for name in reader.names(sample):
                reader.get(sample, name)


def test_a_file_cut_anywhere_is_refused(golden: Path) -> None:
    data = golden.read_bytes()
    rng = np.random.default_rng(0)
    for end in [0, 1, 21, 22, 100, len(data) - 1, *rng.integers(0, len(data), 60).tolist()]:
        golden.write_bytes(data[:end])
        with pytest.raises(FileError, match=r"is not a golden file, or is cut short") as caught:
            read_all(golden)
        assert "\n" not in str(caught.value)


def test_any_changed_byte_is_noticed_or_harmless(golden: Path) -> None:
    """Nothing but FileError comes out, and no tensor comes out other than it went in."""
    data = bytearray(golden.read_bytes())
    directory = data.rindex(b"PK\x01\x02small"[:4], 0, len(data))
    spots = np.random.default_rng(1).integers(0, len(data), 150).tolist()
    spots += [*range(directory, len(data), 3), *range(0, 200, 7)]
    for spot in spots:
        changed = bytearray(data)
        changed[spot] ^= 0x41
        golden.write_bytes(changed)
        try:
            with GoldenReader(golden) as reader:
                if reader.has(0, "small"):
                    assert_identical(reader.get(0, "small"), np.ones(5, np.float32))
                if reader.has(0, "large"):
                    assert_identical(reader.get(0, "large"), np.random.default_rng(0).standard_normal(1 << 18))
                if reader.has(0, "text"):
                    assert_identical(reader.get(0, "text"), np.array(["a", "b"]))
        except FileError as error:
            assert str(golden) in str(error) and "\n" not in str(error)


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any], method: int = zipfile.ZIP_STORED) -> Path:
    """The same members with another index."""
    with zipfile.ZipFile(path) as archive:
        index = json.loads(archive.read("index.json"))
        members = {name: archive.read(name) for name in archive.namelist() if name != "index.json"}
    changed = change(index)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr("index.json", json.dumps(index if changed is None else changed))
    return path


def entry(index: dict[str, Any], **changes: Any) -> None:
    index["samples"][0]["values"]["small"].update(changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: [], "is no golden file"),
        (lambda index: index.update(schema="surgeon.golden/2"), "is of the kind surgeon.golden/2, which this version"),
        (lambda index: index.update(schema="other/1"), "is no golden file"),
        (lambda index: index.pop("meta") and None, "its index is malformed"),
        (lambda index: index.update(samples=[1]), "its index is malformed"),
        (lambda index: index.pop("samples") and None, "its index is malformed"),
        (lambda index: index.update(samples={"a": 1}), "its index is malformed"),
        (lambda index: index["samples"][0].update(values=[]), "its index is malformed"),
        (lambda index: entry(index, shape=[6]), "holds 148 bytes, not 6 elements"),
        (lambda index: entry(index, shape=[-1]), "its index is malformed"),
        (lambda index: entry(index, shape=[2.5]), "its index is malformed"),
        (lambda index: entry(index, shape=[1 << 61, 1 << 61]), "148 bytes, not "),
        (lambda index: entry(index, shape=[0]), "holds 148 bytes, not 0 elements"),
        (lambda index: entry(index, shape=[1] * 70), "its index is malformed"),
        (lambda index: entry(index, dtype="float128"), "unknown type float128"),
        (lambda index: entry(index, dtype="string"), "is not JSON"),
        (lambda index: entry(index, dtype="float64"), "holds 148 bytes, not 5 elements"),
        (lambda index: entry(index, member="no/such"), "'no/such' is missing"),
        (lambda index: entry(index, member=7), "its index is malformed"),
        (lambda index: entry(index, sequence=[{}]), "its index is malformed"),
        (lambda index: entry(index, map=[[1]]), "its index is malformed"),
        (lambda index: entry(index, map=[[{}, None]]), "its index is malformed"),
    ],
)
def test_an_index_that_lies_is_refused(golden: Path, change: Callable[[dict[str, Any]], Any], words: str) -> None:
    with pytest.raises(FileError) as caught:
        read_all(rewritten(golden, change))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    for name, words in [("a.npz", "is not a golden file"), ("text", "is not a golden file"), ("empty", "is not a")]:
        with pytest.raises(FileError, match=words):
            GoldenReader(tmp_path / name)
    for name, words in [("nothing", "cannot be read: no such file"), (".", "cannot be read: is a directory")]:
        with pytest.raises(FileError, match=words):
            GoldenReader(tmp_path / name)


def test_a_bomb_does_not_go_off(tmp_path: Path) -> None:
    deep = "[" * 200_000
    for text, words in [(deep, "is not JSON"), (json.dumps(deep), "is no golden file")]:
        with zipfile.ZipFile(tmp_path / "a.golden", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("index.json", text)
        with pytest.raises(FileError, match=words):
            GoldenReader(tmp_path / "a.golden")
