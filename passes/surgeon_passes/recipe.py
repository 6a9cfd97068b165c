"""A pipeline as a TOML file, and back.

::

    description = "what it is for"
    rounds = 8                  # repeat until nothing changes, at most this often; 1 by default

    [[step]]
    pass = "fold-constants"
    size_limit = "64MB"

    [[step]]
    pass = "gs:./my_script.py:rename"
"""

from __future__ import annotations

import dataclasses
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from surgeon_passes.catalogue import did_you_mean, find_pass, parse_step
from surgeon_passes.contract import Pass
from surgeon_passes.errors import BadOptionError
from surgeon_passes.spec import build, options_of, spec_of


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Passes in order, and how often to go through them."""

    steps: tuple[Pass, ...]
    """The passes, first to last."""
    rounds: int = 1
    """Go through the steps until a round changes nothing, at most this often."""
    description: str = ""
    """What it is for, in one sentence."""


def built_in_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("surgeon_passes") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name: str | Path) -> Recipe:
    """A recipe by name (``simplify``) or from a TOML file.

    Raises:
        BadOptionError: No such recipe, not TOML, or a step that does not exist.
    """
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            raise BadOptionError(f"the recipe cannot be read: {reason}", where=str(path)) from error
        return parse_recipe(text, str(path))
    names = built_in_recipes()
    if str(name) not in names:
        raise BadOptionError(
            f"there is no recipe '{name}'", hint=did_you_mean(str(name), names) + " (or name a .toml file)"
        )
    return parse_recipe((resources.files("surgeon_passes") / "recipes" / f"{name}.toml").read_text("utf-8"), str(name))


def parse_recipe(text: str, where: str = "") -> Recipe:
    """A recipe from the text of a TOML file.

    Args:
        text: The content.
        where: The file, for messages.

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
        return Recipe(tuple(_step(step) for step in steps), rounds, str(table.get("description", "")))
    except BadOptionError as error:
        error.where = error.where or where
        raise


def _step(table: dict[str, Any]) -> Pass:
    options = dict(table)
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


def _step_lines(step: Pass) -> list[str]:
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
