"""Polygraphy's files, read and written through Polygraphy: inputs (``--load-inputs``) and outputs (``--load-outputs``).

Both are JSON with ``.npy`` data in base64, held in memory as a whole: a third larger than the tensors, and slow. They
serve for exchange with people who use Polygraphy; :mod:`surgeon_debug.golden` is the form to keep values in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.values import Feeds, Value, is_foreign, kind_of, normalise
from surgeon_passes.atomic_write import staged
from surgeon_passes.errors import BadOptionError, FileError

Run = tuple[str, list[dict[str, Value]]]
"""The name of a runner, and what it computed for each sample, by tensor name."""

_MOST_WORDS = 200


def read_polygraphy_inputs(path: str | Path) -> list[dict[str, Value]]:
    """The samples in a file of inputs, or in a folder that holds a file for each.

    Args:
        path: What Polygraphy's ``--save-inputs`` wrote: a list of inputs, one input, or a folder of such files.

    Returns:
        Values by input name, for each sample.

    Raises:
        FileError: It cannot be read, or holds something else.
    """
    samples: list[dict[str, Value]] = []
    for file in _files(Path(path)):
        with _quiet(file):
            loaded = _load(file)
            if type(loaded).__name__ == "RunResults":
                raise FileError(
                    "holds outputs, not inputs", where=str(file), hint="'polygraphy data to-input' makes inputs of them"
                )
            loaded = [loaded] if isinstance(loaded, Mapping) else loaded
            if not isinstance(loaded, list) or not all(isinstance(sample, Mapping) for sample in loaded):
                raise FileError("is JSON, but not Polygraphy's inputs", where=str(file))
            samples += [{name: _value(name, value, file) for name, value in sample.items()} for sample in loaded]
    return samples


def read_polygraphy_outputs(path: str | Path) -> list[Run]:
    """The runs in a file of outputs, or in a folder that holds a file for each sample.

    Args:
        path: What Polygraphy's ``--save-outputs`` wrote.

    Returns:
        A run for each runner, in the order of the file.

    Raises:
        FileError: It cannot be read, or holds something else.
    """
    runs: dict[str, list[dict[str, Value]]] = {}
    for file in _files(Path(path)):
        with _quiet(file):
            loaded = _load(file)
            if type(loaded).__name__ != "RunResults":
                raise FileError(
                    "is JSON, but not Polygraphy's outputs", where=str(file), hint="save them with --save-outputs"
                )
            for runner, results in loaded.items():
                samples = [{n: _value(n, value, file) for n, value in result.items()} for result in results]
                runs.setdefault(runner, []).extend(samples)
    return list(runs.items())


def save_polygraphy_inputs(samples: Sequence[Feeds], path: str | Path) -> None:
    """Write inputs for Polygraphy's ``--load-inputs``, whole or not at all.

    Args:
        samples: Values by input name, for each sample.
        path: The file.

    Raises:
        BadOptionError: A value has no form in Polygraphy's files.
        FileError: The file cannot be written.
    """
    path = Path(path)
    with _quiet(path):
        from polygraphy.json import to_json

        text = to_json([{name: _encodable(name, value, path) for name, value in feeds.items()} for feeds in samples])
    _write(text, path)


def save_polygraphy_outputs(runs: Sequence[tuple[str, Sequence[Mapping[str, Value]]]], path: str | Path) -> None:
    """Write outputs for Polygraphy's ``--load-outputs``, whole or not at all.

    Args:
        runs: Names of runners, and what they computed for each sample, by tensor name.
        path: The file.

    Raises:
        BadOptionError: A value has no form in Polygraphy's files.
        FileError: The file cannot be written.
    """
    path = Path(path)
    with _quiet(path):
        from polygraphy.comparator import RunResults
        from polygraphy.json import to_json

        results = RunResults()
        for runner, samples in runs:
            values = [{n: _encodable(n, value, path) for n, value in sample.items()} for sample in samples]
            results.add(values, runner_name=runner)
        text = to_json(results)
    _write(text, path)


def _write(text: str, path: Path) -> None:
    with staged() as files, files.open(path) as out:
        out.write(text.encode())


def _files(path: Path) -> list[Path]:
    """The files of a folder in Polygraphy's order, which is that of their zero-padded names; or the file itself."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json"))
    if not files:
        raise FileError("is a folder without files of Polygraphy", where=str(path))
    return files


