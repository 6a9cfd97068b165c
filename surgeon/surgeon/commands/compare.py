"""``surgeon compare``: two engines, or two models, on the same inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from surgeon import options

_FILE = click.Path(path_type=Path)


@click.command("compare")
@options.model_argument
@click.argument("other", required=False, type=_FILE)
@click.option(
    "--reference", default="onnxruntime:optimize=none", show_default=True, metavar="RUNNER", help="What is believed."
)
@click.option("--target", metavar="RUNNER", help="What is tested; with OTHER, the reference's runner by default.")
@click.option("--layers", is_flag=True, help="Compare every tensor inside, and say which layer is to blame for what.")
@options.layer_options
@click.option(
    "--pieces",
    is_flag=True,
    help="With --layers on TensorRT: compare piece by piece as on other engines, which takes fused layers apart.",
)
@options.sample_options
@options.limit_options
@click.option("--against", type=_FILE, metavar="FILE", help="Values computed earlier, in the reference's place.")
@click.option(
    "--save-reference", type=_FILE, metavar="FILE.golden", help="Keep what the reference computes, for --against."
)
@click.option("--save", type=_FILE, metavar="RESULT.json", help="Keep the result, as --json prints it.")
@click.option(
    "--annotate", type=_FILE, metavar="OUT.onnx", help="Write a copy of the model with the findings at its nodes."
)
@options.process_options
@options.allow_external_option
@options.json_option
def command(**given: Any) -> int:
    r"""Run MODEL on two engines, or MODEL and OTHER, and compare what they compute.

    Each engine runs in a process of its own. With --layers, each layer is also run alone on the reference's values;
    what it adds to the error is held against what its precision explains. On TensorRT --layers looks at what fusion has
    left instead, goes into the group where an error starts step by step, and minds whether looking heals it.
    Ends with 0 if all agree, with 1 if outputs differ or a layer is wrong.

    \b
    Examples:
      surgeon compare model.onnx --target openvino --layers
      surgeon compare model.onnx --target tensorrt --layers
      surgeon compare model.onnx model_fp16.onnx --layers --samples 4
      surgeon compare model.onnx --target ./mine.py:MyRunner --feeds inputs.npz --metric 'rel_l2<0.01'
      surgeon compare model.onnx --target onnxruntime:python=/other/bin/python --layers
    """
    from surgeon.starting import started
    from surgeon_debug.runners.runner_text import names_tensorrt
    from surgeon_passes.errors import BadOptionError

    reference, target = given["reference"], given["target"]
    if target is None and given["other"] is None and given["against"] is None:
        raise BadOptionError("nothing says what to compare with", hint="add --target RUNNER or a second model")
    as_json, timeout, cap = (given.pop(name) for name in ("as_json", "timeout", "memory_cap"))
    # On TensorRT layers are looked at in engines of several kinds, which are started one after the other.
    climbs = given["layers"] and not given["pieces"] and given["other"] is None and names_tensorrt(target)
    with started([reference] if climbs else [reference, target or reference], timeout, cap) as engines:
        from surgeon.carried_options import carried_options
        from surgeon.comparing import Request, perform, write_files
        from surgeon.console import print_json, results
        from surgeon.report.compare_report import print_comparison
        from surgeon_debug.layers import DEFAULT_REFERENCE

        request = Request(**given)
        if climbs:
            from surgeon.climbing import look_inside

            done = look_inside(request, engines[0], timeout, cap)
        else:
            done = perform(request, engines)
    if as_json:
        print_json(done.to_json())
    else:
        print_comparison(results(), done, carried_options(request, reference=DEFAULT_REFERENCE))
    write_files(done, request)
    return 0 if done.verdict == "agree" else 1
