"""Decide between what a value declares and what inference found: the more certain, then the more telling, counts.

Value infos in files can be wrong: exporters freeze a batch size, tools edit the graph and forget them. Inference that
starts from the inputs and constants alone cannot be wrong about what it does say.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from surgeon_passes.infer_types import is_generated

Dim = int | ir.SymbolicDim


@dataclasses.dataclass(frozen=True)
class Settled:
    """What holds for a value, and what was declared wrongly."""

    fact: ir.TypeAndShape
    """Its type and shape; each may be unknown."""
    wrong: str
    """The contradiction as a phrase: ``declared FLOAT[1,4], computed FLOAT[N,4]``; empty if there is none."""


def settle(declared: ir.TypeAndShape, found: ir.TypeAndShape | None) -> Settled:
    """Combine what is declared with what inference from inputs and constants found, dimension by dimension.

    Where both are numbers, or where the found one is a symbol of the model's inputs and the declared one a number, the
    found one holds. Symbols that inference made up give way to anything declared.
    """
    if found is None or found.type is None:
        return Settled(declared, "")
    if declared.type is None:
        return Settled(found, "")
    if declared.type != found.type:
        return Settled(found, _contradiction(declared, found))
    if found.shape is None or declared.shape is None:
        return Settled(ir.TypeAndShape(declared.type, declared.shape or found.shape), "")
    if len(found.shape) != len(declared.shape):
        return Settled(found, _contradiction(declared, found))
    pairs = list(zip(declared.shape, found.shape, strict=True))
    denotations = [declared.shape.get_denotation(i) for i in range(len(pairs))]
    fact = ir.TypeAndShape(declared.type, ir.Shape([_better(a, b) for a, b in pairs], denotations))
    wrong = any(isinstance(a, int) and not _is_vague(b) and a != b for a, b in pairs)
    return Settled(fact, _contradiction(declared, found) if wrong else "")


def _is_vague(dim: Dim) -> bool:
    return not isinstance(dim, int) and (dim.value is None or is_generated(dim))


def _better(declared: Dim, found: Dim) -> Dim:
    if isinstance(found, int) or (isinstance(declared, int) and not _is_vague(found)):
        return found
    if isinstance(declared, int) or declared.value is not None:
        # Two symbols may well be equal; the one that is written there is the one people know.
        return found if is_generated(declared) and not _is_vague(found) else declared
    return found


def _contradiction(declared: ir.TypeAndShape, found: ir.TypeAndShape) -> str:
    return f"declared {type_text(declared)}, computed {type_text(found)}"


def type_text(fact: ir.TypeAndShape) -> str:
    """A type and shape in short: ``FLOAT[N,4]``, ``FLOAT[?,4]``, ``FLOAT`` where the rank is not known."""
    if not isinstance(fact.type, ir.TensorType):
        return str(fact.type)
    if fact.shape is None:
        return fact.type.dtype.name
    return f"{fact.type.dtype.name}[{','.join(str(d) if isinstance(d, int) else d.value or '?' for d in fact.shape)}]"
