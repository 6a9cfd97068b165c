"""The pass ``dedupe``: equal weights are stored once, equal computations are made once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.dedupe_initializers import dedupe_initializers
from surgeon_passes.dedupe_nodes import dedupe_nodes
from surgeon_passes.takeover import Takeover
from surgeon_passes.tensor_content import ContentKeys
from surgeon_passes.walk import scopes


@dataclasses.dataclass(frozen=True)
class Dedupe(Pass):
    """Merge initializers of equal content, and nodes that compute the same, without changing one bit of any output.

    Initializers are equal if type, shape and every bit are (-0.0 is not 0.0). Weights are compared in their files, a
    few megabytes at a time, and only where another one has the same type, shape and ends. Nodes are equal if
    operator, attributes and inputs are; the operands of Add, Mul, And, Or, Xor and Equal may be swapped. Both also
    across bodies: what an enclosing graph has computed before is used inside.

    Left alone: initializers that are inputs of the model (the caller may override them) or outputs; random operators
    and Dropout; operators with bodies; custom operators, those of onnxruntime too, as they may do more than compute;
    two nodes whose results both are outputs.
    """

    name: ClassVar[str] = "dedupe"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p dedupe -o smaller.onnx"

    initializers: bool = option(True, "Merge initializers of equal content.")
    nodes: bool = option(True, "Merge nodes that compute the same.")

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Merge the initializers first: nodes that read equal ones then read the same one.

        Raises:
            FileError: A file that holds weights cannot be read.
        """
        keys = ContentKeys(self._tensors(model))
        takeover = Takeover(model)
        if self.initializers:
            dedupe_initializers(model, log, keys, takeover)
        if self.nodes:
            dedupe_nodes(model, log, keys, takeover)

    def _tensors(self, model: ir.Model) -> Iterator[ir.TensorProtocol]:
        for scope in scopes(model):
            if self.initializers:
                for value in scope.graph.initializers.values():
                    if value.const_value is not None and not value.is_graph_input():
                        yield value.const_value
            for node in scope.graph if self.nodes else ():
                for attr in node.attributes.data.values():
                    if attr.is_ref():
                        continue
                    if attr.type == ir.AttributeType.TENSOR:
                        yield attr.as_tensor()
                    elif attr.type == ir.AttributeType.TENSORS:
                        yield from attr.as_tensors()
