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
@options.search_options
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
    from surgeon.probing import Request, perform_fusion
    from surgeon.report.fusion_report import print_fusion
    from surgeon.searching import answer

    as_json = given.pop("as_json")
    request = Request(**given)
    return answer(perform_fusion(request), request, print_fusion, as_json=as_json)
