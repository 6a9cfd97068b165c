"""``surgeon find auto``: which search will name the culprit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from surgeon import options

_FILE = click.Path(path_type=Path)


@click.command("auto")
@options.model_argument
@options.engine_options
@options.search_options
def command(**given: Any) -> int:
    r"""Build an engine of MODEL in about ten other ways, and say what to search for.

    Other tactics, other optimisation levels, no TF32, inner tensors shown, knobs turned: what makes the engine right
    tells whether a tactic, a fusion, the precision or a node is to blame. The graph itself is looked at first.
    Ends with 0 if something is named, 1 if there is nothing to find, 3 if it could not decide.

    \b
    Examples:
      surgeon find auto model.onnx
      surgeon find auto converted.onnx --original model.onnx
    """
    from surgeon.probing import Request, perform_auto
    from surgeon.report.auto_report import print_auto
    from surgeon.searching import answer

    as_json = given.pop("as_json")
    request = Request(**given)
    return answer(perform_auto(request), request, print_auto, as_json=as_json)
