"""``surgeon find tactic``: which kernel makes an engine of TensorRT wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from surgeon import options

_FILE = click.Path(path_type=Path)


@click.command("tactic")
@options.model_argument
@options.engine_options
@click.option(
    "--good",
    type=_FILE,
    metavar="CACHE|RECORD",
    help="A build that is right: its timing cache, or the folder that 'surgeon build --record' wrote.",
)
@click.option(
    "--bad",
    type=_FILE,
    metavar="CACHE",
    help="The timing cache of the build that fails, if builds differ from day to day.",
)
@click.option("--every", is_flag=True, help="Give every tactic of every op a verdict, whatever is found before.")
@click.option(
    "-o", "--output", type=_FILE, metavar="CACHE", help="The timing cache to write; default: MODEL.good.cache here."
)
@options.search_options
def command(**given: Any) -> int:
    r"""Name the tactic (the kernel chosen for one op) that makes an engine of MODEL wrong.

    The engine is built with an editable timing cache, and again from that cache: if this does not replay, the search
    refuses and says which keys differ. With --good the tactics that differ are searched, which takes the logarithm of
    their number in builds; without it build after build tries the next tactic of every op until one is right, or says
    after as many builds as an op has tactics, and one, that it is not a tactic (or several at once). A build that
    cannot be made counts for nothing, unless that is the failure. What is found comes with a timing cache that avoids
    it.
    Ends with 0 if a tactic is named, 1 if there is nothing to find, 3 if it could not decide.

    \b
    Examples:
      surgeon find tactic model.onnx
      surgeon find tactic model.onnx --good lastweek.cache --resume trials
      surgeon find tactic model.onnx --target tensorrt:tf32=false --every -o model.good.cache
      surgeon build model.onnx -o model.engine --timing-cache model.good.cache --pin
    """
    from surgeon.probing import Request, perform_tactic
    from surgeon.report.tactic_report import print_tactic
    from surgeon.searching import answer

    as_json = given.pop("as_json")
    request = Request(**given)
    return answer(perform_tactic(request), request, print_tactic, as_json=as_json)
