"""Text, options and passes say the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import BadOptionError
from surgeon_passes.recipe import Recipe, built_in_recipes, load_recipe, parse_recipe, recipe_text
from surgeon_passes.spec import build, parse_size, spec_of, split_spec


@dataclasses.dataclass(frozen=True)
class Sample(Pass):
    """A pass with an option of every kind."""

    name: ClassVar[str] = "sample"
    size: int = option(1 << 20, "A size.", unit="bytes")
    count: int = option(3, "A count.")
    ratio: float = option(0.5, "A ratio.")
    flag: bool = option(False, "A flag.")
    word: str = option("", "A word.")
    words: tuple[str, ...] = option((), "Words.")
    pairs: tuple[tuple[str, str], ...] = option((), "Pairs.", rest=True)

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        pass


def from_text(text: str) -> Pass:
    name, options = split_spec(text)
    assert name == "sample"
    return build(Sample, options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sample", Sample()),
        ("sample:size=64MB", Sample(size=64_000_000)),
        ("sample:size=4GiB,flag=yes", Sample(size=4 << 30, flag=True)),
        ("sample:words=a;b;c", Sample(words=("a", "b", "c"))),
        ('sample:word="a,b=c"', Sample(word="a,b=c")),
        ("sample:N=1,seq=128", Sample(pairs=(("N", "1"), ("seq", "128")))),
        ("sample:ratio=2", Sample(ratio=2.0)),
    ],
)
def test_text_to_pass(text: str, expected: Sample) -> None:
    assert from_text(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sample:flag=maybe", "neither true nor false"),
        ("sample:count=three", "not a number"),
        ("sample:size=big", "not a size"),
        ("sample:flag", "not an option"),
        ("sample:count=1,count=2", "twice"),
        ('sample:word="open', "never closed"),
    ],
)
def test_bad_text_gets_a_sentence(text: str, words: str) -> None:
    with pytest.raises(BadOptionError, match=words):
        from_text(text)


NAMES = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=12)
KEYS = NAMES.filter(lambda k: k.replace("-", "_") not in {f.name for f in dataclasses.fields(Sample)})
SAMPLES = st.builds(
    Sample,
    size=st.integers(0, 1 << 50),
    count=st.integers(-1000, 1000),
    ratio=st.floats(allow_nan=False),
    flag=st.booleans(),
    word=st.text(st.characters(blacklist_categories=("Cs",)), max_size=12),
    words=st.lists(NAMES, max_size=3).map(tuple),
    pairs=st.lists(st.tuples(KEYS, NAMES), max_size=3, unique_by=lambda p: p[0]).map(tuple),
)


@given(SAMPLES)
def test_text_round_trips(step: Sample) -> None:
    assert from_text(spec_of(step)) == step


@pytest.mark.parametrize(
    ("text", "count"), [("1", 1), ("1kB", 1000), ("1KiB", 1024), ("1.5 GB", 1_500_000_000), ("2G", 2 * 10**9)]
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


def test_a_recipe_may_hold_another_and_not_itself(tmp_path: Path) -> None:
    outer = tmp_path / "outer.toml"
    outer.write_text("[[step]]\npass = 'sort'\n\n[[step]]\nrecipe = 'simplify'\n")
    recipe = load_recipe(outer)
    assert recipe.steps[1] == load_recipe("simplify")
    assert [step.name for step in recipe.passes()][:2] == ["sort", "fold-constants"]
    assert parse_recipe(recipe_text(recipe)) == dataclasses.replace(recipe, name="")
    outer.write_text(f"[[step]]\nrecipe = '{outer}'\n")
    with pytest.raises(BadOptionError, match="does one contain itself"):
        load_recipe(outer)


def test_recipes_round_trip_and_all_built_in_ones_load() -> None:
    assert "simplify" in built_in_recipes()
    for name in built_in_recipes():
        recipe = load_recipe(name)
        assert dataclasses.replace(parse_recipe(recipe_text(recipe)), name=name) == recipe
    steps = tuple(load_recipe("simplify").steps)
    odd = Recipe(steps, 3, 'with "quotes", a \\ and a\nbreak')
    assert parse_recipe(recipe_text(odd)) == odd


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("step = 3", "no steps"),
        ("= nonsense", "not TOML"),
        ("rounds = 0\n[[step]]\npass = 'sort'", "not a count"),
        ("[[step]]\nname = 'sort'", "names no pass"),
        ("[[step]]\npass = 'sortt'", "did you mean 'sort'"),
        ("[[step]]\npass = 'sort'\nspeed = 3", "no option 'speed'"),
        ("tools = 1\n[[step]]\npass = 'sort'", "means nothing"),
    ],
)
def test_bad_recipes_get_a_sentence(text: str, words: str) -> None:
    with pytest.raises(BadOptionError, match=words):
        parse_recipe(text, "recipe.toml")
