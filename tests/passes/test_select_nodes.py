"""What a person types finds what was meant, or the error offers it."""

from __future__ import annotations

import pytest

from surgeon_passes.errors import BadOptionError
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.select_nodes import matching

NAMES = ["/enc/layer.0/q", "/enc/layer.0/k", "/enc/layer.1/q", "/enc/layer[1]/q", "", "out"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/enc/layer.0/*", [0, 1]),
        ("*/q", [0, 2, 3]),
        ("/enc/layer[1]/q", [3]),
        ("re:layer\\.[01]/q", [0, 2]),
        ("out", [5]),
        ("*", [0, 1, 2, 3, 5]),
    ],
)
def test_matching(pattern: str, expected: list[int]) -> None:
    assert matching([pattern], NAMES, "node") == expected


def test_several_patterns_in_the_order_of_the_names() -> None:
    assert matching(["out", "*/k"], NAMES, "node") == [1, 5]


def test_equal_names_are_all_meant() -> None:
    assert matching(["a"], ["a", "b", "a"], "node") == [0, 2]


def test_a_pattern_without_a_match_is_an_error() -> None:
    with pytest.raises(BadOptionError, match=r"no node matches '/enc/layer.0/v'; did you mean '/enc/layer.0/"):
        matching(["/enc/layer.0/v"], NAMES, "node")
    with pytest.raises(BadOptionError, match="not a regular expression"):
        matching(["re:("], NAMES, "node")


def test_hints_are_cheap_and_never_empty_for_names() -> None:
    assert did_you_mean("x", []) == ""
    assert "'/b/99999/w'" in did_you_mean("99999/w", [f"/b/{i}/w" for i in range(100_000)])
