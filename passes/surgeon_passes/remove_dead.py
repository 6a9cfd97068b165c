"""The pass ``remove-dead``: what nobody uses, and what does nothing."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog, Pass
from surgeon_passes.remove_noops import remove_noops
from surgeon_passes.remove_unused import remove_unused


@dataclasses.dataclass(frozen=True)
class RemoveDead(Pass):
    """Remove what nobody uses and what does nothing, without changing one bit of any output.

    Unused: nodes, optional outputs (the mask of Dropout, the indices of MaxPool), outputs of If and collected outputs
    of Loop and Scan together with what computes them in the bodies, initializers, local functions.

    Doing nothing: Identity; Dropout outside training; Cast to the same type; Reshape, Expand, Flatten and Squeeze
    that keep the shape; Transpose that moves nothing; Slice, Pad, Tile and Clip that take all, add nothing, repeat
    once, limit nothing; Concat, Sum, Max, Min and Mean of one tensor; Split into one; x*1, x/1, x-0, x**1; maxima,
    minima and products over single elements.

    Pairs: Transpose after Transpose, Squeeze after Unsqueeze and the reverse, Reshape after Reshape, Cast to a wider
    type and back, Neg after Neg, Not after Not.

    Left alone: inputs and outputs of the model, used or not; custom operators, and all that holds one, as they may do
    more than compute; x+0.0, which changes the sign of zero; quantize and dequantize; whatever depends on a shape
    that follows only from a value info, as those can be wrong; values carried by a loop.
    """

    name: ClassVar[str] = "remove-dead"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p remove-dead -o smaller.onnx"

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Remove the unused first (less to look at, and masks are gone), then no-ops, then what those leave unused."""
        remove_unused(model, log)
        made = len(log.changes)
        remove_noops(model, log)
        if len(log.changes) > made:
            remove_unused(model, log)
