"""Which tensors inside bodies can be shown in the main graph, and what has to be known to show them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import onnx_ir as ir

from surgeon_passes.foldable import is_random
from surgeon_passes.infer_shapes import best_types
from surgeon_passes.infer_types import Facts
from surgeon_passes.inner_tensor import Step, StepKind
from surgeon_passes.loop_shapes import certain, constant_trips, dims_of, first_scanned, loop_facts
from surgeon_passes.order import dependencies, sorted_nodes
from surgeon_passes.reads import holds_graphs
from surgeon_passes.walk import Scope, is_onnx_op, main_scope, title

_KINDS = {"Loop": StepKind.LOOP, "Scan": StepKind.SCAN, "If": StepKind.IF}
_CARRIED = frozenset(
    {
        ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16,
        ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
        ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64, ir.DataType.BOOL,
    }
)  # fmt: skip
"""Types that the operators which carry a tensor out of a body all take."""


@dataclasses.dataclass(frozen=True)
class SizeOf:
    """A dimension that is only known when the model runs: that of a value outside of all loops."""

    value: ir.Value
    axis: int


Dims = tuple[int | SizeOf | None, ...]
"""A shape that does not change while loops run; None where that is not certain."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A tensor that can be shown."""

    value: ir.Value
    producer: ir.Node
    """The node that computes it."""
    scope: Scope
    """The graph it is computed in."""
    steps: tuple[Step, ...]
    """The nodes that hold it, the outermost first."""
    tensor: str
    """What it is called."""
    node: str
    """What the node that computes it is called."""
    dtype: ir.DataType
    rank: int | None
    """None, outside of loops only, where it is not known."""
    dims: Dims | None
    """The shape it has in every iteration of every loop around it; None where it may have any."""
    proven: bool
    """Whether that shape is certain not to change."""
    order: int
    """Its place among all candidates."""

    @property
    def path(self) -> str:
        """What it is to be called in the main graph."""
        return "/".join((*(part for step in self.steps for part in step.parts), self.tensor))


@dataclasses.dataclass
class Owner:
    """A node whose bodies hold candidates."""

    node: ir.Node
    scope: Scope
    """The graph the node is in."""
    enclosed: bool
    """Whether what leaves it must have one shape whenever it is run: in a Loop or Scan, or a branch before opset 11."""
    bodies: list[Scope]
    """Its bodies."""


@dataclasses.dataclass
class Plan:
    """What to show."""

    owners: list[Owner] = dataclasses.field(default_factory=list)
    """Inner ones before those that hold them."""
    candidates: list[Candidate] = dataclasses.field(default_factory=list)
    """In the order of computation."""
    declined: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """What is not shown, and why."""
    facts: Facts = dataclasses.field(default_factory=dict)
    """What is known of values before anything is changed."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the caller wants to see."""

    iterations: int | None
    """How many iterations of each loop to keep; None for all."""
    limit: int
    """The most tensors."""
    skip: Collection[str]
    """Paths of nodes (``loop_1``) and of tensors (``loop_1/body/h``) that are left alone."""
    unproven: bool
    """Whether to show also what may change its shape from one iteration to the next."""


def plan_observation(model: ir.Model, wish: Wish, inlined: Collection[str] = ()) -> Plan:
    """Look through the bodies of a model, without changing it.

    Args:
        model: The model; local functions are left alone.
        wish: What to look for.
        inlined: Names of nodes that came out of local functions, as ``CALL/NODE``: so did their bodies, whose names
            begin alike, which need not be said again.
    """
    planner = _Planner(model, wish, inlined)
    planner.walk(_Place(main_scope(model), (), fixed=False))
    if planner.beyond:
        planner.plan.declined.append((f"{planner.beyond} more tensors", "there are more than the limit"))
    return planner.plan


@dataclasses.dataclass(frozen=True)
class _Place:
    """A graph on the walk."""

    scope: Scope
    steps: tuple[Step, ...]
    fixed: bool
    """Whether all that leaves it must have one shape whenever it is run: in a loop, or in a branch before opset 11."""

    def named(self, name: str) -> str:
        """The path of something in this graph."""
        return "/".join((*(part for step in self.steps for part in step.parts), name))


