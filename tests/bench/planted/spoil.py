"""Put the faults of a plan into a graph, as nodes behind the faulty ones or in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.bench.planted.plan import EDITED, NARROW, VALUES, Wrong
from tests.bench.planted_layers.corrupt import REPLACES_NODE, Fault, nodes_of

_NARROW = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


@dataclasses.dataclass(frozen=True)
class Spoilt:
    """What was done to a graph."""

    tensors: frozenset[str]
    """Tensors that are wrong now, or may be."""
    coins: tuple[tuple[str, Wrong], ...]
    """Inputs of the graph that say in each run whether a fault shows, and which one."""


def corruption_of(wrong: Wrong) -> Fault:
    """The change of values that a fault makes."""
    assert wrong.corruption is not None
    lists = ("shape", "places")
    return Fault(**{k: tuple(v) if k in lists else v for k, v in wrong.corruption.items()})


def spoil(graph: onnx.GraphProto, faults: Sequence[Wrong]) -> Spoilt:
    """Put faults into a graph and into the bodies of its nodes.

    Args:
        graph: The main graph; it is changed.
        faults: Faults that change values and are active in this graph.
    """
    by_tensor = {fault.tensor: fault for fault in faults}
    coins = {fault.tensor: f"planted/coin/{i}" for i, fault in enumerate(faults) if fault.probability < 1.0}
    done = _spoil(graph, by_tensor, coins)
    thrown = [(coins[name], by_tensor[name]) for name in sorted(done) if name in coins]
    for coin, _ in thrown:
        graph.input.append(helper.make_tensor_value_info(coin, TensorProto.BOOL, []))
    return Spoilt(frozenset(done), tuple(thrown))


def _spoil(graph: onnx.GraphProto, faults: dict[str, Wrong], coins: dict[str, str]) -> set[str]:
    done: set[str] = set()
    rebuilt: list[onnx.NodeProto] = []
    for node in graph.node:
        for inner in _bodies(node):
            done |= _spoil(inner, faults, coins)
        hit = next((name for name in node.output if name in faults), "")
        if not hit:
            rebuilt.append(node)
            continue
        rebuilt += _wrong_nodes(node, hit, faults[hit], coins.get(hit, ""))
        done.add(hit)
    if done:
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in rebuilt]
        del graph.node[:]
        graph.node.extend(kept)
    return done


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _wrong_nodes(node: onnx.NodeProto, tensor: str, wrong: Wrong, coin: str) -> list[onnx.NodeProto]:
    """The node and what makes its tensors wrong."""
    if wrong.effect == EDITED and not coin:
        return _edited(node, wrong.edit or {})
    original = onnx.NodeProto.FromString(node.SerializeToString())
    clean, bad = f"{tensor}/clean", f"{tensor}/bad"
    node.output[list(node.output).index(tensor)] = clean
    made: list[onnx.NodeProto] = [node]
    if wrong.effect == EDITED:
        other = onnx.NodeProto.FromString(original.SerializeToString())
        for i, name in enumerate(other.output):
            other.output[i] = bad if name == tensor else f"{name}/bad" if name else ""
        other.name = f"{node.name}/bad"
        made += _edited(other, wrong.edit or {})
    elif wrong.effect == NARROW:
        made += _narrowed(original, tensor, bad, _NARROW[wrong.narrow])
    elif wrong.effect == VALUES:
        fault = dataclasses.replace(corruption_of(wrong), tensor=bad)
        source = original if fault.kind == REPLACES_NODE else node
        made += nodes_of(fault, source, clean)
    else:
        raise ValueError(f"a fault by values has no effect '{wrong.effect}'")
    return made + _chosen(tensor, clean, bad, wrong, coin)


def _chosen(tensor: str, clean: str, bad: str, wrong: Wrong, coin: str) -> list[onnx.NodeProto]:
    """The wrong tensor where chance and data will have it, the right one elsewhere."""
    made: list[onnx.NodeProto] = []
    condition = coin
    if wrong.above is not None:
        limit, largest, condition = (f"{tensor}/planted/{what}" for what in ("limit", "largest", "above"))
        made += [
            helper.make_node("Constant", [], [limit], value=numpy_helper.from_array(np.float32(wrong.above))),
            helper.make_node("ReduceMax", [clean], [largest], keepdims=0),
            helper.make_node("Greater", [largest, limit], [condition]),
        ]
    if condition:
        return [*made, helper.make_node("Where", [condition, bad, clean], [tensor])]
    return [*made, helper.make_node("Identity", [bad], [tensor])]


def _narrowed(node: onnx.NodeProto, tensor: str, bad: str, to: int) -> list[onnx.NodeProto]:
    """The node once more, its floating-point inputs and its result rounded to a narrow type."""
    made: list[onnx.NodeProto] = []
    for i in _float_inputs(node):
        rounded = f"{bad}/input/{i}"
        made += _rounded(node.input[i], rounded, to)
        node.input[i] = rounded
    wide = f"{bad}/wide"
    for i, name in enumerate(node.output):
        node.output[i] = wide if name == tensor else f"{name}/unused" if name else ""
    node.name = f"{node.name}/narrow"
    return [*made, node, *_rounded(wide, bad, to)]


_ONE_FLOAT = {"Reshape", "Gather", "Unsqueeze", "Squeeze", "Slice", "Expand", "Tile", "ReduceMean", "ReduceSum", "Pad"}


def _float_inputs(node: onnx.NodeProto) -> list[int]:
    count = 1 if node.op_type in _ONE_FLOAT else len(node.input)
    return [i for i in range(count) if node.input[i] and not (node.op_type == "Where" and i == 0)]


def _rounded(name: str, result: str, to: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [name], [f"{result}/cast"], to=to),
        helper.make_node("Cast", [f"{result}/cast"], [result], to=TensorProto.FLOAT),
    ]


def _edited(node: onnx.NodeProto, edit: dict[str, Any] | Any) -> list[onnx.NodeProto]:
    """The node with other attributes, or with its inputs or outputs in another order."""
    for name, value in edit.get("attributes", {}).items():
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])
    for field in ("inputs", "outputs"):
        names = list(node.input if field == "inputs" else node.output)
        for i, j in enumerate(edit.get(field, ())):
            (node.input if field == "inputs" else node.output)[i] = names[j]
    made = []
    for number, (dtype, value) in edit.get("constants", {}).items():
        name = f"{node.output[0]}/planted/{number}"
        made.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value, dtype))))
        node.input[int(number)] = name
    node.op_type = edit.get("op_type", node.op_type)
    return [*made, node]


def round_floats(model: onnx.ModelProto, precision: str) -> None:
    """Let every float32 result of the main graph be rounded to a narrow type, as an engine in that type has it."""
    to = _NARROW[precision]
    known = onnx.shape_inference.infer_shapes(model).graph
    infos = (*known.value_info, *known.output)
    floats = {info.name for info in infos if info.type.tensor_type.elem_type == TensorProto.FLOAT}
    made: list[onnx.NodeProto] = []
    for node in model.graph.node:
        made.append(node)
        if node.op_type == "Constant":
            continue
        for i, name in enumerate(node.output):
            if name in floats:
                node.output[i] = f"{name}/exact"
                made += _rounded(node.output[i], name, to)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made]
    del model.graph.node[:]
    model.graph.node.extend(kept)
