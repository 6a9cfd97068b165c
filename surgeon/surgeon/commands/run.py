"""``surgeon run``: run a model on an engine."""

from __future__ import annotations

from pathlib import Path

import click

from surgeon import options


@click.command("run")
@options.model_argument
@click.option(
    "--runner",
    default="onnxruntime",
    show_default=True,
    metavar="RUNNER",
    help="NAME[:key=value,...] or FILE.py:CLASS.",
)
@click.option(
    "--feeds",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Inputs: .npz, .safetensors, .golden, .json (Polygraphy), a folder of input_*.pb, or a folder of these.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    metavar="N",
    help="How many seeded inputs to make (default 1), or to take from --feeds at most (default all).",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the inputs where no file is given.")
@options.dims_option
@click.option(
    "--outputs", default="", metavar="A,B", help="Tensors to fetch, inner ones too; default: the model's outputs."
)
@click.option("--layers", is_flag=True, help="Fetch every tensor of the main graph.")
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Save what was fetched: .golden (all samples, with inputs), .json (Polygraphy) or .npz (one sample).",
)
@options.allow_external_option
@options.json_option
def command(
    model: Path,
    runner: str,
    feeds: Path | None,
    samples: int | None,
    seed: int,
    dims: str,
    outputs: str,
    layers: bool,
    save: Path | None,
    allow_external: bool,
    as_json: bool,
) -> None:
    r"""Run MODEL and show its outputs: type, shape, range, NaN and Inf.

    \b
    Examples:
      surgeon run model.onnx --dims batch=1,sequence=128
      surgeon run model.onnx --runner openvino:precision=f16 --feeds inputs.npz --save out.npz
      surgeon run model.onnx --samples 8 --layers --save before.golden
    """
    from surgeon.console import print_json, results, talk
    from surgeon.report import run_report
    from surgeon.running import RunOrder, run_samples

    with talk().status(f"running {model.name} on {runner}"):
        done = run_samples(
            RunOrder(
                model,
                runner,
                feeds=feeds,
                samples=samples,
                seed=seed,
                dims=options.parse_dims(dims),
                outputs=[name.strip() for name in outputs.split(",") if name.strip()],
                layers=layers,
                save=save,
                allow_external=allow_external,
            )
        )
    if as_json:
        print_json(run_report.document(done))
    else:
        run_report.print_run(results(), done, save)
