"""What changed in a standard operator from one version of the operator set to another, and whether a node feels it.

The schemas of the onnx package say what changed in form: attributes, inputs, outputs, types. What changed in meaning
without a change of form is listed here by hand, from the changelog of the operators, for versions 7 and later.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import onnx
import onnx_ir as ir

OLDEST = 7
"""The first version this is about: before it, broadcasting was an attribute and had to be asked for."""

_NEW_MEANING = {
    ("OneHot", 11): "indices below 0 count from the end since version 11",
    ("GroupNormalization", 21): "scale and bias are per channel since version 21, and were per group",
    ("Attention", 24): "the operator was reworked in version 24",
    ("Attention", 25): "the operator was reworked in version 25",
    ("Scan", 9): "the operator was reworked in version 9",
    ("Resize", 11): "the sampling points were defined in version 11",
    ("RoiAlign", 16): "the sampling points moved in version 16",
    ("Upsample", 10): "the operator became Resize in version 10",
    ("Scatter", 11): "the operator became ScatterElements in version 11",
    ("Softmax", 13): "up to version 11 all dimensions from the axis on were one",
    ("LogSoftmax", 13): "up to version 11 all dimensions from the axis on were one",
    ("Hardmax", 13): "up to version 11 all dimensions from the axis on were one",
    ("GridSample", 20): "the interpolations got other names in version 20",
    ("DFT", 20): "the axis became an input with another default in version 20",
    ("Split", 18): "equal parts have to be asked for since version 18",
}
"""By operator and the first version with the new meaning."""

_ONLY_IF = {
    ("AveragePool", 19): ("ceil_mode", 0),
    ("LpPool", 18): ("ceil_mode", 0),
    ("LpPool", 22): ("ceil_mode", 0),
    ("MaxPool", 22): ("ceil_mode", 0),
    ("ConvTranspose", 11): ("auto_pad", "NOTSET"),
}
"""The meaning changed, except where this attribute has this value, which is its default."""

_FIRST_OUTPUT_ONLY = {("BatchNormalization", 14), ("Dropout", 10), ("Dropout", 12)}
"""The further outputs changed."""


@dataclasses.dataclass(frozen=True)
class Step:
    """The passage of an operator from one definition to the next, in either direction."""

    op_type: str
    """The operator."""
    old: int
    """The version its definition is from, before."""
    new: int
    """The version its definition is from, afterwards; lower than ``old`` on the way down."""

    @property
    def changed_in(self) -> int:
        """The version that brought the change."""
        return max(self.old, self.new)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a node means the same on both sides of a step."""

    reason: str
    """Why not, as a phrase; empty if it does."""
    final: bool = False
    """Whether no adapter can do anything about it."""
    drop: tuple[str, ...] = ()
    """Attributes to take away: the other definition does not have them, and they are at their default."""


@functools.cache
def schema_of(op_type: str, version: int, domain: str = "") -> Any:
    """The definition of an operator that holds in a version of its operator set; None if there is none."""
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None


@functools.cache
def next_step(op_type: str, version: int, up: bool) -> Step | None:
    """The change of an operator between ``version`` and the version beside it; None if there is none.

    An operator that ends there, or did not exist, gives a step to version 0.
    """
    here, there = schema_of(op_type, version), schema_of(op_type, version + (1 if up else -1))
    if here is None:
        return None
    if there is None:
        return Step(op_type, here.since_version, 0)
    if here.since_version == there.since_version:
        return None
    return Step(op_type, here.since_version, there.since_version)


def judge(node: ir.Node, step: Step, given: int | None) -> Verdict:
    """Whether a node of the operator means the same before and after a step, as far as form and meaning go.

    Types are another matter: :func:`type_obstacle`.

    Args:
        node: The node.
        step: The step.
        given: The number of inputs it will have by then (:func:`given_inputs`); None if adapters before this step will
            have given it those that it needs.
    """
    if step.new == 0:
        return Verdict(f"there is no {step.op_type} in the other version")
    key = (step.op_type, step.changed_in)
    if key in _ONLY_IF:
        name, value = _ONLY_IF[key]
        if not _is_value(node.attributes.get(name), value):
            return Verdict(f"the meaning of {name} changed in version {step.changed_in}", final=True)
    if key in _FIRST_OUTPUT_ONLY and used_outputs(node) > 1:
        return Verdict(f"outputs after the first changed in version {step.changed_in}", final=True)
    if key in _NEW_MEANING:
        return Verdict(_NEW_MEANING[key])
    old, new = schema_of(step.op_type, step.old), schema_of(step.op_type, step.new)
    if new.deprecated:
        return Verdict(f"{step.op_type} ended with version {step.new}", final=True)
    reason = "" if given is None else _port_obstacle(node, given, old, new)
    return Verdict(reason) if reason else _attribute_verdict(node, old.attributes, new.attributes)


def used_outputs(node: ir.Node) -> int:
    """The number of outputs up to the last that anybody reads."""
    return max((i + 1 for i, v in enumerate(node.outputs) if v.name and (v.uses() or v.is_graph_output())), default=0)


