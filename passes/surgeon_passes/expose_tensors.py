"""Make tensors in the middle of a model outputs of it, to look at them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.build_piece import has_other_type
from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import BadOptionError
from surgeon_passes.infer_shapes import best_types
from surgeon_passes.infer_types import AllComputed, fact_of, infer_types
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.select_nodes import NamePattern
from surgeon_passes.settle_shapes import settle, without_made_up
from surgeon_passes.walk import scopes


@dataclasses.dataclass(frozen=True)
class ExposeTensors(Pass):
    """Add tensors of the main graph to its outputs, after those it has, in the order of computation.

    Chosen by name or pattern, by the operators that compute them, or all of them. The new outputs get the type and
    shape that inference finds; a tensor whose type is not known is left out, and said so. Tensors that are outputs
    already, inputs and constants stay as they are.

    Refuses tensors inside the bodies of If, Loop and Scan and inside local functions: they exist many times or not at
    all in a run.
    """

    name: ClassVar[str] = "expose-tensors"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p 'expose-tensors:ops=Softmax;Gelu' -o open.onnx"
    changes_interface: ClassVar[bool] = True

    names: tuple[str, ...] = option((), "names of tensors, patterns with * and ?, or regular expressions after re:")
    ops: tuple[str, ...] = option((), "operators whose outputs are exposed, as Softmax or com.microsoft::Gelu")
    all: bool = option(False, "expose every tensor that a node of the main graph computes")

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Add the outputs: one change for each.

        Raises:
            BadOptionError: Nothing is asked for, a name or operator does not occur, or is inside a body or function.
        """
        if not (self.names or self.ops or self.all):
            raise BadOptionError("expose-tensors needs to know which", hint="give names, ops or all=true")
        chosen = self._chosen(model)
        if not chosen:
            return
        certain = infer_types(model, forget=AllComputed(), only=chosen)
        facts = {value: settle(fact_of(value, {}), certain.get(value)).fact for value in chosen}
        if any(_incomplete(facts[value]) for value in chosen):
            best = best_types(model)
            facts.update({value: settle(facts[value], best.get(value)).fact for value in chosen})
        for value in chosen:
            fact = without_made_up(facts[value])
            unknown = _unknown(value, fact)
            if unknown:
                log.decline(value.name, f"its {unknown} is not known, so it cannot be an output")
                continue
            if not log.permit("expose", before=[value.name], after=[value.name], boundary=[value.name]):
                return
            value.type, value.shape = fact.type, fact.shape
            model.graph.outputs.append(value)

    def _chosen(self, model: ir.Model) -> list[ir.Value]:
        """The tensors asked for that are not outputs yet, in the order of the nodes."""
        computed = [value for node in model.graph for value in node.outputs if value.name]
        wanted = set(computed) if self.all else set()
        for text in self.names:
            pattern = NamePattern(text)
            found = [value for value in computed if value.name == text]
            found = found or [value for value in computed if pattern.matches(value.name or "")]
            if not found:
                raise _not_found(model, text, [value.name or "" for value in computed])
            wanted.update(found)
        for operator in self.ops:
            wanted.update(_of_operator(model, operator))
        # A Constant is as good as an initializer: nobody needs to see it computed.
        return [
            value
            for value in computed
            if value in wanted and not value.is_graph_output() and not (self.all and _is_constant(value))
        ]


def _incomplete(fact: ir.TypeAndShape) -> bool:
    if fact.type is None or (fact.shape is None and isinstance(fact.type, ir.TensorType)):
        return True
    return any(not isinstance(dim, int) and dim.value is None for dim in without_made_up(fact).shape or ())


def _unknown(value: ir.Value, fact: ir.TypeAndShape) -> str:
    if fact.type is None:
        return "" if has_other_type(value) else "type"
    # onnx's checker wants the number of dimensions of every output.
    return "number of dimensions" if fact.shape is None and isinstance(fact.type, ir.TensorType) else ""


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant" and producer.domain == ""


def _operator_name(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _of_operator(model: ir.Model, operator: str) -> list[ir.Value]:
    name = operator.removeprefix("ai.onnx::")
    found = [value for node in model.graph if _operator_name(node) == name for value in node.outputs if value.name]
    if not found:
        for scope in scopes(model):
            if any(_operator_name(node) == name for node in scope.graph):
                raise _inside(f"operator '{operator}' occurs", scope.path)
        hint = did_you_mean(operator, sorted({_operator_name(node) for node in model.graph}))
        raise BadOptionError(f"expose-tensors: the main graph has no operator '{operator}'", hint=hint)
    return found


def _not_found(model: ir.Model, text: str, computed: Sequence[str]) -> BadOptionError:
    pattern = NamePattern(text)
    given = [value.name for value in (*model.graph.inputs, *model.graph.initializers.values())]
    if any(name is not None and pattern.matches(name) for name in given):
        return BadOptionError(f"expose-tensors: '{text}' is an input or a constant, which no node computes")
    for scope in scopes(model):
        names = (value.name for node in scope.graph for value in node.outputs)
        if scope.path and any(name and pattern.matches(name) for name in names):
            return _inside(f"tensor '{text}' is", scope.path)
    return BadOptionError(f"expose-tensors: no tensor matches '{text}'", hint=did_you_mean(text, computed))


def _inside(what: str, path: str) -> BadOptionError:
    inline = ", or inline the functions first (inline-functions)" if path.startswith("function:") else ""
    return BadOptionError(
        f"expose-tensors: {what} only inside '{path}', which cannot be an output of the model",
        hint=f"extract that graph to look into it (extract:inside={path}){inline}",
    )
