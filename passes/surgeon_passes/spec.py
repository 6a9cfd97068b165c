r"""A pass as one line of text, and back: ``fold-constants:size_limit=64MB,fold_qdq=true``.

Everything comes from the fields of the pass's dataclass: which options exist, their types, defaults and help. Text,
recipe and command line can therefore not drift apart.

The grammar: ``NAME[:KEY=VALUE[,KEY=VALUE...]]``. Values of a list are separated by ``;``. A value that holds ``,``,
``;``, ``=`` or ``"`` is written in double quotes, with ``\`` before ``"`` and ``\``.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon_passes.errors import BadOptionError

if TYPE_CHECKING:  # the grammar serves runners too, in environments that have no onnx_ir
    from surgeon_passes.contract import Pass

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(i?)[bB]?\s*$")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_NEEDS_QUOTES = re.compile(r'[,;="\\]|^\s|\s$|^$')


def parse_size(text: str) -> int:
    """Bytes from text such as ``1048576``, ``64MB`` (10**6), ``4GiB`` (2**30).

    Raises:
        BadOptionError: The text is not a size.
    """
    found = _SIZE.match(text)
    if not found:
        raise BadOptionError(f"'{text}' is not a size", hint="write a number with KB, MB, GB, KiB, MiB or GiB")
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[prefix.lower()])


def _split(text: str, separator: str) -> list[str]:
    """Split at separators outside double quotes; quotes and escapes stay in the parts."""
    parts, start, quoted, i = [], 0, False, 0
    while i < len(text):
        char = text[i]
        if char == "\\" and quoted:
            i += 1
        elif char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            parts.append(text[start:i])
            start = i + 1
        i += 1
    if quoted:
        raise BadOptionError(f"a quote is opened and never closed in '{text}'", hint='end the value with "')
    return [*parts, text[start:]]


def unquote(text: str) -> str:
    """A value without the double quotes around it, escapes resolved; any other text without blanks at its ends."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def quote(text: str) -> str:
    """A value as the grammar takes it, in double quotes where it needs them."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"' if _NEEDS_QUOTES.search(text) else text


def options_of(pass_type: type[Pass]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """The options of a pass by name: field and resolved type, in the order of declaration."""
    hints = typing.get_type_hints(pass_type)
    return {f.name: (f, hints[f.name]) for f in dataclasses.fields(pass_type) if f.init}  # type: ignore[arg-type]


def _rest_field(pass_type: type[Pass]) -> str | None:
    return next((name for name, (f, _) in options_of(pass_type).items() if f.metadata.get("rest")), None)


def convert(text: str, kind: Any, what: str, unit: str = "") -> Any:
    """One option value from text, by the type it is declared with.

    Args:
        text: What was typed.
        kind: ``bool``, ``int``, ``float``, ``str``, ``Path``, a tuple, or a union with None.
        what: The option, for messages.
        unit: ``bytes`` for sizes.

    Raises:
        BadOptionError: The text does not fit.
    """
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        inner = [t for t in typing.get_args(kind) if t is not type(None)]
        return None if text == "none" else convert(text, inner[0], what, unit)
    if typing.get_origin(kind) is tuple:
        return tuple(unquote(part) for part in _split(text, ";") if part.strip())
    text = unquote(text)
    if kind is bool:
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise BadOptionError(f"{what}={text} is neither true nor false", hint="write true or false")
    if kind is int and unit == "bytes":
        return parse_size(text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise BadOptionError(f"{what}={text} is not a number", hint=f"give {kind.__name__}") from None
    return Path(text) if kind is Path else text


def build(pass_type: type[Pass], options: Mapping[str, Any]) -> Pass:
    """Make a pass from options given as text or as typed values (as a TOML recipe gives them).

    Raises:
        BadOptionError: An option does not exist, or its value does not fit its type.
    """
    known, rest = options_of(pass_type), _rest_field(pass_type)
    values: dict[str, Any] = {}
    pairs: list[tuple[str, str]] = []
    for raw_key, value in options.items():
        key = raw_key.replace("-", "_") if raw_key.replace("-", "_") in known else raw_key
        if key not in known or key == rest:
            if rest is None:
                names = ", ".join(known) or "none"
                raise BadOptionError(f"pass {pass_type.name} has no option '{raw_key}'", hint=f"its options: {names}")
            pairs.append((raw_key, unquote(str(value))))
            continue
        declared, kind = known[key]
        what = f"{pass_type.name}:{key}"
        if isinstance(value, list):
            values[key] = tuple(str(item) for item in value)
        elif isinstance(value, str):
            values[key] = convert(value, kind, what, declared.metadata.get("unit", ""))
        elif kind is float and isinstance(value, int) and not isinstance(value, bool):
            values[key] = float(value)
        elif isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            values[key] = value
        else:
            raise BadOptionError(f"{what}={value!r} has the wrong type", hint=f"it takes {_type_name(kind)}")
    if rest is not None and pairs:
        values[rest] = tuple(pairs)
    return pass_type(**values)


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """Take ``NAME:KEY=VALUE,...`` apart into the name and the options as text.

    Raises:
        BadOptionError: An option has no ``=`` or is given twice.
    """
    name, _, tail = text.partition(":")
    options: dict[str, str] = {}
    for part in _split(tail, ",") if tail.strip() else []:
        raw_key, *values = _split(part, "=")
        key, value = unquote(raw_key), "=".join(values)
        if not values:
            raise BadOptionError(f"'{part}' in '{text}' is not an option", hint="write KEY=VALUE")
        if key in options:
            raise BadOptionError(f"option '{key}' is given twice in '{text}'")
        options[key] = value
    return name.strip(), options


def _text_of(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ";".join(quote(item) for item in value)
    return quote(str(value))


def spec_of(step: Pass) -> str:
    """One line of text that makes this pass again; options at their default are left out."""
    rest = _rest_field(type(step))
    parts = []
    for name, (declared, _) in options_of(type(step)).items():
        value = getattr(step, name)
        if name == rest:
            parts += [f"{quote(key)}={quote(text)}" for key, text in value]
        elif value != declared.default:
            parts.append(f"{name}={_text_of(value)}")
    return f"{step.name}:{','.join(parts)}" if parts else step.name
