"""From the text of a runner to the runner: ``onnxruntime:optimize=none``, ``openvino``, ``./mine.py:MyRunner:key=1``.

Runners of other packages are found through the entry point group ``surgeon.runners``: the entry's name is the
runner's name, its object the class.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon_debug.cell import Cell
from surgeon_debug.load_python import load_module
from surgeon_debug.runners.contract import Engine, Runner, words_of
from surgeon_debug.runners.runner_text import RunnerText, checked_cap, checked_timeout, parse_runner
from surgeon_passes.errors import BadOptionError, EngineError, SurgeonError
from surgeon_passes.spec import convert, unquote

GROUP = "surgeon.runners"
"""The entry point group of runners."""


@dataclasses.dataclass(frozen=True)
class BuiltIn:
    """A runner of this package."""

    module: str
    """The module that holds it."""
    class_name: str
    """Its class."""
    package: str
    """The Python package it needs; empty if none."""
    extra: str
    """The extra of this distribution that installs the package; empty if it always comes along."""


BUILT_IN: Mapping[str, BuiltIn] = types.MappingProxyType(
    {
        "onnxruntime": BuiltIn("surgeon_debug.runners.onnxruntime", "OnnxRuntime", "onnxruntime", ""),
        "openvino": BuiltIn("surgeon_debug.runners.openvino", "OpenVino", "openvino", "openvino"),
        "reference": BuiltIn("surgeon_debug.runners.reference", "Reference", "onnx", ""),
        "tensorrt": BuiltIn("surgeon_debug.runners.tensorrt.runner", "TensorRT", "tensorrt", "tensorrt"),
        "command": BuiltIn("surgeon_debug.runners.command", "Command", "", ""),
    }
)


def make_engine(
    text: str, *, isolated: bool = False, timeout: float | None = None, memory_cap: int | None = None
) -> Engine:
    """Make a runner from its text, guarded.

    A process of its own starts in the background: what is wrong with the runner or its options is then said by
    :meth:`Engine.ready`, or by the first use.

    Args:
        text: ``NAME[:KEY=VALUE,...]`` or ``path/to/file.py:CLASS[:KEY=VALUE,...]``; see
            :func:`surgeon_debug.runners.runner_text.parse_runner` for the keys that every runner takes.
        isolated: Run it in a process of its own. It does anyway if ``python``, ``timeout`` or ``memory_cap`` is asked
            for, here or in the text.
        timeout: Seconds for one prepare or one run, unless the text says; None for as long as it takes.
        memory_cap: Bytes of memory for the process, unless the text says; None for no limit.

    Raises:
        BadOptionError: There is no such runner, class or option, or a value does not fit.
        EngineError: The runner's package is not installed, or the runner refuses to start.
    """
    runner, confines = parse_runner(text)
    if timeout is not None and confines.timeout is None:
        confines = dataclasses.replace(confines, timeout=checked_timeout(timeout))
    if memory_cap is not None and confines.memory_cap is None:
        confines = dataclasses.replace(confines, memory_cap=checked_cap(memory_cap))
    if isolated or confines.asked:
        return Engine(text, Cell(runner, confines))
    return Engine(text, make_runner(runner))


def make_runner(text: RunnerText) -> Runner:
    """Make a runner in this process.

    Raises:
        BadOptionError: There is no such runner, class or option, or a value does not fit.
        EngineError: The runner's package is not installed, or the runner refuses to start.
    """
    runner_type = _from_file(Path(text.file), text.name, text.text) if text.file else _by_name(text.name)
    arguments = arguments_of(runner_type, text.name, text.options)
    try:
        return typing.cast("Runner", runner_type(**arguments))
    except SurgeonError:
        raise
    except Exception as error:
        raise EngineError(f"runner {text.name} cannot start: {words_of(error)}") from error


def names() -> list[str]:
    """Names of all runners that can be asked for, installed or not, in order."""
    return sorted({*BUILT_IN, *(entry.name for entry in importlib.metadata.entry_points(group=GROUP))})


def _by_name(name: str) -> type[Any]:
    entries = list(importlib.metadata.entry_points(group=GROUP, name=name))
    if len(entries) + (name in BUILT_IN) > 1:
        owners = [entry.value for entry in entries] + ([BUILT_IN[name].module] if name in BUILT_IN else [])
        raise BadOptionError(f"two runners are called '{name}': {' and '.join(owners)}", hint="uninstall one of them")
    if name in BUILT_IN:
        return _built_in(name)
    if not entries:
        known = names()
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"the runners are {', '.join(known)}, or FILE.py:CLASS"
        raise BadOptionError(f"there is no runner '{name}'", hint=hint)
    try:
        return _checked(entries[0].load(), name)
    except SurgeonError:
        raise
    except Exception as error:
        raise EngineError(f"runner {name} of {entries[0].value} cannot be loaded: {words_of(error)}") from error


def _built_in(name: str) -> type[Any]:
    entry = BUILT_IN[name]
    if entry.package and importlib.util.find_spec(entry.package) is None:
        target = f'"onnx-surgeon[{entry.extra}]"' if entry.extra else entry.package
        raise EngineError(
            f"runner {name} needs the package {entry.package}, which is not installed", hint=f"run pip install {target}"
        )
    return typing.cast("type[Any]", getattr(importlib.import_module(entry.module), entry.class_name))


def _from_file(path: Path, class_name: str, text: str) -> type[Any]:
    if not class_name:
        raise BadOptionError(f"'{text}' names no class", hint=f"write {path}:CLASS")
    module = load_module(path)
    found = getattr(module, class_name, None)
    if found is None:
        here = module.__name__
        classes = [n for n, item in vars(module).items() if isinstance(item, type) and item.__module__ == here]
        close = difflib.get_close_matches(class_name, classes, 1) or classes[:5]
        hint = f"it has {', '.join(close)}" if close else "it has no class"
        raise BadOptionError(f"has no class '{class_name}'", where=str(path), hint=hint)
    return _checked(found, class_name)


def _checked(found: Any, name: str) -> type[Any]:
    lacking = [method for method in ("prepare", "run") if not callable(getattr(found, method, None))]
    if not isinstance(found, type) or lacking:
        what = f"has no method {' and no method '.join(lacking)}" if lacking else "is not a class"
        raise BadOptionError(f"{name} is not a runner: it {what}", hint="see surgeon_debug.runners.contract")
    return found


def arguments_of(runner_type: type[Any], name: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Keyword arguments of a runner's ``__init__`` from options as text.

    A parameter takes the type of its annotation or of its default. A parameter annotated as a mapping, say
    ``config``, collects options written ``config.KEY=VALUE``. ``**options`` takes whatever is left, as text.

    Raises:
        BadOptionError: An option does not exist or does not fit, or one that is needed is not given.
    """
    parameters, rest = _parameters(runner_type)
    arguments: dict[str, Any] = {}
    for raw, text in options.items():
        key, dot, inner = raw.partition(".")
        key = key.replace("-", "_")
        if key in parameters and dot and _is_mapping(parameters[key][0]):
            arguments.setdefault(key, {})[inner] = unquote(text)
        elif key in parameters and not dot and not _is_mapping(parameters[key][0]):
            arguments[key] = convert(text, parameters[key][0], f"{name}:{key}")
        elif rest:
            arguments[raw] = unquote(text)
        else:
            known = [f"{k}.KEY" if _is_mapping(kind) else k for k, (kind, _) in parameters.items()]
            close = difflib.get_close_matches(raw, known, 1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise BadOptionError(
                f"runner {name} has no option '{raw}'", hint=f"{hint}its options: {', '.join(known) or 'none'}"
            )
    needed = [key for key, (_, default) in parameters.items() if default is inspect.Parameter.empty]
    missing = [key for key in needed if key not in arguments]
    if missing:
        raise BadOptionError(f"runner {name} needs the option '{missing[0]}'", hint=f"write {name}:{missing[0]}=VALUE")
    return arguments


def _parameters(runner_type: type[Any]) -> tuple[dict[str, tuple[Any, Any]], bool]:
    """Type and default of each option by name, and whether there is a ``**``."""
    if runner_type.__init__ is object.__init__:
        return {}, False
    try:
        hints = typing.get_type_hints(runner_type.__init__)
    except Exception:  # noqa: BLE001  (annotations that name what is not importable are the owner's freedom)
        hints = {}
    found: dict[str, tuple[Any, Any]] = {}
    rest = False
    for parameter in list(inspect.signature(runner_type.__init__).parameters.values())[1:]:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            rest = True
        elif parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            default = parameter.default
            guess = str if default in (None, inspect.Parameter.empty) else type(default)
            found[parameter.name] = (hints.get(parameter.name, guess), default)
    return found, rest


def _is_mapping(kind: Any) -> bool:
    return any(
        inspect.isclass(origin) and issubclass(origin, Mapping)
        for part in (typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,))
        if (origin := typing.get_origin(part) or part) is not None
    )
