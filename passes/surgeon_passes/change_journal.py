"""A record of every change of a run, one JSON object a line, written as the run goes on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TextIO

import onnx_ir as ir

from surgeon_passes.atomic_write import check_target, reason_of
from surgeon_passes.contract import Pass
from surgeon_passes.errors import FileError
from surgeon_passes.pipeline import StepReport
from surgeon_passes.spec import spec_of


class ChangeJournal:
    """A hook that appends what each pass did to a file, flushed after every pass.

    Lines have a ``record`` field: ``step`` (a pass is about to run), ``change`` and ``declined`` (the fields of
    :class:`~surgeon_passes.contract.Change` and :class:`~surgeon_passes.contract.Declined`), ``done`` (seconds and
    node counts). A file that ends in a ``step`` line was left by a run that died in that pass.

    Args:
        path: The file; started anew.

    Raises:
        FileError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file: TextIO = check_target(path).open("w", encoding="utf-8")
        except OSError as error:
            raise FileError(f"the journal cannot be written: {reason_of(error)}", where=str(path)) from error

    def before(self, step: Pass, model: ir.Model) -> None:  # noqa: ARG002  (a hook's signature)
        """Write down which pass is about to run."""
        self._write("step", {"step": spec_of(step)})

    def after(self, step: Pass, model: ir.Model, report: StepReport) -> None:  # noqa: ARG002
        """Write down what it did."""
        for change in report.changes:
            self._write("change", dataclasses.asdict(change))
        for item in report.declined:
            self._write("declined", dataclasses.asdict(item))
        self._write(
            "done",
            {
                "step": report.spec,
                "round": report.round,
                "seconds": round(report.seconds, 6),
                "nodes_before": report.nodes_before,
                "nodes_after": report.nodes_after,
            },
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, record: str, fields: dict[str, object]) -> None:
        self._file.write(json.dumps({"record": record, **fields}) + "\n")
        self._file.flush()
