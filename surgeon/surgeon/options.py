"""Arguments and options that several commands share, spelt once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

WEIGHTS = ("auto", "inline", "external", "keep")


def model_argument(function: _F) -> _F:
    """MODEL: the file to read."""
    return click.argument("model", type=click.Path(path_type=Path))(function)


def output_option(function: _F) -> _F:
    """-o: the file to write."""
    return click.option(
        "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUT", help="The model to write."
    )(function)


def allow_external_option(function: _F) -> _F:
    """--allow-external."""
    return click.option(
        "--allow-external", is_flag=True, help="Accept weights outside the model's folder (.., absolute paths, links)."
    )(function)


def json_option(function: _F) -> _F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")(function)


def weights_options(function: _F) -> _F:
    """--weights, --keep-weights and --shard-size."""
    for decorate in (
        click.option(
            "--shard-size", metavar="SIZE", help="Start a new data file before one exceeds SIZE (2GB, 500MiB)."
        ),
        click.option("--keep-weights", is_flag=True, help="Leave external weights in the file they are in."),
        click.option(
            "--weights",
            type=click.Choice(WEIGHTS[:3]),
            default="auto",
            show_default=True,
            help="Where weights go: as in the source, into the model file, or into a data file beside it.",
        ),
    ):
        function = decorate(function)
    return function


def dims_option(function: _F) -> _F:
    """--dims."""
    return click.option(
        "--dims", default="", metavar="N=1,SEQ=128", help="Sizes of symbolic dimensions of the sample inputs."
    )(function)


FEEDS_HELP = "Inputs: .npz, .json, .safetensors, .golden, or a folder of input_*.pb or of several such."


def layer_options(function: _F) -> _F:
    """What ``compare --layers`` can be told about how to look inside."""
    for decorate in (
        click.option(
            "--inner", default=1000, show_default=True, type=click.IntRange(0), help="Tensors compared inside bodies."
        ),
        click.option(
            "--iterations", default=8, show_default=True, type=click.IntRange(1), help="Iterations compared of a loop."
        ),
        click.option(
            "--whole/--no-whole",
            default=None,
            help="Run the whole target first, with nothing shown; default: if its weights fit the memory there is.",
        ),
        click.option(
            "--memory", metavar="SIZE", help="Memory for tensors with --layers; default: twice the largest and 256 MiB."
        ),
        click.option(
            "--isolate/--no-isolate",
            default=True,
            show_default=True,
            help="Run each layer alone too, to tell what it adds from what it was handed.",
        ),
    ):
        function = decorate(function)
    return function


def limit_options(function: _F) -> _F:
    """The caller's own limits, instead of noise floors and tables."""
    file = click.Path(path_type=Path)
    for decorate in (
        click.option("--postprocess", metavar="FILE.py:FUNCTION", help="What to compare instead of the outputs."),
        click.option(
            "--per-tensor",
            type=file,
            metavar="FILE",
            help="Limits for tensors by name or pattern: TOML or JSON.",
        ),
        click.option(
            "--metric",
            multiple=True,
            metavar="NAME<VALUE",
            help="A limit, strictly: rel_l2<0.01, cosine>0.999, ./mine.py:score>0.9. Repeatable; all must hold.",
        ),
        click.option("--atol", type=float, help="See --rtol."),
        click.option("--rtol", type=float, help="Allow |error| <= atol + rtol * |reference|, strictly."),
    ):
        function = decorate(function)
    return function


def process_options(function: _F) -> _F:
    """What the processes of engines may take."""
    for decorate in (
        click.option("--memory-cap", metavar="SIZE", help="Memory that the process of each engine may take."),
        click.option(
            "--timeout", type=float, metavar="SECONDS", help="Time an engine may take to prepare or run a model once."
        ),
    ):
        function = decorate(function)
    return function


def sample_options(function: _F) -> _F:
    """On which inputs: --feeds, or --samples, --seed and --dims."""
    for decorate in (
        dims_option,
        click.option("--seed", default=0, show_default=True, help="Seed of these inputs."),
        click.option(
            "--samples",
            default=1,
            show_default=True,
            type=click.IntRange(1),
            help="Seeded inputs where no file is given.",
        ),
        click.option("--feeds", type=click.Path(path_type=Path), metavar="FILE", help=FEEDS_HELP),
    ):
        function = decorate(function)
    return function


def engine_options(function: _F) -> _F:
    """What is searched over the builds of an engine of TensorRT, on which inputs, and who is believed."""
    file = click.Path(path_type=Path)
    for decorate in (
        sample_options,
        click.option(
            "--original",
            type=file,
            metavar="MODEL",
            help="What the reference runs, where MODEL is a rewritten one; the graph itself is then checked, too.",
        ),
        click.option("--reference", metavar="RUNNER", help="What is believed; default: onnxruntime:optimize=none."),
        click.option(
            "--target",
            default="tensorrt",
            show_default=True,
            metavar="RUNNER",
            help="What is suspected: tensorrt:KEY=VALUE,...",
        ),
    ):
        function = decorate(function)
    return function


def budget_options(function: _F) -> _F:
    """What a search may spend."""
    for decorate in (
        click.option(
            "--max-seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Stop after S seconds."
        ),
        click.option("--max-trials", type=click.IntRange(1), metavar="N", help="Stop after N trials."),
    ):
        function = decorate(function)
    return function


def parallel_options(function: _F) -> _F:
    """Where the trials of a search are made, and where they are kept."""
    for decorate in (
        click.option(
            "--resume",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Keep finished trials in DIR, and make none again that is there.",
        ),
        click.option("--workers", metavar="tcp://HOST:PORT", help="Make trials on the workers of a Dask scheduler."),
        click.option("--jobs", type=click.IntRange(1), metavar="N", help="Make N trials at a time here; default 1."),
    ):
        function = decorate(function)
    return function


def search_options(function: _F) -> _F:
    """What all searches take after their own options."""
    for decorate in (
        json_option,
        allow_external_option,
        process_options,
        click.option(
            "--save",
            type=click.Path(path_type=Path),
            metavar="RESULT.json",
            help="Keep the result, as --json prints it.",
        ),
        budget_options,
        parallel_options,
        limit_options,
    ):
        function = decorate(function)
    return function


def parse_dims(text: str) -> dict[str, int]:
    """``N=1,seq=128`` as a dict.

    Raises:
        BadOptionError: Not of that form, or a size that is not a number above -1.
    """
    from surgeon_passes.errors import BadOptionError

    sizes: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, size = part.rpartition("=")
        if not name or not size.isdigit():
            raise BadOptionError(f"'{part}' is not a dimension", hint="write NAME=SIZE")
        sizes[name.strip()] = int(size)
    return sizes


def split_names(values: tuple[str, ...]) -> tuple[str, ...]:
    """Names from a repeatable option whose values may also list several, separated by commas."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())
