"""One spelling for two ModelProtos that say the same, so that ``==`` on it means lossless.

Not significant in ONNX, hence unified: the order of maps (metadata, value infos, quantization parameters, opset
imports) and of initializers' external entries; a default string or number that is set against one that is not; the
domain spelt ``ai.onnx``; omitted optional inputs and outputs at the end of a list.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import Message

_UNORDERED = {"metadata_props", "value_info", "quantization_annotation", "opset_import", "quant_parameter_tensor_names"}


def tree(message: Message, folder: Path | None = None) -> dict[str, object]:
    """A message as nested dicts and lists, fields at their default left out, external data read in."""
    result: dict[str, object] = {}
    if isinstance(message, onnx.TensorProto) and message.data_location == onnx.TensorProto.EXTERNAL:
        message = with_data(message, folder)
    for field, value in message.ListFields():
        if field.is_repeated:
            items = [tree(v, folder) if isinstance(v, Message) else v for v in value]
            while (
                isinstance(message, onnx.NodeProto) and field.name in ("input", "output") and items and items[-1] == ""
            ):
                items.pop()
            if field.name in _UNORDERED:
                unique = {repr(item): item for item in items}
                items = [unique[key] for key in sorted(unique)]
            if items:
                result[field.name] = items
        elif isinstance(value, Message):
            inner = tree(value, folder)
            # An empty shape is a scalar; any other empty message says nothing.
            if inner or field.name in ("shape", "tensor_type", "t", "g"):
                result[field.name] = inner
        elif field.name == "domain" and value == "ai.onnx":
            continue
        elif value != field.default_value or field.containing_oneof:
            result[field.name] = repr(value) if isinstance(value, float) else value
    return result


def with_data(tensor: onnx.TensorProto, folder: Path | None) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    onnx.external_data_helper.load_external_data_for_tensor(copy, str(folder or ""))
    copy.ClearField("external_data")
    copy.ClearField("data_location")
    return copy


def canonical(path: Path) -> dict[str, object]:
    """The canonical tree of a model file, weights included."""
    return tree(onnx.load(str(path), load_external_data=False), path.parent)
