"""The options that the next command is told to have."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest

from surgeon.carried_options import carried_options
from surgeon.commands import find_tactic
from surgeon.probing import Request
from tests.debug.deep_net import deep_net
from tests.debug.tensorrt_places import play
from tests.simulated_tensorrt.plan import Fault, Where
from tests.surgeon.typing_commands import Type


def test_nothing_is_carried_unless_it_was_given() -> None:
    assert carried_options(Request(model=Path("m.onnx"))) == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"feeds": Path("my inputs.npz")}, " --feeds 'my inputs.npz'"),
        ({"samples": 3, "seed": 7, "dims": "N=1..2..4"}, " --samples 3 --seed 7 --dims N=1..2..4"),
        ({"metric": ("rel_l2<0.1", "cosine>0.9")}, " --metric 'rel_l2<0.1' --metric 'cosine>0.9'"),
        ({"allow_external": True, "rtol": 0.0}, " --rtol 0.0 --allow-external"),
        ({"jobs": 4, "resume": Path("kept"), "every": True}, ""),
    ],
)
def test_what_was_given_is_carried_as_a_shell_takes_it(given: dict[str, Any], expected: str) -> None:
    request = dataclasses.replace(Request(model=Path("m.onnx")), **given)
    assert carried_options(request) == expected
    known = {option for parameter in find_tactic.command.params for option in parameter.opts}
    assert {word for word in shlex.split(expected) if word.startswith("--")} <= known


def test_the_next_command_asks_the_same_question(
    surgeon: Type, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node="/m2", rank=0), amount=0.5))
    monkeypatch.chdir(tmp_path)
    model = deep_net(tmp_path, 4)
    options = ("--seed", 3, "--target", "tensorrt:tf32=false")
    said = surgeon("find", "auto", model.name, *options)
    (line,) = [line for line in said.out.splitlines() if line.startswith("next: surgeon find tactic")]
    assert line.endswith("--seed 3")
    found = surgeon(*shlex.split(line)[2:], "--json").document
    assert found["outcome"] == "found" and "/m2" in found["details"][0]["members"][0]["nodes"]
    looked = surgeon("compare", model.name, *options, "--layers")
    (line,) = [line for line in looked.out.splitlines() if line.startswith("next: surgeon find tactic")]
    assert "--seed 3" in line
