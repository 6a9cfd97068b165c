"""Any program that reads a model and an ``.npz`` file and writes another ``.npz`` file."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from surgeon_debug.element_types import Buffer, element_type_of, is_foreign, type_of_number
from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import BadOptionError, EngineError

_PLACES = ("{model}", "{inputs}", "{outputs}", "{names}")
_KEPT = 64 << 10
_BFLOAT16 = 16


class Command:
    """Run a command for every sample; it computes the graph outputs of the model that it is given.

    The command is taken apart as a shell would, but no shell runs it. In it stand

    - ``{model}``: path of the ONNX file; every tensor wanted is one of its graph outputs;
    - ``{inputs}``: path of an ``.npz`` file with a member for each input, by name. Numbers in types that numpy lacks
      are written as unsigned integers of the same size, those below a byte packed into a vector of bytes; a sequence
      is written as ``NAME[0]``, ``NAME[1]``;
    - ``{outputs}``: path of the ``.npz`` file that the command has to write, by the names of the tensors, or by the
      members that ``{names}`` gives them;
    - ``{names}``: path of a JSON file with two lists, ``inputs`` and ``outputs``: for each tensor its ``name`` and
      ``member`` and, for inputs, its ONNX ``type`` and ``shape``.

    It is given 0 as the exit code of success; otherwise the last line of its error output is the reason.

    Args:
        run: The command, as in ``command:run="python mine.py {model} {inputs} {outputs}"``.

    Raises:
        BadOptionError: The command does not say where the model or the outputs stand, or its quotes do not close.
    """

    def __init__(self, run: str) -> None:
        try:
            self._words = shlex.split(run)
        except ValueError as error:
            raise BadOptionError(f"the command '{run}' cannot be read: {error}") from None
        lacking = [place for place in ("{model}", "{outputs}") if not any(place in word for word in self._words)]
        if lacking:
            raise BadOptionError(
                f"the command '{run}' does not say where {lacking[0]} goes",
                hint='write run="PROGRAM {model} {inputs} {outputs}"',
            )
        self._model = Path()
        self._wanted: list[str] = []

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Note the model; the command compiles it each time it is run."""
        if shutil.which(self._words[0]) is None:
            raise EngineError(f"there is no program '{self._words[0]}' to run")
        self._model, self._wanted = model_path, list(outputs)

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run the command once."""
        with tempfile.TemporaryDirectory(prefix="surgeon-") as name:
            folder = Path(name)
            inputs, outputs, names = (folder / file for file in ("inputs.npz", "outputs.npz", "names.json"))
            told = {
                "inputs": _write(inputs, feeds),
                "outputs": [{"name": name, "member": f"output_{i}"} for i, name in enumerate(self._wanted)],
            }
            names.write_text(json.dumps(told, indent=1))
            paths = dict(zip(_PLACES, map(str, (self._model, inputs, outputs, names)), strict=True))
            self._call([_filled(word, paths) for word in self._words], folder)
            if not outputs.is_file():
                raise EngineError("the command ended well and wrote no outputs", hint="it has to write to {outputs}")
            return _read(outputs, self._wanted)

    def _call(self, words: list[str], folder: Path) -> None:
        # Into files: a pipe that nobody reads would stop a program that has much to say.
        with (folder / "stdout").open("w+b") as said, (folder / "stderr").open("w+b") as complained:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=said, stderr=complained, check=False)
            if done.returncode == 0:
                return
            words_of_it = _last_line(complained) or _last_line(said) or "it said nothing"
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise EngineFailure(f"the command was ended by {name}: {words_of_it}", ending=Ending.CRASHED)
        raise EngineError(f"the command failed with exit code {done.returncode}: {words_of_it}")


def _filled(word: str, paths: Mapping[str, str]) -> str:
    for place, path in paths.items():
        word = word.replace(place, path)
    return word


def _last_line(file: BinaryIO) -> str:
    size = file.seek(0, 2)
    file.seek(max(0, size - _KEPT))
    lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return " ".join(lines[-1].split()) if lines else ""


def _write(path: Path, feeds: Feeds) -> list[dict[str, Any]]:
    """Write inputs into an ``.npz`` file and say what each of its members is."""
    told: list[dict[str, Any]] = []
    with zipfile.ZipFile(path, "w") as archive:
        for i, (name, value) in enumerate(feeds.items()):
            member = name if _is_member(name) else f"input_{i}"
            items = (
                {member: value} if not isinstance(value, list) else {f"{member}[{k}]": v for k, v in enumerate(value)}
            )
            for at, item in items.items():
                if item is None:
                    continue
                array, type_name, shape = _plain(name, item)
                with archive.open(f"{at}.npy", "w", force_zip64=True) as out:
                    np.lib.format.write_array(out, array, allow_pickle=False)
                told.append({"name": name, "member": at, "type": type_name, "shape": shape})
    return told


def _is_member(name: str) -> bool:
    """Whether numpy finds a member of an archive again under this name."""
    return bool(name) and "\0" not in name and not name.endswith(".npy") and name.isprintable()


def _plain(name: str, value: Value) -> tuple[np.ndarray[Any, Any], str, list[int]]:
    """An array of what numpy has, the ONNX type of its elements, and the shape of the tensor."""
    if isinstance(value, np.ndarray) and is_foreign(value.dtype):
        value = Buffer.of(value)
    if isinstance(value, Buffer):
        kind = type_of_number(value.element_type)
        array = value.data.view(f"u{kind.bits // 8}").reshape(value.shape) if kind.bits >= 8 else value.data
        return array, kind.onnx_name, list(value.shape)
    if not isinstance(value, np.ndarray):
        raise EngineError(f"a command takes tensors and sequences, and input '{name}' is a {type(value).__name__}")
    array = value.astype(np.str_) if value.dtype == object else value
    return array, type_of_number(element_type_of(array)).onnx_name, list(array.shape)


def _read(path: Path, wanted: Sequence[str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            members = set(archive.files)
            for i, name in enumerate(wanted):
                member = next((m for m in (name, f"output_{i}") if m in members or f"{m}[0]" in members), None)
                if member is None:
                    continue
                if member in members:
                    found[name] = _typed(name, archive[member])
                    continue
                count = next(k for k in range(len(members) + 1) if f"{member}[{k}]" not in members)
                found[name] = [_typed(name, archive[f"{member}[{k}]"]) for k in range(count)]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise EngineError(
            f"the outputs that the command wrote cannot be read: {error}",
            hint="write what numpy has no type for as float32",
        ) from error
    return found


def _typed(name: str, array: np.ndarray[Any, Any]) -> Value:
    if array.dtype.kind != "V":
        return array
    # numpy saves what it has no name for as bytes; of two bytes there is only bfloat16.
    if array.dtype.itemsize != 2:
        raise EngineError(
            f"the type of '{name}' got lost in the command's outputs",
            hint="write what numpy has no type for as float32",
        )
    return Buffer(_BFLOAT16, array.shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
