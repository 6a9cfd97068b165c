"""Turn Constant nodes into initializers: the same data under the same name, and one node less."""

from __future__ import annotations

import onnx_ir as ir

from surgeon_passes.constants import add_constant, constant_tensor
from surgeon_passes.contract import ChangeLog
from surgeon_passes.foldable import is_excluded
from surgeon_passes.walk import is_onnx_op, scopes, title


def lift_constants(model: ir.Model, log: ChangeLog, exclude: tuple[str, ...]) -> None:
    """Lift the Constant nodes of the main graph and of the bodies in it, as changes of kind ``lift-constant``.

    Constant nodes stay in functions, which have no initializers; where they make a graph output, which engines do not
    take from an initializer; where they hold no dense tensor; and in models before IR version 4.
    """
    for scope in scopes(model):
        if not scope.takes_initializers:
            continue
        lifted = []
        for node in scope.graph:
            if not is_onnx_op(node, "Constant") or is_excluded(node, exclude):
                continue
            tensor = constant_tensor(node)
            value = node.outputs[0]
            if tensor is None or value.is_graph_output() or not value.name or value.name in scope.graph.initializers:
                continue
            names = [value.name]
            if not log.permit("lift-constant", before=[title(node)], after=names, boundary=names, where=scope.path):
                break
            made = add_constant(scope, tensor, value.name, node)
            made.doc_string = value.doc_string or node.doc_string
            made.metadata_props.update({**node.metadata_props, **value.metadata_props})
            made.meta.update(value.meta)
            value.replace_all_uses_with(made)
            lifted.append(node)
        scope.graph.remove(lifted)
