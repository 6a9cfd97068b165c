"""Write a culprit into one file that shows the failure anywhere, after it was seen again in a clean process.

A bundle is a zip: ``model.onnx``, the values (``inputs``, ``expected``, ``seen``), ``bundle.json`` which describes
them, ``README.md``, and ``reproduce.py``, which needs neither this package nor its formats.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.bundle_values import write_values
from surgeon_debug.find.culprit_piece import DATA_SUFFIX, CulpritPiece
from surgeon_debug.find.piece_failure import PieceFailure, PieceResult
from surgeon_debug.find.piece_trials import Seen, run_model
from surgeon_debug.find.signature import of_error
from surgeon_debug.here import environment
from surgeon_debug.packed_runner import PackedRunner, pack_runner
from surgeon_debug.reproduce_script import reproduce_script
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_passes.atomic_write import check_target, staged
from surgeon_passes.errors import EngineError, FileError

SCHEMA = "surgeon.bundle/1"
"""The ``schema`` field of ``bundle.json``."""

_CHUNK = 1 << 20
_WORTH_PACKING = 0.95  # what packing leaves of the first chunk, at most
_GRACE = 60.0  # seconds that the script gets beyond the engine's own time
_NO_LIMIT = 600.0
_CLEAN_RUNS = 3  # a flaky failure may need more than one


@dataclasses.dataclass(frozen=True)
class Story:
    """What a bundle tells besides its values."""

    reference: str
    """The text of the runner that is believed."""
    target: str
    """The text of the runner under test."""
    verdict: str
    """What was found, in a paragraph."""
    command: str = ""
    """The command line that was typed."""
    limits: tuple[str, ...] = ()
    """The caller's own limits as text."""
    steps: tuple[str, ...] = ()
    """How the piece was made smaller."""
    private: str = ""
    """What in it is still the original's, as sentences."""
    timeout: float | None = None
    """Seconds the engine gets for one prepare or one run."""
    memory_cap: int | None = None
    """Bytes it gets."""


@dataclasses.dataclass(frozen=True)
class BundleInfo:
    """What became of a bundle."""

    path: str
    """The file; empty if none was made."""
    reason: str = ""
    """Why none was made, as a sentence."""
    nbytes: int = 0
    """The file's size."""
    nodes: tuple[str, ...] = ()
    """The nodes in it."""
    words: str = ""
    """The failure as it was seen in a clean process."""
    steps: tuple[str, ...] = ()
    """How the piece was made smaller."""
    notes: tuple[str, ...] = ()
    """What a reader should know, each a sentence."""
    private: str = ""
    """What in it is still the original's, as sentences."""
    trials: int = 0
    """Runs of the engine under test that it took."""

    @property
    def made(self) -> bool:
        """Whether there is a file."""
        return bool(self.path)


def make_bundle(path: Path, piece: CulpritPiece, failure: PieceFailure, story: Story) -> BundleInfo:
    """Write a bundle, if the failure shows again in a fresh process.

    Args:
        path: The file to write.
        piece: The piece, with what is expected of it if the failure is one of values.
        failure: What must show.
        story: All else that belongs in it.

    Returns:
        What was made, or why nothing was.

    Raises:
        FileError: The file cannot be written; what was there stays as it was.
        BadOptionError: A runner's text makes no sense, or a value is of no kind that a bundle can hold.
    """
    check_target(path)
    runner = pack_runner(story.target)
    with tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        members = _lay_out(folder, piece, runner)
        seen, result = _clean_run(folder, piece, failure, runner, story)
        if not failure.matches(result):
            reason = f"no bundle was made: in a clean process {_came_to(piece, result)}"
            return BundleInfo("", reason, nodes=piece.nodes, steps=story.steps)
        described = {
            "inputs": write_values(folder / "inputs", piece.feeds),
            "expected": write_values(folder / "expected", piece.expected),
            "seen": write_values(folder / "seen", seen.values),
        }
        document = _document(piece, failure, result, runner, story, described)
        script = reproduce_script(runner)
        if script is not None:
            (folder / "reproduce.py").write_text(script, "utf-8")
        _write_json(folder, document)
        notes = [*_notes_on(runner), _script_says(folder, script, story)]
        document["notes"] = [note for note in notes if note]
        _write_json(folder, document)
        (folder / "README.md").write_text(_readme(document, path.name, script is not None), "utf-8")
        members += _value_files(folder)
        members += ["bundle.json", "README.md", *(["reproduce.py"] if script is not None else [])]
        size = _zip(path, folder, members)
    return BundleInfo(
        str(path), "", size, piece.nodes, result.words, story.steps, tuple(document["notes"]), story.private
    )


def _lay_out(folder: Path, piece: CulpritPiece, runner: PackedRunner) -> list[str]:
    """Write the model and the runner's files; their names in the bundle."""
    piece.write(folder)
    members = ["model.onnx"]
    if (folder / f"model.onnx{DATA_SUFFIX}").exists():
        members.append(f"model.onnx{DATA_SUFFIX}")
    for member, source in runner.sources.items():
        target = folder / member
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.write_bytes(source.read_bytes())
        except OSError as error:
            raise FileError(f"cannot be read: {error.strerror}", where=str(source)) from error
        members.append(member)
    return members


