"""Classes and enums as a pybind11 module has them, made from the manifest and filled by templates.

A template is a plain Python class that says what the methods do; the manifest says which of them exist, how they are
called and what can be set. What the manifest does not have does not exist; what no template plays raises
:class:`NotSimulatedError` when used.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.simulated_tensorrt.signature import Signature, Unconvertible, bind, convert, parse

Classes = dict[str, Any]
_NOT_COPIED = {"__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__qualname__", "__firstlineno__"}
_NOT_COPIED |= {"__static_attributes__", "__slots__", "__hash__"}


class NotSimulatedError(NotImplementedError):
    """The real one can do this, the simulator cannot."""


class BoundType(type):
    """The type of all classes of the module: looks after constructors."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Construct; refuses what has no constructor, and subclasses that forget that of their base."""
        if not getattr(cls, "_constructible", False):
            name = cls.__name__ if "_generated" not in vars(cls) else f"{cls.__module__}.{cls.__name__}"
            raise TypeError(f"{name}: No constructor defined!")
        made: Any = cls.__new__(cls, *args, **kwargs)  # type: ignore[arg-type]
        made.__init__(*args, **kwargs)
        if not made.__dict__.get("_alive"):
            base = next(c for c in cls.__mro__ if "_generated" in vars(c))
            raise TypeError(f"{base.__module__}.{base.__name__}.__init__() must be called when overriding __init__")
        return made


class EnumType(type):
    """The type of all enums: tells who asks for which member, if somebody wants to know."""

    asked: set[str] | None = None

    def __getattribute__(cls, name: str) -> Any:
        """The attribute, written down."""
        if EnumType.asked is not None and not name.startswith("_"):
            EnumType.asked.add(f"{type.__getattribute__(cls, '__name__')}.{name}")
        return type.__getattribute__(cls, name)


def _set_attribute(self: Any, name: str, value: Any) -> None:
    generated = "_generated" in vars(type(self))
    if generated and not name.startswith("_") and not isinstance(getattr(type(self), name, None), property):
        kind = type(self)
        raise AttributeError(f"'{kind.__module__}.{kind.__name__}' object has no attribute '{name}'")
    object.__setattr__(self, name, value)


def _no_reduce(self: Any, *_: Any) -> Any:
    raise TypeError(f"cannot pickle '{type(self).__module__}.{type(self).__name__}' object")


def make(kind: Any, **state: Any) -> Any:
    """An object of a class that Python code cannot construct, with this inner state."""
    data = state.pop("_data", None)
    made = kind.__new__(kind) if data is None else kind.__new__(kind, data)
    made.__dict__["_alive"] = True
    made.__dict__.update(state)
    return made


def make_enum(name: str, members: Mapping[str, int], module: str, template: type | None) -> Any:
    """An enum: members are instances of the class, equal only to members of the same class, no integers."""

    def equal(self: Any, other: Any) -> bool:
        return type(other) is type(self) and other.value == self.value

    def construct(cls: Any, value: Any) -> Any:
        try:
            number = int(value) if not isinstance(value, str) else _refuse_text(cls, value)
        except (TypeError, ValueError):
            return _refuse_text(cls, value)
        made = object.__new__(cls)
        object.__setattr__(made, "_value", number)
        return made

    def word(self: Any) -> str:
        return next((n for n, m in type(self).__members__.items() if m.value == self.value), "???")

    body: dict[str, Any] = {
        "__module__": module,
        "__new__": construct,
        "__init__": lambda self, value: None,
        "__eq__": equal,
        "__ne__": lambda self, other: not equal(self, other),
        "__hash__": lambda self: self._value,
        "__int__": lambda self: self._value,
        "__index__": lambda self: self._value,
        "__repr__": lambda self: f"<{type(self).__name__}.{word(self)}: {self._value}>",
        "__str__": lambda self: f"{type(self).__name__}.{word(self)}",
        "__reduce__": lambda self: (type(self), (self._value,)),
        "name": property(word),
        "value": property(lambda self: self._value),
    }
    body.update({n: v for n, v in vars(template).items() if n not in _NOT_COPIED} if template else {})
    made = EnumType(name, (), body)
    table = {member: made(value) for member, value in members.items()}
    for member, value in table.items():
        setattr(made, member, value)
    made.__members__ = table  # type: ignore[attr-defined]
    return made


def _refuse_text(cls: Any, value: Any) -> Any:
    raise TypeError(
        "__init__(): incompatible constructor arguments. The following argument types are supported:\n"
        f"    1. {cls.__module__}.{cls.__name__}(value: typing.SupportsInt)\n\nInvoked with: {value!r}"
    )


