"""``surgeon compare``: two engines, or two models, on the same inputs."""

from __future__ import annotations

from pathlib import Path

import click

from surgeon import options


@click.command("compare")
@options.model_argument
@click.argument("other", required=False, type=click.Path(path_type=Path))
@click.option(
    "--reference", default="onnxruntime:optimize=none", show_default=True, metavar="RUNNER", help="What is believed."
)
@click.option("--target", metavar="RUNNER", help="What is tested; with OTHER, the reference's runner by default.")
@click.option("--layers", is_flag=True, help="Compare every tensor inside, and show where the error first appears.")
@click.option(
    "--isolate/--no-isolate",
    default=True,
    show_default=True,
    help="With --layers, run each layer alone too, to tell what it adds from what it was handed.",
)
@click.option(
    "--feeds",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Inputs: .npz, .json, .safetensors or a folder of input_*.pb.",
)
@click.option(
    "--samples", default=1, show_default=True, type=click.IntRange(1), help="Seeded inputs where no file is given."
)
@click.option("--seed", default=0, show_default=True, help="Seed of these inputs.")
@options.dims_option
@click.option(
    "--rtol",
    type=float,
    help="Allow |error| <= atol + rtol * |reference|, strictly; otherwise a table by type decides.",
)
@click.option("--atol", type=float, help="See --rtol.")
@click.option(
    "--memory", metavar="SIZE", help="Memory for tensors with --layers; default: twice the largest and 256 MiB."
)
@options.allow_external_option
@options.json_option
def command(
    model: Path,
    other: Path | None,
    reference: str,
    target: str | None,
    layers: bool,
    isolate: bool,
    feeds: Path | None,
    samples: int,
    seed: int,
    dims: str,
    rtol: float | None,
    atol: float | None,
    memory: str | None,
    allow_external: bool,
    as_json: bool,
) -> int:
    r"""Run MODEL on two engines, or MODEL and OTHER, and compare what they compute.

    Ends with 0 if the outputs agree and with 1 if they differ.

    \b
    Examples:
      surgeon compare model.onnx --target openvino --layers
      surgeon compare model.onnx model_fp16.onnx --layers
      surgeon compare model.onnx --target ./mine.py:MyRunner --feeds inputs.npz
    """
    from surgeon.console import print_json, results, talk
    from surgeon.report.compare_report import print_comparison
    from surgeon_debug.layers import compare_models
    from surgeon_debug.pair import LayerOptions
    from surgeon_debug.verdict import Tolerance
    from surgeon_passes.errors import BadOptionError
    from surgeon_passes.graph import load
    from surgeon_passes.spec import parse_size

    if target is None and other is None:
        raise BadOptionError("nothing says what to compare with", hint="add --target RUNNER or a second model")
    given = None
    if feeds is not None:
        from surgeon_debug.feed_files import load_feeds

        given = load_feeds(feeds, load(model, allow_external=allow_external))
    with talk().status(f"comparing {model.name}") as status:
        done = compare_models(
            model,
            other,
            target=target or reference,
            reference=reference,
            feeds=given,
            samples=samples,
            seed=seed,
            dims=options.parse_dims(dims),
            layers=LayerOptions(parse_size(memory) if memory else None, isolate=isolate) if layers else False,
            tolerance=Tolerance(rtol, atol),
            allow_external=allow_external,
            progress=lambda count, total: status.update(f"comparing {model.name}: {count} of {total} tensors"),
        )
    if as_json:
        print_json(done.to_json())
    else:
        print_comparison(results(), done)
    return 0 if done.verdict == "agree" else 1
