"""Which layers a planted fault hits, and what it does to their values."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from tests.simulated_tensorrt.engine_file import EngineLayer, Sick
from tests.simulated_tensorrt.graph import Graph
from tests.simulated_tensorrt.plan import Fault, Where


def matches(where: Where, layer: EngineLayer, graph: Graph) -> bool:
    """Whether an engine layer is meant."""
    nodes = [graph.nodes[i] for i in layer.nodes]
    choice = layer.choice
    if where.node and not any(re.fullmatch(where.node, node.name) or in_body(where, node) for node in nodes):
        return False
    if where.op and not any(node.op_type == where.op for node in nodes):
        return False
    if where.layer and not re.fullmatch(where.layer, layer.name):
        return False
    if where.kernel and (choice is None or not re.search(where.kernel, choice.kernel)):
        return False
    if where.tactic and (choice is None or choice.hash != int(where.tactic, 16)):
        return False
    return where.rank is None or (choice is not None and choice.rank == where.rank)


def body_of(node: onnx.NodeProto) -> onnx.GraphProto | None:
    """The body of a Loop; None of anything else."""
    return next((a.g for a in node.attribute if a.name == "body"), None) if node.op_type == "Loop" else None


def in_body(where: Where, node: onnx.NodeProto) -> bool:
    """Whether a node in a Loop's body is meant."""
    body = body_of(node)
    return body is not None and bool(where.node) and any(re.fullmatch(where.node, one.name) for one in body.node)


def hits(
    fault: Fault,
    layers: Sequence[EngineLayer],
    graph: Graph,
    *,
    knobs: Mapping[str, str],
    level: int,
    tf32: bool,
) -> tuple[int, ...]:
    """Indices of the layers of one profile that a fault hits in an engine built so."""
    if fault.knob:
        name, _, value = fault.knob.partition("=")
        if knobs.get(name) != value:
            return ()
    if (fault.level is not None and level < fault.level) or (fault.tf32 is not None and tf32 != fault.tf32):
        return ()
    found = tuple(
        i
        for i, layer in enumerate(layers)
        if layer.kind != "reformat" and _together(fault, layer, graph) and matches(fault.where, layer, graph)
    )
    if fault.also is not None:
        others = {i for i, layer in enumerate(layers) if matches(fault.also, layer, graph)}
        found = tuple(i for i in found if others - {i})
    return found


def _together(fault: Fault, layer: EngineLayer, graph: Graph) -> bool:
    names = [graph.nodes[i].name for i in layer.nodes]
    if fault.fused and len(names) < 2:
        return False
    return all(any(re.fullmatch(pattern, name) for name in names) for pattern in fault.fused_with)


def shows(sick: Sick, profile: int, run: int, at_optimum: bool) -> bool:
    """Whether a fault of an engine shows in this execution.

    Args:
        sick: The fault.
        profile: The active profile.
        run: The execution's number in its context, from 1.
        at_optimum: Whether all inputs have the profile's optimal shapes.
    """
    fault = sick.fault
    if fault.profile is not None and fault.profile != profile:
        return False
    if fault.non_opt_shape and at_optimum:
        return False
    return run % max(fault.every, 1) == 0 and bool(sick.layers[profile])


def spoil(value: Any, fault: Fault) -> Any:
    """A value with the fault; integers and truth values stay as they are."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.size == 0:
        return value
    wrong = value.copy()
    if fault.effect == "nan":
        wrong.reshape(-1)[_place(wrong, fault)] = np.nan
    elif fault.effect == "fp16_overflow":
        with np.errstate(over="ignore"):
            wrong = wrong.astype(np.float16).astype(value.dtype)
    else:
        _wrong_values(wrong, fault)
    return wrong


def _place(value: np.ndarray, fault: Fault) -> int:
    return random.Random(f"{fault.name}|{fault.where}").randrange(value.size)


def _wrong_values(value: np.ndarray, fault: Fault) -> None:
    finite = value[np.isfinite(value)]
    step = fault.amount * float(np.max(np.abs(finite), initial=0.0) or 1.0)
    if fault.mode == "bias":
        value += step
    elif fault.mode == "scale":
        value *= 1 + fault.amount
    elif fault.mode == "element":
        value.reshape(-1)[_place(value, fault)] += step
    else:
        plane = value.reshape(-1, value.shape[-1]) if value.ndim else value.reshape(1, 1)
        tile = plane[:4, :4]
        if fault.mode == "transpose" and min(tile.shape) > 1:
            side = min(tile.shape)
            tile[:side, :side] = tile[:side, :side].T.copy()
        else:
            tile += step