def make_class(
    name: str, entry: Mapping[str, Any], template: type | None, bases: Sequence[Any], module: str, classes: Classes
) -> Any:
    """A class of the manifest, played by a template.

    Args:
        name: Its name.
        entry: Its entry in the manifest.
        template: Says what its methods do; None if nothing of it is played.
        bases: Its generated bases, or a built-in type.
        module: What ``__module__`` says.
        classes: All classes of the module by name, filled while they are made.
    """
    played = _played(template)
    methods, properties = entry.get("methods", {}), entry.get("properties", {})
    static = entry.get("static", {})
    body: dict[str, Any] = {
        n: v for n, v in played.items() if n.startswith("_") and n not in methods and n not in properties
    }
    body |= {"__module__": module, "_generated": True, "__setattr__": _set_attribute, "__reduce_ex__": _no_reduce}
    body["_constructible"] = "__init__" in methods
    body["__doc__"] = template.__doc__ if template else "Not simulated."
    for method, lines in methods.items():
        if method == "__buffer__":
            continue  # comes with the built-in base
        body[method] = _method(name, method, lines, played.get(method), classes)
    for method, lines in static.items():
        body[method] = _static(name, method, lines, played.get(method), classes)
    for prop, access in properties.items():
        body[prop] = _property(name, prop, access, played.get(prop), classes)
    made = BoundType(name, tuple(bases), body)
    made.__qualname__ = name
    return made


def _played(template: type | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in reversed((template or object).__mro__):
        if kind is not object:
            found.update({n: v for n, v in vars(kind).items() if n not in _NOT_COPIED})
    return found


def _method(owner: str, name: str, lines: Sequence[str], play: Any, classes: Classes) -> Any:
    if name in ("__enter__", "__exit__") or not lines:
        return play or {"__enter__": _enter, "__exit__": _exit}.get(name) or _unplayed(owner, name, lines)
    if play is None:
        return _unplayed(owner, name, lines)
    if not lines[0].startswith(name + "(self:"):  # written in Python in the real package, too
        return play
    return _bound(lines, play, classes, sets_alive=name == "__init__")


def _bound(lines: Sequence[str], play: Callable[..., Any], classes: Classes, *, sets_alive: bool = False) -> Any:
    overloads = [parse(line) for line in lines]

    @functools.wraps(play)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        positional, named = bind(overloads, args, kwargs, classes)
        result = play(self, *positional, **named)
        if sets_alive:
            self.__dict__["_alive"] = True
        return result

    method.__doc__ = _doc(overloads)
    method.__dict__["played_by"] = play
    return method


def _doc(overloads: Sequence[Signature]) -> str:
    if len(overloads) == 1:
        return overloads[0].text
    name = overloads[0].text.split("(")[0]
    return "\n".join(
        [f"{name}(*args, **kwargs)", "Overloaded function.", ""]
        + [f"{i}. {overload.text}\n" for i, overload in enumerate(overloads, 1)]
    )


def _static(owner: str, name: str, lines: Sequence[str], play: Any, classes: Classes) -> Any:
    if list(lines) == ["property"] or play is None:
        return staticmethod(_unplayed(owner, name, [line for line in lines if "(" in line]))
    overloads = [parse(line) for line in lines]
    function = play.__func__ if isinstance(play, staticmethod) else play

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        positional, named = bind(overloads, args, kwargs, classes)
        return function(classes, *positional, **named)

    call.__doc__ = _doc(overloads)
    call.__dict__["played_by"] = function
    return staticmethod(call)


def _property(owner: str, name: str, access: Mapping[str, str], play: Any, classes: Classes) -> Any:
    def get(self: Any) -> Any:
        if play is None or play.fget is None:
            raise NotSimulatedError(f"the simulator does not play {owner}.{name}")
        return play.fget(self)

    def put(self: Any, value: Any) -> None:
        if play is None or play.fset is None:
            raise NotSimulatedError(f"the simulator does not play setting {owner}.{name}")
        kind = access["set"]
        parameter = parse(f"f(arg0: {kind})").parameters[0]
        try:
            play.fset(self, convert(value, parameter, classes))
        except Unconvertible:
            raise TypeError(
                "(): incompatible function arguments. The following argument types are supported:\n"
                f"    1. (self: {owner}, arg0: {kind}) -> None\n\nInvoked with: {self!r}, {value!r}"
            ) from None

    get.__doc__ = f"(self: {owner}) -> {access.get('get', 'None')}"
    if access.get("get", "").startswith("("):
        get.__doc__ = None
    put.__doc__ = f"(self: {owner}, arg0: {access.get('set')}) -> None"
    return property(get if "get" in access else None, put if "set" in access else None)


def _unplayed(owner: str, name: str, lines: Sequence[str]) -> Any:
    def method(*args: Any, **kwargs: Any) -> Any:
        raise NotSimulatedError(f"the simulator does not play {owner}.{name}")

    method.__name__ = name
    method.__doc__ = _doc([parse(line) for line in lines]) if lines else None
    method.__dict__["played_by"] = None
    return method


def _enter(this: Any) -> Any:
    warnings.warn(
        "Context managers for TensorRT types are deprecated. "
        "Memory will be freed automatically when the reference count reaches 0.",
        DeprecationWarning,
        stacklevel=2,
    )
    return this


def _exit(this: Any, exc_type: Any, exc_value: Any, traceback: Any) -> None:
    return None
