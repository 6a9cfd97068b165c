"""Replace what is private in a piece, its weights and inputs, by seeded random numbers of the same kind.

A replacement has the shape, the type, the mean and the spread of what it replaces, stays within its range, keeps its
sign where that is one, and whole numbers where they are whole. What says how to compute rather than what (shapes, axes,
scales, zero points, single numbers) stays as it is.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx

from surgeon_debug.find.culprit_piece import Array, CulpritPiece
from surgeon_debug.values import Value, kind_of

_SETTING_ELEMENTS = 64  # an integer tensor up to this size is a shape, an axis or a count
_QUANTISING = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QLinearConv": (1, 2, 4, 5, 6, 7), "MatMulInteger": (2, 3), "ConvInteger": (2, 3),
    "DynamicQuantizeLSTM": (8, 9, 10, 11), "QLinearAdd": (1, 2, 4, 5, 6, 7), "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8),
}  # fmt: skip

Attempt = Callable[[CulpritPiece], CulpritPiece | None]


@dataclasses.dataclass(frozen=True)
class SeededPiece:
    """A piece without what was private in it, as far as the failure let go of it."""

    piece: CulpritPiece
    """The piece; the one given if nothing could be replaced."""
    replaced: tuple[str, ...]
    """Tensors with random values now."""
    kept: tuple[str, ...]
    """Tensors whose values had to stay, for without them the failure is gone."""
    settings: tuple[str, ...]
    """Tensors that were left as they are because they say how to compute."""

    @property
    def words(self) -> str:
        """What is private in it still, as sentences."""
        if self.kept:
            first = f"The values of {_listed(self.kept)} are the original ones: without them the failure is gone."
        elif self.replaced:
            first = "All weights and inputs are random numbers."
        else:
            first = "It has no weights or inputs whose values could be private."
        settings = f", and the values of {_listed(self.settings)}" if self.settings else ""
        return (
            f"{first} Still the original's: the operators and their attributes, the names of nodes and tensors, "
            f"shapes and types{settings}."
        )


def seeded_weights(piece: CulpritPiece, attempt: Attempt, *, seed: int = 0) -> SeededPiece:
    """Replace all weights and inputs that the failure can do without.

    All at once is tried first, then inputs and weights apart, then halves of what is left.

    Args:
        piece: A piece that fails.
        attempt: Tries a piece; see :class:`surgeon_debug.find.piece_trials.PieceTrials`.
        seed: Decides the random numbers.
    """
    settings = settings_of(piece)
    items = _Items(piece, seed, settings)
    current = piece.changed(model=without_remarks(piece.model))
    current = dataclasses.replace(current, expected=piece.expected)
    done: list[str] = []
    kept: list[str] = []
    weights, inputs = list(items.weights), list(items.inputs)
    stack = [weights + inputs]
    while stack:
        group = stack.pop()
        if not group:
            continue
        found = attempt(items.replaced(current, group))
        if found is not None:
            current = found
            done += group
        elif len(group) == 1:
            kept += group
        elif len(group) == len(weights) + len(inputs) and weights and inputs:
            stack += [weights, inputs]
        else:
            stack += [group[len(group) // 2 :], group[: len(group) // 2]]
    return SeededPiece(current, tuple(done), tuple(kept), tuple(sorted(settings)))


class _Items:
    """What can be replaced, by name: initializers, tensors in bodies and functions, inputs."""

    def __init__(self, piece: CulpritPiece, seed: int, settings: set[str]) -> None:
        self._seed = seed
        self.weights = [name for name, array in piece.weights.items() if name not in settings and array.size > 1]
        self.weights += [label for label, tensor in tensors_inside(piece.model) if not _is_setting_tensor(tensor)]
        fed = {name: value for sample in piece.feeds for name, value in sample.items()}
        self.inputs = [name for name, value in fed.items() if value is not None]

    def replaced(self, piece: CulpritPiece, names: Sequence[str]) -> CulpritPiece:
        """The piece with random values for some of its tensors."""
        chosen = set(names)
        weights = {
            name: self._random(name, array) if name in chosen else array for name, array in piece.weights.items()
        }
        feeds = [
            {n: self._random(f"{s}/{n}", v) if n in chosen else v for n, v in sample.items()}
            for s, sample in enumerate(piece.feeds)
        ]
        model = onnx.ModelProto()
        model.CopyFrom(piece.model)
        for label, tensor in tensors_inside(model):
            if label in chosen:
                array = onnx.numpy_helper.to_array(tensor)
                made = onnx.numpy_helper.from_array(self._random(label, array), tensor.name)
                tensor.CopyFrom(made)
        return piece.changed(feeds=feeds, weights=weights, model=model)

    def _random(self, label: str, value: Value) -> Value:
        rng = np.random.default_rng([self._seed, *label.encode()])
        return random_like(value, rng)


def random_like(value: Value, rng: np.random.Generator) -> Value:
    """Random values of the same shape, type and scale.

    Args:
        value: An array or a sequence of arrays; anything else stays as it is.
        rng: Where chance comes from.
    """
    if isinstance(value, list):
        return [random_like(item, rng) for item in value]
    if not isinstance(value, np.ndarray) or not value.size:
        return value
    kind = kind_of(value)
    if kind == "bool":
        return np.asarray(rng.random(value.shape) < value.mean())
    if kind == "text":
        return _random_text(value, rng)
    if kind == "complex":
        real, imaginary = (random_like(np.ascontiguousarray(part), rng) for part in (value.real, value.imag))
        return (real + 1j * imaginary).astype(value.dtype)
    if kind == "int":
        wide = value.astype(np.int64) if value.dtype != np.uint64 else value
        drawn = rng.integers(int(wide.min()), int(wide.max()), value.shape, wide.dtype, endpoint=True)
        return drawn.astype(value.dtype)
    return _random_floats(value, rng) if kind == "float" else value


def _random_floats(value: Array, rng: np.random.Generator) -> Array:
    with np.errstate(all="ignore"):
        wide = value.astype(np.float64)
        finite = wide[np.isfinite(wide)]
        if not finite.size:
            return value
        low, high = float(finite.min()), float(finite.max())
        if low == high:
            return value
        centre = finite.mean()
        drawn = rng.normal(centre, finite.std(), value.shape)
        if low >= 0.0 or high <= 0.0:
            # Reflected, not cut off: a heap of zeros would be another kind of tensor.
            drawn = np.copysign(drawn, 1.0 if low >= 0.0 else -1.0)
        # Not clipped: the ends of the range are values of the original.
        drawn = np.where((drawn <= low) | (drawn >= high), rng.uniform(low, high, value.shape), drawn)
        if bool((finite == np.round(finite)).all()):
            drawn = np.round(drawn)
        return np.asarray(drawn.astype(value.dtype))


def _random_text(value: Array, rng: np.random.Generator) -> Array:
    """Words of the same lengths; equal ones stay equal."""
    letters = np.array(list(string.ascii_lowercase))
    known: dict[str, str] = {}
    flat = np.empty(value.size, object)
    for i, item in enumerate(value.reshape(-1)):
        text = str(item)
        if text not in known:
            known[text] = "".join(rng.choice(letters, len(text)))
        flat[i] = known[text]
    return flat.reshape(value.shape)


def settings_of(piece: CulpritPiece) -> set[str]:
    """Weights that say how to compute: short integers, single numbers, scales and zero points."""
    found = {
        name
        for name, array in piece.weights.items()
        if (kind_of(array) in ("int", "bool") and array.ndim <= 1 and array.size <= _SETTING_ELEMENTS)
        or array.size <= 1
    }
    for node in piece.model.graph.node:
        for place in _QUANTISING.get(node.op_type, ()):
            if place < len(node.input) and node.input[place] in piece.weights:
                found.add(node.input[place])
    return found


def tensors_inside(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Tensors in attributes, bodies and functions, each with a label that is no tensor's name twice."""
    stack: list[tuple[str, Any]] = [(node.name or str(i), node) for i, node in enumerate(model.graph.node)]
    for function in model.functions:
        stack += [(f"{function.name}/{node.name or i}", node) for i, node in enumerate(function.node)]
    while stack:
        where, node = stack.pop()
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield f"{attribute.name} of {where}", attribute.t
            graphs = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            for number, graph in enumerate(graphs):
                inner = f"{where}/{attribute.name}{number or ''}"
                for tensor in graph.initializer:
                    yield f"{tensor.name} in {inner}", tensor
                stack += [(f"{inner}/{other.name or i}", other) for i, other in enumerate(graph.node)]


def _is_setting_tensor(tensor: onnx.TensorProto) -> bool:
    size = int(np.prod(tensor.dims))
    integers = tensor.data_type in (
        onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
    )  # fmt: skip
    return size <= 1 or (integers and len(tensor.dims) <= 1 and size <= _SETTING_ELEMENTS)


def without_remarks(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without remarks and metadata, which name files and lines of whoever exported it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ClearField("doc_string")
    del copy.metadata_props[:]
    stack: list[Any] = [copy.graph, *copy.functions]
    while stack:
        item = stack.pop()
        item.ClearField("doc_string")
        del item.metadata_props[:]
        if isinstance(item, (onnx.GraphProto, onnx.FunctionProto)):
            stack += item.node
        if isinstance(item, onnx.GraphProto):
            stack += [*item.initializer, *item.input, *item.output, *item.value_info]
        if isinstance(item, onnx.NodeProto):
            stack += [a.g for a in item.attribute if a.HasField("g")] + [g for a in item.attribute for g in a.graphs]
            stack += [a.t for a in item.attribute if a.HasField("t")]
    return copy


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
