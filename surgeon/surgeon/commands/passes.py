"""``surgeon passes``: the catalogue."""

from __future__ import annotations

import click

from surgeon import options


@click.command("passes")
@click.argument("name", required=False)
@options.json_option
def command(name: str | None, as_json: bool) -> None:
    r"""List all passes and recipes, or show what NAME does, its options and an example.

    \b
    Examples:
      surgeon passes
      surgeon passes fold-constants
    """
    from surgeon.console import print_json, results
    from surgeon.report import passes_report
    from surgeon_passes.catalogue import find_pass, pass_locations
    from surgeon_passes.errors import BadOptionError
    from surgeon_passes.near_names import did_you_mean
    from surgeon_passes.recipe import built_in_recipes, load_recipe

    recipes = {recipe: load_recipe(recipe) for recipe in built_in_recipes()}
    if name is None:
        found = {known: find_pass(known) for known in sorted(pass_locations())}
        if as_json:
            print_json(passes_report.catalogue_document(found, recipes))
        else:
            passes_report.print_catalogue(results(), found, recipes)
    elif name in recipes:
        if as_json:
            print_json(passes_report.recipe_document(name, recipes[name]))
        else:
            passes_report.print_recipe(results(), name, recipes[name])
    elif name in pass_locations():
        if as_json:
            print_json(passes_report.pass_document(find_pass(name)))
        else:
            passes_report.print_pass(results(), find_pass(name))
    else:
        known = [*pass_locations(), *recipes]
        raise BadOptionError(f"there is no pass or recipe '{name}'", hint=did_you_mean(name, known))
