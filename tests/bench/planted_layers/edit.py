"""Changes to a network that both engines get, so that a kind of fault can occur in it: a mask, a large scale."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import helper, numpy_helper

from surgeon_debug.values import element_type_of
from tests.bench.planted_layers.corrupt import Fault
from tests.bench.planted_layers.ground import Ground, reads_of
from tests.bench.planted_layers.place import eligible

_ELEMENTWISE = {
    "Relu", "Sigmoid", "Tanh", "Erf", "Neg", "Abs", "Softplus", "Identity", "Clip", "LeakyRelu", "Add", "Sub", "Mul",
    "Div", "HardSigmoid", "HardSwish", "Elu", "Gelu", "Exp",
}  # fmt: skip
_SCALABLE = {"MatMul", "Conv", "Gemm"}
_LARGEST_HALF = 65504.0


@dataclasses.dataclass(frozen=True)
class Edited:
    """A changed network and where its trouble sits."""

    model: onnx.ModelProto
    tensor: str
    """The culprit's tensor."""
    places: tuple[int, ...] = ()
    """Flat indices of elements there that something behind masks."""


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def _reroute(graph: onnx.GraphProto, old: str, new: str, spared: set[str]) -> None:
    """Let all nodes but those in ``spared`` read ``new`` instead of ``old``."""
    for node in graph.node:
        if node.name in spared:
            continue
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _reroute(inner, old, new, set())


def _insert_behind(graph: onnx.GraphProto, tensor: str, nodes: list[onnx.NodeProto]) -> None:
    at = next(i for i, node in enumerate(graph.node) if tensor in node.output)
    for offset, node in enumerate(nodes):
        graph.node.insert(at + 1 + offset, node)


def _readers(graph: onnx.GraphProto, tensor: str) -> list[onnx.NodeProto] | None:
    """Nodes that read a tensor; None if a body or a graph output does."""
    if any(info.name == tensor for info in graph.output):
        return None
    readers = [node for node in graph.node if tensor in reads_of(node)]
    return readers if all(tensor in node.input for node in readers) else None


def with_mask(ground: Ground, rng: np.random.Generator) -> Edited | None:
    """Put a Where with a constant mask behind up to three nodes after a drawn one; None if there is no place.

    What the mask hides is 0 on both sides from there on: NaN in those elements of the drawn tensor reaches no output.
    """
    shapes = {name: value.shape for name, value in ground.reference.items()}
    for tensor in rng.permutation(eligible(ground)):
        graph = ground.model.graph
        last, steps = str(tensor), int(rng.integers(1, 4))
        while steps:
            behind = _readers(graph, last)
            if behind is None or len(behind) != 1 or behind[0].op_type not in _ELEMENTWISE:
                break
            if list(behind[0].input).count(last) != 1 or shapes.get(behind[0].output[0]) != shapes[str(tensor)]:
                break
            last, steps = behind[0].output[0], steps - 1
        if last == str(tensor) or _readers(graph, last) is None:
            continue
        return _masked(ground, str(tensor), last, rng)
    return None


def _masked(ground: Ground, tensor: str, last: str, rng: np.random.Generator) -> Edited:
    model = _copy(ground.model)
    value = ground.reference[last]
    hidden = rng.choice(value.size, max(1, value.size // 20), replace=False)
    mask = np.ones(value.size, bool)
    mask[hidden] = False
    constants = {"planted.mask": mask.reshape(value.shape), "planted.zero": np.float32(0)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    masked = f"{last}/masked"
    _reroute(model.graph, last, masked, set())
    where = helper.make_node("Where", ["planted.mask", last, "planted.zero"], [masked], name="/planted/Where")
    _insert_behind(model.graph, last, [where])
    del model.graph.value_info[:]
    chosen = rng.choice(hidden, min(len(hidden), int(rng.integers(1, 4))), replace=False)
    return Edited(model, tensor, tuple(int(i) for i in chosen))


def with_large_scale(ground: Ground, rng: np.random.Generator) -> Edited | None:
    """Make one layer's values exceed what float16 holds, and scale them back behind it; None if there is no place.

    Either the weights of a MatMul, Conv or Gemm without bias are scaled, or a Mul is put in.
    """
    for drawn in rng.permutation(eligible(ground)):
        tensor = str(drawn)
        if _readers(ground.model.graph, tensor) is None:
            continue
        model = _copy(ground.model)
        node = next(node for node in model.graph.node if tensor in node.output)
        # From a few elements to many, depending on the draw.
        values = np.abs(ground.reference[tensor].astype(np.float64))
        value = float(np.quantile(values, rng.choice([0.5, 0.9, 1.0])))
        if not value:
            continue
        factor = 1.5 * _LARGEST_HALF / value
        weight = next((t for t in model.graph.initializer if len(node.input) == 2 and t.name == node.input[1]), None)
        if node.op_type in _SCALABLE and weight is not None and rng.random() < 0.7:
            array = numpy_helper.to_array(weight)
            if np.abs(array).max() * factor > _LARGEST_HALF / 2 or not _only_reader(model.graph, node, weight.name):
                continue
            weight.CopyFrom(numpy_helper.from_array((array * factor).astype(np.float32), weight.name))
            culprit = tensor
        elif factor < _LARGEST_HALF / 2:
            culprit = f"{tensor}/scaled"
        else:
            continue
        _scale_back(model.graph, tensor, culprit, factor)
        del model.graph.value_info[:]
        return Edited(model, culprit)
    return None


def _only_reader(graph: onnx.GraphProto, node: onnx.NodeProto, name: str) -> bool:
    return all(name not in other.input or other.name == node.name for other in graph.node)


def _scale_back(graph: onnx.GraphProto, tensor: str, culprit: str, factor: float) -> None:
    graph.initializer.append(numpy_helper.from_array(np.float32(factor), "planted.factor"))
    back = f"{tensor}/scaled back"
    _reroute(graph, tensor, back, set())
    nodes = [helper.make_node("Div", [culprit, "planted.factor"], [back], name="/planted/Div")]
    if culprit != tensor:
        nodes.insert(0, helper.make_node("Mul", [tensor, "planted.factor"], [culprit], name="/planted/Mul"))
    _insert_behind(graph, tensor, nodes)


def masked_fault(ground: Ground, edited: Edited) -> Fault:
    """NaN at the places that the mask hides."""
    value = ground.target[edited.tensor]
    return Fault(edited.tensor, "masked NaN", element_type_of(value), value.shape, places=edited.places)