def _clean_run(
    folder: Path, piece: CulpritPiece, failure: PieceFailure, runner: PackedRunner, story: Story
) -> tuple[Seen, PieceResult]:
    """Run what is in the bundle on a fresh engine in a process of its own."""
    seen, result = Seen(()), PieceResult(None, "nothing was run")
    python = parse_runner(story.target)[1].python
    for _ in range(_CLEAN_RUNS):
        engine = runner.engine(folder, timeout=story.timeout, memory_cap=story.memory_cap, python=python)
        with engine, tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True) as scratch:
            # A copy, for a runner may write beside the model, and one that crashes leaves that behind.
            path = piece.write(Path(scratch), "piece.onnx")
            seen = run_model(path, piece.outputs, piece.feeds, engine)
        if seen.error is None:
            result = failure.of_values(piece.expected, seen.values)
        else:
            names = {*piece.nodes, *piece.weights, *piece.outputs, *(name for s in piece.feeds for name in s)}
            result = failure.of_ending(of_error(seen.error, names), str(seen.error))
        if failure.matches(result):
            break
    return seen, result


def _came_to(piece: CulpritPiece, result: PieceResult) -> str:
    nodes = ", ".join(piece.nodes[:3])
    if result.signature is None:
        return f"{nodes} does not fail"
    return f"{nodes} fails in another way: {result.words}"


def _document(
    piece: CulpritPiece,
    failure: PieceFailure,
    result: PieceResult,
    runner: PackedRunner,
    story: Story,
    described: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "culprit": {"nodes": list(piece.nodes), "ops": list(piece.ops)},
        "failure": {**failure.to_json(), "words": result.words, "error": _number(result.error)},
        "verdict": story.verdict,
        "outputs": list(piece.outputs),
        **described,
        "reference": {"text": story.reference},
        "target": runner.to_json(),
        "limits": {"timeout": story.timeout, "memory_cap": story.memory_cap, "texts": list(story.limits)},
        "versions": {"target": environment(story.target), "reference": environment(story.reference)},
        "command": story.command,
        "steps": list(story.steps),
        "private": story.private,
        "notes": [],
    }


def _number(value: float | None) -> float | str | None:
    """A number as JSON can hold it."""
    return value if value is None or abs(value) < float("inf") else repr(value)


def _write_json(folder: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "bundle.json").write_bytes(text.encode("utf-8", "surrogatepass"))


def _notes_on(runner: PackedRunner) -> list[str]:
    if not runner.file:
        return []
    names = ", ".join(sorted(runner.sources))
    lacking = f"; it imports {', '.join(runner.foreign)}, which is not in it" if runner.foreign else ""
    return [f"The runner's own files are in the bundle ({names}){lacking}."]


def _script_says(folder: Path, script: str | None, story: Story) -> str:
    """Run ``reproduce.py`` in a clean process; what is to be said about it, as a sentence."""
    if script is None:
        return f"There is no reproduce.py: {parse_runner(story.target)[0].name} means nothing outside this package."
    python = parse_runner(story.target)[1].python or sys.executable
    timeout = 3 * (story.timeout or _NO_LIMIT) + _GRACE
    command = [str(python), "-B", str(folder / "reproduce.py")]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"reproduce.py could not be tried: {type(error).__name__}."
    if done.returncode == 1:
        return "reproduce.py showed the failure in a clean process."
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
    what = "did not show the failure" if done.returncode == 0 else "could not run"
    return f"reproduce.py {what} when it was tried ({lines[-1].strip()[:200]}); surgeon replay shows it."


def _value_files(folder: Path) -> list[str]:
    parts = ("inputs", "expected", "seen")
    return [f"{part}/{file.name}" for part in parts for file in sorted((folder / part).glob("*"))]


def _readme(document: Mapping[str, Any], name: str, script: bool) -> str:
    lines = [f"# {', '.join(document['culprit']['nodes'][:3])} on {document['target']['text']}", ""]
    lines += [document["verdict"], "", f"Seen in a clean process: {document['failure']['words']}.", ""]
    lines += ["## See it", ""]
    if script:
        lines += ["    python reproduce.py", ""]
        lines += ["needs Python, numpy, onnx and the engine. Exit code 1: the failure is there; 0: it is not; 2: it"]
        lines += ["cannot be run here. With onnx-surgeon installed:", ""]
    code = " --allow-code" if document["target"]["file"] else ""
    lines += [f"    surgeon replay {name}{code}", ""]
    if document["steps"]:
        lines += ["## How it was made smaller", "", *(f"- {step}" for step in document["steps"]), ""]
    if document["private"]:
        lines += ["## What is private in it", "", document["private"], ""]
    lines += ["## Versions then", ""]
    lines += [f"- {key}: {value}" for key, value in document["versions"]["target"].items()]
    if document["command"]:
        lines += ["", "## Command", "", f"    {document['command']}"]
    if document["notes"]:
        lines += ["", "## Notes", "", *(f"- {note}" for note in document["notes"])]
    return "\n".join(lines) + "\n"


def _zip(path: Path, folder: Path, members: Sequence[str]) -> int:
    """Pack the members; bytes of the file."""
    with staged() as files, files.open(path) as out:
        with zipfile.ZipFile(out, "w", allowZip64=True) as archive:
            for member in members:
                _pack(archive, folder / member, member)
        return out.tell()


def _pack(archive: zipfile.ZipFile, source: Path, member: str) -> None:
    info = zipfile.ZipInfo(member)  # no dates: equal bundles are equal files
    info.external_attr = 0o644 << 16
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(source.open("rb"))
        first = file.read(_CHUNK)
        packs = bool(first) and len(zlib.compress(first, 6)) < _WORTH_PACKING * len(first)
        info.compress_type = zipfile.ZIP_DEFLATED if packs else zipfile.ZIP_STORED
        info.file_size = source.stat().st_size
        target = stack.enter_context(archive.open(info, "w", force_zip64=info.file_size > 1 << 30))
        while first:
            target.write(first)
            first = file.read(_CHUNK)


def reason_of_failure(error: EngineError) -> str:
    """Why no bundle was made, from an engine's failure on the way."""
    return f"no bundle was made: the engine could not be used: {error}"
