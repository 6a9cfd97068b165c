"""``surgeon extract``: cut a piece out of a model."""

from __future__ import annotations

from pathlib import Path

import click

from surgeon import options


@click.command("extract")
@options.model_argument
@click.option(
    "--inputs", multiple=True, metavar="A,B", help="Tensors to cut at; default: the inputs that the outputs need."
)
@click.option(
    "--outputs", multiple=True, metavar="C", help="Tensors to compute; default: all that depend on the inputs."
)
@click.option(
    "--nodes", multiple=True, metavar="PATTERN", help="Instead: nodes by name or pattern, '/layer.3/*' or 're:...'."
)
@click.option(
    "--inside", default="", metavar="PATH", help="Cut in a body or function: NODE/then_branch, function:DOMAIN::NAME."
)
@click.option(
    "--feeds",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run MODEL once on these to learn types and shapes.",
)
@options.output_option
@options.weights_options
@options.allow_external_option
@options.json_option
def command(
    model: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    nodes: tuple[str, ...],
    inside: str,
    feeds: Path | None,
    output: Path,
    weights: str,
    keep_weights: bool,
    shard_size: str | None,
    allow_external: bool,
    as_json: bool,
) -> None:
    r"""Cut a piece out of MODEL that is a valid model of its own, or say why that cannot be.

    Only the weights that the piece needs are touched. Nodes and tensors keep their names.

    \b
    Examples:
      surgeon extract model.onnx --outputs /encoder/layer.3/Add_output_0 -o head.onnx
      surgeon extract model.onnx --nodes '/encoder/layer.3/*' -o layer3.onnx
      surgeon extract model.onnx --inside loop_1/body -o body.onnx
    """
    from surgeon.console import print_json, results
    from surgeon.extracting import extract_file
    from surgeon.report import extract_report
    from surgeon.rewriting import target_of

    target = target_of(output, weights, keep_weights, shard_size)
    assert target is not None
    done = extract_file(
        model,
        target,
        inputs=options.split_names(inputs),
        outputs=options.split_names(outputs),
        nodes=nodes,
        inside=inside,
        feeds=feeds,
        allow_external=allow_external,
    )
    if as_json:
        print_json(extract_report.document(done))
    else:
        extract_report.print_extraction(results(), done)
