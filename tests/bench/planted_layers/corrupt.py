"""A fault, and the ONNX nodes that make it: they stand behind a node and change what it computed.

Everything about a fault is decided beforehand, sizes and places too, so that every piece of a model that has the node
shows the same wrong tensor. Floating-point values are changed in float32 and rounded back to their own type.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray
_WIDE = {TensorProto.FLOAT, TensorProto.DOUBLE}


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong with one tensor."""

    tensor: str
    """The tensor; the node that computes it is the culprit."""
    kind: str
    """One of :data:`KINDS`."""
    dtype: int
    """Its ONNX element type in the model that the wrong engine runs."""
    shape: tuple[int, ...]
    """Its shape."""
    size: float = 0.0
    """How much: a relative change for kinds that scale, an absolute one for those that add or round."""
    axis: int = 0
    """The axis, for kinds that have one."""
    start: int = 0
    """First index along the axis, or the flat index of the one element."""
    stop: int = 0
    """One behind the last index along the axis."""
    threshold: float = 0.0
    """Above what the fault shows, for the kind that depends on the data."""
    places: tuple[int, ...] = ()
    """Flat indices, for kinds that hit chosen elements."""
    seed: int = 0
    """Decides random numbers."""


class Behind:
    """Nodes that take a computed tensor to what stands in its place."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._prefix, self._counter = prefix, itertools.count()

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; its output."""
        name = f"{self._prefix}/{next(self._counter)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, array: Any, dtype: type = np.float32) -> str:
        """A constant; a node, so that it may stand in any graph."""
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(array, dtype)))

    def part(self, x: str, axis: int, start: int, stop: int) -> str:
        """A slice along one axis."""
        bounds = [self.constant([number], np.int64) for number in (start, stop, axis)]
        return self.op("Slice", x, *bounds)


def _along(fault: Fault, value: float, ones: float = 1.0) -> Array:
    """An array that broadcasts over the tensor: ``value`` from start to stop along the axis, ``ones`` elsewhere."""
    factors = np.full(fault.shape[fault.axis], ones, np.float32)
    factors[fault.start : fault.stop] = value
    return factors.reshape([-1 if i == fault.axis else 1 for i in range(len(fault.shape))])


def _mask(fault: Fault) -> Array:
    """True at the chosen elements."""
    flat = np.zeros(int(np.prod(fault.shape)), bool)
    flat[list(fault.places)] = True
    return flat.reshape(fault.shape)


def _gain(behind: Behind, x: str, fault: Fault) -> str:
    return behind.op("Mul", x, behind.constant(1.0 + fault.size))


def _bias(behind: Behind, x: str, fault: Fault) -> str:
    return behind.op("Add", x, behind.constant(fault.size))


def _band_gain(behind: Behind, x: str, fault: Fault) -> str:
    return behind.op("Mul", x, behind.constant(_along(fault, 1.0 + fault.size)))


def _sign(behind: Behind, x: str, fault: Fault) -> str:
    return behind.op("Mul", x, behind.constant(_along(fault, -1.0)))


def _zeroed(behind: Behind, x: str, fault: Fault) -> str:
    return behind.op("Mul", x, behind.constant(_along(fault, 0.0)))


def _stale(behind: Behind, x: str, fault: Fault) -> str:
    """The band holds what the band before it holds."""
    width = fault.stop - fault.start
    parts = [(0, fault.start), (fault.start - width, fault.start), (fault.stop, fault.shape[fault.axis])]
    kept = [behind.part(x, fault.axis, a, b) for a, b in parts if b > a]
    return behind.op("Concat", *kept, axis=fault.axis)


def _slip(behind: Behind, x: str, fault: Fault) -> str:
    """Everything moved on by one along the axis, the last to the front."""
    last = fault.shape[fault.axis] - 1
    return behind.op(
        "Concat",
        behind.part(x, fault.axis, last, last + 1),
        behind.part(x, fault.axis, 0, last),
        axis=fault.axis,
    )


def _noise(behind: Behind, x: str, fault: Fault) -> str:
    noise = np.random.default_rng(fault.seed).standard_normal(fault.shape)
    return behind.op("Add", x, behind.constant(noise * fault.size))


def _one_element(behind: Behind, x: str, fault: Fault) -> str:
    return behind.op("Add", x, behind.constant(np.where(_mask(fault), fault.size, 0.0)))


def _round_down(behind: Behind, x: str, fault: Fault) -> str:
    step = behind.constant(fault.size)
    return behind.op("Mul", behind.op("Floor", behind.op("Div", x, step)), step)


