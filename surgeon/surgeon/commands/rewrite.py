"""``surgeon rewrite``: run passes on a model and save the result."""

from __future__ import annotations

from pathlib import Path

import click

from surgeon import options


@click.command("rewrite")
@options.model_argument
@click.option(
    "-p",
    "--pass",
    "-r",
    "--recipe",
    "steps",
    multiple=True,
    metavar="STEP",
    help="A pass as NAME:KEY=VALUE,... or a recipe by name (simplify) or .toml file; repeatable, in order.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="OUT", help="The model to write; none: only report."
)
@click.option(
    "--verify", is_flag=True, help="Compare before and after under onnxruntime; write nothing if a value changed."
)
@click.option("--samples", default=1, show_default=True, type=click.IntRange(1), help="Seeded inputs for --verify.")
@options.dims_option
@click.option("--rewrite-limit", type=click.IntRange(0), metavar="N", help="Make the first N changes only.")
@click.option("--changes", "show_changes", is_flag=True, help="List every change with its number.")
@click.option(
    "--journal", type=click.Path(path_type=Path), metavar="FILE", help="Record every change as a line of JSON."
)
@options.weights_options
@options.allow_external_option
@options.json_option
def command(
    model: Path,
    steps: tuple[str, ...],
    output: Path | None,
    verify: bool,
    samples: int,
    dims: str,
    rewrite_limit: int | None,
    show_changes: bool,
    journal: Path | None,
    weights: str,
    keep_weights: bool,
    shard_size: str | None,
    allow_external: bool,
    as_json: bool,
) -> int:
    r"""Rewrite MODEL with passes and recipes, in the order given.

    Every change has a number; --rewrite-limit stops after one. With --verify the model before and after runs under
    onnxruntime on the same inputs, and the first pass and change that altered a value is named.

    \b
    Examples:
      surgeon rewrite model.onnx -r simplify -o small.onnx --verify
      surgeon rewrite model.onnx -p freeze-shapes:batch=1 -p fold-constants:size_limit=64MB -o out.onnx
      surgeon rewrite model.onnx -p gs:./my_script.py:edit -o out.onnx
    """
    from surgeon import rewriting
    from surgeon.console import print_json, results, talk
    from surgeon.report import rewrite_report

    order = rewriting.Order(
        source=model,
        recipe=rewriting.recipe_of(steps),
        allow_external=allow_external,
        limit=rewrite_limit,
        journal=journal,
    )
    target = rewriting.target_of(output, weights, keep_weights, shard_size)
    with talk().status(f"rewriting {model.name}") as status:
        done = rewriting.perform(order, announce=lambda step: status.update(f"{model.name}: {step}"))
        checked = None
        if verify:
            status.update(f"{model.name}: verifying under onnxruntime")
            checked = rewriting.verify(order, done, samples=samples, dims=options.parse_dims(dims))
        written = [] if target is None or (checked is not None and checked.altered) else rewriting.write(done, target)
    if as_json:
        print_json(rewrite_report.document(done, checked, written))
    else:
        rewrite_report.print_report(results(), model, done, checked, written, show_changes=show_changes)
    return 1 if checked is not None and checked.altered else 3 if checked is not None and checked.undecided else 0
