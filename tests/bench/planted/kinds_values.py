"""Faults of values at one node: wrong kernels, half precision, off by one, NaN, flaky, data dependent, in bodies."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import helper, numpy_helper

from surgeon_debug.values import element_type_of
from tests.bench.planted.draw import MARGIN, TRIES, Draw, Sized
from tests.bench.planted.engine import worst_output
from tests.bench.planted.host import RIGHT, Host, values_of
from tests.bench.planted.off_by_one import edits_of
from tests.bench.planted.plan import EDITED, NARROW, VALUES, Wrong
from tests.bench.planted.truth import NODE, Planted
from tests.bench.planted_layers.corrupt import REPLACES_NODE, Fault
from tests.bench.planted_layers.edit import _insert_behind, _readers, _reroute, with_large_scale, with_mask

SCALED = ("gain", "bias", "channel", "tile tail", "one element")
PLAIN = ("sign", "zeroed tile")


def wrong_kernel(draw: Draw, difficulty: float) -> Planted | None:
    """One node computes wrongly; at difficulty 3 so little that no output shows it and abstaining is right."""
    kind = str(draw.rng.choice([*SCALED, *PLAIN] if difficulty > 3 else SCALED))
    if difficulty <= 3:
        return _barely(draw, kind, difficulty)
    found = _one(draw, kind, difficulty)
    return None if found is None else draw.one(found, f"{kind}, {found.introduced / found.noise:.3g} times the noise")


def _one(draw: Draw, kind: str, difficulty: float) -> Sized | None:
    times_limit = 2 * MARGIN if difficulty < 100 else 12 * MARGIN
    for tensor in draw.candidates():
        if kind in PLAIN:
            wrong = draw.plain(kind, tensor)
            seen = draw.error(wrong) if wrong else 0.0
            found = draw.measured(wrong, seen=seen) if wrong and seen >= MARGIN * draw.engine.limit else None
        else:
            found = draw.sized(kind, tensor, difficulty, times_limit)
        if found is not None:
            return found
    return None


def _barely(draw: Draw, kind: str, difficulty: float) -> Planted | None:
    for tensor in draw.candidates():
        noise = draw.host.noise(tensor)
        if not np.isfinite(noise) or noise > 1e-2:
            continue
        wrong = draw.fault(kind, tensor, np.sqrt(difficulty**2 - 1) * noise)
        if wrong is None:
            continue
        introduced, seen = draw.alone(wrong), draw.error(wrong)
        if 0.6 * difficulty * noise < introduced < 1.6 * difficulty * noise and seen < draw.engine.limit / 2:
            found = Sized(wrong, noise, introduced, seen)
            return draw.one(found, f"{kind}, {difficulty:g} times the noise", latent=True, abstain=True)
    return None


def half_precision(draw: Draw) -> Planted | None:
    """One node computes in float16: overflows, underflows, or adds up in it."""
    ways = [_overflow, _underflow, _half_sums]
    for i in draw.rng.permutation(len(ways)):
        found = ways[i](draw)
        if found is not None:
            return found
    return None


def _narrow_case(draw: Draw, tensor: str, cause: str) -> Planted | None:
    wrong = Wrong(tensor, NARROW, narrow="float16")
    seen = draw.error(wrong)
    found = draw.measured(wrong, seen=seen) if seen >= MARGIN * draw.engine.limit else None
    return None if found is None else draw.one(found, cause)


def _overflow(draw: Draw) -> Planted | None:
    edited = with_large_scale(draw.host.ground, draw.rng)
    if edited is None:
        return None
    inner = Draw(_edited(draw, edited.model), draw.rng)
    return _narrow_case(inner, edited.tensor, "overflows float16")


def _edited(draw: Draw, model: onnx.ModelProto) -> Host:
    return Host(onnx.shape_inference.infer_shapes(model), draw.engine)


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _underflow(draw: Draw) -> Planted | None:
    """The network gets a node whose result float16 can hardly tell from zero, and one that scales it back."""
    for tensor in draw.candidates():
        value = draw.host.right[tensor]
        if _readers(draw.host.model.graph, tensor) is None or value.dtype != np.float32:
            continue
        factor = np.float32(2e-7 / max(1e-3, float(np.sqrt(np.mean(np.square(value.astype(np.float64)))))))
        model, small, back = _copied(draw.host.model), f"{tensor}/small", f"{tensor}/back"
        _reroute(model.graph, tensor, back, set())
        model.graph.initializer.append(numpy_helper.from_array(factor, "planted.factor"))
        nodes = [
            helper.make_node("Mul", [tensor, "planted.factor"], [small], name="/planted/Mul"),
            helper.make_node("Div", [small, "planted.factor"], [back], name="/planted/Div"),
        ]
        _insert_behind(model.graph, tensor, nodes)
        found = _narrow_case(Draw(_edited(draw, model), draw.rng), small, "underflows float16")
        if found is not None:
            return found
    return None


def _half_sums(draw: Draw) -> Planted | None:
    products = {node.output[0] for node in draw.host.nodes if node.op_type == "MatMul"}
    for tensor in draw.candidates():
        wrong = draw.plain(REPLACES_NODE, tensor) if tensor in products else None
        seen = draw.error(wrong) if wrong else 0.0
        if wrong and seen >= 2 * draw.engine.limit and (found := draw.measured(wrong, seen=seen)):
            return draw.one(found, "adds up in float16")
    return None


def off_by_one(draw: Draw) -> Planted | None:
    """An axis, a pad, a rounding or an order that is off by one."""
    shapes = {name: value.shape for name, value in draw.host.right.items()}
    constants = {tensor.name: tensor for tensor in draw.host.model.graph.initializer}
    shapes |= {name: tuple(tensor.dims) for name, tensor in constants.items()}
    edits = [
        (node.output[0], edit)
        for i, node in enumerate(draw.host.nodes)
        if i in draw.host.live and node.output[0] in draw.host.right
        for edit in edits_of(node, shapes, constants)
    ]
    for i in draw.rng.permutation(len(edits))[: TRIES if draw.rng.random() < 0.8 else 0]:
        tensor, edit = edits[i]
        wrong = Wrong(tensor, EDITED, edit=edit)
        try:
            seen = draw.error(wrong)
        except Exception:  # noqa: BLE001  (off in a way that does not run at all: another one is drawn)
            continue
        if seen >= MARGIN * draw.engine.limit and (found := draw.measured(wrong, seen=seen)):
            return draw.one(found, f"{draw.host.nodes[draw.host.place[tensor]].op_type} with {dict(edit)}")
    for tensor in draw.candidates():
        slipped = draw.plain("axis slip", tensor)
        seen = draw.error(slipped) if slipped else 0.0
        if slipped and seen >= MARGIN * draw.engine.limit and (found := draw.measured(slipped, seen=seen)):
            return draw.one(found, "all moved on by one along an axis")
    return None


def masked_nan(draw: Draw) -> Planted | None:
    """NaN that a Where behind it hides: from sight altogether, or by numbers that are wrong."""
    if draw.rng.random() < 0.5:
        edited = with_mask(draw.host.ground, draw.rng)
        if edited is None:
            return None
        inner = Draw(_edited(draw, edited.model), draw.rng)
        wrong = _nan(inner, edited.tensor, edited.places)
        seen = inner.error(wrong)
        if seen >= inner.engine.limit / 2:
            return None
        found = Sized(wrong, inner.host.noise(edited.tensor), inner.alone(wrong), seen)
        return inner.one(found, "NaN where a mask hides it", latent=True)
    for tensor in draw.candidates():
        found_one = _guarded(draw, tensor)
        if found_one is not None:
            return found_one
    return None


def _nan(draw: Draw, tensor: str, places: tuple[int, ...]) -> Wrong:
    value = draw.host.right[tensor]
    return draw.values(Fault(tensor, "masked NaN", element_type_of(value), value.shape, places=places))


def _guarded(draw: Draw, tensor: str) -> Planted | None:
    """The network gets a Where that puts a number in the place of NaN, a node behind a drawn one."""
    graph = draw.host.model.graph
    readers = _readers(graph, tensor)
    if not readers or draw.host.right[tensor].dtype != np.float32:
        return None
    after = [name for node in readers for name in node.output if name in draw.host.right]
    last = str(draw.rng.choice([tensor, *after]))
    if _readers(graph, last) is None or draw.host.right[last].dtype != np.float32:
        return None
    model, guarded, flag = _copied(draw.host.model), f"{last}/guarded", f"{last}/is nan"
    _reroute(model.graph, last, guarded, set())
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "planted.instead"))
    nodes = [
        helper.make_node("IsNaN", [last], [flag], name="/planted/IsNaN"),
        helper.make_node("Where", [flag, "planted.instead", last], [guarded], name="/planted/Where"),
    ]
    _insert_behind(model.graph, last, nodes)
    inner = Draw(_edited(draw, model), draw.rng)
    size = draw.host.right[tensor].size
    places = draw.rng.choice(size, size // 20 + 1, replace=False)
    wrong = _nan(inner, tensor, tuple(int(i) for i in places))
    seen = inner.error(wrong)
    if not MARGIN * draw.engine.limit <= seen < np.inf:
        return None
    found = inner.measured(wrong, seen=seen)
    return None if found is None else inner.one(found, "NaN that becomes a number further on")


def flaky(draw: Draw, probability: float, per_build: bool) -> Planted | None:
    """A wrong kernel that is wrong only sometimes."""
    found = _one(draw, str(draw.rng.choice(("gain", "bias", "channel"))), 1000)
    if found is None:
        return None
    found = dataclasses.replace(
        found, wrong=dataclasses.replace(found.wrong, probability=probability, per_build=per_build)
    )
    per = "build" if per_build else "run"
    return draw.one(found, f"in {probability:.0%} of all {per}s", probability=probability)


def data_dependent(draw: Draw) -> Planted | None:
    """A wrong kernel that shows in one of all samples, where the largest value exceeds a threshold."""
    host = draw.host
    names = list(draw.candidates())
    largest = [
        {k: float(v.max()) for k, v in found.items()} for found in values_of(RIGHT, host.model, host.feeds, names)
    ]
    for tensor in names:
        values = np.array([found[tensor] for found in largest])
        at = int(values.argmax())
        second, first = np.sort(values)[-2:]
        if host.right[tensor].dtype != np.float32 or first - second < 0.02 * abs(first):
            continue
        found = _on_sample(draw, tensor, at, float(first + second) / 2)
        if found is not None:
            return found
    return None


def _on_sample(draw: Draw, tensor: str, at: int, above: float) -> Planted | None:
    # The host's right values are those of its first sample; the one that matters is put there while a size is drawn.
    first = Host.__new__(Host)
    first.model, first.engine = draw.host.model, draw.host.engine
    first.feeds, first.expected = [draw.host.feeds[at]], [draw.host.expected[at]]
    inner = Draw(first, draw.rng)
    found = inner.sized("gain", tensor, 100, 6 * MARGIN)
    if found is None:
        return None
    wrong = dataclasses.replace(found.wrong, above=above)
    shown = [draw.host.error(draw.plan(wrong)), inner.error(wrong)]
    if shown[0] != shown[1] or inner.alone(wrong) < 12 * found.noise:
        return None
    planted = draw.one(dataclasses.replace(found, wrong=wrong), f"in sample {at} only", sample=at)
    others = [feeds for i, feeds in enumerate(draw.host.feeds) if i != at]
    return planted if _clean(draw, wrong, others, [e for i, e in enumerate(draw.host.expected) if i != at]) else None


def _clean(draw: Draw, wrong: Wrong, feeds: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> bool:
    found = values_of(draw.plan(wrong), draw.host.model, feeds)
    return all(worst_output(r, v) < draw.engine.limit / 2 for r, v in zip(expected, found, strict=True))


def in_body(draw: Draw) -> Planted | None:
    """A node inside the body of a Loop, Scan or If is wrong."""
    found = []
    for i, node in enumerate(draw.host.nodes):
        stack = [a.g for a in node.attribute if a.HasField("g")] if i in draw.host.live else []
        while stack:
            body = stack.pop()
            found += [(i, inner) for inner in body.node if _is_float(inner)]
            stack += [a.g for inner in body.node for a in inner.attribute if a.HasField("g")]
    for j in draw.rng.permutation(len(found)):
        i, inner = found[j]
        size = float(draw.rng.choice([0.02, 0.1, 0.3]))
        kind = str(draw.rng.choice(["gain", "bias"]))
        fault = Fault(inner.output[0], kind, onnx.TensorProto.FLOAT, (), size=size)
        wrong = Wrong(inner.output[0], VALUES, corruption=dataclasses.asdict(fault))
        seen = draw.error(wrong)
        alone = draw.host.alone(draw.plan(wrong), [i])
        if seen < MARGIN * draw.engine.limit or alone < 3e-5:
            continue
        cause = f"{kind} of {size:g} at {inner.op_type}, inside"
        truth = draw.truth(NODE, [[i]], cause=cause, introduced=alone, visible=seen, inside=inner.name)
        return draw.planted(truth, wrong)
    return None


_FLOATS_IN_BODIES = {"MatMul", "Add", "Sub", "Mul", "Tanh", "Sigmoid", "Relu", "Neg", "Gemm", "Gather", "Concat", "Div"}


def _is_float(node: onnx.NodeProto) -> bool:
    return node.op_type in _FLOATS_IN_BODIES and bool(node.output[0])
