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
    help="Inputs: .npz, .json, .safetensors or a folder of input_*.pb.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the inputs where no file is given.")
@options.dims_option
@click.option(
    "--outputs", default="", metavar="A,B", help="Tensors to fetch, inner ones too; default: the model's outputs."
)
@click.option("--layers", is_flag=True, help="Fetch every tensor of the main graph.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE.npz", help="Save what was fetched.")
@options.allow_external_option
@options.json_option
def command(
    model: Path,
    runner: str,
    feeds: Path | None,
    seed: int,
    dims: str,
    outputs: str,
    layers: bool,
    save: Path | None,
    allow_external: bool,
    as_json: bool,
) -> None:
    r"""Run MODEL once and show its outputs: type, shape, range, NaN and Inf.

    \b
    Examples:
      surgeon run model.onnx --dims batch=1,sequence=128
      surgeon run model.onnx --runner openvino:precision=f16 --feeds inputs.npz --save out.npz
    """
    from surgeon.console import print_json, results, talk
    from surgeon.report import run_report
    from surgeon.running import run_once
    from surgeon_debug.save_values import save_values

    with talk().status(f"running {model.name} on {runner}"):
        done = run_once(
            model,
            runner,
            feeds=feeds,
            seed=seed,
            dims=options.parse_dims(dims),
            outputs=[name.strip() for name in outputs.split(",") if name.strip()],
            layers=layers,
            allow_external=allow_external,
        )
    if save is not None:
        save_values(done.values, save)
    if as_json:
        print_json(run_report.document(done))
    else:
        run_report.print_run(results(), done, save)
