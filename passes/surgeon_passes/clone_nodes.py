"""Copy nodes, with the bodies in them, into another graph: sharing tensors, keeping names and metadata.

onnx_ir clones whole graphs. Cutting a piece out of a model and putting a function's body in the place of its call
need less and more: some of the nodes, other values in the place of their inputs, referenced attributes filled in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import onnx_ir as ir

from surgeon_passes.errors import RefusalError
from surgeon_passes.fidelity import INFORMED, SPARSE, TYPES

_GRAPH_TYPES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def clone_value(value: ir.Value, name: str | None = None) -> ir.Value:
    """A value that no node produces, with everything ``value`` declares; its tensor is shared."""
    made = ir.Value(name=value.name if name is None else name, doc_string=value.doc_string)
    _copy_declared(value, made)
    made.const_value = value.const_value
    return made


def _copy_declared(value: ir.Value, made: ir.Value) -> None:
    made.type = value.type
    made.shape = value.shape.copy() if value.shape is not None else None
    made.doc_string = value.doc_string
    if value.metadata_props:
        made.metadata_props.update(value.metadata_props)
    if value.meta:
        made.meta.update(value.meta)


def copy_graph_facts(source: ir.Graph, target: ir.Graph, names: set[str]) -> None:
    """Copy what ``graph.meta`` says about tensors called ``names`` from one graph to another."""
    types = {name: kind for name, kind in source.meta.get(TYPES, {}).items() if name in names}
    if types:
        target.meta[TYPES] = {**target.meta.get(TYPES, {}), **types}
    sparse = [tensor for tensor in source.meta.get(SPARSE, ()) if tensor.values.name in names]
    if sparse:
        target.meta[SPARSE] = [*target.meta.get(SPARSE, ()), *sparse]
    if INFORMED in source.meta:
        target.meta[INFORMED] = target.meta.get(INFORMED, set()) | (source.meta[INFORMED] & names)


class NodeCloner:
    """Copies nodes one after the other; values copied before stand for the originals in later ones.

    Args:
        values: What stands in the copies for values that no copied node produces; None for an omitted input. Values
            that are not in it stay what they are. Copies of outputs are added.
        attributes: Attributes of a call, by name, that take the place of references to them; None keeps references.
        value_name: The name of a copied output or of an input or initializer of a body, from the original's.
        node_name: The name of a copied node, from the original.
        metadata: Properties that a copied node gets where the original does not set them.
    """

    def __init__(
        self,
        values: dict[ir.Value, ir.Value | None],
        *,
        attributes: Mapping[str, ir.Attr] | None = None,
        value_name: Callable[[str], str] | None = None,
        node_name: Callable[[ir.Node], str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.values = values
        self._attributes = attributes
        self._value_name = value_name
        self._node_name = node_name
        self._metadata = dict(metadata or {})
        self._early: list[tuple[ir.Node, int, ir.Value]] = []

    def clone(self, node: ir.Node) -> ir.Node:
        """A copy of ``node`` that reads the values that stand for its inputs."""
        made = ir.Node(
            node.domain,
            node.op_type,
            [self._input(value) for value in node.inputs],
            self._clone_attributes(node),
            overload=node.overload,
            num_outputs=len(node.outputs),
            version=node.version,
            name=self._node_name(node) if self._node_name else node.name,
            doc_string=node.doc_string,
            metadata_props={**self._metadata, **node.metadata_props},
        )
        if node.meta:
            made.meta.update(node.meta)
        for i, value in enumerate(node.inputs):
            if value is not None and value not in self.values:
                self._early.append((made, i, value))
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.name = self._value_name(old.name) if self._value_name and old.name else old.name
            _copy_declared(old, new)
            self.values[old] = new
        if node.device_configurations:
            made.device_configurations = self._clone_sharding(node)
        return made

    def clone_all(self, nodes: Iterable[ir.Node]) -> list[ir.Node]:
        """Copies of ``nodes``, which may stand in any order."""
        made = [self.clone(node) for node in nodes]
        early, self._early = self._early, []
        for node, i, value in early:
            # The node was copied before the producer of its input, and still reads the original.
            if value in self.values:
                node.replace_input_with(i, self.values[value])
            else:
                self._early.append((node, i, value))
        return made

    def clone_graph(self, graph: ir.Graph) -> ir.Graph:
        """A copy of a body; values of outer graphs in it are replaced as inputs of copied nodes are."""
        for value in (*graph.inputs, *graph.initializers.values()):
            if value not in self.values:
                name = self._value_name(value.name) if self._value_name and value.name else None
                self.values[value] = clone_value(value, name)
        nodes = self.clone_all(graph)
        made = ir.Graph(
            [self._known(value) for value in graph.inputs],
            [self._known(value) for value in graph.outputs],
            nodes=nodes,
            initializers=[self._known(value) for value in graph.initializers.values()],
            doc_string=graph.doc_string,
            opset_imports=dict(graph.opset_imports),
            name=graph.name,
            metadata_props=dict(graph.metadata_props),
        )
        made.meta.update(graph.meta)
        return made

    def _input(self, value: ir.Value | None) -> ir.Value | None:
        if value is None or value in self.values:
            return None if value is None else self.values[value]
        if value.graph is None and value.producer() is None:
            # Nothing defines it (a sparse initializer): it may not be shared, or both models would list its readers.
            self.values[value] = clone_value(value)
            return self.values[value]
        return value

    def _known(self, value: ir.Value) -> ir.Value:
        found = self.values.get(value)
        if found is None:
            # Nothing in the graph makes this output: keep the name, which is all that such an output has.
            found = self.values[value] = clone_value(value)
        return found

    def _clone_attributes(self, node: ir.Node) -> list[ir.Attr]:
        made = []
        for name, attr in node.attributes.items():
            if attr.is_ref():
                filled = self._fill_in(name, attr)
                if filled is not None:
                    made.append(filled)
            elif attr.type == ir.AttributeType.GRAPH:
                made.append(ir.Attr(name, attr.type, self.clone_graph(attr.as_graph()), doc_string=attr.doc_string))
            elif attr.type == ir.AttributeType.GRAPHS:
                graphs = [self.clone_graph(graph) for graph in attr.as_graphs()]
                made.append(ir.Attr(name, attr.type, graphs, doc_string=attr.doc_string))
            else:
                made.append(attr)
        return made

    def _fill_in(self, name: str, attr: ir.Attr) -> ir.Attr | None:
        """What a reference means in this call; None if the call leaves the attribute out, which is allowed."""
        if self._attributes is None:
            return attr
        given = self._attributes.get(attr.ref_attr_name or "")
        if given is None:
            return None
        if given.is_ref():
            return ir.RefAttr(name, given.ref_attr_name or "", given.type, doc_string=attr.doc_string)
        if given.type in _GRAPH_TYPES:
            raise RefusalError(f"a call passes a graph as attribute '{attr.ref_attr_name}' of a local function")
        return ir.Attr(name, given.type, given.value, doc_string=attr.doc_string)

    def _clone_sharding(self, node: ir.Node) -> tuple[ir.NodeDeviceConfiguration, ...]:
        """Device placements of a copied node, which name values."""
        made = []
        for placement in node.device_configurations:
            specs = []
            for spec in placement.sharding_specs:
                stands_for = self.values.get(spec.value, spec.value) if spec.value is not None else None
                if stands_for is not None:
                    specs.append(dataclasses.replace(spec, value=stands_for))
            made.append(dataclasses.replace(placement, sharding_specs=tuple(specs)))
        return tuple(made)


def call_attributes(function: ir.Function, call: ir.Node | None) -> dict[str, ir.Attr]:
    """The attributes that hold in the body of a function for one call: the call's, else the declared defaults."""
    found = {name: attr for name, attr in function.attributes.items() if attr.value is not None}
    if call is not None:
        found.update({name: attr for name, attr in call.attributes.items() if name in function.attributes})
    return found


def model_around(graph: ir.Graph, model: ir.Model, functions: Sequence[ir.Function]) -> ir.Model:
    """A model of another graph that is otherwise like ``model``: producer, versions, documentation, metadata.

    Args:
        graph: The main graph of the new model.
        model: What it is to be like; where its weights are is known to the new one too.
        functions: The local functions of the new model.
    """
    made = ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        functions=functions,
        metadata_props=dict(model.metadata_props),
        device_configurations=model.device_configurations,
    )
    made.meta.update(model.meta)
    return made
