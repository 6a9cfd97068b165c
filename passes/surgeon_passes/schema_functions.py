"""Functions by which the ONNX standard defines some of its own operators."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from surgeon_passes.errors import BadOptionError
from surgeon_passes.infer_types import AllComputed, fact_of, infer_types, write_type
from surgeon_passes.inline_call import Body, obstacle
from surgeon_passes.mend_body import mend_body
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.walk import Scope


class SchemaFunctions:
    """Bodies for nodes of chosen standard operators.

    Some bodies depend on the types of the node's inputs, so shape inference runs once, when the first is needed.

    Args:
        model: The model the nodes are in.
        operators: Operators of the default domain.

    Raises:
        BadOptionError: An operator does not exist, or has no function in any version.
    """

    def __init__(self, model: ir.Model, operators: Collection[str]) -> None:
        self._model = model
        self._operators = set(operators)
        self._facts: dict[ir.Value, ir.TypeAndShape] | None = None
        history: Sequence[Any] = onnx.defs.get_all_schemas_with_history()  # its stubs lack the fields used here
        with_function = {
            schema.name
            for schema in history
            if schema.domain == "" and (schema.has_function or schema.has_context_dependent_function)
        }
        for operator in operators:
            if operator not in with_function:
                hint = did_you_mean(operator, sorted(with_function))
                raise BadOptionError(f"ONNX defines no operator '{operator}' by a function", hint=hint)

    def body(self, node: ir.Node, scope: Scope) -> Body | str | None:
        """The definition of a node as a function, or why there is none; None if the operator is not chosen."""
        if node.domain != "" or node.op_type not in self._operators:
            return None
        try:
            schema = onnx.defs.get_schema(node.op_type, scope.opset, "")
        except onnx.defs.SchemaError:
            return f"there is no {node.op_type} in operator set {scope.opset}"
        last: Body | str = f"{node.op_type} has no definition for operator set {scope.opset} and these types"
        for text in self._texts(schema, node, scope.opset):
            proto = onnx.FunctionProto.FromString(text)
            mend_body(proto)
            del proto.output[len(node.outputs) :]  # those that the node leaves out are not made in the body either
            function = ir.from_proto(proto)
            last = Body(node.op_type, function.graph, function.opset_imports, _attributes(schema, node))
            if not obstacle(last, node, scope, {}):
                return last
        return last

    def _texts(self, schema: Any, node: ir.Node, opset: int) -> list[bytes]:
        """Serialized definitions, for the newest operator set first, none newer than ``opset``."""
        if schema.has_function:
            versions = sorted((v for v in schema.function_opset_versions if v <= opset), reverse=True)
            return [schema.get_function_with_opset_version(v) for v in versions]
        if not schema.has_context_dependent_function:
            return []
        types = self._input_types(node)
        if types is None:
            return []
        proto = ir.serde.serialize_node(node).SerializeToString()
        versions = sorted((v for v in schema.context_dependent_function_opset_versions if v <= opset), reverse=True)
        texts = [schema.get_context_dependent_function_with_opset_version(v, proto, types) for v in versions]
        return [text for text in texts if text]

    def _input_types(self, node: ir.Node) -> list[bytes] | None:
        if self._facts is None:
            self._facts = infer_types(self._model, forget=AllComputed())
        types = []
        for value in node.inputs:
            proto = onnx.TypeProto()
            if value is not None:
                fact = fact_of(value, self._facts)
                if fact.type is None:
                    return None
                write_type(proto, fact.type, fact.shape)
            types.append(proto.SerializeToString())
        return types


def _attributes(schema: Any, node: ir.Node) -> Mapping[str, ir.Attr]:
    """What the node gives, and the operator's own defaults for the rest."""
    found: dict[str, ir.Attr] = {}
    for name, declared in schema.attributes.items():
        if declared.default_value.name:
            attr = ir.serde.deserialize_attribute(declared.default_value)
            found[name] = attr
    found.update(node.attributes)
    return found
