"""Save a model whole or not at all, with weights inline, in data files, or left where they are."""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from surgeon_passes import wire
from surgeon_passes.atomic_write import Staged, check_target, staged
from surgeon_passes.errors import BadOptionError, FileError
from surgeon_passes.external_data import OpenFiles, Placement, copy_region, copy_tensors, place, write_tensor
from surgeon_passes.graph import CUT_THRESHOLD, SOURCE, small_proto, tensors_of, text_format_of, to_proto
from surgeon_passes.weight_file import MappedTensor

_MESSAGE_LIMIT = 2**31 - 1  # what a protobuf parser accepts


class Weights(enum.Enum):
    """Where the weights of a saved model go."""

    AUTO = "auto"
    """As in the source: external if any weight was external or the model would exceed 2 GiB, else inline."""
    INLINE = "inline"
    """Inside the model file."""
    EXTERNAL = "external"
    """In a data file beside the model file."""
    KEEP = "keep"
    """External weights stay in the file they are in, which the saved model refers to."""


def save(
    model: ir.Model,
    path: str | Path,
    *,
    weights: Weights = Weights.AUTO,
    shard_size: int | None = None,
) -> list[Path]:
    """Write a model; the old file stays intact until the new one is complete.

    Weights are streamed from where they are: memory does not grow with them. A data file is named after the model
    file (``out.onnx`` -> ``out.onnx.data``); if that name is taken by an earlier version, another is used, so that at
    no moment a model stands beside data that are not its own.

    Args:
        model: What to save; it is not changed.
        path: The target. An ending of a text format (``.onnxtxt``, ``.textproto``, ``.json``) selects it.
        weights: Where weights go.
        shard_size: Bytes after which a new data file is started; None for one file.

    Returns:
        The files written, the model file last.

    Raises:
        FileError: The target cannot be written, or is one of the model's own sources.
        BadOptionError: The weights do not fit the place asked for.
    """
    path = Path(path)
    real = check_target(path)
    _refuse_own_source(model, path, real)
    if text_format_of(path):
        return _save_text(model, path)
    layout = _layout(model) if weights is Weights.AUTO else weights
    if layout is Weights.INLINE:
        return _save_inline(model, path)
    return _save_external(model, path, real, keep=layout is Weights.KEEP, shard_size=shard_size)


def _source_files(model: ir.Model) -> set[Path]:
    """Files that a model was read from and still reads its weights from."""
    on_disk = (tensor for tensor in tensors_of(model) if isinstance(tensor, (MappedTensor, ir.ExternalTensor)))
    files = {Path(tensor.path).resolve() for tensor in on_disk}
    source = model.meta.get(SOURCE)
    return files | ({source.resolve()} if source is not None else set())


def _refuse_own_source(model: ir.Model, path: Path, real: Path) -> None:
    if real in _source_files(model):
        raise FileError(
            "is the model that is being rewritten; inputs are never modified",
            where=str(path),
            hint="choose another name",
        )


def _layout(model: ir.Model) -> Weights:
    total = 0
    for tensor in tensors_of(model):
        if isinstance(tensor, ir.ExternalTensor):
            return Weights.EXTERNAL
        if tensor.dtype != ir.DataType.STRING:
            total += tensor.nbytes
    # The graph itself needs room in the same message.
    return Weights.EXTERNAL if total > _MESSAGE_LIMIT - (64 << 20) else Weights.INLINE


def _save_text(model: ir.Model, path: Path) -> list[Path]:
    proto, kind = to_proto(model), text_format_of(path) or ""
    if kind == "onnxtxt":
        text = onnx.printer.to_text(proto).encode()
    else:
        text = onnx.serialization.registry.get(kind).serialize_proto(proto)
    with staged() as files, files.open(path) as out:
        out.write(text)
    return [path]


def _save_inline(model: ir.Model, path: Path) -> list[Path]:
    # A tensor that is a TensorProto already goes out as it came in, float_data or raw_data.
    proto, taken = small_proto(
        model,
        lambda tensor: (
            isinstance(tensor, (MappedTensor, ir.ExternalTensor))
            or (tensor.nbytes >= CUT_THRESHOLD and not isinstance(tensor, ir.TensorProtoTensor))
        ),
    )
    parts, total = wire.splice_weights(proto.SerializeToString())
    if total > _MESSAGE_LIMIT:
        raise BadOptionError(
            f"{total / 1e9:.1f} GB do not fit into one ONNX file", where=str(path), hint="use --weights external"
        )
    sources = OpenFiles()
    with staged() as files, files.open(path) as out:
        for part in parts:
            if isinstance(part, bytes):
                out.write(part)
            elif region := sources.region(taken[part.index]):
                copy_region(region, out)
            else:
                write_tensor(taken[part.index], out)
        out.flush()
        _check_length(out.tell(), total, path)
    return [path]


def _check_length(written: int, expected: int, path: Path) -> None:
    if written != expected:
        raise FileError(
            f"came out at {written} bytes instead of {expected}; a weight has another size than it states",
            where=str(path),
        )