def _above(behind: Behind, x: str, fault: Fault) -> str:
    """A gain where the value is large; nothing else is wrong."""
    high = behind.op("Greater", x, behind.constant(fault.threshold))
    return behind.op("Where", high, _gain(behind, x, fault), x)


def _nan(behind: Behind, x: str, fault: Fault) -> str:
    return behind.op("Where", behind.constant(_mask(fault), np.bool_), behind.constant(np.nan), x)


def _undo(behind: Behind, x: str, fault: Fault) -> str:
    return behind.op("Mul", x, behind.constant(1.0 / (1.0 + fault.size)))


Corruption = Callable[[Behind, str, Fault], str]

KINDS: dict[str, Corruption] = {
    "gain": _gain,
    "bias": _bias,
    "channel": _band_gain,
    "tile tail": _band_gain,
    "noise": _noise,
    "one element": _one_element,
    "rounds down": _round_down,
    "data dependent": _above,
    "sign": _sign,
    "zeroed tile": _zeroed,
    "stale tile": _stale,
    "axis slip": _slip,
    "masked NaN": _nan,
    "undone": _undo,
}
"""Kinds of faults in floating-point tensors that follow from the tensor alone, by name."""


def _half_sums(behind: Behind, node: onnx.NodeProto, fault: Fault) -> str:
    """A MatMul that multiplies and adds up in float16, eight products at a time."""
    length, chunk = fault.stop, 8
    a, b = (behind.op("Cast", name, to=TensorProto.FLOAT16) for name in node.input)
    total = ""
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        left, right = behind.part(a, -1, start, stop), behind.part(b, -2, start, stop)
        wide = behind.op("MatMul", *(behind.op("Cast", x, to=TensorProto.FLOAT) for x in (left, right)))
        part = behind.op("Cast", wide, to=TensorProto.FLOAT16)
        total = behind.op("Add", total, part) if total else part
    return behind.op("Cast", total, to=TensorProto.FLOAT)


def _steps(behind: Behind, x: str, fault: Fault) -> str:
    """Chosen integers are one too large, or one too small where they are the largest."""
    top = np.iinfo(helper.tensor_dtype_to_np_dtype(fault.dtype)).max
    wide = behind.op("Cast", x, to=TensorProto.INT32)
    more = behind.op("Add", wide, behind.constant(_mask(fault), np.int32))
    # An integer at the end of its range must differ as well.
    less = behind.op("Sub", wide, behind.constant(_mask(fault), np.int32))
    at_end = behind.op("Greater", more, behind.constant(top, np.int32))
    return behind.op("Cast", behind.op("Where", at_end, less, more), to=fault.dtype)


REPLACES_NODE = "half sums"
"""The kind that computes the node's result anew from its inputs."""

INTEGER = "integer steps"
"""The kind for integers that stand for numbers."""


def nodes_of(fault: Fault, node: onnx.NodeProto, clean: str) -> list[onnx.NodeProto]:
    """The nodes that make the wrong tensor under its own name.

    Args:
        fault: What is wrong.
        node: The node that computes the tensor.
        clean: The name that the right tensor has here.
    """
    behind = Behind(f"{fault.tensor}/{fault.kind}")
    if fault.kind == REPLACES_NODE:
        found = _half_sums(behind, node, fault)
    elif fault.kind == INTEGER:
        found = _steps(behind, clean, fault)
    else:
        wide = fault.dtype in _WIDE
        x = clean if wide else behind.op("Cast", clean, to=TensorProto.FLOAT)
        found = KINDS[fault.kind](behind, x, fault)
        found = found if wide else behind.op("Cast", found, to=fault.dtype)
    behind.nodes.append(helper.make_node("Identity", [found], [fault.tensor], name=f"{fault.tensor}/{fault.kind}"))
    return behind.nodes


def spoil(graph: onnx.GraphProto, faults: dict[str, Fault]) -> set[str]:
    """Put faults into a graph and the graphs inside its nodes; returns the tensors that are wrong now."""
    done: set[str] = set()
    rebuilt: list[onnx.NodeProto] = []
    for node in graph.node:
        for inner in _inner_graphs(node):
            done |= spoil(inner, faults)
        rebuilt.append(node)
        for i, name in enumerate(node.output):
            if name in faults:
                node.output[i] = f"{name}/clean"
                rebuilt += nodes_of(faults[name], node, node.output[i])
                done.add(name)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in rebuilt] if done else []
    if done:
        del graph.node[:]
        graph.node.extend(kept)
    return done


def _inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
