"""Load a model without reading its weights, turn it into a ModelProto, and tell two models apart by content."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from surgeon_passes import fidelity, wire
from surgeon_passes.errors import BadModelError, FileError
from surgeon_passes.external_data import check_region, file_size, locate
from surgeon_passes.pause_collector import collector_paused
from surgeon_passes.walk import scopes
from surgeon_passes.weight_file import MappedTensor, WeightFile

CUT_THRESHOLD = 1024
"""Inline weights of at least this many bytes stay in their file; smaller ones are cheaper in memory."""

SOURCE = "onnx_surgeon.source"
"""Key in ``Model.meta``: the Path a model was loaded from."""

_TEXT_FORMATS = {
    ".onnxtxt": "onnxtxt",
    ".onnxtext": "onnxtxt",
    ".textproto": "textproto",
    ".txtpb": "textproto",
    ".prototxt": "textproto",
    ".pbtxt": "textproto",
    ".json": "json",
    ".onnxjson": "json",
}


def text_format_of(path: Path) -> str | None:
    """The name onnx gives the text format that a file's ending asks for; None for the binary format."""
    return _TEXT_FORMATS.get(path.suffix.lower())


def load(path: str | Path, *, allow_external: bool = False, check_weights: bool = True) -> ir.Model:
    """Read a model; its weights stay in their files and are mapped when something reads them.

    Args:
        path: A file in ONNX's binary format, or in a text format by its ending (``.onnxtxt``, ``.textproto``,
            ``.json``).
        allow_external: Accept external weights outside the model's folder (absolute paths, ``..``, links).
        check_weights: Make sure that every external weight is there and complete.

    Raises:
        FileError: The file cannot be read.
        BadModelError: It is not ONNX, is truncated, defines a name twice, or its weights are missing, short or
            outside the folder.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise FileError("there is no such file", where=str(path))
        if not path.is_file():
            raise FileError(
                "is not a file" if path.is_dir() else "is not a regular file", where=str(path), hint="name an ONNX file"
            )
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be read: {error}", where=str(path)) from error
    try:
        if text_format_of(path):
            return _loaded(_parse_text(path), path, None, [], allow_external, check_weights)
        file = WeightFile(path)
        if file.size == 0:
            raise BadModelError("the file is empty")
        view = memoryview(file.map())
        try:
            small, spans = wire.cut_weights(view, CUT_THRESHOLD)
        finally:
            view.release()
        with collector_paused():
            return _loaded(_parse(small), path, file, spans, allow_external, check_weights)
    except BadModelError as error:
        if not error.where:
            error.where = str(path)
        raise


def _parse(data: bytes) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:
        raise BadModelError("is not an ONNX model, or is truncated") from error
    return proto


def _parse_text(path: Path) -> onnx.ModelProto:
    try:
        if text_format_of(path) == "onnxtxt":
            return onnx.parser.parse_model(path.read_text("utf-8"))
        return onnx.load(str(path), format=text_format_of(path), load_external_data=False)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise BadModelError(f"is not an ONNX model in text form: {words}") from error


def _loaded(
    proto: onnx.ModelProto,
    path: Path,
    file: WeightFile | None,
    spans: list[wire.Span],
    allow_external: bool,
    check_weights: bool,
) -> ir.Model:
    if not proto.HasField("graph"):
        raise BadModelError("is not an ONNX model: it holds no graph")
    model = from_proto(proto)
    model.meta[SOURCE] = path
    folder = path.parent

    def settle(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor
        if tensor.location == wire.MARK and file is not None:
            return _mapped(tensor, file, spans)
        return _external(tensor, folder, allow_external, check_weights)

    replace_tensors(model, settle)
    return model


def _mapped(tensor: ir.ExternalTensor, file: WeightFile, spans: list[wire.Span]) -> ir.TensorProtocol:
    index = tensor.offset or 0
    span = spans[index] if 0 <= index < len(spans) else wire.Span(0, -1)
    if span.length != tensor.nbytes:
        dims = "x".join(str(d) for d in tensor.shape)
        raise BadModelError(
            f"weight '{tensor.name}' holds {span.length} bytes but {dims} {tensor.dtype.name} has {tensor.nbytes}"
        )
    return MappedTensor(
        file,
        span.offset,
        span.length,
        tensor.dtype,
        tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _external(tensor: ir.ExternalTensor, folder: Path, allow_external: bool, check_weights: bool) -> ir.ExternalTensor:
    path = locate(str(tensor.location), folder, allow_external=allow_external)
    if check_weights:
        check_region(tensor, path, file_size(path))
    linked = path.exists() and path.stat().st_nlink > 1
    if not (allow_external or linked):
        tensor.base_dir = str(folder)
        return tensor
    # onnx_ir refuses links and paths outside its base folder on its own; an absolute path without one passes.
    return ir.ExternalTensor(
        str(path.resolve()),
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """An ``onnx_ir.Model`` from a ModelProto, with everything onnx_ir cannot hold kept beside it.

    Raises:
        BadModelError: A name is defined twice in one graph, or the graph is otherwise not one.
    """
    aside = fidelity.set_aside(proto)
    try:
        with _quiet_onnx_ir():
            model = ir.from_proto(proto)
    except Exception as error:
        raise BadModelError(f"is not a valid ONNX graph: {_cause(error)}") from error
    finally:
        aside.restore()
    fidelity.keep(proto, model, aside)
    return model


@contextlib.contextmanager
def _quiet_onnx_ir() -> Iterator[None]:
    """Hold back onnx_ir's warnings about odd models: what is worth saying about a model is ours to say."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """The first sentence of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = " ".join(str(error).split())
    if "is redeclared" in words:
        return words.split(" is redeclared")[0].replace("Output", "tensor") + " is defined twice"
    return words[:200] or type(error).__name__


