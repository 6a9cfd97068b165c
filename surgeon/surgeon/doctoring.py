"""What ``surgeon doctor`` does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from surgeon.cli import DONE, FINDING
from surgeon.console import print_json, results, talk
from surgeon.report import doctor_report, selfcheck_report
from surgeon.targets import check_targets
from surgeon_debug.runners.self_test import available_runners
from surgeon_debug.runners.tensorrt.self_check.check import check_tensorrt
from surgeon_passes.errors import FileError


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """The options of ``surgeon doctor --self-test``, as typed; see its help."""

    record: Path | None
    other_cache: Path | None
    seconds: float
    as_json: bool


def show_runners(*, as_json: bool) -> int:
    """Try every engine and show what came out; returns the exit code."""
    with talk().status("trying the engines"):
        runners = available_runners()
    if as_json:
        print_json(doctor_report.document(runners))
    else:
        doctor_report.print_doctor(results(), runners)
    return DONE if any(runner.name == "onnxruntime" and runner.works for runner in runners) else FINDING


def perform_self_test(order: SelfTest) -> int:
    """Put TensorRT to the test; returns the exit code.

    Raises:
        EngineError: TensorRT is not there, too old or without a GPU.
        FileError: A file cannot be read or written.
    """
    if order.other_cache is not None and not order.other_cache.is_file():
        raise FileError("does not exist", where=str(order.other_cache))
    check_targets({"--record": (order.record, b"PK")}, [order.other_cache])
    with talk().status("TensorRT and the device") as status:
        found = check_tensorrt(
            record=order.record, foreign=order.other_cache, seconds=order.seconds, progress=status.update
        )
    if order.as_json:
        print_json(found.to_json())
    else:
        selfcheck_report.print_self_check(results(), found, order.record)
    return DONE if found.right else FINDING
