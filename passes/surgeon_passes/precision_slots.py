"""What of one node takes part when the node is converted to a type of sixteen bits, or why it cannot be converted.

The operator's definition decides: inputs and outputs bound to one type variable change together, if that variable may
be the low type at this opset version. What follows from no definition stands in the tables at the top.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence

import onnx_ir as ir

from surgeon_passes.conditions import is_dangling
from surgeon_passes.constants import constant_of
from surgeon_passes.low_precision import LowType, RangeLoss, loses_precision, lowered_tensor
from surgeon_passes.operator_types import Signature, Signatures
from surgeon_passes.walk import Scope, is_onnx_op

TypeOf = Callable[[ir.Value], ir.TypeProtocol | None]
LossOf = Callable[[ir.TensorProtocol], RangeLoss]

FLOAT = ir.TensorType(ir.DataType.FLOAT)

_STAY = {
    ("LayerNormalization", "U"),  # bound to stash_type, an attribute, not to the input
    ("Resize", "T2"),  # a region of interest in coordinates, not data
    ("Dropout", "T1"),
}
_SCALES_APART = {("QuantizeLinear", "T2"), ("DequantizeLinear", "T2")}
"""From opset 23 a scale has a type variable of its own, and can keep all its bits."""

_NOISE = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}

_NOT_AS_DEFINED = {
    "BitCast": "it reads the bits of its input",
    "EyeLike": "onnxruntime has no such kernel",
    "MeanVarianceNormalization": "it is defined by a function with float32 constants in it",
}
"""Operators whose definition lists the types of sixteen bits, and that cannot be converted all the same."""

_TYPE_ATTRIBUTES = {
    "Cast": "to",
    "HannWindow": "output_datatype",
    "HammingWindow": "output_datatype",
    "BlackmanWindow": "output_datatype",
    "DequantizeLinear": "output_dtype",
}
"""Where an operator takes the type of an output from an attribute that no input decides."""

_DIVISORS = {("Div", 1), ("QuantizeLinear", 1), ("DequantizeLinear", 1)}
"""Constants that must not become zero or lose precision in any element."""

_BOUNDS = {("Clip", 1): "below", ("Clip", 2): "above", ("Max", None): "below", ("Min", None): "above"}
"""Constants that only bound other values: a bound outside the range means the end of the range."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lowering:
    """The parts of a node that become low when it is converted; whatever else is float32 stays so."""

    inputs: frozenset[int] = frozenset()
    """Indexes of inputs that it then reads in the low type."""
    outputs: frozenset[int] = frozenset()
    """Indexes of outputs that it then makes in the low type."""
    attributes: tuple[ir.Attr, ...] = ()
    """Attributes to set."""
    formals: tuple[ir.Value, ...] = ()
    """Inputs of its bodies that then have the low type."""
    results: tuple[tuple[ir.Graph, int], ...] = ()
    """Outputs of its bodies, as graph and index, that then have the low type."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """Why a node cannot be converted."""

    reason: str
    """As a phrase; empty where there is nothing to convert and nothing to say."""
    out_of_range: str = ""
    """The constant whose values the low type cannot hold, if that is the reason."""


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """All that :func:`lowering_of` needs to know."""

    node: ir.Node
    scope: Scope
    signature: Signature
    signatures: Signatures
    low: LowType
    type_of: TypeOf
    loss_of: LossOf
    saturate: bool
    """Whether constants out of range are accepted, and clipped."""
    pinned: Collection[str] = ()
    """Names of values that must keep their type, because something refers to them by name alone."""


def present(values: Sequence[ir.Value | None]) -> Iterator[tuple[int, ir.Value]]:
    """The inputs or outputs that are not omitted, with their indexes."""
    return ((i, value) for i, value in enumerate(values) if value is not None and value.name != "")


def any_type_inputs(node: ir.Node, signature: Signature | None, low: LowType) -> frozenset[int]:
    """Inputs that a node reads in whatever float type is at hand, with the same result: they never need a Cast."""
    if signature is None or not node.inputs or not is_onnx_op(node, "Shape", "Size", "Cast", "CastLike", "EyeLike"):
        return frozenset()
    if node.op_type == "EyeLike" and "dtype" not in node.attributes:
        return frozenset()
    if node.op_type == "Cast" and _int_attribute(node, "to") == ir.DataType.STRING:
        return frozenset()  # the text of a number depends on its precision
    if node.op_type == "CastLike" and node.outputs[0].dtype in (None, ir.DataType.STRING):
        return frozenset()
    return frozenset({0}) if signature.allows(signature.inputs[0], low.kind) else frozenset()


def _int_attribute(node: ir.Node, name: str) -> int | None:
    attr = node.attributes.get(name)
    return attr.as_int() if attr is not None and not attr.is_ref() and attr.type == ir.AttributeType.INT else None


def lowering_of(question: Question) -> Lowering | Kept:
    """What becomes low if this node is converted, or why that is impossible."""
    node, type_of = question.node, question.type_of
    if node.op_type == "Constant":
        return Kept("")
    known = [(value, type_of(value)) for _, value in [*present(node.inputs), *present(node.outputs)]]
    if all(kind is not None and kind != FLOAT for _, kind in known) and not _has_bodies(node):
        return Kept("")
    if node.op_type in ("If", "Loop", "Scan"):
        return _unless_pinned(_control_flow(question), question)
    for value, kind in known:
        if kind is None or is_dangling(value):
            return Kept(f"the type of '{value.name}' is not known")
        if not isinstance(kind, ir.TensorType):
            return Kept(f"'{value.name}' is a sequence, optional or sparse value, which no Cast converts")
    return _special(question) or _unless_pinned(_by_groups(question), question)


def _unless_pinned(lowering: Lowering | Kept, question: Question) -> Lowering | Kept:
    if isinstance(lowering, Lowering) and question.pinned:
        changed = [*lowering.formals, *(question.node.outputs[i] for i in lowering.outputs)]
        for value in changed:
            if value.name in question.pinned:
                return Kept(f"a body refers to '{value.name}' by name only")
    return lowering


def _has_bodies(node: ir.Node) -> bool:
    return any(attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.values())


def _special(question: Question) -> Kept | None:
    """Why a node that the definitions would let be converted must not be."""
    node = question.node
    reason = _NOT_AS_DEFINED.get(node.op_type)
    if reason:
        return Kept(reason)
    if node.op_type in ("ScatterElements", "ScatterND") and _reduces(node):
        return Kept(f"onnxruntime does not reduce {question.low.value} in {node.op_type}")
    if node.op_type in _NOISE:
        return Kept(f"it would draw other numbers in {question.low.value}")
    if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        mode = constant_of(node.inputs[2])
        if mode is None or bool(mode.numpy().any()):
            return Kept(f"it would draw other numbers in {question.low.value}")
    return None


def _reduces(node: ir.Node) -> bool:
    attr = node.attributes.get("reduction")
    return attr is not None and (attr.is_ref() or attr.as_string() != "none")


@dataclasses.dataclass(slots=True)
class _Group:
    """The float32 inputs and outputs bound to one type variable."""

    inputs: list[int] = dataclasses.field(default_factory=list)
    outputs: list[int] = dataclasses.field(default_factory=list)


def _groups(question: Question) -> dict[str, _Group] | Kept:
    """The groups of float32 slots by type variable; slots of a fixed type are in none."""
    node, signature = question.node, question.signature
    groups: dict[str, _Group] = {}
    sides = ((node.inputs, signature.input_kind, "inputs"), (node.outputs, signature.output_kind, "outputs"))
    for values, kind_at, side in sides:
        for i, value in present(values):
            variable = kind_at(i)
            if variable is None:
                return Kept(f"{node.op_type} has no such {side[:-1]} as '{value.name}' at opset {question.scope.opset}")
            if variable in signature.allowed and question.type_of(value) == FLOAT:
                getattr(groups.setdefault(variable, _Group()), side).append(i)
    return groups


def _stays(question: Question, variable: str) -> bool:
    key = (question.node.op_type, variable)
    return key in _STAY or (key in _SCALES_APART and question.scope.opset >= 23)


def _by_groups(question: Question) -> Lowering | Kept:
    """Convert every group that can be; the node counts as convertible if the group of its main output is among them."""
    groups = _groups(question)
    if isinstance(groups, Kept):
        return groups
    stays = [variable for variable in groups if _stays(question, variable)]
    groups = {variable: group for variable, group in groups.items() if variable not in stays}
    anywhere = any_type_inputs(question.node, question.signature, question.low)
    main = next((v for v, g in groups.items() if g.outputs), None)
    if main is None:
        main = next((v for v, g in groups.items() if set(g.inputs) - anywhere), None)
    if main is None:
        return Kept("") if groups or stays else Kept(f"{question.node.op_type} is defined on float32 only")
    inputs: set[int] = set()
    outputs: set[int] = set()
    attributes: list[ir.Attr] = []
    for variable, group in groups.items():
        changed = _convert_group(question, variable, group)
        if isinstance(changed, Kept):
            if variable == main or not group.inputs:  # no input decides, so nothing says that the output stays
                return changed
            continue
        inputs.update(i for i in group.inputs if i not in anywhere)
        outputs.update(group.outputs)
        attributes += changed
    return Lowering(frozenset(inputs), frozenset(outputs), tuple(attributes))


def _not_allowed(question: Question, variable: str) -> Kept:
    op_type, low, opset = question.node.op_type, question.low, question.scope.opset
    first = question.signatures.first_opset(op_type, variable, low.kind, opset)
    reason = f"{op_type} has no {low.value} form at opset {opset}"
    return Kept(f"{reason}, but has one from opset {first} (convert-opset)" if first else reason)


def _convert_group(question: Question, variable: str, group: _Group) -> list[ir.Attr] | Kept:
    """The attributes to set when a group becomes low, or why it cannot."""
    node, low = question.node, question.low
    if not question.signature.allows(variable, low.kind):
        return _not_allowed(question, variable)
    for i in group.inputs:
        value = node.inputs[i]
        tensor = constant_of(value)
        problem = "" if tensor is None else _loss(question, i, tensor)
        if value is not None and problem:
            return Kept(f"constant '{value.name}' {problem}", value.name or "")
    if group.inputs or not group.outputs:
        return []
    if node.op_type == "ConstantOfShape":
        return _fill_value(question)
    attribute = _TYPE_ATTRIBUTES.get(node.op_type)
    if attribute is None:
        return Kept(f"what decides the type of output '{node.outputs[group.outputs[0]].name}' is not known")
    return [ir.AttrInt64(attribute, low.dtype.value)]


def _fill_value(question: Question) -> list[ir.Attr] | Kept:
    attr = question.node.attributes.get("value")
    if attr is None:
        tensor: ir.TensorProtocol = ir.tensor([0.0], dtype=ir.DataType.FLOAT)
    elif attr.is_ref() or attr.as_tensor().dtype != ir.DataType.FLOAT:
        return Kept("its attribute 'value' is not a float32 tensor")
    else:
        tensor = attr.as_tensor()
    problem = _loss(question, 0, tensor)
    if problem:
        return Kept(f"its attribute 'value' {problem}", "value")
    return [ir.AttrTensor("value", lowered_tensor(tensor, question.low, tensor.name))]


def _loss(question: Question, index: int, tensor: ir.TensorProtocol) -> str:
    """Why a constant cannot be read in the low type at this input; empty if it can."""
    node, low = question.node, question.low
    loss = question.loss_of(tensor)
    bound = _BOUNDS.get((node.op_type, index)) or _BOUNDS.get((node.op_type, None))
    if not question.saturate:
        if (loss.above and bound != "above") or (loss.below and bound != "below"):
            return f"is out of the range of {low.value}"
        if loss.vanishes:
            return f"becomes zero in {low.value}"
    if (node.op_type, index) in _DIVISORS and loses_precision(tensor, low):
        return f"loses its precision in {low.value}"
    return ""


def _control_flow(question: Question) -> Lowering | Kept:
    """If, Loop and Scan: each float32 value changes along its whole way into the bodies and out of them."""
    node, low = question.node, question.low
    variable = question.signature.outputs[-1] if question.signature.outputs else ""
    if not question.signature.allows(variable, low.kind):
        return _not_allowed(question, variable)
    if node.op_type == "Scan" and question.scope.opset < 9:
        return Kept("Scan of opset 8 batches its inputs")
    ways = [way for way in _ways(node) if _is_float(way, question)]
    if not ways:
        return Kept("")
    return Lowering(
        frozenset(i for way in ways for i in way.inputs),
        frozenset(i for way in ways for i in way.outputs),
        (),
        tuple(value for way in ways for value in way.formals),
        tuple(result for way in ways for result in way.results),
    )


@dataclasses.dataclass
class _Way:
    """One value's way into the bodies of a node and out of them."""

    inputs: list[int] = dataclasses.field(default_factory=list)
    formals: list[ir.Value] = dataclasses.field(default_factory=list)
    results: list[tuple[ir.Graph, int]] = dataclasses.field(default_factory=list)
    outputs: list[int] = dataclasses.field(default_factory=list)


