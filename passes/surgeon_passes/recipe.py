"""A pipeline as a TOML file, and back.

::

    description = "what it is for"
    rounds = 8                  # repeat until nothing changes, at most this often; 1 by default

    [[step]]
    pass = "fold-constants"
    size_limit = "64MB"

    [[step]]
    pass = "gs:./my_script.py:rename"

    [[step]]
    recipe = "simplify"         # another recipe, by name or file, run until it has nothing more to do
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from surgeon_passes.catalogue import find_pass, parse_step
from surgeon_passes.contract import Pass
from surgeon_passes.errors import BadOptionError
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.spec import build, options_of, spec_of

_MAX_DEPTH = 8


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Passes in order, and how often to go through them."""

    steps: tuple[Pass | Recipe, ...]
    """The passes, first to last; a recipe among them runs its own rounds in its place."""
    rounds: int = 1
    """Go through the steps until a round changes nothing, at most this often."""
    description: str = ""
    """What it is for, in one sentence."""
    name: str = ""
    """What it was loaded by: the name of a recipe that comes with the package, or a file."""

    def passes(self) -> Iterator[Pass]:
        """Every pass, those of inner recipes included."""
        for step in self.steps:
            if isinstance(step, Recipe):
                yield from step.passes()
            else:
                yield step


def built_in_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("surgeon_passes") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def is_recipe(text: str) -> bool:
    """Whether the text of a step names a recipe: one that comes with the package, or a TOML file."""
    return text.endswith(".toml") or text in built_in_recipes()


def load_recipe(name: str | Path, *, depth: int = 0) -> Recipe:
    """A recipe by name (``simplify``) or from a TOML file.

    Args:
        name: The name or the file.
        depth: How many recipes this one is nested in.

    Raises:
        BadOptionError: No such recipe, not TOML, or a step that does not exist.
    """
    if depth > _MAX_DEPTH:
        raise BadOptionError(
            f"recipes nest more than {_MAX_DEPTH} deep", where=str(name), hint="does one contain itself?"
        )
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            raise BadOptionError(f"the recipe cannot be read: {reason}", where=str(path)) from error
        return dataclasses.replace(parse_recipe(text, str(path), depth=depth), name=str(name))
    names = built_in_recipes()
    if str(name) not in names:
        raise BadOptionError(
            f"there is no recipe '{name}'", hint=did_you_mean(str(name), names) + " (or name a .toml file)"
        )
    text = (resources.files("surgeon_passes") / "recipes" / f"{name}.toml").read_text("utf-8")
    return dataclasses.replace(parse_recipe(text, str(name), depth=depth), name=str(name))


def parse_recipe(text: str, where: str = "", *, depth: int = 0) -> Recipe:
    """A recipe from the text of a TOML file.

    Args:
        text: The content.
        where: The file, for messages.
        depth: How many recipes this one is nested in.

    Raises:
        BadOptionError: Not TOML, a key that means nothing, a step that does not exist.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadOptionError(f"the recipe is not TOML: {error}", where=where) from error
    unknown = sorted(set(table) - {"description", "rounds", "step"})
    if unknown:
        raise BadOptionError(
            f"'{unknown[0]}' means nothing in a recipe", where=where, hint="there is description, rounds, [[step]]"
        )
    rounds, steps = table.get("rounds", 1), table.get("step", [])
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise BadOptionError(f"rounds = {rounds!r} is not a count", where=where, hint="write a number of at least 1")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise BadOptionError("the recipe has no steps", where=where, hint='add [[step]] with pass = "NAME"')
    try:
        return Recipe(tuple(_step(step, depth) for step in steps), rounds, str(table.get("description", "")))
    except BadOptionError as error:
        error.where = error.where or where
        raise


def _step(table: dict[str, Any], depth: int) -> Pass | Recipe:
    options = dict(table)
    if isinstance(options.get("recipe"), str) and len(options) == 1:
        return load_recipe(options["recipe"], depth=depth + 1)
    name = options.pop("pass", None)
    if not isinstance(name, str):
        raise BadOptionError("a step names no pass", hint='write pass = "NAME"')
    if "." in name or ":" in name:
        if options:
            raise BadOptionError(f"'{name}' takes its options in its own text", hint="write NAME:KEY=VALUE")
        return parse_step(name)
    return build(find_pass(name), options)


def _toml_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def recipe_text(recipe: Recipe) -> str:
    """The recipe as TOML; :func:`parse_recipe` of it gives the same recipe."""
    lines = [f"description = {_toml_string(recipe.description)}"] if recipe.description else []
    if recipe.rounds != 1:
        lines.append(f"rounds = {recipe.rounds}")
    for step in recipe.steps:
        lines += ["", "[[step]]", *_step_lines(step)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _step_lines(step: Pass | Recipe) -> list[str]:
    if isinstance(step, Recipe):
        return [f"recipe = {_toml_string(step.name)}"]
    name = spec_of(step)
    if "." in name.partition(":")[0] or name.startswith("gs:"):
        return [f"pass = {_toml_string(name)}"]
    lines = [f"pass = {_toml_string(step.name)}"]
    for key, (declared, _) in options_of(type(step)).items():
        value = getattr(step, key)
        if declared.metadata.get("rest"):
            lines += [f"{_toml_string(k)} = {_toml_string(v)}" for k, v in value]
        elif value != declared.default and value is not None:
            lines.append(f"{key} = {_toml_value(value)}")
    return lines


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_string(str(item)) for item in value) + "]"
    return repr(value) if isinstance(value, int | float) else _toml_string(str(value))
