"""``surgeon find tactic``, ``fusion`` and ``auto`` as typed: what they print, write and end with."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from surgeon.probing import sizes_of
from surgeon.report.fusion_report import print_fusion
from surgeon.report.tactic_report import print_tactic
from surgeon_debug.find.engine_trials import HowToSearch
from surgeon_debug.find.finding import FindOutcome, Step
from surgeon_debug.find.fusion_finding import FusionCulprit, FusionFinding
from surgeon_debug.find.fusion_levers import Flip, Regrouped
from surgeon_debug.find.tactic_finding import SCHEMA
from surgeon_debug.find.tactic_search import TacticSearch
from surgeon_passes.errors import BadOptionError
from tests.bench.planted_tactics.networks import network
from tests.debug.scripted_builds import Fault as ScriptedFault
from tests.debug.scripted_builds import ScriptedBuilder, hash_of, key_of, scripted_spec
from tests.debug.tensorrt_places import INSTALLED, play
from tests.simulated_tensorrt.plan import Fault, Where
from tests.surgeon.typing_commands import Type


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose engine has a bad kernel; the library is to be found by engines only, in processes of their own."""
    monkeypatch.syspath_prepend(str(INSTALLED / "11.4"))
    monkeypatch.chdir(tmp_path)
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node="matmul_4", rank=0), amount=1.0))
    onnx.save(network("residual", 1, 2), tmp_path / "model.onnx")
    return Path("model.onnx")


def test_the_story_of_a_bad_kernel(surgeon: Type, model: Path) -> None:
    said = surgeon("find", "tactic", model, "--resume", "trials", "--save", "found.json")
    assert said.code == 0
    assert "the tactic of op 'matmul_4" in said.out
    assert "model.good.cache avoids it" in said.out
    assert "surgeon build model.onnx -o ENGINE --timing-cache model.good.cache --pin" in said.out
    assert len(said.out.splitlines()) <= 24
    saved = json.loads(Path("found.json").read_text())
    assert saved["schema"] == SCHEMA
    assert saved["culprits"] == [["matmul_4", "add_5", "tanh_6"]]
    # What it says is what one types.
    built = surgeon("build", model, "-o", "model.engine", "--timing-cache", "model.good.cache", "--pin")
    assert built.code == 0
    again = surgeon("find", "tactic", model, "--resume", "trials", "--json")
    assert (again.code, again.document["builds"]) == (0, 0)


def test_what_does_not_fit_is_refused(surgeon: Type, model: Path) -> None:
    assert surgeon("find", "tactic", model, "--target", "onnxruntime").code == 2
    assert surgeon("find", "tactic", model, "--good", "no.cache").code == 2
    assert surgeon("find", "tactic", model, "-o", model).code == 2
    Path("mine.txt").write_text("not a timing cache")
    assert surgeon("find", "tactic", model, "-o", "mine.txt").code == 2
    assert Path("mine.txt").read_text() == "not a timing cache"
    assert surgeon("find", "fusion", model, "--jobs", "2", "--workers", "tcp://here:1").code == 2


def test_sizes_are_numbers_or_ranges() -> None:
    assert sizes_of("") == ({}, {})
    assert sizes_of("N=4,SEQ=1..16..128, H=2") == ({"N": 4, "H": 2}, {"SEQ": (1, 16, 128)})
    for text in ("N=", "N=8..1", "..", "N=1..x"):
        with pytest.raises(BadOptionError):
            sizes_of(text)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_without_tensorrt_it_is_one_sentence(surgeon: Type, tmp_path: Path) -> None:
    onnx.save(network("residual", 1, 2), tmp_path / "model.onnx")
    for kind in ("tactic", "fusion", "auto"):
        said = surgeon("find", kind, tmp_path / "model.onnx")
        assert said.code == 2
        assert "needs the package tensorrt" in said.err
        assert len(said.err.strip().splitlines()) == 1


@pytest.mark.parametrize("width", [60, 80, 120])
def test_reports_fit_on_a_screen_whatever_is_found(tmp_path: Path, width: int) -> None:
    keys = 30
    builder = ScriptedBuilder((3,) * keys, (bad(2), bad(9), bad(11, 12), bad(20)))
    found = TacticSearch(scripted_spec(tmp_path, builder), HowToSearch()).run("[red]model[/].onnx", ("ort", "trt"))
    assert len(found.culprits) == 4
    console = Console(width=width, record=True, file=io.StringIO())
    print_tactic(console, dataclasses.replace(found, notes=("[bold]x",) * 9))
    lines = console.export_text().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    assert "[red]model[/].onnx" in "".join(lines)
    print_tactic(console, dataclasses.replace(found, steps=(Step("record", "word " * 60, builds=1234, seconds=99.9),)))
    (row,) = [line for line in console.export_text().splitlines() if line.startswith("record")]
    assert "1,234" in row
    assert "99.9" in row
    for outcome in FindOutcome:
        print_tactic(console, dataclasses.replace(found, outcome=outcome, culprits=(), reason="[x] " * 200))
        print_fusion(console, nobody(outcome))


def bad(*places: int) -> ScriptedFault:
    return ScriptedFault(frozenset((key_of(place), hash_of(place, 0)) for place in places))


def nobody(outcome: FindOutcome) -> FusionFinding:
    return FusionFinding(
        outcome=outcome,
        model="model.onnx",
        reference="ort",
        target="trt",
        version="",
        layers=3,
        samples=2,
        signature=None,
        failure="y: wrong",
        culprits=(FusionCulprit("", "", ("[a]", "b"), ("t",)),) * 6 if outcome is FindOutcome.FOUND else (),
        knobs=(Flip("[knob]", "off"),),
        regrouped=(Regrouped("layer", ("a", "b"), (("a",), ("b",))),) * 5,
        outputs=("t",),
        before_ms=1.0,
        after_ms=2.0,
        reason="because",
        advice="do",
        command="surgeon",
        steps=(),
        rate=0.5,
    )