def given_inputs(node: ir.Node) -> int:
    """The number of inputs up to the last that is not left out."""
    given = len(node.inputs)
    while given and node.inputs[given - 1] is None:
        given -= 1
    return given


def _port_obstacle(node: ir.Node, given: int, old: Any, new: Any) -> str:
    if given > new.max_input or used_outputs(node) > new.max_output:
        return "it has more inputs or outputs than the other version allows"
    if given < new.min_input:
        return "it has fewer inputs than the other version needs"
    for i in range(min(given, len(new.inputs), len(old.inputs))):
        if node.inputs[i] is None and new.inputs[i].option == onnx.defs.OpSchema.FormalParameterOption.Single:
            return f"the other version needs input '{new.inputs[i].name}'"
    return ""


def _attribute_verdict(node: ir.Node, old: Mapping[str, Any], new: Mapping[str, Any]) -> Verdict:
    drop = []
    for name, declared in old.items():
        attr = node.attributes.get(name)
        if name not in new:
            if attr is None:
                continue
            if not _is_default(attr, declared):
                return Verdict(f"the other version has no attribute '{name}'")
            drop.append(name)
        elif attr is None and _default(declared) != _default(new[name]):
            return Verdict(f"the default of attribute '{name}' changed")
        elif declared.type != new[name].type:
            return Verdict(f"attribute '{name}' became another one")
    for name, declared in new.items():
        if declared.required and name not in node.attributes:
            return Verdict(f"the other version needs attribute '{name}'")
    return Verdict("", drop=tuple(drop))


def _default(declared: Any) -> Any:
    value = declared.default_value
    return onnx.helper.get_attribute_value(value) if value.name else None


def _is_default(attr: ir.Attr, declared: Any) -> bool:
    default = _default(declared)
    if attr.is_ref() or default is None:
        return False
    return _is_value(attr, default.decode() if isinstance(default, bytes) else default)


def _is_value(attr: ir.Attr | None, value: object) -> bool:
    if attr is None:
        return True  # absent: the values asked about are the defaults
    return not attr.is_ref() and (attr.value.decode() if isinstance(attr.value, bytes) else attr.value) == value


def type_obstacle(node: ir.Node, before: Any, after: Any, types: Mapping[ir.Value, ir.TypeAndShape]) -> str:
    """Whether an input or output of a node has a type that another definition of its operator does not take.

    Args:
        node: The node.
        before: The definition (schema) it is from.
        after: The definition it goes to.
        types: What is known of values; where nothing is, every type that ``before`` takes is possible.
    """
    for values, was, now in ((node.inputs, before.inputs, after.inputs), (node.outputs, before.outputs, after.outputs)):
        for i, value in enumerate(values):
            if value is None or not value.name or not now or not was:
                continue
            if values is node.outputs and not (value.uses() or value.is_graph_output()):
                continue
            if i >= len(now) and now[-1].option != onnx.defs.OpSchema.FormalParameterOption.Variadic:
                continue  # an adapter takes it away
            known = types.get(value)
            word = "" if known is None or known.type is None else _type_word(known.type)
            possible = {word} if word else _allowed(before, was[min(i, len(was) - 1)])
            if not possible <= _allowed(after, now[min(i, len(now) - 1)]):
                what = word or "every type it may be given"
                return f"version {after.since_version} of {after.name} does not take {what} for '{value.name}'"
    return ""


def _type_word(kind: ir.TypeProtocol) -> str:
    """A type as schemas write it: ``tensor(float16)``, ``seq(tensor(int64))``."""
    if isinstance(kind, ir.SequenceType):
        return f"seq({_type_word(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({_type_word(kind.elem_type)})"
    return f"tensor({kind.dtype.name.lower()})" if isinstance(kind, ir.TensorType) else ""


def _allowed(schema: Any, port: Any) -> set[str]:
    for constraint in schema.type_constraints:
        if constraint.type_param_str == port.type_str:
            return set(constraint.allowed_type_strs)
    return {port.type_str}


def steps_between(op_type: str, old: int, new: int) -> Iterator[Step]:
    """The changes of an operator from version ``old`` to ``new``, in that order; one to version 0 is the last."""
    up, version = new > old, old
    while version != new:
        step = next_step(op_type, version, up)
        if step is not None:
            yield step
            if step.new == 0:
                return
        version += 1 if up else -1


def difference(node: ir.Node, old: int, new: int) -> str:
    """Why a node of version ``old`` means something else in version ``new`` if it is left as it is; empty if not.

    Types are those of any call, so a type that only the older of the two takes is a reason.
    """
    if min(old, new) < OLDEST:
        return f"versions before {OLDEST} are not compared"
    for step in steps_between(node.op_type, old, new):
        verdict = judge(node, step, given_inputs(node))
        if verdict.reason or verdict.drop:
            return verdict.reason or f"attribute '{verdict.drop[0]}' has no place there"
    before, after = schema_of(node.op_type, old), schema_of(node.op_type, new)
    if before is None or after is None:
        return f"there is no {node.op_type} in one of them"
    return type_obstacle(node, before, after, {})
