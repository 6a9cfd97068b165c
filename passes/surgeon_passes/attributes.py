"""Read a node's attributes where a reference to a function's attribute makes the answer unknown."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir


def plain_attributes(node: ir.Node) -> dict[str, Any] | None:
    """The values of a node's attributes by name, graphs included; None if one of them refers to its function's."""
    values: dict[str, Any] = {}
    for name, attr in node.attributes.data.items():
        if attr.is_ref():
            return None
        values[name] = attr.value
    return values
