"""Limits that the caller sets: how they are written, what they are held against; nothing passes by accident."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from surgeon_debug.compare import Difference, compare
from surgeon_debug.limit import parse_limit
from surgeon_debug.limits import Limits, check
from surgeon_debug.metric_names import METRICS, metric_named
from surgeon_debug.values import normalise
from surgeon_passes.errors import BadOptionError, FileError

R = np.linspace(1, 2, 100, dtype=np.float32).reshape(10, 10)


def judged(reference: np.ndarray, target: np.ndarray, *texts: str, **more: float) -> tuple[bool, str]:
    limits = Limits.parse(texts, **more)  # type: ignore[arg-type]
    tally = limits.tally("x")
    tally.add(reference, target)
    found = check(tally.difference(), limits.for_tensor("x"))
    assert found.ok == (not found.broken) or "side only" in found.reason
    return found.ok, found.reason


def test_every_metric_is_a_number_of_a_difference() -> None:
    found = compare(R, R * np.float32(1.01))
    for name, metric in METRICS.items():
        number = metric.of(found)
        assert number is not None and not math.isnan(number), name
        assert metric_named(name) is metric and metric_named(name.replace("_", "-").upper()) is metric
    for field in dataclasses.fields(Difference):
        if field.type in ("float", "float | None") and field.name != "coarse_epsilon":
            assert field.name in METRICS, field.name


def test_a_limit_is_read_as_it_is_written() -> None:
    for text, name, sign, value in (
        ("rel_l2<0.01", "rel_l2", "<", 0.01),
        (" max-abs <= 1e-3 ", "max_abs", "<=", 1e-3),
        ("cosine>0.99", "cosine", ">", 0.99),
        ("SNR>=20", "sqnr", ">=", 20),
        ("ulp<4", "ulp.max", "<", 4),
        ("p99_abs<1", "abs_percentiles.p99", "<", 1),
        ("nan<=0", "nan.mismatched", "<=", 0),
    ):
        limit = parse_limit(text)
        assert limit.metric is not None and (limit.metric.name, limit.sign, limit.value) == (name, sign, value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rel_l2", "'rel_l2' is not a limit; write NAME<VALUE"),
        ("rel_l2=0.1", "is not a limit"),
        ("rel_l2<", "is not a limit"),
        ("rel_l2<<3", "is not a number|is not a limit|no metric"),
        ("rel_l3<0.1", "there is no metric 'rel_l3'; did you mean 'rel_l2'?"),
        ("quality<0.1", "there is no metric 'quality'; it is one of"),
        ("rel_l2<tiny", "'tiny' in 'rel_l2<tiny' is not a number"),
        ("rel_l2<nan", "limits nothing"),
        ("rel_l2<inf", "limits nothing"),
        ("rel_l2>0.1", "wrong way round: rel_l2 is good when it is small; write rel_l2<0.1"),
        ("cosine<0.9", "wrong way round: cosine is good when it is large; write cosine>0.9"),
        ("max_abs<-1", "is never met"),
        ("./nothing.py:f<1", "nothing.py: there is no such file"),
        ("./nothing.py<1", "names no function; write ./nothing.py:FUNCTION"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadOptionError) as caught:
        parse_limit(text)
    assert any(part in str(caught.value) for part in words.split("|"))


def test_all_limits_must_hold() -> None:
    t = R * np.float32(1.01)
    assert judged(R, t, "rel_l2<0.02", "cosine>0.999") == (True, "rel_l2 0.01 is < 0.02; cosine 1 is > 0.999")
    ok, reason = judged(R, t, "rel_l2<0.02", "gain<0.001", "max_abs<0.001")
    assert not ok and reason == "gain 0.01 is not < 0.001; max_abs 0.02 is not < 0.001"
    assert judged(R, -R, "gain<0.5")[0] is False  # the sign of a gain does not make it small
    assert judged(R, R, "rel_l2<=0", "sqnr>100", "cosine>=1") == (True, "equal")


def test_nothing_special_passes() -> None:
    t = R.copy()
    t[3, 4] = np.nan
    ok, reason = judged(R, t, "max_abs<1e9", "rel_l2<1e9")
    assert not ok and reason == "1 NaN on one side only"
    t[3, 5] = np.inf
    assert judged(R, t, rtol=1e9, atol=1e9) == (
        False, "1 NaN, 1 +Inf on one side only, 2 of 100 elements outside rtol=1e+09, atol=1e+09",
    )  # fmt: skip
    assert judged(t, t, "max_abs<=0")[0]
    assert judged(R, R[:5], "max_abs<1")[1] == "shape 10x10 against 5x10"
    zero = np.zeros(4, np.float32)
    assert judged(zero, zero + 1, "rel_l2<1e300") == (False, "rel_l2 inf is not < 1e+300")


def test_a_limit_that_does_not_apply_does_not_pass_in_silence() -> None:
    r, t = np.arange(5), np.arange(5) + 1
    ok, reason = judged(r, t, "ulp.max<4")
    assert not ok and reason == "ulp.max does not apply to int64, and 5 of 5 elements differ"
    ok, reason = judged(r, t, "ulp.max<4", "max_abs<=1")
    assert not ok and "does not apply" in reason
    assert judged(r, r, "ulp.max<4") == (True, "equal; ulp.max does not apply to int64")
    assert judged(r, t, "max_abs<=1")[0]
    yes, no = np.array([True, True]), np.array([True, False])
    assert not judged(yes, no, "max_abs<2")[0] and not judged(yes, no, rtol=2.0, atol=2.0)[0]
    assert judged(yes, no, "unequal<=1")[0]
    words = normalise(np.array(["a", "b"]))
    assert not judged(words, words[::-1], "rel_l2<100")[0] and judged(words, words, "rel_l2<100")[0]
    zero = np.zeros(4, np.float32)
    assert judged(R.reshape(-1)[:4], zero, "cosine>0.1")[1].startswith("cosine does not apply to float32, and 4 of 4")


def test_elements_within_a_tolerance() -> None:
    t = R + np.float32(0.01)
    assert judged(R, t, atol=0.011) == (True, "every element within rtol=0, atol=0.011")
    wide = R.astype(np.float64)
    outside = np.count_nonzero(np.abs(t - wide) > 0.0075 * wide)
    assert judged(R, t, rtol=0.0075) == (False, f"{outside} of 100 elements outside rtol=0.0075, atol=0")
    assert not judged(R, t, "rel_l2<1", atol=0.001)[0]
    with pytest.raises(BadOptionError, match="rtol=-1 is not a tolerance"):
        Limits.parse(rtol=-1)
    with pytest.raises(BadOptionError, match="atol=nan is not a tolerance"):
        Limits.parse(atol=math.nan)


TOML = """
[logits]
atol = 1e-2
cosine = 0.999
ulp.max = 4
["encoder/*"]
metric = ["rel_l2<0.01", "max_abs<1"]
["*/norm?"]
metric = "gain<0.1"
"""


def test_limits_of_single_tensors(tmp_path: Path) -> None:
    as_toml, as_json = tmp_path / "limits.toml", tmp_path / "limits"
    as_toml.write_text(TOML)
    document = {
        "logits": {"atol": 1e-2, "cosine": 0.999, "ulp.max": 4},
        "encoder/*": {"metric": ["rel_l2<0.01", "max_abs<1"]},
        "*/norm?": {"metric": "gain<0.1"},
    }
    as_json.write_text(json.dumps(document))
    for path in (as_toml, as_json):
        limits = Limits.parse(["max_abs<5"], path)
        assert limits.given
        assert [limit.text for limit in limits.for_tensor("other")] == ["max_abs<5"]
        assert [limit.text for limit in limits.for_tensor("logits")] == [
            "rtol=0, atol=0.01", "cosine>=0.999", "ulp.max<=4",
        ]  # fmt: skip
        # The first pattern that fits.
        assert [limit.text for limit in limits.for_tensor("encoder/norm1")] == ["rel_l2<0.01", "max_abs<1"]
        assert [limit.text for limit in limits.for_tensor("decoder/norm1")] == ["gain<0.1"]
        assert limits.unmatched(["logits", "encoder/a"]) == ["*/norm?"]
        assert limits.unmatched(["encoder/norm1", "x"]) == ["logits"]
        limits.require_matched(["logits", "encoder/norm1"])
        with pytest.raises(BadOptionError, match=r"given for 'logits' and 1 more, .* did you mean 'logit'\?"):
            limits.require_matched(["logit", "encoder/a"])
    assert not Limits.parse().given and Limits.parse().for_tensor("x") == []


def test_a_name_with_brackets_is_first_a_name(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text(json.dumps({"x[0]": {"rtol": 0.1}}))
    limits = Limits.parse((), path)
    assert limits.for_tensor("x[0]") and limits.for_tensor("x0")
    assert limits.unmatched(["x[0]"]) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no limits"),
        ("[x]", "'x': is no table of limits"),
        ("x = 3", "'x': is no table of limits"),
        ("[x]\nrtl = 3", "'x': there is no metric 'rtl'"),
        ("[x]\nrtol = 'a'", "rtol='a' is not a number; write rtol = 0.01"),
        ("[x]\nrtol = true", "rtol=True is not a number"),
        ("[x]\natol = nan", "atol=nan is not a tolerance"),
        ("[x]\nrel_l2 = inf", "is never met"),
        ("[x]\nmetric = 3", "metric=3 is no limit"),
        ("[x]\nmetric = ['rel_l2>3']", "'x': 'rel_l2>3' is the wrong way round"),
        ("[x\n", "is not TOML"),
        ('{"x": {"rtol": 1}, "x": {"rtol": 2}}', "is not JSON: 'x' stands there twice"),
        ("{", "is not JSON"),
        ("[1]", "is no table of limits|is not TOML|holds no limits"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "limits"
    path.write_text(text)
    with pytest.raises(BadOptionError) as caught:
        Limits.parse((), path)
    assert any(part in str(caught.value) for part in words.split("|")) and str(path) in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileError, match=r"nowhere\.toml: cannot be read"):
        Limits.parse((), "nowhere.toml")
