"""Put the bodies of functions in the place of their calls."""

from __future__ import annotations

import dataclasses
import graphlib
from collections.abc import Collection
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.clone_nodes import call_attributes
from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import BadModelError
from surgeon_passes.inline_call import Body, inline_call, missing_imports, obstacle
from surgeon_passes.names import FreshNames
from surgeon_passes.order import nodes_inside
from surgeon_passes.schema_functions import SchemaFunctions
from surgeon_passes.select_nodes import matching
from surgeon_passes.walk import Scope, function_scope, main_scope, scopes_in

Key = ir.OperatorIdentifier


@dataclasses.dataclass(frozen=True)
class InlineFunctions(Pass):
    """Inline local functions, and operators that ONNX itself defines by a function.

    Every call is replaced by the nodes of the body, in the main graph, in bodies and in functions that stay; what comes
    out is called ``CALL/INNER``, the outputs of the call keep their names, the nodes get the call's metadata beside
    their own. Functions that nothing calls any more are dropped.

    Leaves a call alone where the body means another operator set version than the graph around the call, and the
    operators it uses differ between the two. With ``ops``, standard operators are replaced by the definition in the
    ONNX standard: values then agree within rounding.
    """

    name: ClassVar[str] = "inline-functions"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p inline-functions -o flat.onnx"

    functions: tuple[str, ...] = option((), "local functions, as DOMAIN::NAME or patterns; all of them if empty")
    ops: tuple[str, ...] = option((), "standard operators to replace by their definition, as GroupNormalization;Gelu")

    def __post_init__(self) -> None:
        if self.ops:
            # The definition of an operator rounds in other places than the kernel an engine has for it.
            object.__setattr__(self, "reassociates", True)

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Inline call by call: one change for each, and one for each function dropped that nothing called.

        Raises:
            BadOptionError: ``functions`` or ``ops`` names what does not exist.
            BadModelError: Functions call each other in a circle.
        """
        chosen = self._chosen(model)
        standard = SchemaFunctions(model, self.ops) if self.ops else None
        if not chosen and standard is None:
            return
        names = FreshNames(model)
        # Callees first: a body is flat before it is copied, so every call in the model is one change.
        order = _callees_first(model)
        roots = [*(function_scope(model.functions[key]) for key in order), main_scope(model)]
        for root in roots:
            for scope in scopes_in(root):
                stack = list(scope.graph)[::-1]
                while stack:
                    node = stack.pop()
                    body = _local_body(model, node, chosen) or (standard.body(node, scope) if standard else None)
                    if body is None:
                        continue
                    made = _inline(model, body, node, scope, names, log)
                    if made is None:
                        return
                    stack.extend(reversed(made))
        _drop(model, chosen, log)

    def _chosen(self, model: ir.Model) -> set[Key]:
        if self.ops and not self.functions:
            return set()
        if not self.functions:
            return set(model.functions)
        keys = list(model.functions)
        full = [function_scope(model.functions[key]).path.removeprefix("function:") for key in keys]
        short = [key[1] for key in keys]
        wanted: set[Key] = set()
        for text in self.functions:
            found = matching([text], short if text in short else full, "local function")
            wanted.update(keys[i] for i in found)
        return wanted


def _local_body(model: ir.Model, node: ir.Node, chosen: Collection[Key]) -> Body | None:
    key = node.op_identifier()
    if key not in chosen:
        return None
    function = model.functions[key]
    return Body(function.name, function.graph, function.opset_imports, call_attributes(function, node))


def _inline(
    model: ir.Model, body: Body | str, node: ir.Node, scope: Scope, names: FreshNames, log: ChangeLog
) -> list[ir.Node] | None:
    """Inline one call, unless there is a reason not to; the new nodes, or None once the limit is reached."""
    reason = body if isinstance(body, str) else obstacle(body, node, scope, model.functions)
    if reason or isinstance(body, str):
        log.decline(scope.label(node), reason, where=scope.path)
        return []
    boundary = [value.name for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    # The names of the new nodes are only known once they are made: the change is completed afterwards.
    if not log.permit("inline", before=[scope.label(node)], boundary=boundary, where=scope.path):
        return None
    imports = scope.function.opset_imports if scope.function is not None else model.opset_imports
    imports.update(missing_imports(body, scope))
    made = inline_call(body, node, names)
    log.changes[-1] = dataclasses.replace(log.changes[-1], after=tuple(each.name or "" for each in made))
    return made


def _calls(model: ir.Model, graph: ir.Graph) -> list[Key]:
    """The local functions that a graph and its bodies call, each once."""
    found: dict[Key, None] = {}
    for node in graph:
        for each in (node, *(nodes_inside(node) if node.attributes else ())):
            key = each.op_identifier()
            if key in model.functions:
                found[key] = None
    return list(found)


def _callees_first(model: ir.Model) -> list[Key]:
    """The local functions so that each comes after all that it calls.

    Raises:
        BadModelError: Functions call each other in a circle.
    """
    waits = {key: _calls(model, function.graph) for key, function in model.functions.items()}
    try:
        return list(graphlib.TopologicalSorter(waits).static_order())
    except graphlib.CycleError as error:
        circle = ", ".join(f"'{key[1]}'" for key in error.args[1][1:])
        raise BadModelError(f"local functions call each other in a circle: {circle}") from error


def _drop(model: ir.Model, chosen: Collection[Key], log: ChangeLog) -> None:
    """Remove the chosen functions that nothing calls any more."""
    while True:
        called = set(_calls(model, model.graph))
        for function in model.functions.values():
            called.update(_calls(model, function.graph))
        unused = [key for key in model.functions if key in chosen and key not in called]
        if not unused:
            return
        for key in unused:
            path = function_scope(model.functions[key]).path
            if not log.permit("drop-function", before=[path]):
                return
            del model.functions[key]