def _load(path: Path) -> Any:
    from polygraphy.json import load_json

    return load_json(str(path))


@contextlib.contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Hold back what Polygraphy prints, and say what it raises in one sentence."""
    from polygraphy.logger import G_LOGGER

    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
            yield
    except (FileError, BadOptionError):
        raise
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
    except Exception as error:
        words = " ".join(str(error).split())
        if "torch.Tensor" in words:
            raise FileError("holds tensors of torch", where=str(path), hint="install torch to read them") from error
        raise FileError(f"is no file of Polygraphy: {words[:_MOST_WORDS]}", where=str(path)) from error


def _value(name: str, value: Any, path: Path) -> Value:
    """A value from one of Polygraphy's forms: an array, one swapped to the disk, a tensor of torch, a padded array."""
    kind = type(value).__name__
    if kind == "LazyArray":
        return _value(name, value.load(), path)
    if kind == "FormattedArray":
        inner = np.asarray(_value(name, value.array, path))
        if inner.size != int(np.prod(value.shape, dtype=np.int64)):
            raise FileError(f"'{name}' is in an engine's own padded layout", where=str(path))
        return inner.reshape(tuple(value.shape))
    if kind == "Tensor":
        return _from_torch(value)
    if isinstance(value, Mapping):
        raise FileError(f"'{name}' is no array", where=str(path))
    return normalise(np.asarray(value))


def _from_torch(tensor: Any) -> np.ndarray[Any, Any]:
    import ml_dtypes
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    if not name.startswith(("bfloat", "float8")):
        return np.asarray(tensor.numpy(force=True))
    bits = tensor.contiguous().view(torch.int16 if tensor.element_size() == 2 else torch.uint8)
    return np.asarray(bits.numpy(force=True)).view(getattr(ml_dtypes, name))


def _encodable(name: str, value: Value, path: Path) -> Any:
    """A value in a form that Polygraphy can save and load again without loss.

    Raises:
        BadOptionError: There is none.
    """
    value = normalise(value)
    kind = kind_of(value)
    if kind in ("sequence", "map", "none"):
        what = "an optional without a value" if kind == "none" else f"a {kind}"
        raise _no_form(name, what, path)
    if kind == "text":
        text = value.astype(np.str_)
        if not np.array_equal(text.astype(object), value):
            raise _no_form(name, "text that ends with a NUL", path)
        return text
    if not is_foreign(value.dtype):
        return value
    return _to_torch(name, value, path)


def _to_torch(name: str, value: np.ndarray[Any, Any], path: Path) -> Any:
    """A type that numpy lacks as a tensor of torch, the only form that Polygraphy has for it."""
    if not value.dtype.name.startswith(("bfloat", "float8")):
        raise _no_form(name, value.dtype.name, path)
    try:
        import torch
    except ImportError:
        raise BadOptionError(
            f"'{name}' is {value.dtype.name}, which Polygraphy's files hold as a tensor of torch only",
            where=str(path),
            hint="install torch, or save a .golden file",
        ) from None
    dtype = getattr(torch, value.dtype.name, None)
    if dtype is None:
        raise _no_form(name, value.dtype.name, path)
    bits = value.view(np.int16 if value.dtype.itemsize == 2 else np.uint8)
    return torch.from_numpy(np.array(bits)).view(dtype)


def _no_form(name: str, what: str, path: Path) -> BadOptionError:
    return BadOptionError(
        f"'{name}' is {what}, for which Polygraphy's files have no form",
        where=str(path),
        hint="save a .golden file instead",
    )
