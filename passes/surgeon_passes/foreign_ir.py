"""Any pass of onnx_ir's protocol, by dotted path, as a step of a pipeline."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections import Counter
from typing import Any, ClassVar

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import BadOptionError, SurgeonError
from surgeon_passes.literals import literal
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.spec import build, split_spec
from surgeon_passes.walk import scopes


@dataclasses.dataclass(frozen=True)
class OnnxIrPass(Pass):
    """Run a pass written for onnx_ir: any class with its protocol, from any package, by dotted path.

    ``onnx_ir.passes.common.IdentityEliminationPass`` alone is enough as the text of a step; arguments of the class
    follow as options, written as Python literals. The pass decides what it does, and cannot be stopped half-way: the
    whole of it is one change, which names the nodes and initializers that disappeared and appeared. A functional
    pass, which returns another model, is taken over into the model at hand.
    """

    name: ClassVar[str] = "onnx-ir"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p onnx_ir.passes.common.IdentityEliminationPass -o out.onnx"

    path: str = option("", "The class: package.module.Class.")
    new_interface: bool = option(False, "Let it change the inputs and outputs of the model.")
    arguments: tuple[tuple[str, str], ...] = option((), "Arguments of the class, as Python literals.", rest=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "changes_interface", self.new_interface)
        if self.path:
            _class_at(self.path)

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Run the pass, unless no further change is allowed.

        Raises:
            BadOptionError: The class does not take these arguments.
            SurgeonError: The pass failed.
        """
        foreign = self._make()
        if log.exhausted:
            return
        before = _contents(model)
        try:
            result = foreign(model)
        except Exception as error:
            raise SurgeonError(f"{self.path} failed: {_cause(error)}", hint="the model may be half changed") from error
        if result.model is not model:
            take_over(model, result.model)
        after = _contents(model)
        removed, added = before - after, after - before
        if result.modified or removed or added:
            outputs = [value.name for value in model.graph.outputs]
            log.permit("foreign-pass", before=removed.elements(), after=added.elements(), boundary=outputs)

    def _make(self) -> ir.passes.PassBase:
        found = _class_at(self.path)
        values = {key: literal(text) for key, text in self.arguments}
        try:
            inspect.signature(found).bind(**values)
            return found(**values)
        except (TypeError, ValueError) as error:
            raise BadOptionError(
                f"{self.path} does not take these arguments: {error}", hint=_signature(found)
            ) from error


def from_spec(text: str) -> Pass:
    """A step from ``package.module.Class[:KEY=VALUE,...]``; a pass of ours by its path is made like any of ours.

    Raises:
        BadOptionError: It does not import, is no pass, or an option does not fit.
    """
    path, options = split_spec(text)
    found = _class_at(path)
    if issubclass(found, Pass):
        return build(found, options)
    return build(OnnxIrPass, {"path": path, **options})


def take_over(model: ir.Model, other: ir.Model) -> None:
    """Let ``model`` be what ``other`` is, without becoming another object.

    What stands beside a graph because onnx_ir cannot hold it (sparse initializers) is carried over by the graph's path
    where a copy has left it behind.
    """
    beside = {scope.path: scope.graph.meta for scope in scopes(model) if scope.graph.meta}
    for scope in scopes(other):
        for key, value in beside.get(scope.path, {}).items():
            scope.graph.meta.setdefault(key, value)
    model.graph = other.graph
    functions = dict(other.functions)
    model.functions.clear()
    model.functions.update(functions)
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(model, name, getattr(other, name))
    model.device_configurations = other.device_configurations
    metadata = dict(other.metadata_props)
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    model.meta.update(other.meta)


def _contents(model: ir.Model) -> Counter[str]:
    """How often each node and initializer occurs, by label, in every graph."""
    found: Counter[str] = Counter()
    for scope in scopes(model):
        found.update(scope.label(node) for node in scope.graph)
        prefix = f"{scope.path}/" if scope.path else ""
        found.update(prefix + name for name in scope.graph.initializers)
    return found


def _class_at(path: str) -> type[ir.passes.PassBase]:
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise BadOptionError(f"'{path}' is not the dotted path of a class", hint="write package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise BadOptionError(f"'{path}' cannot be imported: {error}", hint="is its package installed here?") from error
    except Exception as error:
        raise BadOptionError(f"'{path}' fails when it is imported: {_cause(error)}") from error
    found = getattr(module, name, None)
    if found is None:
        passes = [n for n, item in vars(module).items() if _is_pass(item)]
        raise BadOptionError(f"module {module_name} has no '{name}'", hint=did_you_mean(name, passes))
    if not _is_pass(found):
        raise BadOptionError(
            f"'{path}' is not a pass", hint="it must be a class that derives from onnx_ir.passes.PassBase"
        )
    checked: type[ir.passes.PassBase] = found
    return checked


def _is_pass(item: Any) -> bool:
    return isinstance(item, type) and issubclass(item, ir.passes.PassBase)


def _signature(found: type[Any]) -> str:
    try:
        return f"it takes {inspect.signature(found)}"
    except (TypeError, ValueError):
        return ""


def _cause(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())[:300].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
