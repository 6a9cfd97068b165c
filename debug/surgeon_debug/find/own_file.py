"""A piece of a model as a file that a stranger can read: weights in it, outputs with types.

Pieces as engines get them point into the user's own files by links, and leave types of outputs out. ``onnx.load``
refuses linked weights, and ``onnx.checker`` outputs without a type; a check that uses either would call every piece
bad.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from surgeon_debug.element_types import element_type_of
from surgeon_debug.values import Value
from surgeon_passes.errors import FileError
from surgeon_passes.trusted_shapes import trusted_shapes

_INSIDE_LIMIT = 10**9
"""Bytes of weights from which on they are in a file beside the model; a message of protobuf holds 2 GB."""


class OutputTypes:
    """What is known about types of tensors of a model without running it.

    Args:
        model: The model; its types are inferred at the first question.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._known: dict[str, onnx.TypeProto] | None = None

    def of(self, name: str) -> onnx.TypeProto | None:
        """The type of a tensor; None if it, or its number of dimensions, is not known."""
        if self._known is None:
            self._known = self._infer()
        return self._known.get(name)

    def _infer(self) -> dict[str, onnx.TypeProto]:
        shapes = trusted_shapes(self._model)
        found = {}
        for node in self._model.graph:
            for value in node.outputs:
                dtype, dims = shapes.dtype(value) or value.dtype, shapes.dims(value)
                if value.name and dtype is not None and dims is not None:
                    found[value.name] = onnx.helper.make_tensor_type_proto(dtype.value, dims)
        return found


def type_of(values: Sequence[Value]) -> onnx.TypeProto | None:
    """The type of a tensor by its values, one a sample; None for what is no tensor."""
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    if not arrays or len(arrays) < len(values):
        return None
    first = arrays[0].shape
    if any(len(array.shape) != len(first) for array in arrays):
        return None
    dims = [size if all(array.shape[i] == size for array in arrays) else None for i, size in enumerate(first)]
    return onnx.helper.make_tensor_type_proto(element_type_of(arrays[0]), dims)


def write_own_file(piece: Path, folder: Path, types: Mapping[str, onnx.TypeProto]) -> Path:
    """Write ``model.onnx``, and above 1 GB of weights ``model.onnx.data``.

    Args:
        piece: A piece that :meth:`surgeon_debug.piece_source.PieceSource.write` wrote.
        folder: Where to.
        types: Types of its outputs, as far as they are known.

    Raises:
        FileError: A file cannot be read or written.
    """
    path = folder / "model.onnx"
    try:
        model = onnx.load(str(piece), load_external_data=False)
        outside = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in outside]
        large = sum(int(place["length"]) for place in places) > _INSIDE_LIMIT
        with contextlib.ExitStack() as stack:
            out = stack.enter_context((folder / f"{path.name}.data").open("wb")) if large else None
            for tensor, place in zip(outside, places, strict=True):
                with (piece.parent / place["location"]).open("rb") as file:
                    file.seek(int(place["offset"]))
                    data = file.read(int(place["length"]))
                del tensor.external_data[:]
                if out is None:
                    tensor.ClearField("data_location")
                    tensor.raw_data = data
                    continue
                where = {"location": f"{path.name}.data", "offset": out.tell(), "length": len(data)}
                for key, value in where.items():
                    tensor.external_data.add(key=key, value=str(value))
                out.write(data)
        for output in model.graph.output:
            if output.name in types:
                output.type.CopyFrom(types[output.name])
        path.write_bytes(model.SerializeToString())
    except OSError as error:
        raise FileError(f"cannot be written: {error.strerror}", where=str(path)) from error
    return path
