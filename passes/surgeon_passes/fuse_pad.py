"""The pass ``fuse-pad``: zeros around an image become the padding of the convolution or pooling behind them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.attributes import plain_attributes
from surgeon_passes.constants import constant_of, small_ints
from surgeon_passes.contract import ChangeLog, Pass
from surgeon_passes.effects import Effects
from surgeon_passes.rewire import remove_node
from surgeon_passes.takeover import Takeover
from surgeon_passes.walk import Scope, scopes, title


@dataclasses.dataclass(frozen=True)
class FusePad(Pass):
    """Fold a Pad with zeros into the padding of the Conv or AveragePool that reads it.

    Exporters write a Pad of its own where an image is padded on one side only; Conv and AveragePool pad by themselves.
    The Pad must add constant numbers of zeros to the spatial dimensions alone, and whoever reads it must be a Conv, or
    an AveragePool that counts its padding (``count_include_pad``) and does not round its size up, with explicit
    padding. The arithmetic is the same; engines may choose another order of summation for the padded convolution, so
    that values agree within rounding.

    Left alone: other modes (edge, reflect, wrap), other values than zero, negative amounts (which crop), amounts that
    are not constant, Pads that also pad batch or channels, Pads that are read by anything else or are outputs of a
    graph, Conv with ``auto_pad``, MaxPool (whose own padding is minus infinity, not zero), quantized operators (whose
    zero is another number). Weights that are not finite make a difference between zero and nothing; they are taken to
    be finite.
    """

    name: ClassVar[str] = "fuse-pad"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p fuse-pad -o fused.onnx --verify"
    reassociates: ClassVar[bool] = True

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Fold every Pad all of whose readers can take it over, one change for each Pad."""
        effects = Effects(model)
        takeover: Callable[[], Takeover] = functools.cache(lambda: Takeover(model))  # few models have a Pad to fold
        for scope in scopes(model):
            for node in scope.graph:
                if log.exhausted:
                    return
                if effects.is_standard(node, "Pad"):
                    _look_at(scope, node, effects, takeover, log)


def _look_at(scope: Scope, pad: ir.Node, effects: Effects, takeover: Callable[[], Takeover], log: ChangeLog) -> None:
    out = pad.outputs[0]
    readers = list(dict.fromkeys(out.consumers()))
    if not readers or out.is_graph_output() or not all(effects.is_standard(r, "Conv", "AveragePool") for r in readers):
        return
    reason = _fold(scope, pad, readers, takeover(), log)
    if reason:
        log.decline(title(pad), reason, where=scope.path)


def _fold(scope: Scope, pad: ir.Node, readers: Sequence[ir.Node], takeover: Takeover, log: ChangeLog) -> str:
    """Fold one Pad if all is well, else say why not."""
    source, out = pad.inputs[0], pad.outputs[0]
    if source is None:
        return "it pads nothing"
    added = _zeros_added(pad, scope.opset)
    if isinstance(added, str):
        return added
    plans: list[list[int]] = []
    for reader in readers:
        plan = _padding_of(reader, out, added)
        if isinstance(plan, str):
            return plan
        plans.append(plan)
    if obstacle := takeover.obstacle(out, source):
        return obstacle
    names = [title(reader) for reader in readers]
    if not log.permit(
        "fuse-pad",
        before=[title(pad), *names],
        after=names,
        boundary=[source.name, *(reader.outputs[0].name for reader in readers)],
        where=scope.path,
    ):
        return ""
    for reader, plan in zip(readers, plans, strict=True):
        reader.attributes["pads"] = ir.AttrInt64s("pads", plan)
        reader.replace_input_with(0, source)
    remove_node(pad)
    return ""


def _zeros_added(pad: ir.Node, opset: int) -> list[int] | str:
    """Zeros before and after each axis as (before of all axes, after of all axes), or why the Pad is not of that kind.

    Amounts are an attribute before opset 11 (``paddings`` in opset 1, which is left alone), an input since; a list of
    axes may go with them since opset 18.
    """
    attributes = plain_attributes(pad)
    if attributes is None:
        return "its attributes refer to the function's"
    if attributes.get("mode", "constant") != "constant":
        return f"it pads by mode {attributes['mode']}"
    if opset < 11:
        amounts, value = attributes.get("pads"), attributes.get("value", 0.0)
        if amounts is None:
            return "its amounts are not constant"
        return list(amounts) if value == 0 else "it pads with another value than zero"
    amounts = small_ints(pad.inputs[1])
    if amounts is None:
        return "its amounts are not constant"
    if len(pad.inputs) > 2 and pad.inputs[2] is not None:
        value = constant_of(pad.inputs[2])
        if value is None or value.size != 1 or value.dtype == ir.DataType.STRING:
            return "what it pads with is not constant"
        if float(value.numpy().reshape(-1)[0]) != 0:
            return "it pads with another value than zero"
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        return "it lists its axes"
    return amounts


def _padding_of(reader: ir.Node, padded: ir.Value, added: Sequence[int]) -> list[int] | str:
    """The padding a reader gets, or why it cannot take the zeros over."""
    attributes = plain_attributes(reader)
    if attributes is None:
        return "the attributes of its reader refer to the function's"
    rank = len(added) // 2
    begin, end = list(added[:rank]), list(added[rank:])
    if len(added) % 2 or rank < 3 or reader.inputs[0] is not padded or padded in reader.inputs[1:]:
        return "its reader does not take it as an image"
    if any(begin[:2]) or any(end[:2]):
        return "it pads batch or channels"
    if min(begin + end) < 0:
        return "it crops"
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", ""):
        return "its reader pads automatically"
    if reader.op_type == "AveragePool" and (not attributes.get("count_include_pad") or attributes.get("ceil_mode")):
        return "the pooling behind it does not count padding"
    own = list(attributes.get("pads") or [0] * (2 * (rank - 2)))
    if len(own) != 2 * (rank - 2) or min(own) < 0:
        return "the padding of its reader does not fit"
    both = [*begin[2:], *end[2:]]
    if reader.op_type == "AveragePool":
        kernel = attributes.get("kernel_shape") or []
        if any(amount + zeros >= size for amount, zeros, size in zip(own, both, [*kernel, *kernel], strict=False)):
            return "pooling may not be padded by as much as its window"
    return [amount + zeros for amount, zeros in zip(own, both, strict=True)]
