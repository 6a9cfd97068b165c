"""Metrics and postprocesses from a user's own Python file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from surgeon_debug.compare import Tally
from surgeon_debug.limits import Limits, check
from surgeon_debug.user_functions import load_metric, load_postprocess
from surgeon_passes.errors import BadOptionError

FILE = """
import numpy as np
from beside import SCALE

def mean_gap(reference, target):
    return SCALE * np.mean(np.abs(target - reference))

def agreement(reference, target):
    return (reference.argmax(-1) == target.argmax(-1)).mean()

def items(reference, target):
    return len(reference)

def array(reference, target): return reference
def text(reference, target): return "good"
def nothing(reference, target): return None
def one(reference, target): return np.array([[2]], np.float16)
def broken(reference, target): return reference["x"]
def unsure(reference, target): return float("nan") if reference[0] > 1 else 0.0

def best(outputs):
    return {"class": outputs["logits"].argmax(-1), "kept": outputs["logits"] * 2}

def in_place(outputs):
    outputs["logits"] = outputs.pop("logits") + 1
    return outputs

def empty(outputs): return {}
def no_dict(outputs): return list(outputs)
def worse(outputs): return outputs["missing"]
THING = 3
class Kind: pass
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "beside.py").write_text("SCALE = 1.0\n")
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return str(path)


def test_a_metric_is_measured_for_each_sample_and_limited(mine: str) -> None:
    limits = Limits.parse([f"{mine}:mean_gap<0.5", f"{mine}:agreement>0.9", f"{mine}:mean_gap<=2"])
    tally, other = limits.tally("x"), limits.tally("x")
    r = np.eye(4, dtype=np.float32)
    tally.add(r, r)
    assert check(tally.difference(), limits.for_tensor("x")).ok
    other.add(r, r[::-1].copy(), sample=1)
    tally.merge(other)
    found = tally.difference()
    assert [(n.name.split(":")[1], n.lowest, n.highest) for n in found.user_metrics] == [
        ("mean_gap", 0.0, 0.5), ("agreement", 0.0, 1.0),
    ]  # fmt: skip
    result = check(found, limits.for_tensor("x"))
    assert not result.ok and [limit.text for limit in result.broken] == [
        f"{mine}:mean_gap<0.5",
        f"{mine}:agreement>0.9",
    ]
    assert f"{mine}:agreement 0 is not > 0.9" in result.reason


def test_nan_of_one_sample_is_within_no_limit(mine: str) -> None:
    limits = Limits.parse([f"{mine}:unsure<1"])
    for order in ((0, 2), (2, 0)):
        tally = limits.tally("x")
        for sample, number in enumerate(order):
            tally.add(np.array([number]), np.array([number]), sample=sample)
        assert math.isnan(tally.difference().user_metrics[0].highest)
        assert not check(tally.difference(), limits.for_tensor("x")).ok


def test_a_metric_of_what_is_no_array_and_of_other_shapes(mine: str) -> None:
    tally = Tally(metrics=[load_metric(f"{mine}:items")])
    one = np.ones(3)
    tally.add([one, one], [one, one])
    assert tally.difference().user_metrics[0].highest == 2
    limits = Limits.parse([f"{mine}:mean_gap<1"])
    tally = limits.tally("x")
    tally.add(one, one[:2])
    assert check(tally.difference(), limits.for_tensor("x")).reason == "shape 3 against 2"


def test_one_number_in_any_form(mine: str) -> None:
    assert load_metric(f"{mine}:one")(np.ones(2), np.ones(2)) == 2.0
    assert load_metric(f"{mine}:agreement")(np.eye(2), np.eye(2)) == 1.0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("array", "returns an array, not one number; return a float"),
        ("text", "returns str, not one number"),
        ("nothing", "returns NoneType, not one number"),
        ("broken", "fails: IndexError"),
    ],
)
def test_a_metric_that_goes_wrong_says_so(mine: str, name: str, words: str) -> None:
    with pytest.raises(BadOptionError) as caught:
        Tally(metrics=[load_metric(f"{mine}:{name}")]).add(np.ones(2), np.zeros(2))
    assert f"metric {mine}:{name} {words}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mean_gab", "has no function 'mean_gab'; it has mean_gap"),
        ("zzz", "has no function 'zzz'; it has mean_gap, agreement"),
        ("THING", "'THING' is not a function"),
    ],
)
def test_a_function_that_is_not_there(mine: str, name: str, words: str) -> None:
    with pytest.raises(BadOptionError) as caught:
        load_metric(f"{mine}:{name}")
    assert words in str(caught.value) and mine in str(caught.value)


def test_a_file_that_cannot_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import nowhere_to_be_found\n")
    with pytest.raises(BadOptionError, match=r"bad\.py: cannot be imported: .*nowhere_to_be_found"):
        load_metric(f"{path}:f")
    path.write_text("def f(:\n")
    with pytest.raises(BadOptionError, match="cannot be imported"):
        load_metric(f"{path}:f")
    with pytest.raises(BadOptionError, match="names no function; write "):
        load_metric(str(path))
    with pytest.raises(BadOptionError, match=r"names no function; write FILE\.py:FUNCTION"):
        load_metric("softmax")


def test_a_postprocess_makes_what_is_compared(mine: str) -> None:
    outputs = {"logits": np.eye(3)}
    found = load_postprocess(f"{mine}:best")(outputs)
    assert found["class"].tolist() == [0, 1, 2] and found["kept"][0, 0] == 2
    assert load_postprocess(f"{mine}:in_place")(outputs)["logits"][0, 0] == 2
    assert outputs["logits"][0, 0] == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "returns an empty dict, not values by name"),
        ("no_dict", "returns list, not values by name; return a dict of arrays"),
        ("worse", "fails: KeyError"),
    ],
)
def test_a_postprocess_that_goes_wrong_says_so(mine: str, name: str, words: str) -> None:
    with pytest.raises(BadOptionError) as caught:
        load_postprocess(f"{mine}:{name}")({"logits": np.eye(3)})
    assert f"postprocess {mine}:{name} {words}" in str(caught.value)
