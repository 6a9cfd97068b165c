"""The rules of the house: imports go down only and never in a circle, vendors are wrapped, files stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"surgeon_passes": ROOT / "passes", "surgeon_debug": ROOT / "debug", "surgeon": ROOT / "surgeon"}
BELOW = {
    "surgeon_passes": {"surgeon_passes"},
    "surgeon_debug": {"surgeon_passes", "surgeon_debug"},
    "surgeon": {"surgeon_passes", "surgeon_debug", "surgeon"},
}
VENDORS = {"tensorrt", "openvino", "dask", "distributed", "polygraphy", "onnx_graphsurgeon"}
HEAVY = {"numpy", "onnx", "onnx_ir", "onnxruntime", "ml_dtypes", "rich", "sympy"}
MODULES = {
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
    for room, root in ROOMS.items()
    for path in sorted((root / room).rglob("*.py"))
}


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """(module, at the top of the file) of every import, those in functions and for type checking included."""
    tree = ast.parse(path.read_text())
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module or "", id(node) not in inner))
            found += [(f"{node.module}.{alias.name}", id(node) not in inner) for alias in node.names]
    return found


def test_there_are_modules_to_check() -> None:
    assert {"surgeon_passes.graph", "surgeon.cli", "surgeon_debug.compare"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_imports_only_go_down(name: str) -> None:
    room = name.split(".")[0]
    for module, _ in imports_of(MODULES[name]):
        top = module.split(".")[0]
        if top in ROOMS:
            assert top in BELOW[room], f"{name} imports {module}, which is above it"


def test_no_circles() -> None:
    edges = {
        name: {
            m for m, _ in imports_of(path) if m in MODULES and m != name and not (name == "surgeon" or m == "surgeon")
        }
        for name, path in MODULES.items()
    }
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> None:
        assert name not in path, "circle: " + " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for target in sorted(edges[name]):
            visit(target)
        path.pop()
        done.add(name)

    for name in edges:
        visit(name)


def test_a_vendor_is_imported_in_one_file_only_and_inside_a_function() -> None:
    users: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        for module, at_top in imports_of(path):
            top = module.split(".")[0]
            if top in VENDORS:
                users.setdefault(top, set()).add(name)
                assert not at_top, f"{name} imports {module} at the top"
    assert {vendor: sorted(names) for vendor, names in users.items() if len(names) > 1} == {}


@pytest.mark.parametrize(
    "name", [n for n in MODULES if n in ("surgeon", "surgeon.cli") or n.startswith("surgeon.commands")]
)
def test_the_command_line_imports_nothing_heavy_at_the_top(name: str) -> None:
    for module, at_top in imports_of(MODULES[name]):
        top = module.split(".")[0]
        heavy = top in HEAVY or top in ("surgeon_passes", "surgeon_debug")
        # The lazy face names its homes for type checkers only.
        assert not (at_top and heavy) or name == "surgeon", f"{name} imports {module} at the top"


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_stay_small(name: str) -> None:
    text = MODULES[name].read_text()
    assert text.count("\n") <= 350, f"{name} is too long"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length < 50, f"{name}.{node.name} has {length} lines"


@pytest.mark.parametrize("name", MODULES)
def test_no_grab_bags_and_no_printing_below_the_roof(name: str) -> None:
    assert not {"utils", "helpers", "misc", "common"} & set(name.split("."))
    if not name.startswith("surgeon."):
        calls = [node.func for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Call)]
        assert not any(isinstance(function, ast.Name) and function.id == "print" for function in calls)
