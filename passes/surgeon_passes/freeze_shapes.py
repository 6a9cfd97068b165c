"""Give dynamic dimensions of the inputs fixed sizes, and carry them through the model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import BadOptionError, RefusalError
from surgeon_passes.infer_shapes import best_types
from surgeon_passes.infer_types import AllComputed, contradiction_in
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.settle_shapes import settle, without_made_up
from surgeon_passes.walk import main_scope, scopes, scopes_in

_LEAVE = ("?", "*", "-1")
_OPERATOR = re.compile(r"[*/%(),]|\s[-+]\s")
_WORD = re.compile(r"[A-Za-z_][\w.]*")

Dim = int | ir.SymbolicDim


@dataclasses.dataclass(frozen=True)
class _Request:
    """One ``key=value`` of the pass, understood."""

    text: str
    symbols: dict[str, int]
    """Size by symbol."""
    unnamed: dict[tuple[ir.Value, int], int]
    """Size by input and dimension, for dimensions without a name."""
    rank: dict[ir.Value, int]
    """Number of dimensions, for inputs that declare none."""


@dataclasses.dataclass(frozen=True)
class FreezeShapes(Pass):
    """Fix dynamic dimensions of the model's inputs: by symbol (``N=1,seq=128``) or by input (``ids=1x128``).

    A symbol is replaced wherever it occurs: inputs, outputs, value infos, bodies; expressions in it are worked out, and
    what follows from the new sizes is inferred. By input, ``?`` leaves a dimension as it is (``image=1x3x?x?``);
    a dimension that has a symbol binds the symbol. Numbers are never altered.

    Refuses a size that contradicts a fixed one, two sizes for one symbol, and sizes with which the model cannot run as
    far as shape inference can tell.
    """

    name: ClassVar[str] = "freeze-shapes"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p 'freeze-shapes:batch=1,seq=128' -o fixed.onnx"
    changes_interface: ClassVar[bool] = True

    sizes: tuple[tuple[str, str], ...] = option((), "SYMBOL=SIZE or INPUT=SIZExSIZE, one or more", rest=True)

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Fix the sizes asked for: one change for each ``key=value``.

        Raises:
            BadOptionError: A key is neither a symbol nor an input, or a size contradicts what is fixed.
            RefusalError: With these sizes the operators do not fit together.
        """
        if not self.sizes:
            raise BadOptionError("freeze-shapes needs sizes", hint="write freeze-shapes:SYMBOL=SIZE")
        requests = [_understand(model, key, text) for key, text in self.sizes]
        _check_agreement(requests)
        kept = _Kept(model)
        _apply(model, requests)
        default = _wrong_default(model)
        wrong = contradiction_in(model, AllComputed())
        kept.restore()
        if default:
            raise BadOptionError(default, hint="give the size that the default has, or none")
        if wrong and not contradiction_in(model, AllComputed()):  # nothing was wrong before
            sizes = ", ".join(request.text for request in requests)
            raise RefusalError(f"with {sizes} the operators do not fit together: {wrong}")
        granted = [request for request in requests if _permit(model, request, log)]
        if granted:
            _apply(model, granted)
            _infer_again(model)


def _understand(model: ir.Model, key: str, text: str) -> _Request:
    inputs = {value.name: value for value in model.graph.inputs}
    symbols = _symbols(model)
    size = _size(text)
    if size is not None and (key in symbols or key not in inputs):
        if key not in symbols:
            named = sorted({*symbols, *(name for name in inputs if name)})
            hint = did_you_mean(key, named) if named else "the model has no dynamic dimensions"
            raise BadOptionError(f"freeze-shapes: the inputs have no symbol '{key}'", hint=hint)
        return _Request(f"{key}={text}", {key: size}, {}, {})
    if key not in inputs:
        if key in symbols:
            raise BadOptionError(f"freeze-shapes: {key}={text} is not a size", hint="write a number, 0 or more")
        hint = did_you_mean(key, sorted(name for name in inputs if name))
        raise BadOptionError(f"freeze-shapes: the model has no input '{key}'", hint=hint)
    return _understand_input(inputs[key], text)


def _understand_input(value: ir.Value, text: str) -> _Request:
    what = f"freeze-shapes: {value.name}={text}"
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        raise BadOptionError(f"{what}: this input is a {value.type}, not a tensor", hint="name a tensor input")
    sizes: list[int | None] = []
    for part in text.lower().split("x") if text.strip() else []:
        size = _size(part)
        if size is None and part.strip() not in _LEAVE:
            raise BadOptionError(f"{what}: '{part}' is not a size", hint="write sizes as 1x3x224x?")
        sizes.append(size)
    if value.shape is None:
        fixed = {(value, i): size for i, size in enumerate(sizes) if size is not None}
        return _Request(f"{value.name}={text}", {}, fixed, {value: len(sizes)})
    if len(value.shape) != len(sizes):
        raise BadOptionError(f"{what}: the input has {len(value.shape)} dimensions, not {len(sizes)}")
    bound: dict[str, int] = {}
    unnamed: dict[tuple[ir.Value, int], int] = {}
    for i, (dim, size) in enumerate(zip(value.shape, sizes, strict=True)):
        if size is None:
            continue
        if isinstance(dim, int) and dim >= 0:
            if dim != size:
                raise BadOptionError(f"{what}: dimension {i} is fixed at {dim}", hint="fixed sizes cannot be changed")
        elif isinstance(dim, int) or dim.value is None:
            unnamed[(value, i)] = size
        elif bound.setdefault(dim.value, size) != size:
            raise BadOptionError(f"{what}: symbol '{dim.value}' would be {bound[dim.value]} and {size}")
    return _Request(f"{value.name}={text}", bound, unnamed, {})


