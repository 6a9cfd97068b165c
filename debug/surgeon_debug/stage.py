"""Put a model where an engine can read it: a file in ONNX's binary form, with its weights beside it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from surgeon_passes.graph import from_proto, load, text_format_of
from surgeon_passes.save import save

ModelLike = str | Path | ir.Model | onnx.ModelProto
"""A path, or a model in memory."""


@contextlib.contextmanager
def staged(model: ModelLike, *, allow_external: bool = False) -> Iterator[Path]:
    """A path for ``model``, valid inside the ``with`` block.

    A file in binary form is used where it is, unread; anything else is saved to a temporary folder, weights included,
    by streaming. The caller loads what is there, and gets better words for a bad file than an engine has.

    Args:
        model: A path or a model in memory.
        allow_external: Accept weights outside the model's folder.

    Raises:
        FileError: A file that has to be converted cannot be read, or the temporary cannot be written.
        BadModelError: What has to be converted is not ONNX, or its weights are missing or outside the folder.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        if not text_format_of(path):
            yield path
            return
        name, loaded = f"{path.stem}.onnx", load(path, allow_external=allow_external)
    else:
        name, loaded = "model.onnx", model if isinstance(model, ir.Model) else from_proto(model)
    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        target = Path(folder) / name
        save(loaded, target)
        yield target


def label_of(model: ModelLike) -> str:
    """How messages call a model: its path, or the name of its graph."""
    if isinstance(model, (str, Path)):
        return str(model)
    return model.graph.name or "model"
