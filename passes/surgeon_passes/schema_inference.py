"""Ask onnx's own shape inference about a single node, with sizes that may be symbolic."""

from __future__ import annotations

import logging

import onnx
import onnx_ir as ir

from surgeon_passes.size_facts import Fact, Operation
from surgeon_passes.symbolic_ints import Algebra, Form, Int

_log = logging.getLogger(__name__)

_SMALL = 64
"""Constants of at most this many elements are shown to the inference: scales, pads, axes."""


class SchemaInference:
    """Infers single nodes; keeps the names under which symbolic sizes travel through onnx.

    Args:
        algebra: Makes the unknown sizes.
    """

    def __init__(self, algebra: Algebra) -> None:
        self._algebra = algebra
        self._names: dict[Form, str] = {}
        self._forms: dict[str, Form] = {}
        self._schemas: dict[tuple[str, str, int], onnx.defs.OpSchema | None] = {}

    def schema(self, node: ir.Node, version: int) -> onnx.defs.OpSchema | None:
        """The definition of a node's operator in an opset version; None if onnx does not know it."""
        key = (node.op_type, node.domain, version)
        if key not in self._schemas:
            self._schemas[key] = _find_schema(*key)
        return self._schemas[key]

    def infer(self, op: Operation, version: int, tensors: dict[int, ir.TensorProtocol]) -> list[Fact]:
        """What onnx knows of every output; nothing where it fails.

        Args:
            op: The node and what is known of its inputs.
            version: Opset version of the node's domain.
            tensors: Constant inputs by index.
        """
        node = op.node
        nothing = [Fact() for _ in node.outputs]
        schema = self.schema(node, version)
        if schema is None or any(fact is not None and fact.dtype is None for fact in op.facts):
            return nothing
        # The names in the graph may be missing or given twice; here only positions matter.
        proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
        for attr in node.attributes.data.values():
            ir.serde.serialize_attribute_into(proto.attribute.add(), attr)
        proto.input.extend("" if fact is None else f"i{i}" for i, fact in enumerate(op.facts))
        proto.output.extend("" if value.name == "" else f"o{i}" for i, value in enumerate(node.outputs))
        types = {f"i{i}": self._type(fact) for i, fact in enumerate(op.facts) if fact is not None}
        data = {f"i{i}": proto for i, proto in self._data(op, tensors)}
        imports = [onnx.helper.make_opsetid(node.domain, version)]
        try:
            found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=imports)
        except Exception as error:  # noqa: BLE001  (onnx raises RuntimeError, TypeError and its own; all mean: unknown)
            _log.debug("no inference for %s: %s", node.op_type, error)
            return nothing
        return [self._fact(found.get(f"o{i}")) for i in range(len(node.outputs))]

    def _data(self, op: Operation, tensors: dict[int, ir.TensorProtocol]) -> list[tuple[int, onnx.TensorProto]]:
        shown = []
        for i, fact in enumerate(op.facts):
            if fact is None:
                continue
            array = fact.array()
            if array is not None and array.size <= _SMALL:
                shown.append((i, onnx.numpy_helper.from_array(array)))
            elif i in tensors and tensors[i].size <= _SMALL:
                shown.append((i, ir.serde.serialize_tensor(tensors[i])))
        return shown

    def _type(self, fact: Fact) -> onnx.TypeProto:
        assert fact.dtype is not None
        if fact.dims is None:
            proto = onnx.TypeProto()
            proto.tensor_type.elem_type = int(fact.dtype)
            return proto
        return onnx.helper.make_tensor_type_proto(int(fact.dtype), [self._name(d) for d in fact.dims])

    def _name(self, size: Int) -> int | str:
        if isinstance(size, int):
            return size
        if size not in self._names:
            name = f"f{len(self._names)}"
            self._names[size], self._forms[name] = name, size
        return self._names[size]

    def _fact(self, proto: onnx.TypeProto | None) -> Fact:
        if proto is None or proto.WhichOneof("value") != "tensor_type" or not proto.tensor_type.elem_type:
            return Fact()
        tensor = proto.tensor_type
        dims: list[Int] | None = None
        if tensor.HasField("shape"):
            dims = []
            for d in tensor.shape.dim:
                known: Int | None = d.dim_value if d.HasField("dim_value") else self._forms.get(d.dim_param)
                dims.append(self._algebra.fresh() if known is None or known == -1 else known)
        return Fact(ir.DataType(tensor.elem_type), None if dims is None else tuple(dims))


def _find_schema(op_type: str, domain: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
