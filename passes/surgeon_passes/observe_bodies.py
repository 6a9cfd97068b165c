"""Show the tensors inside If, Loop and Scan bodies and local functions as tensors of the main graph."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog
from surgeon_passes.errors import BadOptionError
from surgeon_passes.inline_functions import InlineFunctions
from surgeon_passes.inner_tensor import InnerTensor, Step, StepKind
from surgeon_passes.names import FreshNames
from surgeon_passes.observe_plan import Wish, plan_observation
from surgeon_passes.raise_tensors import TensorRaiser
from surgeon_passes.walk import is_onnx_op, title

DEFAULT_ITERATIONS = 8
DEFAULT_LIMIT = 1000


@dataclasses.dataclass(frozen=True)
class Observed:
    """A model whose inner tensors can be seen."""

    model: ir.Model
    """The model that was given, changed."""
    tensors: tuple[InnerTensor, ...]
    """The new tensors of the main graph, in the order of computation. They are no outputs of the model yet."""
    declined: tuple[tuple[str, str], ...]
    """What is not shown, and why: (tensor or node, reason)."""
    carriers: frozenset[str]
    """Names of main-graph tensors that only serve to carry others: stacks of all iterations, and constants. They are
    no layers."""

    def find(self, name: str) -> InnerTensor | None:
        """The inner tensor that a main-graph tensor is, if it is one."""
        return self._by_name.get(name)

    @functools.cached_property
    def _by_name(self) -> dict[str, InnerTensor]:
        return {tensor.name: tensor for tensor in self.tensors}


def observe_bodies(
    model: ir.Model,
    *,
    iterations: int | None = DEFAULT_ITERATIONS,
    limit: int = DEFAULT_LIMIT,
    skip: Collection[str] = (),
    unproven: bool = False,
) -> Observed:
    """Make tensors inside bodies and local functions tensors of the main graph; what is computed stays the same.

    Functions are inlined: what a call ``norm`` computes as ``m`` becomes ``norm/m``. What a Loop or Scan ``loop``
    computes as ``h`` becomes ``loop/body/h``, stacked over the iterations, of which the first ones are kept; inside the
    engine all of them are stacked first, in memory. What a branch of an If computes becomes ``if/then_branch/y``; it
    has no elements when the other branch is taken. If it is a scalar, or its rank is not known, it gets one dimension.
    Bodies in bodies give one dimension of iterations for each loop around; what does not exist in one of them (a branch
    not taken, an iteration not made) is zeros there. It is zeros before opset 11 too, where branches must agree in
    shape.

    The names depend on nothing but the names in the model, so two models that hold the same bodies have the same.

    Left out, with the reason: what a loop computes in a shape that may change between iterations, sequences, texts and
    types below 8 bits, random numbers, bodies of other operators, the Scan of opset 8. Left out without a word, for
    there is nothing to see: constants, what nobody reads, what the node with the body gives out as it is, and the
    condition of a loop handed on.

    Args:
        model: The model, which is changed in place; load a fresh one, its weights are not read.
        iterations: How many iterations to keep of each loop; None for all, in which case no Slice follows the loops,
            and a loop in a loop is shown only where its number of iterations is constant.
        limit: The most tensors to show.
        skip: Paths of nodes to leave alone (``loop_1``), and names of tensors (``loop_1/body/h``).
        unproven: Show also what a loop may compute in another shape each time, as far as its number of dimensions is
            known. If it does, the model fails when it is run: for those who can try, and do without.

    Raises:
        BadOptionError: ``iterations`` is less than 1, or ``limit`` is negative.
        BadModelError: Functions call each other in a circle.
    """
    if iterations is not None and iterations < 1:
        raise BadOptionError(f"iterations={iterations} keeps nothing", hint="give 1 or more, or none for all")
    if limit < 0:
        raise BadOptionError(f"limit={limit} is negative", hint="give 0 or more")
    log = ChangeLog()
    named = _name_calls(model)
    InlineFunctions().run(model, log)
    calls = [pair for pair in _tensors_of_calls(model, log, named) if pair[0].name not in skip]
    declined = [(entry.node, entry.reason) for entry in log.declined]
    if len(calls) > limit:
        declined.append((f"{len(calls) - limit} tensors of functions", f"there are more than {limit}"))
        calls = calls[:limit]
    inlined = {name for change in log.changes if change.kind == "inline" and not change.where for name in change.after}
    plan = plan_observation(model, Wish(iterations, limit - len(calls), skip, unproven), inlined)
    raiser = TensorRaiser(FreshNames(model), plan, iterations)
    raiser.run()
    place = {node: i for i, node in enumerate(model.graph)}
    shown = sorted([*calls, *raiser.tensors], key=lambda pair: (place[pair[1]], pair[0].order))
    tensors = tuple(dataclasses.replace(tensor, order=i) for i, (tensor, _) in enumerate(shown))
    return Observed(model, tensors, (*declined, *plan.declined), frozenset(raiser.carriers))


def _name_calls(model: ir.Model) -> dict[str, str]:
    """The functions that the main graph calls, by the name of the call; calls without one get that of the function."""
    names = FreshNames(model) if model.functions else None
    found = {}
    for node in model.graph:
        if names is not None and node.op_identifier() in model.functions:
            node.name = node.name or names.node(node.op_type)
            found[node.name] = node.op_type
    return found


def _tensors_of_calls(model: ir.Model, log: ChangeLog, calls: Mapping[str, str]) -> list[tuple[InnerTensor, ir.Node]]:
    """What inlined calls compute in the main graph, but for the results of the calls, and the nodes that do."""
    nodes = {node.name: node for node in model.graph}
    found = []
    for change in log.changes:
        if change.kind != "inline" or change.where:
            continue
        step, known = Step(StepKind.CALL, change.before[0], calls.get(change.before[0], "")), set(change.boundary)
        made = [node for name in change.after if (node := nodes.get(name)) is not None]
        values = [value for node in made if not is_onnx_op(node, "Constant") for value in node.outputs]
        shown = [value for value in values if value.name and value.name not in known and value.uses()]
        found += [(_of_call(step, node, value), node) for value in shown if (node := value.producer()) is not None]
    return found


def _of_call(step: Step, node: ir.Node, value: ir.Value) -> InnerTensor:
    name, inside = value.name or "", f"{step.node}/"
    return InnerTensor(
        name=name,
        steps=(step,),
        tensor=name.removeprefix(inside),
        node=title(node).removeprefix(inside),
        op_type=node.op_type,
        order=0,
        whole="",
        padded=False,
        proven=True,
        flat=False,
    )
