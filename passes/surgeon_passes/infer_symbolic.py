"""Shapes as expressions in the symbols of the model's inputs: ``2*seq``, ``batch*heads``, ``floor(N/7)``.

onnx's inference stops at arithmetic on symbols: what ``Reshape`` makes of ``batch*12`` is an unknown dimension to it.
:class:`~surgeon_passes.known_facts.KnownFacts` follows such sums; here they are written the way dimensions are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx_ir as ir

from surgeon_passes.infer_types import Facts
from surgeon_passes.known_facts import KnownFacts
from surgeon_passes.symbolic_ints import Form, Int, Symbol
from surgeon_passes.walk import main_scope, scopes_in

_PLAIN = re.compile(r"^[A-Za-z_][\w.]*$")
_LONGEST = 120
"""An expression of more characters tells nobody anything."""


def infer_symbolic(model: ir.Model) -> Facts:
    """Types and shapes of the values of the main graph and its bodies, as far as they follow from inputs and constants.

    Dimensions are numbers or expressions in the symbols of the model's inputs; others are unknown.

    Args:
        model: The model; it is not changed, and its weights are not read.
    """
    known = KnownFacts(model)
    names = {d.value for v in model.graph.inputs for d in v.shape or () if not isinstance(d, int) and d.value}
    symbols: dict[Symbol, str] = {}
    for name in names:
        symbol = known.algebra.named(name).symbol
        if symbol is not None:
            symbols[symbol] = name
    facts: Facts = {}
    for scope in scopes_in(main_scope(model)):
        for node in scope.graph:
            for value in node.outputs:
                fact = known[value]
                if fact.dtype is not None:
                    shape = None if fact.dims is None else ir.Shape([dim_text(d, symbols) for d in fact.dims])
                    facts[value] = ir.TypeAndShape(ir.TensorType(fact.dtype), shape)
    return facts


def dim_text(size: Int, symbols: Mapping[Symbol, str]) -> int | str | None:
    """A size as a number or an expression; None if it holds a symbol without a name, or is too long to be read."""
    if isinstance(size, int):
        return size
    lone = size.symbol
    if lone is not None and lone in symbols:
        return symbols[lone]  # a name stands for itself, whatever characters it has
    text = _form_text(size, symbols)
    return text if text is not None and len(text) <= _LONGEST else None


def _form_text(form: Int, symbols: Mapping[Symbol, str]) -> str | None:
    if isinstance(form, int):
        return str(form)
    text = ""
    for monomial, coefficient in form.terms.items():
        factors = [_symbol_text(symbol, symbols) for symbol in monomial]
        known = [factor for factor in factors if factor is not None]
        if len(known) < len(factors):
            return None
        if abs(coefficient) != 1 or not known:
            known.insert(0, str(abs(coefficient)))
        sign = "-" if coefficient < 0 else "+"
        text += f" {sign} {'*'.join(known)}" if text else ("-" if coefficient < 0 else "") + "*".join(known)
    return text


def _symbol_text(symbol: Symbol, symbols: Mapping[Symbol, str]) -> str | None:
    if symbol in symbols:
        return symbols[symbol] if _PLAIN.match(symbols[symbol]) else None
    if symbol.parts is None or symbol.parts[0] not in ("floor", "min", "max"):
        return None
    operation, parts = symbol.parts
    texts = [_form_text(part, symbols) for part in parts]
    if len(texts) != 2 or texts[0] is None or texts[1] is None:
        return None
    if operation == "floor":
        return f"floor(({texts[0]})/{texts[1]})" if _is_sum(parts[0]) else f"floor({texts[0]}/{texts[1]})"
    return f"{operation}({texts[0]}, {texts[1]})"


def _is_sum(size: Int) -> bool:
    return isinstance(size, Form) and len(size.terms) > 1
