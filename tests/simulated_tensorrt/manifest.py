"""The manifest of a TensorRT module: every public name with its signature; and the differences of two of them.

Needs an importable module and no GPU. Signatures are the first lines of pybind11's docstrings without the package's own
prefix, so that manifests of ``tensorrt`` and ``tensorrt_bindings`` compare equal.
"""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

_DUNDERS = {
    "__init__", "__len__", "__getitem__", "__setitem__", "__call__", "__iter__", "__next__", "__contains__",
    "__enter__", "__exit__", "__int__", "__index__", "__buffer__", "__bool__", "__str__", "__eq__",
}  # fmt: skip
_NOT_LISTED = {"attr", "value", "ctypes", "os", "sys", "warnings", "common_enter", "common_exit", "tensorrt", "plugin"}
_SPELLINGS = (
    (r"\bList\[", "list["), (r"\bDict\[", "dict["), (r"\bTuple\[", "tuple["),
    (r"typing\.SupportsInt( \| typing\.SupportsIndex)?", "int"),
    (r"typing\.SupportsFloat( \| typing\.SupportsIndex)?", "float"),
    (r"typing_extensions\.CapsuleType|types\.CapsuleType", "capsule"),
    (r"collections\.abc\.Sequence\[", "list["), (r"collections\.abc\.Mapping\[", "dict["),
    (r"collections\.abc\.Buffer|typing_extensions\.Buffer", "buffer"),
    (r"collections\.abc\.Callable", "Callable"), (r"nvinfer1::(v_1_0::)?", ""), (r"nvonnxparser::", ""),
)  # fmt: skip


def dump(module: ModuleType) -> dict[str, Any]:
    """All public names of a module, flat: ``{'IBuilderConfig.set_flag': 'signature', 'BuilderFlag.DEBUG': '2'}``."""
    package = module.__name__
    flat: dict[str, Any] = {}
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or name in _NOT_LISTED or isinstance(value, ModuleType):
            continue
        if isinstance(value, type):
            _dump_class(name, value, package, flat)
        elif callable(value):
            flat[name] = " | ".join(_signatures(value, name, package))
        else:
            flat[name] = "value"
    return flat


def flatten(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest file in the same flat form."""
    flat: dict[str, Any] = {}
    for name, entry in manifest["classes"].items():
        _flatten_class(name, entry, flat)
    flat.update({name: " | ".join(lines) for name, lines in manifest["functions"].items()})
    flat.update(dict.fromkeys(manifest["values"], "value"))
    return {name: text if text == "value" else spelled(text) for name, text in flat.items()}


def spelled(signature: str) -> str:
    """A signature in the spelling of none of pybind11's versions in particular."""
    for pattern, to in _SPELLINGS:
        signature = re.sub(pattern, to, signature)
    return signature


def _flatten_class(prefix: str, entry: dict[str, Any], flat: dict[str, Any]) -> None:
    flat[prefix] = "enum" if entry.get("kind") == "enum" else "class " + ",".join(entry.get("bases", ()))
    flat.update({f"{prefix}.{name}": str(number) for name, number in entry.get("members", {}).items()})
    for table in ("methods", "static"):
        flat.update({f"{prefix}.{name}": " | ".join(lines) for name, lines in entry.get(table, {}).items()})
    for name, access in entry.get("properties", {}).items():
        flat[f"{prefix}.{name}"] = f"property get:{access.get('get', '-')} set:{access.get('set', '-')}"
    for name in entry.get("constants", {}):
        flat[f"{prefix}.{name}"] = "constant"
    for name, inner in entry.get("nested", {}).items():
        _flatten_class(f"{prefix}.{name}", inner, flat)


def _dump_class(prefix: str, cls: Any, package: str, flat: dict[str, Any]) -> None:
    members = getattr(cls, "__members__", None)
    if members is not None:
        flat[prefix] = "enum"
        flat.update({f"{prefix}.{name}": str(int(member)) for name, member in members.items()})
    else:
        bases = [b.__name__ for b in cls.__bases__ if b.__name__ not in ("object", "pybind11_object", "bytes")]
        flat[prefix] = "class " + ",".join(bases)
    for name, value in vars(cls).items():
        if name.startswith("_") and (name not in _DUNDERS or members is not None):
            continue
        if members is not None and (name in members or name in ("name", "value")):
            continue
        _dump_member(f"{prefix}.{name}", name, value, package, flat)


def _dump_member(path: str, name: str, value: Any, package: str, flat: dict[str, Any]) -> None:
    if isinstance(value, property):
        flat[path] = _property(value, package)
    elif type(value).__name__ == "pybind11_static_property":
        flat[path] = "property"
    elif isinstance(value, type):
        _dump_class(path, value, package, flat)
    elif callable(value) or isinstance(value, staticmethod):
        function = value.__func__ if isinstance(value, staticmethod) else value
        found = _signatures(function, name, package)
        if name != "__init__" or (found and "wrapper_descriptor" not in type(function).__name__):
            flat[path] = " | ".join(found)
    else:
        flat[path] = "constant"


def _property(value: property, package: str) -> str:
    get, put = "-", "-"
    if value.fget is not None:
        hit = re.search(r"->\s*(.*)$", (_signatures(value.fget, "", package) or [""])[0])
        get = hit.group(1) if hit else "?"
    if value.fset is not None:
        line = (_signatures(value.fset, "", package) or [""])[0]
        hit = re.search(r"^\(\w+: [^,]+, \w+: (.*)\) -> \S+$", line)
        put = hit.group(1) if hit else "?"
    return spelled(f"property get:{get} set:{put}")


def _signatures(function: Any, name: str, package: str) -> list[str]:
    doc = getattr(function, "__doc__", None) or ""
    found = []
    if "Overloaded function." in doc:
        for line in doc.splitlines():
            hit = re.match(r"\s*\d+\. (\w+\(.*)$", line)
            if hit and hit.group(1).startswith(name + "("):
                found.append(hit.group(1))
    else:
        first = next((line.strip() for line in doc.splitlines() if line.strip()), "")
        if first.startswith(name + "(") or (first.startswith("(") and "->" in first):
            found.append(first)
    if not found:
        try:
            found = [f"{name}({', '.join(inspect.signature(function).parameters)})"]
        except (TypeError, ValueError):
            return []
    prefixes = rf"\b{re.escape(package)}\.tensorrt\.|\b{re.escape(package)}\.|\btensorrt\."
    return [spelled(re.sub(prefixes, "", re.sub(r" object at 0x[0-9a-f]+", "", line))) for line in found]
