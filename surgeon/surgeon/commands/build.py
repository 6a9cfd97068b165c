"""``surgeon build``: a TensorRT engine from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from surgeon import options

_FILE = click.Path(path_type=Path)


@click.command("build")
@options.model_argument
@click.option("-o", "--output", required=True, type=_FILE, metavar="ENGINE", help="The engine to write.")
@click.option("--timing-cache", type=_FILE, metavar="FILE", help="Load this timing cache, and keep what is new in it.")
@click.option("--pin", is_flag=True, help="Let the timing cache decide on every tactic; refuse an engine that drifts.")
@click.option("--workspace", metavar="SIZE", help="Scratch memory for tactics; default 4GiB, or half of the device.")
@click.option("--level", type=click.IntRange(0, 5), help="Optimisation level; default TensorRT's own.")
@click.option("--no-tf32", is_flag=True, help="Keep float32 products in float32.")
@click.option("--dims", default="", metavar="N=1..4..8,SEQ=128", help="Sizes of symbolic dimensions.")
@click.option("--profile", type=_FILE, metavar="FILE.json", help="Sizes of inputs: min, opt and max of each.")
@click.option("--route", metavar="KNOB=VALUE;...", help="Knobs of the compiler (from 11.1), or a JSON file.")
@click.option("--record", type=_FILE, metavar="DIR", help="Keep the log, the tactics tried and the engine's layers.")
@click.option("--int8", is_flag=True, help="Not a flag any more: says what to do instead.")
@click.option("--fp8", is_flag=True, help="Likewise.")
@click.option("--fp16", is_flag=True, help="Likewise.")
@click.option("--bf16", is_flag=True, help="Likewise.")
@options.process_options
@options.allow_external_option
@options.json_option
def command(**given: Any) -> None:
    r"""Build an engine of MODEL with TensorRT, in a process of its own.

    The engine computes in the types that the model states. Beside it lies ENGINE.json: what it was built from, and its
    layers. An engine that was built from the same model, options and device is left as it is.

    \b
    Examples:
      surgeon build model.onnx -o model.engine
      surgeon build model.onnx -o model.engine --dims N=1..8..16 --timing-cache model.cache
      surgeon build model.onnx -o model.engine --timing-cache model.cache --pin
    """
    from surgeon.building import Order, perform
    from surgeon.console import print_json, results, talk
    from surgeon.report import build_report

    as_json = given.pop("as_json")
    types = {name: given.pop(name) for name in ("int8", "fp8", "fp16", "bf16")}
    order = Order(**given, types=tuple(name for name, asked in types.items() if asked))
    with talk().status(f"building {order.output.name}"):
        done = perform(order)
    if as_json:
        print_json(build_report.document(done))
    else:
        build_report.print_build(results(), done)
