"""The pass ``name-everything``: a name of its own for every node and tensor, and the way back to the old names."""

from __future__ import annotations

import dataclasses
import json
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog, Pass
from surgeon_passes.names import FreshNames
from surgeon_passes.takeover import named_uses
from surgeon_passes.walk import Scope, function_scope, is_control_flow, main_scope, scopes_in

NAMES_KEY = "onnx_surgeon.names"
"""The metadata entry of the model that holds the original names, as JSON."""


def original_names(model: ir.Model) -> dict[str, dict[str, str]]:
    """The names that nodes and tensors had before ``name-everything`` gave them others.

    Returns:
        Under ``nodes`` and ``tensors``: original name by present name, an empty one for what had none. Names in local
        functions carry their function: ``function:pkg::Norm/name``. Names that never changed are not listed.
    """
    try:
        stored = json.loads(model.metadata_props.get(NAMES_KEY, "{}"))
    except ValueError:
        stored = None
    found: dict[str, dict[str, str]] = {"nodes": {}, "tensors": {}}
    for kind, names in found.items():
        entries = stored.get(kind) if isinstance(stored, dict) else None
        if isinstance(entries, dict):
            names.update((str(new), str(old)) for new, old in entries.items())
    return found


@dataclasses.dataclass(frozen=True)
class NameEverything(Pass):
    """Give every node and every tensor a name that no other has, and remember the old ones.

    A node without a name gets one from its operator and its first output, such as ``Conv_features``. Where a name
    occurs twice, in one graph or in a body and around it, inputs and outputs of the model keep theirs, then what
    comes first; the others get ``_1``, ``_2`` and so on. Local functions are named in themselves, as each call has
    its own tensors. Values, order and everything that is unique already stay; a second run changes nothing.

    The original names are kept in the model's metadata under ``onnx_surgeon.names``, over several runs too. Left
    alone: outputs that a node leaves out, inputs and outputs of the bodies of custom operators, and tensors that
    something refers to by name only (sparse weights, quantization annotations, training information, branches that
    return a tensor of the graph around them).
    """

    name: ClassVar[str] = "name-everything"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p name-everything -o named.onnx"

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Rename the main graph with its bodies, then each function with its bodies, one change per name."""
        namer = _Namer(model, log)
        try:
            namer.name_tree(main_scope(model), "")
            for function in model.functions.values():
                root = function_scope(function)
                namer.name_tree(root, root.path + "/")
        finally:
            namer.remember()


class _Namer:
    def __init__(self, model: ir.Model, log: ChangeLog) -> None:
        self.model = model
        self.log = log
        self.fresh = FreshNames(model)
        self.named = named_uses(model)
        self.originals = original_names(model)
        self.changed = False
        self.prefix = ""
        self.values: dict[str, ir.Value] = {}
        self.nodes: set[str] = set()
        self.fixed: set[ir.Value] = set()

    def name_tree(self, root: Scope, prefix: str) -> None:
        """Make the names of a graph and its bodies unique among themselves."""
        self.prefix = prefix
        interface = (*root.graph.inputs, *root.graph.outputs)
        self.values = {value.name: value for value in interface if value.name}
        self.nodes = set()
        for scope in scopes_in(root):
            free = scope.owner is None or is_control_flow(scope.owner)
            self.fixed = set() if free else {*scope.graph.inputs, *scope.graph.outputs}
            for value in (*scope.graph.inputs, *list(scope.graph.initializers.values())):
                self._name_value(scope, value, "input")
            for index, node in enumerate(scope.graph):
                for value in node.outputs:
                    if value.name:
                        self._name_value(scope, value, "")
                self._name_node(scope, node, index)
                for i, value in enumerate(node.outputs):
                    if not value.name and (value.name is None or value.uses() or value.is_graph_output()):
                        self._name_value(scope, value, f"{node.name}_out{i}")
            if self.log.exhausted:
                return

    def _name_value(self, scope: Scope, value: ir.Value, base: str) -> None:
        old = value.name or ""
        if old and self.values.setdefault(old, value) is value:
            return
        if old in self.named or value in self.fixed:
            who = "a custom operator may rely on it" if value in self.fixed else "something refers to it by name"
            self.log.decline(old, f"its name occurs twice, but {who}", where=scope.path)
            return
        new = self.fresh.value(old or base)
        if self.log.permit("rename-tensor", before=[old], after=[new], where=scope.path):
            value.name = new
            self.values[new] = value
            self._note("tensors", old, new)

    def _name_node(self, scope: Scope, node: ir.Node, index: int) -> None:
        old = node.name or ""
        if old and old not in self.nodes:
            self.nodes.add(old)
            return
        first = next((value.name for value in node.outputs if value.name), str(index))
        new = self.fresh.node(old or f"{node.op_type}_{first}")
        if self.log.permit("rename-node", before=[old], after=[new], where=scope.path):
            node.name = new
            self.nodes.add(new)
            self._note("nodes", old, new)

    def _note(self, kind: str, old: str, new: str) -> None:
        names = self.originals[kind]
        names[self.prefix + new] = names.pop(self.prefix + old, old) if old else ""
        self.changed = True

    def remember(self) -> None:
        """Write the original names into the model's metadata, if any changed."""
        if self.changed:
            self.model.metadata_props[NAMES_KEY] = json.dumps(self.originals, ensure_ascii=False)
