"""``surgeon replay``: run a bundle of ``find`` again."""

from __future__ import annotations

from pathlib import Path

import click

from surgeon import options


@click.command("replay")
@click.argument("bundle", metavar="BUNDLE.zip", type=click.Path(path_type=Path))
@click.option("--target", metavar="RUNNER", help="Run this one instead of the bundle's own.")
@click.option("--reference", metavar="RUNNER", help="Expect what this one computes here, not what the bundle says.")
@click.option("--allow-code", is_flag=True, help="Execute the runner's file that is in the bundle; read it first.")
@options.process_options
@options.json_option
def command(
    bundle: Path,
    target: str | None,
    reference: str | None,
    allow_code: bool,
    timeout: float | None,
    memory_cap: str | None,
    as_json: bool,
) -> int:
    r"""Run the culprit in BUNDLE again, in a fresh process, and say whether it still fails.

    Ends with 1 if the failure is still there, 0 if it is not, 3 if it fails in another way or nobody can tell.

    \b
    Examples:
      surgeon replay fault.zip
      surgeon replay fault.zip --target onnxruntime:python=/newer/bin/python
      surgeon replay fault.zip --allow-code
    """
    from surgeon.console import print_json, results, talk
    from surgeon.report.cells import plain
    from surgeon.report.replay_report import exit_code, print_replay
    from surgeon_debug.replay import replay
    from surgeon_passes.spec import parse_size

    cap = parse_size(memory_cap) if memory_cap else None
    with talk().status(f"replaying {plain(bundle.name)}"):
        done = replay(
            bundle, target=target, reference=reference, timeout=timeout, memory_cap=cap, allow_code=allow_code
        )
    if as_json:
        print_json(done.to_json())
    else:
        print_replay(results(), done)
    return exit_code(done)
