"""Draw faults: where in a model, how large, and proof that the faulty engine makes an error of that size there.

A fault of a kind that scales is made so large that the error it introduces is ``difficulty`` times the noise at that
node. Kinds without a size (a slipped axis, a flipped sign) are taken where they are at least :data:`PLAIN` times the
noise. Either way the error is measured, on the node alone, before a draw is accepted.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx

from surgeon_debug.values import element_type_of
from tests.bench.planted_layers.corrupt import INTEGER, REPLACES_NODE, Fault
from tests.bench.planted_layers.ground import Array, Ground, live_tensors, reads_of

PLAIN = 30.0
"""How many times the noise a fault without a size must be."""

_FLOATS = ("float32", "float16", "bfloat16")
_HOMOGENEOUS = {
    "MatMul", "Relu", "LeakyRelu", "Transpose", "Reshape", "Flatten", "Unsqueeze", "Squeeze", "Neg", "Identity",
    "ReduceMean", "ReduceSum", "MaxPool", "AveragePool", "GlobalAveragePool", "Slice", "Mul", "Div", "Abs",
    "ReduceMax", "Expand", "Pad",
}  # fmt: skip
"""Operators whose output doubles when their first input does, if the others stay; Conv and Gemm without bias too."""


@dataclasses.dataclass(frozen=True)
class Placed:
    """Faults that were drawn and measured."""

    faults: tuple[Fault, ...]
    """What is wrong; the culprit first."""
    noise: float
    """What a healthy engine introduces at the culprit, relative L2."""
    introduced: float
    """What the faulty one introduces there; infinite for NaN."""


def eligible(ground: Ground, kinds: tuple[str, ...] = _FLOATS, least: int = 4) -> list[str]:
    """Tensors that a fault may be planted in: computed from the inputs, by a node without bodies, and read.

    Args:
        ground: Values of both sides.
        kinds: Names of dtypes.
        least: Fewest elements.
    """
    graph = ground.theirs.graph
    read = {name for node in graph.node for name in reads_of(node)} | {info.name for info in graph.output}
    usable = read.intersection(live_tensors(graph))
    found = []
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            continue
        for name in node.output:
            value, other = ground.target.get(name), ground.reference.get(name)
            if value is None or other is None or value.dtype.name not in kinds or name not in usable:
                continue
            if value.shape != other.shape or value.size < least:
                continue
            wide = other.astype(np.float64)
            if np.isfinite(wide).all() and wide.any():
                found.append(name)
    return found


def _fault(ground: Ground, tensor: str, kind: str, **more: object) -> Fault:
    value = ground.target[tensor]
    return Fault(tensor, kind, element_type_of(value), value.shape, **more)  # type: ignore[arg-type]


def _norm(value: Array) -> float:
    return float(np.linalg.norm(value.astype(np.float64)))


class Drawing:
    """Draws faults of one kind after the other from a random generator.

    Args:
        ground: Values of both sides.
        rng: Decides everything.
    """

    def __init__(self, ground: Ground, rng: np.random.Generator) -> None:
        self.ground, self.rng = ground, rng

    def scaled(self, kind: str, tensor: str, delta: float) -> Fault | None:
        """A fault whose error is ``delta`` times the norm of the tensor; None if the tensor does not suit."""
        value = np.asarray(self.ground.reference[tensor]).astype(np.float64)
        norm, size = _norm(value), value.size
        if kind == "gain":
            return _fault(self.ground, tensor, kind, size=delta)
        if kind == "bias":
            return _fault(self.ground, tensor, kind, size=delta * norm / np.sqrt(size))
        if kind == "noise":
            seed = int(self.rng.integers(2**31))
            return _fault(self.ground, tensor, kind, size=delta * norm / np.sqrt(size), seed=seed)
        if kind == "rounds down":
            # The error is uniform between nothing and one step.
            return _fault(self.ground, tensor, kind, size=delta * norm / np.sqrt(size) * np.sqrt(3))
        if kind == "one element":
            place = int(self.rng.integers(size))
            return _fault(self.ground, tensor, kind, size=delta * norm, places=(place,))
        if kind == "data dependent":
            threshold = float(np.quantile(value, self.rng.uniform(0.7, 0.98)))
            high = _norm(value[value > threshold])
            return _fault(self.ground, tensor, kind, size=delta * norm / high, threshold=threshold) if high else None
        band = self.channel(value) if kind == "channel" else self.tail(value)
        if band is None:
            return None
        axis, start, stop = band
        part = _norm(np.take(value, range(start, stop), axis))
        if part == 0.0:
            return None
        return _fault(self.ground, tensor, kind, axis=axis, start=start, stop=stop, size=delta * norm / part)

    def channel(self, value: Array) -> tuple[int, int, int] | None:
        """One index of axis 1 or of the last axis."""
        axes = [axis for axis in {1, value.ndim - 1} if 0 < axis < value.ndim and value.shape[axis] > 1]
        if not axes:
            return None
        axis = int(self.rng.choice(axes))
        start = int(self.rng.integers(value.shape[axis]))
        return axis, start, start + 1

    def tail(self, value: Array) -> tuple[int, int, int] | None:
        """What is left of an axis behind whole tiles of 16 or 8, or the last tile if nothing is left."""
        axes = [axis for axis, length in enumerate(value.shape) if length > 8]
        if not axes:
            return None
        axis, tile = int(self.rng.choice(axes)), int(self.rng.choice([8, 16]))
        length = value.shape[axis]
        rest = length % tile or tile
        return (axis, length - rest, length) if rest < length else None

    def plain(self, kind: str, tensor: str) -> Fault | None:
        """A fault without a size; None if the tensor does not suit."""
        value = self.ground.reference[tensor]
        axes = [axis for axis, length in enumerate(value.shape) if length > 1]
        if not axes:
            return None
        if kind == REPLACES_NODE:
            node = next(node for node in self.ground.theirs.graph.node if tensor in node.output)
            first = self.ground.reference.get(node.input[0])
            if node.op_type != "MatMul" or first is None or first.shape[-1] < 16:
                return None
            return _fault(self.ground, tensor, kind, stop=first.shape[-1])
        if kind == INTEGER:
            share = self.rng.uniform(0.03, 0.3)
            count = max(1, int(share * value.size))
            places = tuple(int(i) for i in self.rng.choice(value.size, count, replace=False))
            return _fault(self.ground, tensor, kind, places=places)
        axis = int(self.rng.choice(axes))
        if kind == "axis slip":
            return _fault(self.ground, tensor, kind, axis=axis)
        width = int(self.rng.integers(1, max(2, value.shape[axis] // 4 + 1)))
        start = int(self.rng.integers(width, value.shape[axis])) if width < value.shape[axis] else width
        stop = min(start + width, value.shape[axis])
        if stop <= start or (kind == "stale tile" and stop - start != width):
            return None
        return _fault(self.ground, tensor, kind, axis=axis, start=start, stop=stop)

    def place(self, kind: str, difficulty: float | None, tries: int = 60) -> Placed | None:
        """A measured fault of a kind; None if the model has no place for it.

        Args:
            kind: One of the kinds of :mod:`corrupt`.
            difficulty: Error over noise for kinds that scale; None for the others.
            tries: Draws before giving up.
        """
        names = ("int8", "uint8") if kind == INTEGER else _FLOATS
        candidates = eligible(self.ground, names)
        if kind == REPLACES_NODE:
            products = {name for n in self.ground.theirs.graph.node if n.op_type == "MatMul" for name in n.output}
            candidates = [name for name in candidates if name in products]
        for tensor in self.rng.permutation(candidates)[:tries]:
            placed = self._try(kind, str(tensor), difficulty)
            if placed is not None:
                return placed
        return None

    def _try(self, kind: str, tensor: str, difficulty: float | None) -> Placed | None:
        noise = self.ground.noise(tensor)
        if not np.isfinite(noise):
            return None
        if difficulty is None:
            fault = self.plain(kind, tensor)
        else:
            fault = self.scaled(kind, tensor, min(1.0, np.sqrt(difficulty**2 - 1.0) * noise))
        if fault is None:
            return None
        introduced = self.ground.introduced(tensor, [fault])
        if difficulty is None:
            return Placed((fault,), noise, introduced) if PLAIN * noise <= introduced else None
        # Rounding swallows part of a small fault, and adds to it.
        good = 0.7 * difficulty * noise <= introduced <= 1.5 * difficulty * noise
        return Placed((fault,), noise, introduced) if good else None

    def cancelled(self, difficulty: float, tries: int = 60) -> Placed | None:
        """A gain that the next node takes back, so that nothing behind that is wrong."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        graph = self.ground.theirs.graph
        for node in graph.node:
            for name in reads_of(node):
                readers.setdefault(name, []).append(node)
        shown = {info.name for info in graph.output}
        names = set(eligible(self.ground))
        for tensor in self.rng.permutation(sorted(names))[:tries]:
            behind = readers.get(str(tensor), [])
            if len(behind) != 1 or tensor in shown or not _homogeneous(behind[0], str(tensor)):
                continue
            second = behind[0].output[0]
            placed = self._try("gain", str(tensor), difficulty) if second in names else None
            if placed is not None:
                undone = _fault(self.ground, second, "undone", size=placed.faults[0].size)
                return dataclasses.replace(placed, faults=(*placed.faults, undone))
        return None


def _homogeneous(node: onnx.NodeProto, tensor: str) -> bool:
    """Whether the only output scales with ``tensor``, its first input and no other."""
    if list(node.input).count(tensor) != 1 or node.input[0] != tensor or len(node.output) != 1:
        return False
    plain = node.op_type in ("Conv", "Gemm") and len(node.input) == 2
    return plain or node.op_type in _HOMOGENEOUS
