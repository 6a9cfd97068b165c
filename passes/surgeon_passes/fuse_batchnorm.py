"""The pass ``fuse-batchnorm``: scale and shift of channels become part of the weights before them."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.affine import affine_of, scaled_input
from surgeon_passes.attributes import plain_attributes
from surgeon_passes.constants import add_constant, constant_of, nbytes_of
from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.effects import Effects
from surgeon_passes.fold_affine import folded, host_of
from surgeon_passes.names import FreshNames
from surgeon_passes.rewire import remove_node, replace
from surgeon_passes.takeover import Takeover
from surgeon_passes.trusted_shapes import TrustedShapes, trusted_shapes
from surgeon_passes.walk import Scope, scopes, title

_SCALES = ("BatchNormalization", "Mul", "Add", "Sub", "Div")
_HOSTS = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization")


@dataclasses.dataclass(frozen=True)
class FuseBatchnorm(Pass):
    """Fold BatchNormalization, and Mul, Add, Sub and Div by a constant for each channel, into the weights before.

    Into Conv, ConvTranspose (with groups too), Gemm, and into a BatchNormalization before another. What is folded
    must be constant, and the tensor in between read by nobody else. New weights are computed in float64 and rounded
    once, so that values agree within the rounding of a reordered sum, not to the bit.

    Left alone: normalization that trains; constants that vary along another axis, or that widen the tensor; weights
    that are inputs of the model, as the caller may override them; a MatMul followed by an Add; operators *before* a
    convolution. Refused, with the reason: variances that are not positive, numbers that are not finite, folded
    weights that leave the range of their type (float16), a copy of large weights that something else uses too.
    """

    name: ClassVar[str] = "fuse-batchnorm"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p fuse-batchnorm -o fused.onnx --verify"
    reassociates: ClassVar[bool] = True

    size_limit: int = option(
        1_000_000, "Largest weight that may be copied because something else uses it too.", unit="bytes"
    )

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Fold in the order of computation, so that a chain ends in one operator, one change for each link."""
        fuser = _Fuser(model, log, self.size_limit)
        for scope in scopes(model):
            for node in scope.graph:
                if log.exhausted:
                    return
                fuser.look_at(scope, node)


class _Fuser:
    def __init__(self, model: ir.Model, log: ChangeLog, size_limit: int) -> None:
        self.log = log
        self.size_limit = size_limit
        self.effects = Effects(model)
        # Most models have nothing to fold; what only a fold needs is made for the first.
        self.takeover: Callable[[], Takeover] = functools.cache(lambda: Takeover(model))
        self.names: Callable[[], FreshNames] = functools.cache(lambda: FreshNames(model))
        self.shapes: Callable[[], TrustedShapes] = functools.cache(lambda: trusted_shapes(model))

    def look_at(self, scope: Scope, node: ir.Node) -> None:
        if not self.effects.is_standard(node, *_SCALES):
            return
        source = scaled_input(node, scope.opset)
        host = source.producer() if source is not None else None
        if source is None or host is None or not self.effects.is_standard(host, *_HOSTS):
            return
        reason = self._obstacle(source, host, node) or self._fold(scope, source, host, node)
        if reason:
            self.log.decline(title(node), f"not folded into {title(host)}: {reason}", where=scope.path)

    def _obstacle(self, between: ir.Value, host: ir.Node, node: ir.Node) -> str:
        """Why the value between the two nodes may not vanish; empty if it may."""
        if host.graph is not node.graph:
            return "it is in another graph"
        if len(between.uses()) > 1 or between.is_graph_output() or between.name in self.takeover().named:
            return "the tensor in between is used elsewhere too"
        if any(value.name for other in (host, node) for value in other.outputs[1:]):
            return "one of them has further outputs"
        if node.outputs[0].name in self.takeover().named:
            return "its output is used by its name"
        return ""

    def _fold(self, scope: Scope, between: ir.Value, host: ir.Node, node: ir.Node) -> str:
        """Fold ``node`` into ``host``; if that is not possible, why."""
        attributes, own = plain_attributes(host), plain_attributes(node)
        if attributes is None or own is None:
            return "an attribute is one of the function around it"
        target = host_of(host, attributes, scope.opset)
        if isinstance(target, str):
            return target
        rank = target.rank if target.rank is not None else self.shapes().rank(between)
        affine = affine_of(node, own, scope.opset, target.channels, rank)
        if isinstance(affine, str):
            return affine
        new = folded(target, affine)
        if isinstance(new, str):
            return new
        weight, bias = new
        if weight is not target.weight and self._is_shared(host, 1) and nbytes_of(weight) > self.size_limit:
            return f"its weights are used elsewhere too, and a copy of {nbytes_of(weight)} bytes exceeds size_limit"
        boundary = [host.inputs[0].name if host.inputs[0] is not None else "", node.outputs[0].name]
        pair = [title(host), title(node)]
        if self.log.permit("fuse", before=pair, after=pair[:1], boundary=boundary, where=scope.path):
            self._apply(scope, host, node, None if weight is target.weight else weight, bias)
        return ""

    def _is_shared(self, node: ir.Node, index: int) -> bool:
        value = node.inputs[index]
        return value is not None and (len(value.uses()) > 1 or value.is_graph_output())

    def _apply(
        self, scope: Scope, host: ir.Node, node: ir.Node, weight: ir.TensorProtocol | None, bias: ir.TensorProtocol
    ) -> None:
        bias_names = [_name(host, 2), _name(node, 2) if node.op_type == "BatchNormalization" else ""]
        old = [*host.inputs[1:3], *node.inputs]
        if weight is not None:
            self._put(scope, host, 1, weight, _name(host, 1))
        self._put(scope, host, 2, bias, next((name for name in bias_names if name), f"{_name(host, 1)}_bias"))
        host.attributes.pop("beta", None)  # of a Gemm; it is in the new bias
        _take_name(host.outputs[0], node.outputs[0])
        remove_node(node)
        for value in dict.fromkeys(old):
            self._drop(value)

    def _put(self, scope: Scope, node: ir.Node, index: int, tensor: ir.TensorProtocol, base: str) -> None:
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        name = self.names().value(re.sub(r"_fused(_\d+)?$", "", base) + "_fused")
        node.replace_input_with(index, add_constant(scope, tensor, name, node))

    def _drop(self, value: ir.Value | None) -> None:
        """Remove a constant that nobody reads any more, as it may be large."""
        if value is None or value.uses() or value.is_graph_output() or value.name in self.takeover().named:
            return
        producer = value.producer()
        if producer is None and value.is_initializer() and not value.is_graph_input() and value.graph is not None:
            del value.graph.initializers[value.name or ""]
        elif producer is not None and constant_of(value) is not None:
            remove_node(producer)


def _name(node: ir.Node, index: int) -> str:
    value = node.inputs[index] if index < len(node.inputs) else None
    return (value.name or "") if value is not None else ""


def _take_name(new: ir.Value, old: ir.Value) -> None:
    """Let ``new`` stand for ``old`` under its name: what ``new`` was called before is a tensor that is gone."""
    output = old.is_graph_output()
    replace(old, new)
    if not output:
        name, old.name = old.name, None
        new.name = name
        new.type = old.type if old.type is not None else new.type
        new.shape = old.shape if old.shape is not None else new.shape
        new.metadata_props.update(old.metadata_props)
