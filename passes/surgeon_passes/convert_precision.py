"""Convert nodes to float16 or bfloat16, all of them or a named set, with Casts at the borders only."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx
import onnx_ir as ir

from surgeon_passes.cast_borders import CastBorders, Plan
from surgeon_passes.conditions import dangling_values
from surgeon_passes.constants import constant_of
from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import BadModelError, BadOptionError, RefusalError
from surgeon_passes.low_precision import LowType, RangeLoss, range_loss
from surgeon_passes.operator_types import Signatures
from surgeon_passes.precision_slots import FLOAT, Kept, Lowering, Question, lowering_of
from surgeon_passes.select_nodes import matching
from surgeon_passes.trusted_shapes import trusted_shapes
from surgeon_passes.walk import Scope, main_scope, scopes_in

_POLICIES = ("keep", "saturate", "refuse")


@dataclasses.dataclass(frozen=True)
class ConvertPrecision(Pass):
    """Convert float32 nodes to float16 or bfloat16: all, or those that ``nodes`` names, except those kept.

    Every input and output of a node that its operator's definition lets be the low type becomes it; the rest stays
    float32 (scales of Resize, statistics of LayerNormalization, scales of Quantize/DequantizeLinear from opset 23).
    Casts stand only where a converted node meets one that is not: one for each value and type, shared by all readers,
    bodies of If, Loop and Scan included. A Cast to float32 that is converted becomes a Cast to the low type.
    Constants are converted once, rounded to nearest even from their float32 values; one that is read in both types
    exists twice, the second named ``<name>_fp16`` or ``<name>_bf16``.

    A node stays float32, and is reported with the reason, if its operator has no such form at the model's opset, if the
    type of one of its values is not known, if it is of another domain or calls a local function (inline-functions
    first), if it handles sequences, if it draws random numbers (they would be others), and if one of its constants is
    out of range (see ``overflow``). Whether activations stay in range no look at the model can tell: run it.
    float64, integers and nodes that are low already are not touched; bodies of local functions are not either.

    With ``keep_io`` false, every float32 input and output of the model becomes the low type.
    """

    name: ClassVar[str] = "convert-precision"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p 'convert-precision:keep=/head/*' -o model_fp16.onnx"
    changes_values: ClassVar[bool] = True

    to: str = option("float16", "The type to convert to: float16 or bfloat16.")
    nodes: tuple[str, ...] = option((), "Names or patterns of the nodes to convert; all if none is given.")
    keep: tuple[str, ...] = option((), "Names or patterns of nodes that stay float32, even if nodes names them.")
    keep_ops: tuple[str, ...] = option((), "Operator types that stay float32, such as Softmax.")
    keep_io: bool = option(True, "Keep the types of the model's inputs and outputs.")
    overflow: str = option(
        "keep",
        "What to do about a constant with values that the type cannot hold (too large, or all of it too small): keep "
        "its node in float32, saturate (the nearest finite value that is not zero), or refuse to convert the model.",
    )

    def __post_init__(self) -> None:
        if self.to not in [kind.value for kind in LowType]:
            raise BadOptionError(f"{self.name}:to={self.to} is no type to convert to", hint="float16 or bfloat16")
        if self.overflow not in _POLICIES:
            raise BadOptionError(f"{self.name}:overflow={self.overflow} does not exist", hint=", ".join(_POLICIES))
        # Whether the interface changes depends on an option, so the class attribute is overlaid in the instance.
        object.__setattr__(self, "changes_interface", not self.keep_io)

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Decide for every node, ask for each conversion, then carry all granted ones out at once.

        Raises:
            BadOptionError: ``nodes`` or ``keep`` match nothing, or ``keep_ops`` names no operator.
            RefusalError: The opset has no Cast to the type, or a constant is out of range with ``overflow=refuse``.
        """
        decision = _Decision(self, model)
        plan = Plan(decision.low)
        lowerings = [(scope, node, decision.of(scope, node, log)) for scope, node in decision.candidates()]
        for scope, node, lowering in lowerings:
            if lowering is None:
                continue
            boundary = [value.name for value in node.outputs if value.name]
            own = scope.label(node) if not node.name else node.name
            if log.permit(f"to-{self.to}", before=[own], after=[own], boundary=boundary, where=scope.path):
                plan.lowerings[node] = lowering
        if not self.keep_io:
            decision.interface(plan, log)
        if plan.lowerings or plan.inputs or plan.outputs:
            CastBorders(model, plan, decision.type_of, decision.loss_of, decision.signatures, decision.pinned).apply()


