"""Mend definitions in the ONNX standard that contradict the operators they are made of.

The body of AffineGrid gives Range tensors of one element, where it takes scalars only (onnxruntime refuses that as soon
as it knows the shapes), and removes every dimension of size 1 where it means one, so a batch of one goes as well.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

_SUFFIX = "_scalar"
_AXIS_1 = "one_1d"
"""What the body calls the axes ``[1]``."""


def mend_body(function: onnx.FunctionProto) -> None:
    """Mend the definition of an operator, if it is known to need it.

    Args:
        function: The definition, which is changed.
    """
    if function.name != "AffineGrid":
        return
    scalars = {node.output[0] for node in function.node if any(a.name == "value_int" for a in node.attribute)}
    mended: list[onnx.NodeProto] = []
    for node in function.node:
        if node.op_type == "Range":
            for index, name in enumerate(node.input):
                if name not in scalars:
                    mended.append(onnx.helper.make_node("Squeeze", [name], [f"{name}{_SUFFIX}"]))
                    node.input[index] = f"{name}{_SUFFIX}"
        mended.append(node)
    del function.node[:]
    function.node.extend(mended)
    for node in _inside(function.node):
        if node.op_type == "Squeeze" and len(node.input) == 1:
            node.input.append(_AXIS_1)


def _inside(nodes: Iterator[onnx.NodeProto] | list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes in the branches of some nodes."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from attribute.g.node
                yield from _inside(list(attribute.g.node))
