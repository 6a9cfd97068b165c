"""What is known of a model's tensors before an engine shows them: those of the main graph, and those inside bodies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from surgeon_debug.inner_layers import named_inside, with_bodies_shown
from surgeon_debug.layer_plan import Layer, plan_layers
from surgeon_debug.pair import LayerOptions
from surgeon_debug.runners.tensorrt.layer_map import ModelTensor
from surgeon_debug.runners.tensorrt.watch_list import Inside, WatchList
from surgeon_debug.values import Value
from surgeon_passes.graph import load
from surgeon_passes.inner_tensor import InnerTensor
from surgeon_passes.order import nodes_inside
from surgeon_passes.trusted_shapes import trusted_shapes
from surgeon_passes.walk import main_scope, nested_graphs


@dataclasses.dataclass(frozen=True)
class ModelTensors:
    """The tensors of a model."""

    model: ir.Model
    """The model as it is."""
    listed: WatchList
    """What an engine may show of it."""
    layers: Mapping[str, Layer]
    """Node, operator and precision of each, by the names that the reference keeps them under."""
    inner: Mapping[str, InnerTensor]
    """Those in bodies and functions, by the same names."""
    owners: Mapping[str, str]
    """For tensors in bodies, by the names that they have there, the node of the main graph that holds them."""

    @property
    def makers(self) -> dict[str, str]:
        """The node of the main graph that computes each tensor of the main graph."""
        return {name: tensor.node for name, tensor in self.listed.tensors.items()}


def tensors_of(path: Path, feeds: Mapping[str, Value], options: LayerOptions, *, allow_external: bool) -> ModelTensors:
    """The tensors of a model.

    Args:
        path: The model.
        feeds: One sample, for the sizes.
        options: How much of bodies is kept.
        allow_external: Accept weights outside the model's folder.

    Raises:
        BadModelError: It cannot be used.
    """
    model = load(path, allow_external=allow_external)
    plan = {layer.tensor: layer for layer in plan_layers(model, feeds)}
    observed = with_bodies_shown(
        load(path, allow_external=allow_external), iterations=options.iterations, limit=options.inner
    )
    inner = {tensor.name: tensor for tensor in observed.tensors}
    layers = {**{x.tensor: x for x in named_inside(plan_layers(observed.model, feeds, set(inner)), observed)}, **plan}
    owners = _owners(model)
    inside: dict[str, list[Inside]] = {name: [] for name in owners if name not in plan}
    for tensor in inner.values():
        for name in dict.fromkeys((tensor.tensor, tensor.name)):
            if name not in plan:
                inside.setdefault(name, []).append(Inside(tensor.name, tensor.iteration_axes))
                owners.setdefault(name, tensor.owner)
    listed = WatchList(_main(model, plan), {name: tuple(items) for name, items in inside.items()}, options.iterations)
    return ModelTensors(model, listed, layers, inner, owners)


def _main(model: ir.Model, plan: Mapping[str, Layer]) -> dict[str, ModelTensor]:
    """The main graph's tensors, with sizes and types where they are known."""
    shapes = trusted_shapes(model, propagate_data=True)
    values = {value.name: value for node in model.graph for value in node.outputs if value.name in plan}
    readers = _readers(model)
    found = {}
    for name, layer in plan.items():
        value = values[name]
        dtype = shapes.dtype(value) or value.dtype
        # What looks into an engine in this way is TensorRT, which computes float64 in float32.
        dtype = ir.DataType.FLOAT if dtype == ir.DataType.DOUBLE else dtype
        kind = "" if dtype is None or dtype == ir.DataType.STRING else dtype.numpy().name
        found[name] = ModelTensor(layer.node, shapes.static(value), kind, readers.get(name, ()))
    return found


def _owners(model: ir.Model) -> dict[str, str]:
    """The node of the main graph around each tensor that is computed in a body."""
    scope = main_scope(model)
    holding = [node for node in model.graph if any(True for _ in nested_graphs(node))]
    return {
        value.name: scope.label(node)
        for node in holding
        for inner in nodes_inside(node)
        for value in inner.outputs
        if value.name
    }


def _readers(model: ir.Model) -> dict[str, tuple[str, ...]]:
    """The nodes of the main graph that read each tensor, in bodies too; an empty name for outputs of the model."""
    scope = main_scope(model)
    found: dict[str, dict[str, None]] = {value.name or "": {"": None} for value in model.graph.outputs}
    for node in model.graph:
        label = scope.label(node)
        for inner in (node, *(nodes_inside(node) if node.attributes else ())):
            for value in inner.inputs:
                if value is not None and value.name:
                    found.setdefault(value.name, {})[label] = None
        for _, graph in nested_graphs(node):
            for value in graph.outputs:  # a body may hand on what is outside of it
                if value.name:
                    found.setdefault(value.name, {})[label] = None
    return {name: tuple(nodes) for name, nodes in found.items()}
