"""Which element types an operator takes and gives at each input and output, by the operator's own definition.

A definition binds several inputs and outputs to one type variable (``T``), and lists what that variable may be. Slots
of one variable change their type together or not at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import onnx


@dataclasses.dataclass(frozen=True)
class Signature:
    """The types of one operator at one opset version."""

    inputs: tuple[str, ...]
    """Type variable or concrete type (``tensor(float)``) of each formal input."""
    outputs: tuple[str, ...]
    """The same for each formal output."""
    variadic_input: bool
    """Whether the last formal input may be repeated."""
    variadic_output: bool
    """Whether the last formal output may be repeated."""
    uniform: bool
    """Whether repeated inputs and outputs all have one type; false for If, Loop, Scan."""
    allowed: Mapping[str, frozenset[str]]
    """What each type variable may be."""

    def input_kind(self, index: int) -> str | None:
        """Type variable or type of an actual input; None if the operator has no such input."""
        return _kind(self.inputs, index, self.variadic_input)

    def output_kind(self, index: int) -> str | None:
        """Type variable or type of an actual output; None if the operator has no such output."""
        return _kind(self.outputs, index, self.variadic_output)

    def allows(self, variable: str, kind: str) -> bool:
        """Whether a type variable may be ``kind``; false for concrete types."""
        return kind in self.allowed.get(variable, ())


def _kind(formals: tuple[str, ...], index: int, variadic: bool) -> str | None:
    if index < len(formals):
        return formals[index]
    return formals[-1] if variadic and formals else None


class Signatures:
    """Looks signatures up in the definitions of the onnx package, each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Signature | None] = {}

    def get(self, op_type: str, opset: int) -> Signature | None:
        """The signature of an operator of the default domain; None if it does not exist at this opset version."""
        key = (op_type, opset)
        if key not in self._known:
            self._known[key] = _look_up(op_type, opset)
        return self._known[key]

    def first_opset(self, op_type: str, variable: str, kind: str, after: int) -> int | None:
        """The first opset version later than ``after`` at which ``variable`` may be ``kind``; None if none is known."""
        for opset in range(after + 1, onnx.defs.onnx_opset_version() + 1):
            signature = self.get(op_type, opset)
            if signature is not None and signature.allows(variable, kind):
                return opset
        return None


def _look_up(op_type: str, opset: int) -> Signature | None:
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    formals = [*schema.inputs, *schema.outputs]
    return Signature(
        inputs=tuple(formal.type_str for formal in schema.inputs),
        outputs=tuple(formal.type_str for formal in schema.outputs),
        variadic_input=bool(schema.inputs) and schema.inputs[-1].option == variadic,
        variadic_output=bool(schema.outputs) and schema.outputs[-1].option == variadic,
        uniform=all(formal.is_homogeneous for formal in formals if formal.option == variadic),
        allowed={c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints},
    )