def replace_tensors(model: ir.Model, replace: Callable[[ir.TensorProtocol], ir.TensorProtocol]) -> None:
    """Put ``replace(tensor)`` in the place of every initializer and tensor attribute, in every graph."""
    for scope in scopes(model):
        for value in scope.graph.initializers.values():
            if value.const_value is not None:
                tensor = replace(value.const_value)
                if tensor is not value.const_value:
                    value.const_value = tensor
        for node in scope.graph:
            for name, attr in list(node.attributes.items()):
                if attr.is_ref():
                    continue
                if attr.type == ir.AttributeType.TENSOR:
                    new = replace(attr.as_tensor())
                    if new is not attr.value:
                        node.attributes[name] = ir.Attr(name, attr.type, new, doc_string=attr.doc_string)
                elif attr.type == ir.AttributeType.TENSORS:
                    many = [replace(t) for t in attr.as_tensors()]
                    if any(a is not b for a, b in zip(many, attr.as_tensors(), strict=True)):
                        node.attributes[name] = ir.Attr(name, attr.type, many, doc_string=attr.doc_string)


def tensors_of(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every initializer and every tensor attribute of a model, in every graph."""
    found: list[ir.TensorProtocol] = []

    def note(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        found.append(tensor)
        return tensor

    replace_tensors(model, note)
    yield from found


def small_proto(
    model: ir.Model, take: Callable[[ir.TensorProtocol], bool]
) -> tuple[onnx.ModelProto, list[ir.TensorProtocol]]:
    """A ModelProto in which tensors that ``take`` chooses carry a mark (see :mod:`surgeon_passes.wire`) for their data.

    Returns:
        The ModelProto, and the chosen tensors by the index in their marks.
    """
    taken: list[ir.TensorProtocol] = []

    def mark(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if tensor.dtype == ir.DataType.STRING or not take(tensor):
            return tensor
        stub = ir.ExternalTensor(
            wire.MARK,
            len(taken),
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=tensor.name or "",
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
        taken.append(tensor)
        return stub

    return _proto_with(model, mark), taken


def _proto_with(model: ir.Model, stand_in: Callable[[ir.TensorProtocol], ir.TensorProtocol]) -> onnx.ModelProto:
    """The ModelProto of a model with other tensors in the place of its own; the model is as before afterwards."""
    originals: dict[int, tuple[ir.TensorProtocol, ir.TensorProtocol]] = {}

    def swap(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        other = stand_in(tensor)
        originals[id(other)] = (tensor, other)  # held, so that no other object gets its id
        return other

    replace_tensors(model, swap)
    try:
        with _quiet_onnx_ir():
            proto = ir.to_proto(model)
    finally:
        replace_tensors(model, lambda tensor: originals[id(tensor)][0] if id(tensor) in originals else tensor)
    fidelity.put_back(proto, model)
    return proto


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """A ModelProto with every weight inside it.

    Raises:
        BadModelError: It would be larger than the 2 GiB that a protobuf message can hold.
    """
    total = sum(tensor.nbytes for tensor in tensors_of(model) if tensor.dtype != ir.DataType.STRING)
    if total >= 2**31:
        raise BadModelError(
            f"has {total / 1e9:.1f} GB of weights, more than one message can hold", hint="save it to a file"
        )

    def inline(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor
        return ir.LazyTensor(
            lambda: tensor,
            tensor.dtype,
            tensor.shape,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )

    return _proto_with(model, inline)


def digest(model: ir.Model) -> str:
    """A SHA-256 over the graph and the content of every weight, wherever it is stored; hexadecimal."""
    # A small one in a file of its own is a name in the proto, and says nothing.
    outside = (MappedTensor, ir.ExternalTensor)
    proto, taken = small_proto(model, lambda tensor: tensor.nbytes >= CUT_THRESHOLD or isinstance(tensor, outside))
    content = hashlib.sha256(proto.SerializeToString(deterministic=True))
    for tensor in taken:
        for chunk in _chunks(tensor):
            content.update(chunk)
    return content.hexdigest()


def _chunks(tensor: ir.TensorProtocol) -> Iterable[bytes]:
    """The data of a tensor, without mapping what is in a file: mapped pages would count as memory in use."""
    if isinstance(tensor, MappedTensor):
        return tensor.chunks()
    if isinstance(tensor, ir.ExternalTensor):
        return WeightFile(Path(tensor.path)).chunks(tensor.offset or 0, tensor.nbytes)
    return [tensor.tobytes()]
