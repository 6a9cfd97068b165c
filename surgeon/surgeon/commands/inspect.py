"""``surgeon inspect``: what is in a model, an engine or a timing cache."""

from __future__ import annotations

from pathlib import Path

import click

from surgeon import options


@click.command("inspect")
@options.model_argument
@click.argument("other", required=False, type=click.Path(path_type=Path))
@click.option("--nodes", metavar="PATTERN", help="List the nodes whose name matches, such as '/encoder/*', or '*'.")
@click.option("--layers", is_flag=True, help="List all layers of an engine, or all tactics of a timing cache.")
@options.allow_external_option
@options.json_option
def command(
    model: Path, other: Path | None, nodes: str | None, layers: bool, allow_external: bool, as_json: bool
) -> int:
    r"""Show inputs, outputs, operators, types, sizes, opsets and nested graphs of MODEL.

    Weights are not read, and need not be there. MODEL may also be a TensorRT engine (.engine, .plan, .trt) or a timing
    cache (.cache, .timing): what 'surgeon build' wrote beside it is read, or else TensorRT is asked. With OTHER, two
    timing caches are compared by op and kernel; ends with 1 if they differ.

    \b
    Examples:
      surgeon inspect model.onnx
      surgeon inspect model.onnx --nodes '*/attention/*'
      surgeon inspect model.engine --layers
      surgeon inspect good.cache bad.cache
    """
    from surgeon import inspecting

    order = inspecting.Order(model, other, nodes, layers, allow_external, as_json)
    return inspecting.perform(order)
