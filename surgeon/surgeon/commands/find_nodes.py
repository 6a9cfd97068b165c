"""``surgeon find nodes``: which nodes of a model are to blame for a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from surgeon import options

_FILE = click.Path(path_type=Path)


@click.command("nodes")
@options.model_argument
@click.option("--target", metavar="RUNNER", help="What is suspected.")
@click.option("--reference", metavar="RUNNER", help="What is believed; default: onnxruntime:optimize=none.")
@click.option(
    "--versions",
    nargs=2,
    metavar="PYTHON_A PYTHON_B",
    help="One engine in two environments: A is believed, B suspected; --target names it (default onnxruntime).",
)
@click.option(
    "--check",
    metavar="COMMAND",
    help="Decide by a command instead of engines: 'CMD {model}', {inputs} and {expected} if wanted; "
    "exit code 0 is good, 125 cannot tell, any other bad.",
)
@options.sample_options
@click.option("--bundle", type=_FILE, metavar="OUT.zip", help="Write the failure as one file that 'replay' runs again.")
@click.option("--no-weights", is_flag=True, help="Replace the weights in the bundle by seeded ones, if it still fails.")
@options.search_options
@click.pass_obj
def command(typed: str | None, /, **given: Any) -> int:
    r"""Find the smallest sets of nodes of MODEL that fail by themselves.

    Nodes are given to the target and the rest to the reference, until it is known who is to blame; then that is
    verified: the culprit alone fails, and without it the model is right.
    Ends with 0 if a culprit is named, 1 if there is nothing to find, 3 if it could not decide.

    \b
    Examples:
      surgeon find nodes model.onnx --target openvino
      surgeon find nodes model.onnx --target ./mine.py:MyRunner --jobs 4 --resume trials --bundle fault.zip
      surgeon find nodes model.onnx --versions /old/bin/python /new/bin/python
      surgeon find nodes model.onnx --check './try.sh {model}' --timeout 60
    """
    from surgeon.finding import Request, perform
    from surgeon.report.find_report import print_finding
    from surgeon.searching import answer

    as_json = given.pop("as_json")
    request = Request(**given, typed=typed or "")
    return answer(perform(request), request, print_finding, as_json=as_json)
