"""A journal keeps what was noted through every way of being stopped, and says so where it cannot."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_debug.journal import NAME, SCHEMA, Journal
from surgeon_passes.errors import BadOptionError, FileError


def noted(folder: Path) -> bytes:
    with Journal(folder) as journal:
        journal.begin("a", "first")
        journal.end("a", {"n": 1})
        journal.begin("b", "second")
        journal.end("b", {"n": 2})
        journal.begin("c", "third")
    return (folder / NAME).read_bytes()


def test_what_ended_is_known_again_and_what_did_not_is_counted(tmp_path: Path) -> None:
    noted(tmp_path)
    with Journal(tmp_path) as journal:
        assert journal.known("a") == {"n": 1}
        assert journal.known("b") == {"n": 2}
        assert journal.known("c") is None
        assert [journal.begun(key) for key in "abcd"] == [0, 0, 1, 0]
        assert journal.ended == 2
        journal.begin("c", "third")
    with Journal(tmp_path) as journal:
        assert journal.begun("c") == 2
        journal.let_go("c")
        assert journal.begun("c") == 1
    with Journal(tmp_path) as journal:
        assert journal.begun("c") == 1
        journal.end("c", {})
        assert journal.begun("c") == 0


def test_without_a_folder_it_remembers_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Journal(None) as journal:
        journal.begin("a", "first")
        assert journal.begun("a") == 1
        journal.end("a", {"n": [1, None]})
        assert journal.known("a") == {"n": [1, None]}
    assert list(tmp_path.iterdir()) == []


def test_a_record_cannot_be_changed_from_outside() -> None:
    journal = Journal(None)
    record = {"n": [1]}
    journal.end("a", record)
    record["n"].append(2)
    journal.known("a")["n"].append(3)  # type: ignore[index]
    assert journal.known("a") == {"n": [1]}


def test_the_folder_is_made(tmp_path: Path) -> None:
    noted(tmp_path / "deep" / "down")
    assert (tmp_path / "deep" / "down" / NAME).is_file()


def test_every_line_is_json(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in noted(tmp_path).splitlines()]
    assert lines[0]["of"]["schema"] == SCHEMA
    assert [line["of"].get("do") for line in lines[1:]] == ["begin", "end", "begin", "end", "begin"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def alike(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


@settings(max_examples=40, deadline=None)
@given(record=st.dictionaries(st.text(), JSON, max_size=4))
def test_any_json_comes_back_as_it_was(record: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with Journal(folder) as journal:
        journal.end("a", record)
        assert alike(journal.known("a"), record)
    with Journal(folder) as journal:
        assert alike(journal.known("a"), record)


def test_what_is_no_json_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        with pytest.raises(TypeError):
            journal.end("a", {"n": object()})
        assert journal.known("a") is None
        journal.end("b", {})
    with Journal(tmp_path) as journal:
        assert journal.ended == 1


def test_cut_off_anywhere_it_goes_on_from_the_last_whole_line(tmp_path: Path) -> None:
    whole = noted(tmp_path)
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    near = {end + step for end in ends for step in (-1, 0, 1)}
    for cut in sorted({*near, *range(0, len(whole), 23)} & set(range(len(whole) + 1))):
        (tmp_path / NAME).write_bytes(whole[:cut])
        lines = sum(end <= cut for end in ends)
        with Journal(tmp_path) as journal:
            assert journal.ended == sum(lines > number for number in (2, 4)), cut
            journal.end("d", {"n": 4})
        with Journal(tmp_path) as journal:
            assert journal.ended == sum(lines > number for number in (2, 4)) + 1, cut
        data = (tmp_path / NAME).read_bytes()
        assert data.startswith(whole[: ends[max(lines, 1) - 1]])
        assert all(json.loads(line) for line in data.splitlines())


def test_a_last_line_that_is_damaged_is_dropped(tmp_path: Path) -> None:
    whole = noted(tmp_path)
    (tmp_path / NAME).write_bytes(whole[:-20] + b"\0" * 19 + b"\n")
    with Journal(tmp_path) as journal:
        assert journal.begun("c") == 0
        assert journal.ended == 2


@pytest.mark.parametrize("line", [1, 2, 3, 5])
def test_a_damaged_line_in_the_middle_is_one_sentence(tmp_path: Path, line: int) -> None:
    lines = noted(tmp_path).splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"of":{"', b'"of":{"x')
    (tmp_path / NAME).write_bytes(b"".join(lines))
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(FileError, match=f"line {line} is damaged"):
        Journal(tmp_path)
    assert (tmp_path / NAME).read_bytes() == before


@pytest.mark.parametrize("content", [b"hello\n", b'{"a": 1}\n', b"\x00" * 9, b'{"sum', b'{"summit": 1}\n{"b": 2}\n'])
def test_a_file_of_somebody_elses_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    if content == b'{"sum':  # this may well be ours, not finished
        Journal(tmp_path).close()
        return
    with pytest.raises(FileError):
        Journal(tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


def test_a_later_form_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("surgeon_debug.journal.SCHEMA", SCHEMA + 1)
        noted(tmp_path)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(FileError, match="newer onnx-surgeon"):
        Journal(tmp_path)
    assert (tmp_path / NAME).read_bytes() == before


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be opened"):
        Journal(tmp_path / "file")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / NAME)
    with pytest.raises(FileError, match="is not a regular file"):
        Journal(tmp_path / "pipe")


def test_two_searches_cannot_use_one_folder(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from surgeon_debug.journal import Journal; Journal(Path({str(tmp_path)!r}))"
    with Journal(tmp_path):
        with pytest.raises(BadOptionError, match="another search"):
            Journal(tmp_path)
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert other.returncode == 1
        assert "BadOptionError" in other.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _write_much(folder: str, start: Any, count: Any) -> None:
    start.wait()
    while count.value < 20:
        try:
            journal = Journal(Path(folder))
        except BadOptionError:
            continue
        with journal:
            for i in range(20):
                journal.end(f"{os.getpid()} {count.value} {i}", {"text": "x" * 5000})
            count.value += 1


def test_two_processes_and_many_threads_never_interleave_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, count = context.Event(), context.Value("i", 0)
    others = [context.Process(target=_write_much, args=(str(tmp_path), start, count)) for _ in range(2)]
    for other in others:
        other.start()
    start.set()
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    with Journal(tmp_path) as journal:
        before = journal.ended
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda i: journal.end(str(i), {"text": "y" * i}), range(200)))
    with Journal(tmp_path) as journal:
        assert journal.ended == before + 200
        assert before >= 400


def test_a_full_disk_is_one_sentence_and_leaves_whole_lines(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from surgeon_debug.journal import Journal
from surgeon_passes.errors import FileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path({str(tmp_path)!r}))
journal.end("a", {{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    journal.end("b", {{"text": "x" * 5000}})
except FileError as error:
    print(error)
assert journal.known("b") is None
journal.end("c", {{}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    with Journal(tmp_path) as journal:
        assert journal.ended == 2
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_nothing_is_noted_after_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.close()
    with pytest.raises(FileError, match="closed"):
        journal.end("a", {})
    assert journal.known("a") is None
