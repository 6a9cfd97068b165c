from __future__ import annotations

from pathlib import Path

import pytest

from surgeon_debug.comparison import SCHEMA
from surgeon_debug.plain_values import plain
from surgeon_debug.result_file import load_result, save_result
from surgeon_passes.errors import BadOptionError, FileError


def test_a_document_comes_back_as_it_was(tmp_path: Path) -> None:
    document = {"schema": SCHEMA, "verdict": "differ", "layers": [{"tensor": "é", "x": plain(float("nan"))}], "n": None}
    save_result(document, tmp_path / "r.json")
    assert load_result(tmp_path / "r.json", SCHEMA) == document


def test_what_is_no_result_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("older")
    for document in ({}, {"schema": "other"}, {"schema": SCHEMA, "x": float("nan")}, {"schema": SCHEMA, "x": object()}):
        with pytest.raises(BadOptionError, match="a result"):
            save_result(document, path)
    with pytest.raises(FileError, match="folder does not exist"):
        save_result({"schema": SCHEMA}, tmp_path / "no" / "r.json")
    assert path.read_text() == "older" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: no such file"),
        ("", "is no saved result, or is cut short"),
        ('{"schema": "surgeon.comp', "is no saved result, or is cut short"),
        ("\xff\xfe", "is no saved result, or is cut short"),
        ("[" * 100_000, "is no saved result, or is cut short"),
        ("[1]", "is no saved result; save one with --save"),
        ('{"a": 1}', "is no saved result; save one with --save"),
        ('{"schema": "surgeon.run/1"}', "is a result of 'surgeon run', not of 'surgeon compare'"),
        ('{"schema": "surgeon.compare/1"}', "was saved by an older version (surgeon.compare/1; this one reads"),
        ('{"schema": "surgeon.compare/3"}', "was saved by a newer version"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "r.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FileError) as caught:
        load_result(path, "surgeon.compare/2")
    assert words in str(caught.value) and "\n" not in str(caught.value) and str(path) in str(caught.value)