def _marked(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every TensorProto that carries a mark."""
    stack: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    while stack:
        graph = stack.pop()
        if isinstance(graph, onnx.GraphProto):
            yield from (t for t in graph.initializer if _mark_index(t) is not None)
        for node in graph.node:
            for attr in node.attribute:
                yield from (
                    t for t in (*attr.tensors, *([attr.t] if attr.HasField("t") else ())) if _mark_index(t) is not None
                )
                stack.extend(attr.graphs)
                if attr.HasField("g"):
                    stack.append(attr.g)


def _mark_index(tensor: onnx.TensorProto) -> int | None:
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return int(entries["offset"]) if entries.get("location") == wire.MARK else None


def _point(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _save_external(model: ir.Model, path: Path, real: Path, *, keep: bool, shard_size: int | None) -> list[Path]:
    initializers = {id(tensor) for tensor in _initializers(model)}

    def take(tensor: ir.TensorProtocol) -> bool:
        # Data of attributes stay inline unless they came from a data file: engines rarely follow them out.
        if isinstance(tensor, ir.ExternalTensor):
            return True
        return id(tensor) in initializers and tensor.nbytes >= CUT_THRESHOLD and _has_data(tensor)

    proto, taken = small_proto(model, take)
    sources = OpenFiles()
    kept = {i: _kept_location(t, real) for i, t in enumerate(taken) if keep and isinstance(t, ir.ExternalTensor)}
    moved = [i for i in range(len(taken)) if i not in kept]
    placements = dict(zip(moved, place([taken[i] for i in moved], sources, shard_size=shard_size), strict=True))
    names = _data_names(real, 1 + max((p.shard for p in placements.values()), default=-1))
    for tensor in _marked(proto):
        index = _mark_index(tensor)
        assert index is not None
        if index in kept:
            source = taken[index]
            assert isinstance(source, ir.ExternalTensor)
            _point(tensor, kept[index], source.offset or 0, source.nbytes)
        else:
            spot = placements[index]
            _point(tensor, names[spot.shard], spot.offset, spot.length)
    old_data = _data_of(real)
    with staged() as files:
        for shard, name in enumerate(names):
            _write_shard(files, real.parent / name, shard, placements, taken, sources)
        with files.open(path) as out:
            out.write(proto.SerializeToString())
    _remove_stale({real.parent / name for name in old_data - set(names)} - _source_files(model))
    return [*(path.parent / name for name in names), path]


def _has_data(tensor: ir.TensorProtocol) -> bool:
    """False for a tensor that states a shape but holds nothing, as weight-stripped models do."""
    return not isinstance(tensor, ir.TensorProtoTensor) or tensor.raw.ByteSize() >= tensor.nbytes


def _initializers(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        yield from (value.const_value for value in graph.initializers.values() if value.const_value is not None)


def _write_shard(
    files: Staged,
    target: Path,
    shard: int,
    placements: dict[int, Placement],
    taken: list[ir.TensorProtocol],
    sources: OpenFiles,
) -> None:
    first_at = {p.offset: i for i, p in sorted(placements.items(), reverse=True) if p.shard == shard}
    end = max((p.offset + p.length for p in placements.values() if p.shard == shard), default=0)
    with files.open(target) as out:
        copy_tensors(((offset, taken[first_at[offset]]) for offset in sorted(first_at)), out, sources)
        out.flush()
        _check_length(out.tell(), end, target)


def _kept_location(tensor: ir.ExternalTensor, real: Path) -> str:
    """The path of a kept data file as the saved model must spell it."""
    data = Path(os.path.abspath(tensor.path))  # noqa: PTH100  (links stay links: the model may only name what is below it)
    if not data.is_relative_to(real.parent):
        raise BadOptionError(
            f"weights stay in {data.parent}, which is not the folder of {real.name} or below it",
            hint="save the model there, or do not keep the weights",
        )
    return data.relative_to(real.parent).as_posix()


def _data_names(real: Path, count: int) -> list[str]:
    """Names of new data files that no file has yet."""
    for version in range(1_000_000):
        stem = real.name if version == 0 else f"{real.name}.{version}"
        names = [f"{stem}.data"] if count == 1 else [f"{stem}-{i + 1:05d}-of-{count:05d}.data" for i in range(count)]
        if not any((real.parent / name).exists() for name in names):
            return names
    raise FileError("has too many data files beside it", where=str(real))


def _data_of(real: Path) -> set[str]:
    """Names of the data files, of our naming, that an existing model at the target refers to."""
    if not real.exists():
        return set()
    try:
        proto = onnx.load(str(real), load_external_data=False)
    except Exception:  # noqa: BLE001  (whatever stands there is about to be replaced)
        return set()
    used = {entry.value for t in proto.graph.initializer for entry in t.external_data if entry.key == "location"}
    return {name for name in used if name.startswith(f"{real.name}") and name.endswith(".data") and "/" not in name}


def _remove_stale(files: set[Path]) -> None:
    """Remove data files of the model that was replaced."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()