def _size(text: str) -> int | None:
    return int(text) if text.strip().isascii() and text.strip().isdigit() else None


def _symbols(model: ir.Model) -> dict[str, None]:
    """Symbols of the inputs, in order; an expression counts as one symbol and as those in it."""
    found: dict[str, None] = {}
    for value in model.graph.inputs:
        for dim in value.shape or ():
            if not isinstance(dim, int) and dim.value:
                found[dim.value] = None
                found.update(dict.fromkeys(_WORD.findall(dim.value)) if not _is_plain(dim.value) else {})
    return found


def _is_plain(text: str) -> bool:
    """Whether a symbol is a name rather than an expression; ``batch-size`` is a name, ``past + seq`` is a sum."""
    return _OPERATOR.search(text) is None


def _check_agreement(requests: list[_Request]) -> None:
    symbols: dict[str, int] = {}
    unnamed: dict[tuple[ir.Value, int], int] = {}
    for request in requests:
        for name, size in request.symbols.items():
            if symbols.setdefault(name, size) != size:
                raise BadOptionError(f"freeze-shapes: symbol '{name}' would be {symbols[name]} and {size}")
        for place, size in request.unnamed.items():
            if unnamed.setdefault(place, size) != size:
                raise BadOptionError(f"freeze-shapes: input '{place[0].name}' is given two shapes")


def _wrong_default(model: ir.Model) -> str:
    """Whether an input has a default value whose shape is not the one it has now."""
    for value in model.graph.inputs:
        if value.const_value is None or value.shape is None:
            continue
        sizes = value.const_value.shape.numpy()
        fits = len(sizes) == len(value.shape) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(value.shape, sizes, strict=True)
        )
        if not fits:
            return f"freeze-shapes: the default value of input '{value.name}' has shape {list(sizes)}"
    return ""


def _permit(model: ir.Model, request: _Request, log: ChangeLog) -> bool:
    touched = [value.name for value in model.graph.inputs if _touches(value, request)]
    return log.permit("freeze", before=[request.text], after=touched, boundary=touched)


def _touches(value: ir.Value, request: _Request) -> bool:
    if value in request.rank or any(value is place for place, _ in request.unnamed):
        return True
    return any(not isinstance(dim, int) and _mentions(dim, request.symbols) for dim in value.shape or ())


def _mentions(dim: ir.SymbolicDim, symbols: Mapping[str, int]) -> bool:
    text = dim.value
    return text is not None and (
        text in symbols or (not _is_plain(text) and not symbols.keys().isdisjoint(_WORD.findall(text)))
    )


class _Kept:
    """The shapes of a model as they were, to be put back."""

    def __init__(self, model: ir.Model) -> None:
        self._shapes = [(value, value.shape) for value, _ in _values(model)]

    def restore(self) -> None:
        for value, shape in self._shapes:
            value.shape = shape


def _values(model: ir.Model) -> Iterator[tuple[ir.Value, bool]]:
    """Every value of every graph, and whether it is in a local function, where symbols are others."""
    for scope in scopes(model):
        for value in scope.graph.inputs:
            yield value, scope.function is not None
        for node in scope.graph:
            for value in node.outputs:
                yield value, scope.function is not None


def _apply(model: ir.Model, requests: list[_Request]) -> None:
    symbols: dict[str, int] = {}
    for request in requests:
        symbols.update(request.symbols)
        for value, rank in request.rank.items():
            value.shape = ir.Shape([None] * rank)
        for (value, i), size in request.unnamed.items():
            value.shape = _with_dims(value.shape, {i: size})
    for value, in_function in _values(model):
        if value.shape is None or value.shape.is_static():
            continue
        changed: dict[int, Dim | None] = {}
        for i, dim in enumerate(value.shape):
            if not isinstance(dim, int) and _mentions(dim, symbols):
                changed[i] = None if in_function else _evaluate(dim, symbols)
        if changed:
            value.shape = _with_dims(value.shape, changed)


def _with_dims(shape: ir.Shape | None, changed: Mapping[int, Dim | None]) -> ir.Shape:
    """A new shape: shapes may be shared between values, and those of tensors are frozen."""
    dims = list(shape or ())
    return ir.Shape(
        [changed.get(i, dim) for i, dim in enumerate(dims)],
        [shape.get_denotation(i) for i in range(len(dims))] if shape is not None else None,
    )


def _evaluate(dim: ir.SymbolicDim, symbols: Mapping[str, int]) -> Dim | None:
    """The dimension with the sizes put in; unknown if the expression cannot be read, so that inference finds it."""
    if dim.value is not None and dim.value in symbols:
        return symbols[dim.value]
    try:
        found = dim.evaluate(symbols)
    except (ValueError, TypeError, ArithmeticError):
        return None
    return None if isinstance(found, int) and found < 0 else found


def _infer_again(model: ir.Model) -> None:
    """Write down what follows from the new sizes; outputs too, because fixing them is what was asked for."""
    facts = best_types(model)
    for scope in scopes_in(main_scope(model)):
        for node in scope.graph:
            for value in node.outputs:
                declared = ir.TypeAndShape(value.type, value.shape)
                found = facts.get(value)
                if found is not None and value.name:
                    fact = settle(declared, without_made_up(found)).fact
                    value.type, value.shape = fact.type, fact.shape
