"""Trials by a command, as in ``git bisect run``: it is given a model with some of the nodes, and ends with a code.

The placeholders ``{model}``, ``{inputs}`` and ``{expected}`` stand for files: the model in ONNX's binary form, its
inputs and the reference's outputs for them, both as ``.npz``; of several samples with ``/0``, ``/1``, ... behind names.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.feed_pieces import FedPiece, chain_piece
from surgeon_debug.find.content_address import content_address
from surgeon_debug.find.groundwork import Groundwork, given_outputs
from surgeon_debug.find.hybrid import share, unread
from surgeon_debug.find.model_spec import OpenedEngines, PieceSpec
from surgeon_debug.find.oracle import FailureKind, Signature, TrialRecord
from surgeon_debug.find.own_file import OutputTypes, type_of, write_own_file
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.values import Value
from surgeon_passes.errors import BadOptionError, EngineError

CANNOT_TELL = 125
"""The exit code of a command that cannot tell."""

_NOT_RUN = {126: "cannot be executed", 127: "was not found"}
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_KNOWN = ("model", "inputs", "expected")
_MAX_WORDS = 160
_GRACE = 2.0


class CheckSpec(PieceSpec[OpenedEngines]):
    """All that is needed to make a :class:`CheckOracle`; it can be pickled.

    Args:
        model: The model's file, in binary form.
        feeds: Its inputs, one mapping a sample.
        command: What is run, by ``/bin/sh``, with placeholders. Its exit code says 0 good, 125 cannot tell, else bad.
        reference: The runner that computes the inputs of pieces from the middle of the model, and what is expected.
        timeout: Seconds that the command may take.
        allow_external: Accept weights outside the model's folder.

    Raises:
        BadOptionError: The command has no ``{model}``, or a placeholder that is none.
    """

    opens = OpenedEngines
    by_values = False

    def __init__(
        self,
        model: Path,
        feeds: Sequence[Mapping[str, Value]],
        *,
        command: str,
        reference: str,
        timeout: float | None = None,
        allow_external: bool = False,
    ) -> None:
        names = _PLACEHOLDER.findall(command)
        strangers = [name for name in names if name not in _KNOWN]
        if strangers:
            known = ", ".join(f"{{{name}}}" for name in _KNOWN)
            raise BadOptionError(f"the check command has a placeholder {{{strangers[0]}}}", hint=f"there are {known}")
        if "model" not in names:
            raise BadOptionError("the check command does not say where the model goes", hint="write {model} in it")
        super().__init__(model, feeds, allow_external=allow_external)
        self.command, self.reference, self.timeout = command, reference, timeout

    def address(self) -> str:
        """A digest of everything but the elements that outcomes depend on."""
        with self._open.lock:
            if not self._open.address:
                self._open.address = content_address(
                    self.model,
                    self.feeds,
                    runners=[self.reference],
                    commands=[self.command],
                    texts=[repr(self.timeout)],
                    allow_external=self.allow_external,
                )
            return self._open.address

    def make(self) -> CheckOracle:
        """An oracle; its reference starts when it is needed."""
        ground = self.ground()
        engine = make_engine(self.reference, isolated=True, timeout=self.timeout)
        self._open.engines.append(engine)
        return CheckOracle(ground, engine, self.command, self.timeout)


class CheckOracle:
    """Makes trials with a command, one at a time.

    Args:
        ground: The model and its inputs.
        reference: Computes the inputs of pieces from the middle of the model.
        command: What is run.
        timeout: Seconds that it may take.
    """

    def __init__(self, ground: Groundwork, reference: Engine, command: str, timeout: float | None) -> None:
        self._ground, self._reference = ground, reference
        self._command, self._timeout = command, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._types = OutputTypes(ground.source.model)

    def evaluate(self, elements: frozenset[int], attempt: int) -> TrialRecord:  # noqa: ARG002  each is as the first
        """Make a trial; see :class:`surgeon_debug.find.oracle.Oracle`.

        Raises:
            BadOptionError: The command cannot be run at all.
            EngineError: The reference cannot compute the inputs.
        """
        started = time.monotonic()
        held = self._ground.values.runs
        if not elements:
            return TrialRecord(None)
        with tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True) as folder:
            written = self._write(elements, Path(folder))
            if written is None:
                return TrialRecord(None)
            signature, words, unresolved = self._run(written)
        return TrialRecord(
            signature,
            unresolved,
            words,
            seconds=time.monotonic() - started,
            builds=1,
            runs=1,
            reference_runs=self._ground.values.runs - held,
        )

    def close(self) -> None:
        """Stop the reference."""
        self._reference.close()

    def abort(self) -> None:
        """End the command, from another thread."""
        process = self._process
        if process is not None:
            _end(process)

    def _write(self, elements: frozenset[int], folder: Path) -> dict[str, Path] | None:
        """The files that the command asks for; None if nothing reads what the elements compute."""
        ground = self._ground
        hybrid = share(ground.source, ground.elements.positions(elements))
        suspect = hybrid.suspect
        shows = list(suspect.shows) or unread(ground.source, suspect.nodes)
        if not shows:
            return None
        whole = len(elements) == len(ground.elements)
        fed: Sequence[Mapping[str, Value]] = ground.feeds
        model = ground.path
        if not whole:
            values = ground.values.of(suspect.reads, self._reference)
            settings = hybrid.known & ground.source.producer.keys()
            piece = chain_piece(suspect.nodes, suspect.reads, shows, values, settings)
            model, fed = self._own_file(piece, folder), piece.feeds
        files = {"model": model.absolute()}
        if "{inputs}" in self._command:
            files["inputs"] = _save(folder / "inputs.npz", fed)
        if "{expected}" in self._command:
            expected = ground.values.of(ground.outputs if whole else shows, self._reference)
            if whole:
                expected = [{**a, **b} for a, b in zip(given_outputs(ground), expected, strict=True)]
            files["expected"] = _save(folder / "expected.npz", expected)
        return files

    def _own_file(self, piece: FedPiece, folder: Path) -> Path:
        ground = self._ground
        types = {name: known for name in piece.cut.outputs if (known := self._types.of(name)) is not None}
        unknown = [name for name in piece.cut.outputs if name not in types]
        with contextlib.suppress(EngineError):  # the reference may not be able to run the model at all, and need not
            samples = ground.values.of(unknown, self._reference) if unknown else []
            for name in unknown:
                if (seen := type_of([sample[name] for sample in samples if name in sample])) is not None:
                    types[name] = seen
        written = ground.source.write(piece.cut)
        try:
            return write_own_file(written, folder, types)
        finally:
            written.unlink(missing_ok=True)

    def _run(self, files: Mapping[str, Path]) -> tuple[Signature | None, str, str]:
        command = _PLACEHOLDER.sub(lambda found: shlex.quote(str(files[found[1]])), self._command)
        self._process = process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            return Signature(FailureKind.HUNG), f"the command did not end within {self._timeout:g} s", ""
        finally:
            self._process = None
            _end(process)
        return _verdict(process.returncode, said)


def _verdict(code: int, said: bytes) -> tuple[Signature | None, str, str]:
    if code == 0:
        return None, "", ""
    lines = [" ".join(line.split()) for line in said.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1][:_MAX_WORDS] if lines else ""
    if code == CANNOT_TELL:
        return None, "", "the command cannot tell" + (f": {last}" if last else "")
    if code in _NOT_RUN:
        raise BadOptionError(f"the check command {_NOT_RUN[code]}: {last}", hint="try it by hand on the whole model")
    number = -code if code < 0 else code - 128
    if code < 0 or code > 128:
        with contextlib.suppress(ValueError):
            name = signal.Signals(number).name
            return Signature(FailureKind.CRASHED, name), f"the command was ended by {name}", ""
    words = f"the command ended with exit code {code}" + (f": {last}" if last else "")
    return Signature(FailureKind.CHECK), words, ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)


def _save(path: Path, samples: Sequence[Mapping[str, Value]]) -> Path:
    arrays: dict[str, Any] = {}
    for i, sample in enumerate(samples):
        for name, value in sample.items():
            if isinstance(value, np.ndarray):
                arrays[name if len(samples) == 1 else f"{name}/{i}"] = value
    np.savez(path, **arrays)
    return path
