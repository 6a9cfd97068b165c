"""Decide between what a value declares and what inference found: the more certain, then the more telling, counts.

Value infos in files can be wrong: exporters freeze a batch size, tools edit the graph and forget them. Inference that
starts from the inputs and constants alone cannot be wrong about what it does say.
"""

from __future__ import annotations

import dataclasses
import re

import onnx_ir as ir

from surgeon_passes.infer_types import is_generated

Dim = int | ir.SymbolicDim

_PLAIN = re.compile(r"^[A-Za-z_]\w*$")


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
    found one holds. Symbols that inference made up give way to anything declared, and a plain name to another one
    that is found: it says which size of an input this is.
    """
    if found is None or found.type is None:
        return Settled(declared, "")
    if declared.type is None:
        return Settled(found, "")
    if declared.type != found.type:
        return Settled(found, _contradiction(declared, found))
    if found.shape is None or declared.shape is None:
        return Settled(ir.TypeAndShape(declared.type, found.shape if declared.shape is None else declared.shape), "")
    if len(found.shape) != len(declared.shape):
        return Settled(found, _contradiction(declared, found))
    pairs = list(zip(declared.shape, found.shape, strict=True))
    denotations = [declared.shape.get_denotation(i) for i in range(len(pairs))]
    fact = ir.TypeAndShape(declared.type, ir.Shape([_better(a, b) for a, b in pairs], denotations))
    wrong = any(isinstance(a, int) and not _is_vague(a) and not _is_vague(b) and a != b for a, b in pairs)
    return Settled(fact, _contradiction(declared, found) if wrong else "")


def merge(one: ir.TypeAndShape | None, other: ir.TypeAndShape | None) -> ir.TypeAndShape | None:
    """Two findings about one value in one; where they contradict each other the first holds."""
    if one is None or one.type is None or other is None or other.type != one.type:
        return other if one is None or one.type is None else one
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return ir.TypeAndShape(one.type, other.shape) if one.shape is None else one
    dims = [b if _is_vague(a) and not _is_vague(b) else a for a, b in zip(one.shape, other.shape, strict=True)]
    return ir.TypeAndShape(one.type, ir.Shape(dims))


def without_made_up(fact: ir.TypeAndShape) -> ir.TypeAndShape:
    """The fact with unknown dimensions in place of symbols that inference made up.

    Such symbols are only told apart within one run of inference; two runs use the same ones for different sizes.
    """
    if fact.shape is None or not any(is_generated(d) for d in fact.shape):
        return fact
    denotations = [fact.shape.get_denotation(i) for i in range(len(fact.shape))]
    return ir.TypeAndShape(fact.type, ir.Shape([None if is_generated(d) else d for d in fact.shape], denotations))


def fill(declared: ir.TypeAndShape, found: ir.TypeAndShape | None) -> ir.TypeAndShape:
    """What is declared, completed where it says nothing at all; never altered."""
    if found is None or found.type is None or (declared.type is not None and declared.type != found.type):
        return declared
    if declared.shape is None or found.shape is None:
        return ir.TypeAndShape(found.type, found.shape if declared.shape is None else declared.shape)
    if len(declared.shape) != len(found.shape):
        return declared
    denotations = [declared.shape.get_denotation(i) for i in range(len(declared.shape))]
    dims = [b if _is_unknown(a) else a for a, b in zip(declared.shape, found.shape, strict=True)]
    return ir.TypeAndShape(found.type, ir.Shape(dims, denotations))


def _is_unknown(dim: Dim) -> bool:
    return not isinstance(dim, int) and dim.value is None


def _is_vague(dim: Dim) -> bool:
    """Nothing a reader can use: unknown, made up, or the -1 that some tools write for unknown."""
    return dim < 0 if isinstance(dim, int) else dim.value is None or is_generated(dim)


def _better(declared: Dim, found: Dim) -> Dim:
    if _is_unknown(declared) or (_is_vague(declared) and not _is_unknown(found)):
        # What an earlier inference made up means nothing beside the symbols of this one.
        return found
    if _is_vague(found):
        return declared
    if isinstance(declared, int) or isinstance(found, int):
        return found
    # Two plain names may be two sizes taken for each other. An expression may be another way to write the same.
    plain = _PLAIN.match(declared.value or "") and _PLAIN.match(found.value or "")
    return found if plain else declared


def _contradiction(declared: ir.TypeAndShape, found: ir.TypeAndShape) -> str:
    return f"declared {type_text(declared)}, computed {type_text(found)}"


def type_text(fact: ir.TypeAndShape) -> str:
    """A type and shape in short: ``FLOAT[N,4]``, ``FLOAT[?,4]``, ``FLOAT`` where the rank is not known."""
    if not isinstance(fact.type, ir.TensorType):
        return str(fact.type)
    if fact.shape is None:
        return fact.type.dtype.name
    return f"{fact.type.dtype.name}[{','.join(str(d) if isinstance(d, int) else d.value or '?' for d in fact.shape)}]"