class _Decision:
    """Decides node by node, without changing anything."""

    def __init__(self, options: ConvertPrecision, model: ir.Model) -> None:
        self.options, self.model, self.low = options, model, LowType(options.to)
        self.signatures = Signatures()
        self.scopes = list(scopes_in(main_scope(model)))
        self._check_cast()
        self._check_operators()
        self._chosen = self._choose()
        self._shapes = trusted_shapes(model)
        self._types: dict[ir.Value, ir.TypeProtocol | None] = {}
        self._losses: dict[int, tuple[ir.TensorProtocol, RangeLoss]] = {}
        self.pinned = frozenset(value.name for value in dangling_values(model) if value.name)

    def _check_cast(self) -> None:
        opset = self.scopes[0].opset
        cast = self.signatures.get("Cast", opset)
        if opset >= 6 and cast is not None and cast.allows("T2", self.low.kind):
            return
        raise RefusalError(
            f"opset {opset} has no Cast to {self.low.value}",
            where="convert-precision",
            hint=f"convert-opset to {6 if self.low is LowType.FLOAT16 else 13} or later first",
        )

    def _check_operators(self) -> None:
        there = {node.op_type for scope in self.scopes for node in scope.graph}
        for op_type in self.options.keep_ops:
            if op_type not in there and not onnx.defs.has(op_type):
                raise BadOptionError(f"keep_ops names '{op_type}', which is no operator", hint="write it as ONNX does")

    def _choose(self) -> list[tuple[Scope, ir.Node]]:
        """The nodes that the options choose; a pattern may mean a name, or a name with the path of its graph."""
        nodes = [(scope, node) for scope in self.scopes for node in scope.graph]
        labels = [scope.label(node) for scope, node in nodes]
        names = labels + [node.name or "" for _, node in nodes]
        wanted = {i % len(nodes) for i in matching(self.options.nodes, names, "node")}
        kept = {i % len(nodes) for i in matching(self.options.keep, names, "node")}
        return [
            pair
            for i, pair in enumerate(nodes)
            if i not in kept
            and (i in wanted or not self.options.nodes)
            and pair[1].op_type not in self.options.keep_ops
        ]

    def candidates(self) -> list[tuple[Scope, ir.Node]]:
        """The nodes that the options choose, outer graphs first, in order."""
        return self._chosen

    def type_of(self, value: ir.Value) -> ir.TypeProtocol | None:
        """The type of a value before anything was changed: as inference finds it, else as declared."""
        if value not in self._types:
            dtype = self._shapes.dtype(value)
            self._types[value] = value.type if dtype is None else ir.TensorType(dtype)
        return self._types[value]

    def loss_of(self, tensor: ir.TensorProtocol) -> RangeLoss:
        """What a constant would lose; each is read once."""
        if id(tensor) not in self._losses:
            try:
                self._losses[id(tensor)] = (tensor, range_loss(tensor, self.low))
            except (ValueError, OSError) as error:
                what = f"the data of weight '{tensor.name}' cannot be read"
                raise BadModelError(
                    what, where=self.options.name, hint="does its file belong to this model?"
                ) from error
        return self._losses[id(tensor)][1]

    def of(self, scope: Scope, node: ir.Node, log: ChangeLog) -> Lowering | None:
        """What of a node becomes low; None, and a word in the log, if it stays as it is."""
        kept = self._foreign(node)
        signature = self.signatures.get(node.op_type, scope.opset)
        if kept is None and signature is None:
            kept = Kept(f"{node.op_type} does not exist at opset {scope.opset}")
        if kept is None and signature is not None:
            question = Question(
                node,
                scope,
                signature,
                self.signatures,
                self.low,
                self.type_of,
                self.loss_of,
                self.options.overflow == "saturate",
                self.pinned,
            )
            answer = lowering_of(question)
            if isinstance(answer, Lowering):
                return answer
            kept = answer
        if kept is not None and kept.reason:
            self._report(scope, node, kept, log)
        return None

    def _foreign(self, node: ir.Node) -> Kept | None:
        touches = any(v is not None and self.type_of(v) == FLOAT for v in [*node.inputs, *node.outputs])
        if (node.domain, node.op_type, node.overload) in self.model.functions:
            return Kept("it calls a local function; inline-functions first" if touches else "")
        if node.domain not in ("", "ai.onnx"):
            return Kept(f"what types operators of domain '{node.domain}' take is not known" if touches else "")
        return None

    def _report(self, scope: Scope, node: ir.Node, kept: Kept, log: ChangeLog) -> None:
        if kept.out_of_range and self.options.overflow == "refuse":
            raise RefusalError(
                kept.reason, where=scope.label(node), hint="overflow=keep leaves the node in float32, saturate clips"
            )
        log.decline(node.name or scope.label(node), kept.reason, where=scope.path)

    def interface(self, plan: Plan, log: ChangeLog) -> None:
        """Retype the model's float32 inputs and outputs, each a change of its own."""
        kind = f"to-{self.low.value}"
        for value in self.model.graph.inputs:
            if self.type_of(value) != FLOAT:
                continue
            problem = self._fixed(value)
            if problem:
                log.decline(value.name, problem)
            elif log.permit(f"input-{kind}", before=[value.name], after=[value.name], boundary=[value.name]):
                plan.inputs.add(value)
        for value in dict.fromkeys(self.model.graph.outputs):
            if self.type_of(value) != FLOAT:
                continue
            problem = self._fixed(value)
            if value.is_graph_input():
                # One name cannot have two types, so an output that is an input follows it.
                plan.outputs.update({value} & plan.inputs)
            elif problem or constant_of(value) is not None:
                log.decline(value.name, problem or "the output is a constant")
            elif log.permit(f"output-{kind}", before=[value.name], after=[value.name], boundary=[value.name]):
                plan.outputs.add(value)

    def _fixed(self, value: ir.Value) -> str:
        """Why an input or output of the model cannot be retyped; empty if it can."""
        if value.name in self.pinned:
            return "a body refers to it by name only"
        if value.is_graph_input() and value.const_value is not None:
            loss = self.loss_of(value.const_value)
            if (loss.above or loss.below or loss.vanishes) and self.options.overflow != "saturate":
                return f"its default is out of the range of {self.low.value}"
        return ""
