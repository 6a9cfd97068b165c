"""``surgeon find fusion``: which fused layer makes an engine of TensorRT wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from surgeon import options

_FILE = click.Path(path_type=Path)


@click.command("fusion")
@options.model_argument
@options.engine_options
@options.limit_options
@options.parallel_options
@options.budget_options
@click.option("--save", type=_FILE, metavar="RESULT.json", help="Keep the result, as --json prints it.")
@options.process_options
@options.allow_external_option
@options.json_option
def command(**given: Any) -> int:
    r"""Name the fused layer without which an engine of MODEL is right, and what breaks it.

    Where the compiler has knobs (TensorRT 11.1 and later), the smallest set of them that heals; on any version the
    smallest set of inner tensors that heals when they are made outputs. A layer that is right with another tactic is
    not accused. Ends with 0 if a layer is named, 1 if there is nothing to find, 3 if it could not decide.

    \b
    Examples:
      surgeon find fusion model.onnx
      surgeon find fusion model.onnx --feeds inputs.npz --rtol 1e-2 --atol 1e-3
    """
    from surgeon.console import print_json, results
    from surgeon.probing import Request, exit_code, perform_fusion, write_result
    from surgeon.report.fusion_report import print_fusion

    as_json = given.pop("as_json")
    request = Request(**given)
    found = perform_fusion(request)
    if as_json:
        print_json(found.to_json())
    else:
        print_fusion(results(), found)
    write_result(found, request)
    return exit_code(found)
