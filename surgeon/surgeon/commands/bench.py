"""``surgeon bench``: how long a model takes on an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from surgeon import options


@click.command("bench")
@options.model_argument
@click.option(
    "--runner", "runners", multiple=True, metavar="RUNNER", help="An engine; repeatable. Default onnxruntime."
)
@click.option("--feeds", type=click.Path(path_type=Path), metavar="FILE", help=options.FEEDS_HELP)
@click.option("--seed", default=0, show_default=True, help="Seed of the inputs where no file is given.")
@options.dims_option
@click.option("--seconds", default=3.0, show_default=True, type=click.FloatRange(0), help="Time to measure, at least.")
@click.option("--runs", default=10, show_default=True, type=click.IntRange(1), help="Runs of each stream, at least.")
@click.option("--warmup", default=0.5, show_default=True, type=click.FloatRange(0), help="Seconds to run before.")
@click.option("--streams", default=1, show_default=True, type=click.IntRange(1), help="Streams at the same time.")
@click.option("--layers", is_flag=True, help="Time each layer too, where the engine tells.")
@options.process_options
@options.allow_external_option
@options.json_option
def command(**given: Any) -> None:
    r"""Measure how long MODEL takes on one engine or several: percentiles of the latency, and throughput.

    Each engine runs in a process of its own, one after the other. TensorRT runs with inputs and outputs on the device.

    \b
    Examples:
      surgeon bench model.onnx --runner onnxruntime --runner openvino --runner tensorrt
      surgeon bench model.onnx --runner tensorrt:engine=model.engine --streams 4 --layers
    """
    from surgeon.benching import Order, perform
    from surgeon.console import print_json, results
    from surgeon.report import bench_report

    as_json, runners = given.pop("as_json"), given.pop("runners")
    done = perform(Order(**given, runners=runners or ("onnxruntime",)))
    if as_json:
        print_json(bench_report.document(done))
    else:
        bench_report.print_bench(results(), done)