def _is_float(way: _Way, question: Question) -> bool:
    values = [question.node.inputs[i] for i in way.inputs]
    values += [*way.formals, *(graph.outputs[i] for graph, i in way.results)]
    values += [question.node.outputs[i] for i in way.outputs]
    return all(v is not None and not is_dangling(v) and question.type_of(v) == FLOAT for v in values)


def _ways(node: ir.Node) -> list[_Way]:
    if node.op_type == "If":
        branches = [node.attributes["then_branch"].as_graph(), node.attributes["else_branch"].as_graph()]
        return [_Way(results=[(branch, i) for branch in branches], outputs=[i]) for i in range(len(node.outputs))]
    body = node.attributes["body"].as_graph()
    if node.op_type == "Loop":
        skipped, states, first = 2, len(node.inputs) - 2, 1
    else:
        skipped, states, first = 0, len(node.inputs) - node.attributes["num_scan_inputs"].as_int(), 0
    ways = [_Way([k + skipped], [body.inputs[k + skipped]]) for k in range(len(node.inputs) - skipped)]
    for k in range(len(body.outputs) - first):
        if k >= states:
            ways.append(_Way())
        way = ways[k] if k < states else ways[-1]
        way.results.append((body, first + k))
        if k < len(node.outputs):
            way.outputs.append(k)
    return ways
