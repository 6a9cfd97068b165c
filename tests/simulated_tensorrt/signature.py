"""Signatures as pybind11 writes them into docstrings: read, and used to check and convert the arguments of a call.

What a real binding refuses with a TypeError has to be refused here too, or code that only the simulator accepts
would pass its tests.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = object()
"""No value was given."""
_ENUM_DEFAULT = re.compile(r"^<(\w+)\.(\w+): -?\d+>$")
_NAMESPACES = re.compile(r"(?:nvinfer1::|nvonnxparser::|v_1_0::)")


class Unconvertible(Exception):
    """The value is not of the parameter's type."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a signature."""

    name: str
    """As it can be given by keyword."""
    type: str
    """As the binding writes it; empty for a function written in Python."""
    default: str | None
    """The text of its default; None if it has to be given."""


@dataclass(frozen=True)
class Signature:
    """One overload."""

    text: str
    """The line of the manifest."""
    parameters: tuple[Parameter, ...]
    """All of them, ``self`` included."""
    returns: str
    """The type of the result as written; empty if the line does not say."""


def parse(text: str) -> Signature:
    """Read a line such as ``name(self: X, a: int = 0) -> bool``."""
    start = text.index("(")
    end = _closing(text, start)
    parameters = tuple(_parameter(part) for part in _split(text[start + 1 : end]) if part not in ("/", "*"))
    return Signature(text, parameters, text[end + 1 :].partition("->")[2].strip())


def _closing(text: str, start: int) -> int:
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if not depth:
            return at
    raise ValueError(f"no closing bracket: {text}")


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([<") - (letter in ")]>" and text[at - 1 : at + 1] != "->")
        if letter == "," and not depth:
            parts.append(text[start:at].strip())
            start = at + 1
    return [part for part in [*parts, text[start:].strip()] if part]


def _parameter(text: str) -> Parameter:
    head, equals, default = text.partition(" = ")
    name, _, kind = head.partition(":")
    return Parameter(name.strip(), kind.strip(), default.strip() if equals else None)


def default_value(text: str, classes: Mapping[str, Any]) -> Any:
    """The value of a default's text; enum members look like ``<DataType.FLOAT: 0>``."""
    hit = _ENUM_DEFAULT.match(text)
    if hit:
        owner = classes["ILogger"].Severity if hit.group(1) == "Severity" else classes[hit.group(1)]
        return getattr(owner, hit.group(2))
    return ast.literal_eval(text)


def bind(
    overloads: Sequence[Signature], args: Sequence[Any], kwargs: Mapping[str, Any], classes: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of a call, ``self`` left out, converted by the first overload that takes them.

    Raises:
        TypeError: No overload takes them, in the words of pybind11.
    """
    for overload in overloads:
        bound = _bind_one(overload, args, kwargs, classes)
        if bound is not None:
            return bound
    name = overloads[0].text.split("(")[0]
    kind = "constructor" if name == "__init__" else "function"
    lines = "\n".join(f"    {i}. {overload.text}" for i, overload in enumerate(overloads, 1))
    invoked = ", ".join([*(repr(a) for a in args), *(["kwargs: " + str(dict(kwargs))] if kwargs else [])])
    raise TypeError(
        f"{name}(): incompatible {kind} arguments. The following argument types are supported:\n{lines}\n\n"
        f"Invoked with: {invoked}"
    )


def _bind_one(
    overload: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], classes: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]] | None:
    parameters = [p for p in overload.parameters if p.name not in ("self", "this")]
    if len(args) > len(parameters) or not set(kwargs) <= {p.name for p in parameters[len(args) :]}:
        return None
    given: dict[str, Any] = {p.name: value for p, value in zip(parameters, args, strict=False)}
    given.update(kwargs)
    if any(p.default is None and p.name not in given for p in parameters):
        return None
    positional: list[Any] = []
    named: dict[str, Any] = {}
    try:
        for parameter in parameters:
            if parameter.name not in given:
                continue
            value = convert(given[parameter.name], parameter, classes)
            if len(positional) == parameters.index(parameter):
                positional.append(value)
            else:
                named[parameter.name] = value
    except Unconvertible:
        return None
    return positional, named


def convert(value: Any, parameter: Parameter, classes: Mapping[str, Any]) -> Any:
    """The value as the parameter's type, as pybind11 converts it.

    Raises:
        Unconvertible: It does not fit.
    """
    kind = _NAMESPACES.sub("", parameter.type)
    if value is None and parameter.default == "None":
        return None
    if kind.startswith("collections.abc.Sequence["):
        inner = Parameter("", kind[len("collections.abc.Sequence[") : -1], None)
        if isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
            raise Unconvertible
        return [convert(value[i], inner, classes) for i in range(len(value))]
    if kind in _PLAIN:
        return _PLAIN[kind](value)
    owner = classes.get(kind) or (classes["ILogger"].Severity if kind == "ILogger.Severity" else None)
    return value if owner is None else _instance(value, kind, owner, classes)


def _instance(value: Any, kind: str, owner: Any, classes: Mapping[str, Any]) -> Any:
    if isinstance(value, owner):
        return value
    is_enum = hasattr(owner, "__members__")
    if value is None and not is_enum and kind not in ("Dims", "TimingCacheKey", "TimingCacheValue"):
        return None
    if kind == "Dims" and isinstance(value, (list, tuple)):  # converts implicitly
        try:
            return classes["Dims"](value)
        except TypeError:
            raise Unconvertible from None
    raise Unconvertible


def _integer(value: Any) -> int:
    # As pybind11: whatever has __index__ or __int__, floats excepted.
    if isinstance(value, (float, str, bytes)) or not (hasattr(value, "__index__") or hasattr(value, "__int__")):
        raise Unconvertible
    return operator.index(value) if hasattr(value, "__index__") else int(value)


def _number(value: Any) -> float:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise Unconvertible
    return float(value)


def _of(*types: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, types):
            return value
        raise Unconvertible

    return check


def _truth(value: Any) -> bool:
    if value is None or hasattr(value, "__bool__"):
        return bool(value)
    raise Unconvertible


def _buffer(value: Any) -> Any:
    try:
        memoryview(value)
    except TypeError:
        raise Unconvertible from None
    return value


def _anything(value: Any) -> Any:
    return value


_PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "typing.SupportsInt": _integer,
    "typing.SupportsInt | typing.SupportsIndex": _integer,
    "int": _integer,
    "typing.SupportsFloat": _number,
    "float": _number,
    "str": _of(str),
    "bool": _truth,
    "list": _of(list),
    "tuple": _of(tuple),
    "slice": _of(slice),
    "collections.abc.Buffer": _buffer,
    "bytes": _of(bytes),
    "object": _anything,
    "": _anything,
}