class _Planner:
    def __init__(self, model: ir.Model, wish: Wish, inlined: Collection[str]) -> None:
        self._model, self._wish, self._skip, self._inlined = model, wish, frozenset(wish.skip), frozenset(inlined)
        self.plan = Plan(facts=loop_facts(model) if _has_bodies(model) else {})
        self.beyond = 0
        self._visible: list[dict[str, SizeOf]] = []  # symbols that can be read in the graphs outside of all loops
        self._declared_types: Facts | None = None

    def walk(self, place: _Place) -> None:
        """Visit the nodes of a graph in order; calls itself for bodies, which nest a few levels deep at most."""
        graph = place.scope.graph
        if not place.fixed:
            self._visible.append({})
            for value in (*graph.inputs, *graph.initializers.values()):
                self._note_sizes(value)
        for node in sorted_nodes(dependencies(graph)):
            if holds_graphs(node):
                self._bodies(node, place)
            if place.steps:
                self._outputs(node, place)
            if not place.fixed:
                for value in node.outputs:
                    self._note_sizes(value)
        if not place.fixed:
            self._visible.pop()

    def _bodies(self, node: ir.Node, place: _Place) -> None:
        called = self._short(title(node), place)
        label = place.named(called)
        if label in self._skip:
            return
        reason = _objection(node, place.scope, place.fixed) or self._uneven(node, place)
        if reason:
            self.plan.declined.append((label, reason))
            return
        kind = _KINDS[node.op_type]
        bodies = place.scope.bodies(node)
        prefix = f"{place.scope.label(node)}/"
        for body in bodies:
            step = Step(kind, called, body.path.removeprefix(prefix))
            fixed = place.fixed or kind.iterates or place.scope.opset < 11
            self.walk(_Place(body, (*place.steps, step), fixed))
        self.plan.owners.append(Owner(node, place.scope, place.fixed, bodies))

    def _uneven(self, node: ir.Node, place: _Place) -> str:
        iterates = place.fixed and _KINDS[node.op_type].iterates
        if not iterates or self._wish.iterations is not None or constant_trips(node, self.plan.facts) is not None:
            return ""
        return "a loop around it may run it for another number of iterations each time"

    def _short(self, name: str, place: _Place) -> str:
        """A name without what it shares with that of the inlined node that holds it."""
        if not place.steps or place.steps[0].node not in self._inlined:
            return name
        shared = place.steps[0].node
        while "/" in shared:
            shared = shared.rpartition("/")[0]
            if name.startswith(f"{shared}/"):
                return name.removeprefix(f"{shared}/")
        return name

    def _outputs(self, node: ir.Node, place: _Place) -> None:
        if is_onnx_op(node, "Constant") or _hands_on_condition(node, place.scope):
            return
        for value in node.outputs:
            if not value.name or not (value.uses() or value.is_graph_output()) or _is_shown(value, place.scope):
                continue
            called = self._short(value.name, place)
            if place.named(called) in self._skip:
                continue
            found = self._candidate(value, node, called, place)
            if isinstance(found, str):
                self.plan.declined.append((place.named(called), found))
            elif len(self.plan.candidates) < self._wish.limit:
                self.plan.candidates.append(found)
            else:
                self.beyond += 1

    def _candidate(self, value: ir.Value, node: ir.Node, called: str, place: _Place) -> Candidate | str:
        kind, shape = self._type_of(value)
        problem = _untransportable(node, kind, place.scope.opset)
        if problem or not isinstance(kind, ir.TensorType):
            return problem
        dims: Dims | None = None
        proven = True
        if place.fixed:
            if shape is None:
                return "its number of dimensions is not known"
            dims = tuple(self._resolve(dim) for dim in shape)
            proven = None not in dims
            if not proven and not (self._wish.unproven and _is_directly_in_loop(place)):
                if not any(step.kind.iterates for step in place.steps):
                    return "its shape is not known, and before opset 11 branches must agree in it"
                return "its shape may change from one iteration to the next"
        rank = None if shape is None else len(shape)
        order = len(self.plan.candidates)
        return Candidate(
            value,
            node,
            place.scope,
            place.steps,
            called,
            self._short(title(node), place),
            kind.dtype,
            rank,
            dims,
            proven,
            order,
        )

    def _type_of(self, value: ir.Value) -> tuple[ir.TypeProtocol | None, tuple[int | str | None, ...] | None]:
        fact = certain(value, self.plan.facts)
        if fact is not None:
            return fact.type, dims_of(fact)
        if self._declared_types is None:
            # A wrong declaration of a type, unlike one of a shape, keeps a model from loading: it can be believed.
            self._declared_types = best_types(self._model)
        found = self._declared_types.get(value)
        return (value.type if found is None else found.type), None

    def _note_sizes(self, value: ir.Value) -> None:
        """Note where the symbols in the shape of a value outside of all loops can be read."""
        fact = certain(value, self.plan.facts) if value.name else None
        for axis, dim in enumerate(dims_of(fact) or ()):
            if isinstance(dim, str):
                self._visible[-1].setdefault(dim, SizeOf(value, axis))

    def _resolve(self, dim: int | str | None) -> int | SizeOf | None:
        if dim is None or isinstance(dim, int):
            return dim
        return next((seen[dim] for seen in self._visible if dim in seen), None)


