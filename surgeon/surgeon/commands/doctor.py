"""``surgeon doctor``: what works here."""

from __future__ import annotations

import click

from surgeon import options


@click.command("doctor")
@options.json_option
def command(as_json: bool) -> int:
    """Show what is installed and try every engine on a small model.

    Ends with 1 if onnxruntime, the reference of every comparison, does not work.
    """
    from surgeon.console import print_json, results, talk
    from surgeon.report import doctor_report
    from surgeon_debug.runners.self_test import available_runners

    with talk().status("trying the engines"):
        runners = available_runners()
    if as_json:
        print_json(doctor_report.document(runners))
    else:
        doctor_report.print_doctor(results(), runners)
    return 0 if any(runner.name == "onnxruntime" and runner.works for runner in runners) else 1
