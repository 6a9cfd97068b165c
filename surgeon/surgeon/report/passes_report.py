"""The layout of ``surgeon passes``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from surgeon_passes.contract import Pass
from surgeon_passes.recipe import Recipe, recipe_text
from surgeon_passes.spec import options_of, spec_of


def _doc(pass_type: type[Pass]) -> str:
    return inspect.cleandoc(pass_type.__doc__ or "")


def _summary(pass_type: type[Pass]) -> str:
    return " ".join(_doc(pass_type).split("\n\n")[0].split())


def _type_words(kind: Any, unit: str, rest: bool) -> str:
    if rest:
        return "key=value"
    if unit == "bytes":
        return "size"
    text = getattr(kind, "__name__", str(kind))
    return {"str": "text", "int": "number", "float": "number", "bool": "true/false", "tuple": "list"}.get(
        text.split("[")[0].split(" ")[0], text
    )


def _default_words(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value in ((), "", None):
        return "none"
    return ";".join(value) if isinstance(value, tuple) else str(value)


def pass_document(pass_type: type[Pass]) -> dict[str, Any]:
    """One pass as a JSON document."""
    return {
        "schema": "surgeon.pass/1",
        "name": pass_type.name,
        "summary": _summary(pass_type),
        "doc": _doc(pass_type),
        "example": pass_type.example,
        "changes_interface": bool(pass_type.changes_interface),
        "options": [
            {
                "name": name,
                "type": _type_words(kind, declared.metadata.get("unit", ""), declared.metadata.get("rest", False)),
                "default": declared.default,
                "help": declared.metadata.get("help", ""),
            }
            for name, (declared, kind) in options_of(pass_type).items()
        ],
    }


def recipe_document(name: str, recipe: Recipe) -> dict[str, Any]:
    """One recipe as a JSON document."""
    return {
        "schema": "surgeon.recipe/1",
        "name": name,
        "description": recipe.description,
        "rounds": recipe.rounds,
        "steps": [step.name if isinstance(step, Recipe) else spec_of(step) for step in recipe.steps],
    }


def catalogue_document(passes: Mapping[str, type[Pass]], recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """Everything as one JSON document."""
    return {
        "schema": "surgeon.passes/1",
        "passes": [{"name": name, "summary": _summary(kind)} for name, kind in passes.items()],
        "recipes": [{"name": name, "description": recipe.description} for name, recipe in recipes.items()],
    }


def print_catalogue(console: Console, passes: Mapping[str, type[Pass]], recipes: Mapping[str, Recipe]) -> None:
    """One line for each pass and each recipe."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name, kind in passes.items():
        table.add_row(f"[bold]{escape(name)}[/]", escape(_summary(kind)))
    console.print("passes (-p NAME:KEY=VALUE,...)", style="bold")
    console.print(table)
    console.print("recipes (-r NAME or -r FILE.toml)", style="bold")
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name, recipe in recipes.items():
        table.add_row(f"[bold]{escape(name)}[/]", escape(recipe.description))
    console.print(table)
    console.print("also: any onnx_ir pass by dotted path, and gs:./file.py:function for onnx-graphsurgeon functions")


def print_recipe(console: Console, name: str, recipe: Recipe) -> None:
    """The recipe as the TOML that -r reads."""
    console.print(f"[bold]{escape(name)}[/]: {escape(recipe.description)}\n")
    console.print(escape(recipe_text(recipe)), end="")


def print_pass(console: Console, pass_type: type[Pass]) -> None:
    """What a pass touches and leaves alone, its options, an example."""
    console.print(f"[bold]{escape(pass_type.name)}[/]")
    console.print(escape(_doc(pass_type)))
    if options_of(pass_type):
        console.print("\n[bold]options[/]")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), show_header=False)
        for name, (declared, kind) in options_of(pass_type).items():
            meta = declared.metadata
            words = _type_words(kind, meta.get("unit", ""), meta.get("rest", False))
            shown = "" if meta.get("rest") else f"default {escape(_default_words(declared.default))}"
            table.add_row(f"[bold]{name}[/]", words, shown, escape(meta.get("help", "")))
        console.print(table)
    if pass_type.example:
        console.print(f"\n[bold]example[/]\n  {escape(pass_type.example)}")
