"""The README shows what the commands really print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.surgeon.conftest import Said

README = Path(__file__).parent.parent.parent / "README.md"
BLOCK = re.compile(r"```console\n\$ (?P<command>surgeon .+?)\n(?P<output>.*?)```", re.DOTALL)


def words(text: str) -> list[str]:
    """Words with every number unified: times and last digits differ from machine to machine."""
    return re.sub(r"\d[\d.,e+-]*", "N", text).split()


def blocks() -> list[tuple[str, str]]:
    return [(found["command"], found["output"]) for found in BLOCK.finditer(README.read_text())]


def test_the_readme_shows_all_jobs() -> None:
    assert [command.split()[1] for command, _ in blocks()] == ["rewrite", "compare", "find", "replay", "extract"]


def test_the_readme_tells_the_truth(
    surgeon: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert surgeon("demo", "--keep", "demo").code == 0
    for command, output in blocks():
        said = surgeon(*shlex.split(command)[1:])
        assert said.code in (0, 1), said.err
        assert words(said.out) == words(output)
