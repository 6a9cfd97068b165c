"""What names in a column have in common, and how they are shown without it."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from surgeon.report.long_list import print_rows
from surgeon.report.shared_path import shared_path, without_path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["/model/net/layer.0/conv/Conv", "/model/net/layer.1/conv/Conv"], "/model/net/"),
        (["/model/net/a/Conv", "/model/net/a/Relu"], "/model/net/a/"),
        (["/model/net/a/Conv", "/model/net/b/Conv", "/model/net/c/Conv", "/other/Conv", "plain"], "/model/net/"),
        (["/model/a/Conv", "/other/b/Conv"], ""),
        (["/a", "/b"], ""),
        (["conv1", "conv2"], ""),
        (["/model/net/a/Conv"], ""),
        ([], ""),
    ],
)
def test_what_most_names_begin_with(names: list[str], expected: str) -> None:
    assert shared_path(names) == expected


@given(st.lists(st.text("ab/", max_size=12), max_size=8))
def test_it_is_a_path_of_most_of_them(names: list[str]) -> None:
    path = shared_path(names)
    pathed = [name for name in names if "/" in name.strip("/")]
    assert path == "" or path.endswith("/")
    assert not path or sum(name.startswith(path) for name in pathed) >= 0.75 * len(pathed)
    for name in names:
        told = without_path(name, path)
        assert told == name or (told.startswith("...") and name.endswith(told[3:]) and len(told) < len(name))


def test_rows_that_are_cut_are_told_apart() -> None:
    out = io.StringIO()
    rows = [(f"/model/network/encoder/layer.{i}/attention/MatMul", "kernel" * 6) for i in range(12)]
    print_rows(Console(file=out, width=72), ("op", "kernel"), rows)
    lines = out.getvalue().splitlines()[1:]
    assert max(map(len, lines)) <= 72
    assert [line.split()[0] for line in lines] == [f"...layer.{i}/attention/MatMul" for i in range(12)]
