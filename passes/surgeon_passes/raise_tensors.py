"""Carry chosen tensors out of the bodies that compute them, level by level, into the main graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir

from surgeon_passes.carry_out import NodeMaker, declared
from surgeon_passes.inner_tensor import InnerTensor
from surgeon_passes.loop_shapes import constant_trips
from surgeon_passes.names import FreshNames
from surgeon_passes.observe_plan import Candidate, Dims, Owner, Plan
from surgeon_passes.walk import Scope, is_onnx_op, title


@dataclasses.dataclass
class _Passenger:
    """A tensor on its way out, as it is at the level it has reached."""

    candidate: Candidate
    name: str
    """What it will be called in the main graph."""
    value: ir.Value
    rank: int | None
    dims: Dims | None
    """Its shape, known if a loop is around this level."""
    whole: str = ""
    padded: bool = False
    flat: bool = False

    @property
    def dtype(self) -> ir.DataType:
        return self.candidate.dtype


class TensorRaiser:
    """Changes a model so that planned tensors can be seen in its main graph.

    Args:
        names: The names of the model.
        plan: What to show.
        iterations: How many iterations of each loop to keep; None for all.
    """

    def __init__(self, names: FreshNames, plan: Plan, iterations: int | None) -> None:
        self._names, self._plan, self._iterations = names, plan, iterations
        self._levels: dict[ir.Graph, list[_Passenger]] = {}
        self.tensors: list[tuple[InnerTensor, ir.Node]] = []
        """What can be seen now, and the node of the main graph it comes out of; filled by :meth:`run`."""
        self.carriers: set[str] = set()
        """Main-graph tensors that only carry others."""

    def run(self) -> None:
        """Carry all out, from the innermost bodies outwards."""
        for candidate in self._plan.candidates:
            name = self._names.value(candidate.path)
            passenger = _Passenger(candidate, name, candidate.value, candidate.rank, candidate.dims)
            _declare(candidate)
            self._levels.setdefault(candidate.scope.graph, []).append(passenger)
        for owner in self._plan.owners:
            aboard = [self._levels.pop(body.graph, []) for body in owner.bodies]
            if not any(aboard):
                continue
            self._complete_outputs(owner)
            if is_onnx_op(owner.node, "If"):
                self._out_of_branches(owner, aboard)
            else:
                self._out_of_loop(owner, aboard[0])
            passengers = [each for group in aboard for each in group]
            if owner.scope.owner is None:
                self.tensors += [(_seen(each), owner.node) for each in passengers]
            else:
                self._levels.setdefault(owner.scope.graph, []).extend(passengers)

    def _complete_outputs(self, owner: Owner) -> None:
        """Add the last outputs of a node if they were left out, so that new ones come in their place."""
        there = len(owner.bodies[0].graph.outputs) - (1 if is_onnx_op(owner.node, "Loop") else 0)
        missing = there - len(owner.node.outputs)
        _new_outputs(owner.node, [self._names.value(f"{title(owner.node)}/unused") for _ in range(missing)])

    def _out_of_loop(self, owner: Owner, aboard: list[_Passenger]) -> None:
        """Stack over the iterations by more outputs of the body, then keep the first rows."""
        trips, keep = constant_trips(owner.node, self._plan.facts), self._iterations
        pads = owner.enclosed and trips is None
        cuts = keep is not None and (trips is None or trips > keep)
        body = self._maker(owner.bodies[0])
        for each in aboard:
            self._add_output(owner.bodies[0].graph, body, each.value)
        owner.bodies[0].graph.extend(body.nodes)
        _lengthen(owner.node, "scan_output_axes", len(aboard))
        _lengthen(owner.node, "scan_output_directions", len(aboard))
        around = self._maker(owner.scope)
        finals = [self._name_outside(owner, each) for each in aboard]
        raw = [
            self._names.value(f"{each.name}/all") if cuts else name for each, name in zip(aboard, finals, strict=True)
        ]
        for each, name, value in zip(aboard, finals, _new_outputs(owner.node, raw), strict=True):
            dims = each.dims or ()
            value.type, value.shape = ir.TensorType(each.dtype), ir.Shape([trips, *declared(dims)])
            rows = trips if keep is None else keep if trips is None else min(trips, keep)
            each.value = value
            if cuts and keep is not None:
                each.value = around.slice(
                    value, [keep], [rows if trips else None, *declared(dims)], name="" if pads else name
                )
                each.whole = value.name or ""
            if pads and rows is not None:
                each.value = around.padded(each.value, rows, dims, name)
            each.padded = each.padded or pads
            each.rank = 1 + len(dims)
            each.dims = (rows, *dims) if owner.enclosed and rows is not None else None
        self._insert_after(owner, around, finals + raw)

    def _out_of_branches(self, owner: Owner, aboard: list[list[_Passenger]]) -> None:
        """More outputs of both branches: the tensor of the one, and what stands for it in the other."""
        makers = [self._maker(body) for body in owner.bodies]
        for taken, group in enumerate(aboard):
            for each in group:
                if each.rank is None or (each.rank == 0 and each.dims is None):
                    each.value, each.rank, each.flat = makers[taken].flatten(each.value), 1, True
                for i, (body, maker) in enumerate(zip(owner.bodies, makers, strict=True)):
                    self._add_output(body.graph, maker, each.value if i == taken else _stand_in(maker, each))
        for body, maker in zip(owner.bodies, makers, strict=True):
            body.graph.extend(maker.nodes)
        passengers = [each for group in aboard for each in group]
        names = [self._name_outside(owner, each) for each in passengers]
        for each, value in zip(passengers, _new_outputs(owner.node, names), strict=True):
            value.type = ir.TensorType(each.dtype)
            value.shape = ir.Shape([None] * (each.rank or 0) if each.dims is None else declared(each.dims))
            each.value = value

    def _maker(self, scope: Scope) -> NodeMaker:
        base = f"{scope.path}/observed" if scope.path else "observed"
        return NodeMaker(self._names, scope.opset, base)

    def _name_outside(self, owner: Owner, passenger: _Passenger) -> str:
        """The name of a tensor beyond ``owner``: the final one in the main graph."""
        return passenger.name if owner.scope.owner is None else self._names.value(f"{passenger.name}/out")

    def _add_output(self, graph: ir.Graph, maker: NodeMaker, value: ir.Value) -> None:
        if value.is_graph_output():
            # Not every engine takes one value for two outputs.
            dims = None if value.shape is None else [d if isinstance(d, int) else None for d in value.shape]
            assert value.dtype is not None
            value = maker.make("Identity", [value], value.dtype, dims)
        graph.outputs.append(value)

    def _insert_after(self, owner: Owner, maker: NodeMaker, own: Sequence[str]) -> None:
        graph = owner.node.graph
        assert graph is not None
        graph.insert_after(owner.node, maker.nodes)
        if owner.scope.owner is None:
            finals = set(own[: len(own) // 2])
            made = {value.name or "" for node in maker.nodes for value in node.outputs}
            self.carriers |= (made | set(own)) - finals


def _declare(candidate: Candidate) -> None:
    """Outputs of bodies have a type, and an engine makes an empty stack of the shape they declare."""
    candidate.value.type = ir.TensorType(candidate.dtype)
    if candidate.dims is not None:
        candidate.value.shape = ir.Shape(declared(candidate.dims))
    elif candidate.rank is None or candidate.value.shape is None or len(candidate.value.shape) != candidate.rank:
        candidate.value.shape = None if candidate.rank is None else ir.Shape([None] * candidate.rank)


def _stand_in(maker: NodeMaker, passenger: _Passenger) -> ir.Value:
    """What the branch that does not compute a tensor gives for it: in a loop, where all must be of one shape, zeros."""
    if passenger.dims is not None:
        return maker.zeros(passenger.dtype, passenger.dims)
    return maker.nothing(passenger.dtype, passenger.rank or 1)


def _new_outputs(node: ir.Node, names: Sequence[str]) -> list[ir.Value]:
    first = len(node.outputs)
    node.resize_outputs(first + len(names))
    made = list(node.outputs[first:])
    for value, name in zip(made, names, strict=True):
        value.name = name
    return made


def _lengthen(node: ir.Node, attribute: str, count: int) -> None:
    """Say of more outputs of a Scan what is the default: stacked along the first axis, forwards."""
    attr = node.attributes.get(attribute)
    if attr is not None:
        node.attributes[attribute] = ir.AttrInt64s(attribute, [*attr.as_ints(), *[0] * count])


def _seen(passenger: _Passenger) -> InnerTensor:
    candidate = passenger.candidate
    return InnerTensor(
        name=passenger.name,
        steps=candidate.steps,
        tensor=candidate.tensor,
        node=candidate.node,
        op_type=candidate.producer.op_type,
        order=candidate.order,
        whole=passenger.whole,
        padded=passenger.padded,
        proven=candidate.proven,
        flat=passenger.flat,
    )
