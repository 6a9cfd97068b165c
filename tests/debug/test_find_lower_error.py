"""Faults beside an error that the precision makes anyway: nothing makes the engine right, some changes far better."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon_debug.find.auto import find_auto
from surgeon_debug.find.engine_ground import Question
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.lower_error import fallen, is_far_below, limit_between
from surgeon_debug.find.tactic import find_tactic
from surgeon_debug.find.triage import Suspect
from surgeon_debug.limits import Limits
from tests.debug.deep_net import deep_net
from tests.debug.tensorrt_places import play
from tests.simulated_tensorrt.plan import Fault, Where

BAD = Fault("wrong_values", Where(node="/m4", rank=0), amount=0.5)
LAYERS = 6  # of which TF32 alone makes an error of about 0.01


def test_far_below_is_three_times() -> None:
    assert fallen(0.03, [0.02, None, 0.009]) == 0.009
    assert fallen(0.03, [0.02, 0.011]) is None
    assert fallen(None, [0.1]) is None and fallen(0.3, [None]) is None and fallen(math.inf, [0.1]) is None
    assert fallen(1.7, [0.55]) is None  # more than any precision leaves: the fault is there in another form
    assert is_far_below(0.01, 0.3) and not is_far_below(None, 0.3)


@given(st.floats(1e-6, 10), st.floats(3, 1e4))
def test_the_limit_lies_between(after: float, times: float) -> None:
    name, _, limit = limit_between(after * times, after).partition("<")
    assert name == "rel_l2" and after < float(limit) < after * times


def test_auto_says_what_makes_it_far_less_wrong(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, BAD)
    found = find_auto(Question(deep_net(tmp_path, LAYERS), target="tensorrt"))
    assert found.suspect is Suspect.TACTIC and "its error falls from" in found.why
    (limit,) = re.findall(r" --metric 'rel_l2<([0-9.]+)'$", found.command)
    errors = {one.change: one.error or 0.0 for one in found.tried}
    assert errors["other tactics"] < float(limit) < errors["built anew"]


def test_the_tactic_is_named_with_the_limit_that_is_advised(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, BAD)
    model = deep_net(tmp_path, LAYERS)
    undecided = find_tactic(Question(model, target="tensorrt"))
    assert undecided.outcome is FindOutcome.UNDECIDED and not undecided.culprits
    assert "with some its error falls from" in undecided.reason
    limit = undecided.advice.rpartition("--metric '")[2].rstrip("'")
    found = find_tactic(Question(model, target="tensorrt", limits=Limits.parse([limit])))
    ((member,),) = [one.members for one in found.culprits]
    assert "/m4" in member.nodes


def test_a_healthy_engine_under_the_same_precision_is_not_accused(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path)
    found = find_auto(Question(deep_net(tmp_path, LAYERS), target="tensorrt"))
    assert found.suspect is Suspect.PRECISION
    nobody = find_tactic(Question(deep_net(tmp_path, LAYERS), target="tensorrt"))
    assert nobody.outcome is FindOutcome.UNDECIDED and not nobody.culprits
