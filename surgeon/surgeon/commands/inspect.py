"""``surgeon inspect``: what is in a model."""

from __future__ import annotations

from pathlib import Path

import click

from surgeon import options


@click.command("inspect")
@options.model_argument
@click.option("--nodes", metavar="PATTERN", help="List the nodes whose name matches, such as '/encoder/*', or '*'.")
@options.allow_external_option
@options.json_option
def command(model: Path, nodes: str | None, allow_external: bool, as_json: bool) -> None:
    r"""Show inputs, outputs, operators, types, sizes, opsets and nested graphs of MODEL.

    Weights are not read, and need not be there.

    \b
    Examples:
      surgeon inspect model.onnx
      surgeon inspect model.onnx --nodes '*/attention/*'
    """
    from surgeon.console import print_json, results
    from surgeon.report import model_report
    from surgeon_passes.census import census_of, nodes_matching
    from surgeon_passes.graph import load

    loaded = load(model, allow_external=allow_external, check_weights=False)
    census = census_of(loaded)
    listed = nodes_matching(loaded, nodes) if nodes is not None else None
    if as_json:
        print_json(model_report.document(census, listed))
    elif listed is not None:
        model_report.print_nodes(results(), listed)
    else:
        model_report.print_census(results(), model, census)
