"""``surgeon doctor --self-test tensorrt`` as people type it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from surgeon.report.selfcheck_report import print_self_check
from surgeon_debug.runners.tensorrt.self_check.answer import Answer, Reply
from surgeon_debug.runners.tensorrt.self_check.record_file import read_record_file
from surgeon_debug.runners.tensorrt.self_check.result import ModelCheck, PinCheck, SelfCheck
from tests.debug.tensorrt_places import INSTALLED, VERSIONS, play
from tests.surgeon.conftest import Said


def test_without_tensorrt(surgeon: Callable[..., Said], tmp_path: Path) -> None:
    said = surgeon("doctor", "--self-test", "tensorrt", "--record", tmp_path / "here.zip")
    assert said.code == 2 and not said.out and len(said.err.splitlines()) == 1
    assert "needs the package tensorrt, which is not installed; run pip install" in said.err
    assert not list(tmp_path.iterdir())


def test_without_a_gpu(surgeon: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(INSTALLED / VERSIONS[-1]))
    play(monkeypatch, tmp_path, devices=0)
    said = surgeon("doctor", "--self-test", "tensorrt")
    assert said.code == 2 and not said.out and len(said.err.splitlines()) == 1
    assert "finds no GPU" in said.err and "nvidia-smi" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--record", "here.zip"), "--record belongs to a self-test"),
        (("--other-cache", "a.cache"), "--other-cache belongs to a self-test"),
        (("--self-test", "tensorrt", "--other-cache", "missing.cache"), "does not exist"),
        (("--self-test", "tensorrt", "--record", "nowhere/here.zip"), "nowhere"),
        (("--self-test", "openvino"), "openvino"),
    ],
)
def test_what_means_nothing_is_refused(
    surgeon: Callable[..., Said],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = surgeon("doctor", *arguments)
    assert said.code == 2 and words in said.err


def check(*, right: bool) -> SelfCheck:
    device = {"name": "GPU [8]", "compute": "9.0", "processors": 1, "memory": 1 << 34, "driver": 13000, "runtime": 1}
    system = {"tensorrt": "11.4", "parser": "1", "device": device, "capabilities": [], "lacking": ["A.b"]}
    model = ModelCheck("mlp", "agree" if right else "differ", "" if right else "u2: wrong", 12, not right, 1.0)
    answers = (Answer(1, "Is it?", Reply.YES, "it is"), Answer(2, "Or not?", Reply.UNKNOWN, "who knows"))
    pin = PinCheck(right, "op a pinned to 0x1", "0x2", "0x1", 0.0 if right else 0.5)
    return SelfCheck(system, answers, (model,), pin, 12.0)


@pytest.mark.parametrize("right", [True, False])
def test_the_page_says_all_of_it(right: bool, tmp_path: Path) -> None:
    console = Console(width=100, record=True, file=(tmp_path / "page").open("w"))
    print_self_check(console, check(right=right), tmp_path / "here.zip")
    page = console.export_text()
    assert page.startswith("works" if right else "does not work as it should")
    assert ("u2: wrong; looking inside changes the verdict" in page) is not right
    assert ("pinned tactic followed" if right else "pinned tactic not followed") in page
    for words in ("GPU [8]", "16 GiB", "lacks A.b", "Is it?", "it is", "unknown", "who knows", "12 seconds"):
        assert words in page


@pytest.mark.slow
def test_all_of_it(surgeon: Callable[..., Said], each_tensorrt: str, tmp_path: Path) -> None:
    said = surgeon("doctor", "--self-test", "tensorrt", "--record", tmp_path / "here.zip", "--json")
    assert said.code == 0, said.err
    found = said.document
    assert found["schema"] == "surgeon.tensorrt.selfcheck/1" and found["right"]
    assert [model["verdict"] for model in found["models"]] == ["agree"] * 5
    assert found["pin"]["followed"] is True
    assert [answer["number"] for answer in found["answers"]] == list(range(1, 9))
    assert read_record_file(tmp_path / "here.zip")["check"] == found
    assert found["seconds"] < 300
