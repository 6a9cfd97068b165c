"""Passes are found by name, those of other distributions too, and never two under one name."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from surgeon_passes.catalogue import find_pass, parse_step, pass_locations
from surgeon_passes.contract import Pass
from surgeon_passes.errors import BadOptionError
from surgeon_passes.pipeline import run_pipeline
from surgeon_passes.recipe import Recipe
from surgeon_passes.spec import spec_of

PASS = '''
import dataclasses
from typing import ClassVar
from surgeon_passes.contract import Pass, option

@dataclasses.dataclass(frozen=True)
class Stamp(Pass):
    """Write a word into the metadata."""
    name: ClassVar[str] = "stamp"
    word: str = option("done", "The word.")

    def rewrite(self, model, log):
        if log.permit("stamp", after=[self.word]):
            model.metadata_props["stamp"] = self.word
'''


def install(folder: Path, name: str, entry: str) -> None:
    """A distribution as pip leaves it behind."""
    (folder / "stamping.py").write_text(PASS)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[surgeon.passes]\n{entry}\n")


def test_every_row_loads_and_is_called_what_it_says() -> None:
    for name in pass_locations():
        kind = find_pass(name)
        assert issubclass(kind, Pass)
        assert kind.name == name


def test_a_pass_of_another_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "stampers", "stamp = stamping:Stamp")
    monkeypatch.syspath_prepend(tmp_path)
    step = parse_step("stamp:word=hello")
    assert spec_of(step) == "stamp:word=hello"
    model = ir.from_proto(
        onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float x) => (float y) { y = Neg (x) }')
    )
    report = run_pipeline(model, Recipe((step,)))
    assert model.metadata_props == {"stamp": "hello"}
    assert [(c.number, c.step, c.after) for c in report.changes] == [(1, "stamp", ("hello",))]


def test_a_name_given_twice_names_both_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "stampers", "sort = stamping:Stamp")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadOptionError, match=r"surgeon_passes\.sort:Sort and stamping:Stamp"):
        pass_locations()


@pytest.mark.parametrize(
    ("entry", "words"),
    [("stamp = nowhere:Stamp", "cannot be loaded"), ("stamp = stamping:dataclasses", "is not a pass")],
)
def test_a_broken_entry_gets_a_sentence(
    entry: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "stampers", entry)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadOptionError, match=words):
        find_pass("stamp")
