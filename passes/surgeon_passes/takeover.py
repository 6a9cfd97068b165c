"""Whether one value may take the place of another, by object and by name.

A model is written by names. Beyond :func:`surgeon_passes.rewire.can_replace` two things can go wrong: a value may be
used by its name alone (a body that returns an outer value, a training record, a quantization annotation), and a name
may mean something else inside a body that uses it again.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from surgeon_passes.conditions import dangling_values
from surgeon_passes.fidelity import TRAINING
from surgeon_passes.rewire import can_replace
from surgeon_passes.walk import scopes

_QUANTIZATION = "quant_parameter_tensor_names"  # the key in Value.meta under which onnx_ir keeps annotations


def quantization_of(value: ir.Value) -> dict[str, str]:
    """The quantization annotation of a value: names of other values, by role."""
    # Reading Value.meta makes a store for every value that has none; of the many values of a model few have one.
    if getattr(value, "_metadata", value) is None:
        return {}
    found: dict[str, str] = value.meta.get(_QUANTIZATION, {})
    return found


def named_uses(model: ir.Model) -> frozenset[str]:
    """Names through which values are used without showing a use; their values must stay and keep the name."""
    names = {value.name for value in dangling_values(model)}
    for scope in scopes(model):
        made = (value for node in scope.graph for value in node.outputs)
        for values in (scope.graph.inputs, scope.graph.initializers.values(), made):
            for value in values:
                names.update(quantization_of(value).values())
    for record in model.meta.get(TRAINING, ()):
        names.update(_names_in(record))
    return frozenset(name for name in names if name)


def _names_in(record: onnx.TrainingInfoProto) -> set[str]:
    names = {entry.value for entries in (record.initialization_binding, record.update_binding) for entry in entries}
    names |= {entry.key for entries in (record.initialization_binding, record.update_binding) for entry in entries}
    for graph in (record.initialization, record.algorithm):
        names.update(name for node in graph.node for name in (*node.input, *node.output))
    return names


class Takeover:
    """Answers, for one model, what stands in the way of a replacement.

    Args:
        model: The model; it is only read. The answers stay right under replacements that were allowed here.
    """

    def __init__(self, model: ir.Model) -> None:
        self.named = named_uses(model)
        """Names whose values must stay."""
        self.ambiguous: set[str] = set()
        """Names that values of several graphs have."""
        seen: set[str] = set()
        for scope in scopes(model):
            own = {value.name for value in scope.graph.inputs} | set(scope.graph.initializers)
            own.update(value.name for node in scope.graph for value in node.outputs)
            self.ambiguous.update(name for name in seen.intersection(own) if name)
            seen.update(name for name in own if name)

    def obstacle(self, old: ir.Value, new: ir.Value) -> str:
        """Why ``new`` cannot stand for ``old`` everywhere; empty if it can."""
        if not can_replace(old, new):
            return "its input and its output are both fixed: graph inputs, outputs or values of another graph"
        output = old.is_graph_output()
        if old.name in self.named or (output and new.name in self.named):
            return f"'{old.name if old.name in self.named else new.name}' is used by its name"
        if new.name in self.ambiguous and _used_elsewhere(old, new):
            return f"several graphs have a value called '{new.name}'"
        if output and old.name in self.ambiguous and _used_elsewhere(new, new):
            return f"several graphs have a value called '{old.name}'"
        return ""

    def is_visible(self, value: ir.Value, node: ir.Node) -> bool:
        """Whether ``node``, in a graph in which ``value`` is known, would find it by its name."""
        return value.graph is node.graph or value.name not in self.ambiguous


def _used_elsewhere(value: ir.Value, home: ir.Value) -> bool:
    """Whether a user of ``value`` stands in another graph than the one that defines ``home``."""
    return any(use.node.graph is not home.graph for use in value.uses())