def _has_bodies(model: ir.Model) -> bool:
    return any(holds_graphs(node) for node in model.graph)


def _is_directly_in_loop(place: _Place) -> bool:
    """Whether the one loop around a graph is what holds it, so that nothing else depends on shapes in it."""
    return place.steps[-1].kind.iterates and sum(step.kind.iterates for step in place.steps) == 1


def _untransportable(node: ir.Node, kind: ir.TypeProtocol | None, opset: int) -> str:
    """Why no engine can be asked to carry an output of ``node`` out of a body; empty if one can."""
    if is_random(node):
        return "it is drawn at random"
    if kind is None:
        return "its type is not known"
    if not isinstance(kind, ir.TensorType):
        return "it is no tensor"
    if kind.dtype not in _CARRIED:
        return f"engines do not carry {kind.dtype.name} out of a body"
    if kind.dtype == ir.DataType.BFLOAT16 and opset < 13:
        return f"opset {opset} does not carry BFLOAT16 out of a body"
    return ""


def _objection(node: ir.Node, scope: Scope, fixed: bool) -> str:
    """Why the bodies of a node are left alone; empty if they are not."""
    if not is_onnx_op(node, *_KINDS):
        return f"nothing may be added to the bodies of {node.op_type}"
    if any(attr.is_ref() for attr in node.attributes.values()):
        return "an attribute of it refers to one of a function"
    if node.op_type == "Scan" and scope.opset < 9:
        return "the Scan of opset 8 has a batch dimension of its own"
    if scope.opset < 8 and (fixed or node.op_type == "If"):
        return f"opset {scope.opset} has no Expand to fill what is not computed"
    names = ("then_branch", "else_branch") if node.op_type == "If" else ("body",)
    bodies = [node.attributes[name].as_graph() for name in names if name in node.attributes]
    if len(bodies) < len(names):
        return "it lacks a body"
    extra = 1 if node.op_type == "Loop" else 0
    if any(len(body.outputs) < len(node.outputs) + extra for body in bodies):
        return "its bodies have fewer outputs than the node"
    if len({len(body.outputs) for body in bodies}) > 1:
        return "its branches have different numbers of outputs"
    return ""


def _is_shown(value: ir.Value, scope: Scope) -> bool:
    """Whether a value is visible outside as it is: an output of a branch, or stacked by the loop itself."""
    owner = scope.owner
    if owner is None or not value.is_graph_output():
        return False
    outputs = scope.graph.outputs
    if is_onnx_op(owner, "If"):
        return True
    first = first_scanned(owner) + (1 if is_onnx_op(owner, "Loop") else 0)
    return any(value is shown for shown in outputs[first:])


def _hands_on_condition(node: ir.Node, scope: Scope) -> bool:
    """Whether a node only gives the condition of its loop on: no news, and OpenVINO cannot show it."""
    heads = scope.graph.inputs
    own_loop = scope.owner is not None and is_onnx_op(scope.owner, "Loop") and len(heads) > 1
    return own_loop and is_onnx_op(node, "Identity") and node.inputs[0] is heads[1]
