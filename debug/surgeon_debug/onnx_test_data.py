"""ONNX test data: folders with ``input_0.pb``, ``output_0.pb`` and so on, one folder for each sample."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from surgeon_debug.values import Value
from surgeon_passes.errors import BadOptionError

_NUMBER = re.compile(r"(\d+)")


def by_number(paths: Sequence[Path]) -> list[Path]:
    """Paths in the order of the numbers in their names: 2 before 10."""

    def key(path: Path) -> list[int | str]:
        return [int(part) if part.isdigit() else part for part in _NUMBER.split(path.name)]

    return sorted(paths, key=key)


def data_sets(folder: Path, role: str) -> list[Path]:
    """The folders that hold test data: the folder itself, or those directly inside it.

    Args:
        folder: The folder.
        role: ``input`` or ``output``: which data they must hold.
    """
    if any(folder.glob(f"{role}_*.pb")):
        return [folder]
    return [sub for sub in by_number([p for p in folder.iterdir() if p.is_dir()]) if any(sub.glob(f"{role}_*.pb"))]


def read_data_set(folder: Path, role: str, declared: Sequence[ir.Value]) -> dict[str, Value]:
    """The values of one folder by name.

    Args:
        folder: The folder.
        role: ``input`` or ``output``.
        declared: The inputs or outputs of the model, which the format numbers; a name in a file goes first.

    Raises:
        BadOptionError: There are more files than the model has inputs or outputs.
    """
    files = by_number(list(folder.glob(f"{role}_*.pb")))
    if len(files) > len(declared):
        raise BadOptionError(f"{len(files)} files for {len(declared)} {role}s", where=str(folder))
    by_name = {value.name: value for value in declared}
    return dict(_read_proto(file, value, by_name) for file, value in zip(files, declared, strict=False))


def _read_proto(file: Path, positional: ir.Value, by_name: Mapping[str | None, ir.Value]) -> tuple[str, Value]:
    import onnx

    kinds = {ir.SequenceType: onnx.SequenceProto, ir.OptionalType: onnx.OptionalProto}
    proto: Any = kinds.get(type(positional.type), onnx.TensorProto)()  # type: ignore[arg-type]
    proto.ParseFromString(file.read_bytes())
    name = proto.name if proto.name in by_name else (positional.name or "")
    if isinstance(proto, onnx.SequenceProto):
        return name, onnx.numpy_helper.to_list(proto)
    if isinstance(proto, onnx.OptionalProto):
        return name, onnx.numpy_helper.to_optional(proto)
    return name, onnx.numpy_helper.to_array(proto)
