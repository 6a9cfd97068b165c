"""Faults of the engine rather than of one kernel: endings, fusions, tactics, several at once, and none at all."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np

from tests.bench.planted.draw import MARGIN, TRIES, Draw, Sized
from tests.bench.planted.fusion import key_of, lasting_windows_of, tactic_of
from tests.bench.planted.plan import NARROW, REFUSAL, Wrong
from tests.bench.planted.truth import NOBODY, NODE, SEVERAL, WINDOW, Planted, Truth
from tests.bench.planted_layers.place import Drawing, eligible


def ending(draw: Draw, effect: str) -> Planted | None:
    """A crash, a hang or a refusal at one node or at one window."""
    host, rng = draw.host, draw.rng
    while_running = effect != REFUSAL and rng.random() < 0.3
    windows = [w for w in _windows(draw) if set(map(host.place.__getitem__, w)) & host.live]
    if windows and rng.random() < 0.2:
        window = windows[rng.integers(len(windows))]
        wrong = Wrong(window[-1], effect, window=window, while_running=while_running)
        positions, label = [host.place[name] for name in window], WINDOW
    else:
        position = int(rng.choice(sorted(host.live)))
        tensor = host.nodes[position].output[0]
        known = tensor in host.right and rng.random() < 0.25
        shape = host.right[tensor].shape if known else ()
        wrong = Wrong(tensor, effect, while_running=while_running, shape=shape)
        positions, label = [position], NODE
    if not _ends(draw, wrong):
        return None
    if _ends_alone(draw, wrong, positions) is not True:
        return None
    when = "run" if while_running else "built"
    truth = draw.truth(label, [positions], cause=f"{effect} when {when}")
    return draw.planted(truth, wrong)


def _ends(draw: Draw, wrong: Wrong) -> bool:
    try:
        draw.error(wrong)
    except Exception as error:  # noqa: BLE001  (the engine may be told to raise one thing or the other)
        return "mock engine" in str(error)
    return False


def _ends_alone(draw: Draw, wrong: Wrong, positions: list[int]) -> bool:
    with contextlib.suppress(KeyError, ValueError):
        try:
            draw.host.alone(draw.plan(wrong), positions)
        except Exception as error:  # noqa: BLE001
            return "mock engine" in str(error)
    return False


def _windows(draw: Draw) -> list[tuple[str, ...]]:
    return lasting_windows_of(draw.host.model.graph, draw.engine.seed, draw.engine.fused)


def fusion(draw: Draw, size: int) -> Planted | None:
    """A window is wrong where it is fused, and only there.

    Args:
        draw: Where; the seed of its engine may change.
        size: How many nodes the window should have; the nearest is taken.
    """
    good = set(eligible(draw.host.ground))
    fitting: list[tuple[str, ...]] = []
    for _ in range(8):
        found = [window for window in _windows(draw) if _can_be_wrong(draw, window, good)]
        fitting = [window for window in found if len(window) == size] or found
        if fitting and len(fitting[0]) == size:
            break
        draw.host.engine = dataclasses.replace(draw.engine, seed=int(draw.rng.integers(2**31)))
        fitting = []
    fitting = fitting or [window for window in _windows(draw) if _can_be_wrong(draw, window, good)]
    order = [fitting[i] for i in draw.rng.permutation(len(fitting))]
    for window in sorted(order, key=lambda window: abs(len(window) - size))[:TRIES]:
        planted = _fused(draw, window)
        if planted is not None:
            return planted
    return None


def _can_be_wrong(draw: Draw, window: tuple[str, ...], good: set[str]) -> bool:
    return window[-1] in good and all(draw.host.place[name] in draw.host.live for name in window)


def _fused(draw: Draw, window: tuple[str, ...]) -> Planted | None:
    host = draw.host
    one = draw.sized(str(draw.rng.choice(["gain", "bias", "channel"])), window[-1], 100, 6 * MARGIN)
    if one is None:
        return None
    wrong = dataclasses.replace(one.wrong, window=window)
    positions = [host.place[name] for name in window]
    seen, together = draw.error(wrong), host.alone(draw.plan(wrong), positions)
    apart = [host.alone(draw.plan(wrong), [position]) for position in positions]
    if seen < MARGIN * draw.engine.limit or together < 12 * one.noise or max(apart) > 10 * max(1e-7, one.noise):
        return None
    words = f"{len(window)} nodes fused"
    truth = draw.truth(WINDOW, [positions], cause=words, introduced=together, noise=one.noise, visible=seen)
    return draw.planted(truth, wrong)


def two_faults(draw: Draw) -> Planted | None:
    """Two nodes are wrong, one ten times as visible as the other."""
    found: list[Sized] = []
    for tensor in draw.candidates():
        near = {name for one in found for name in draw.truth(NODE, [[draw.host.place[one.wrong.tensor]]]).near}
        if draw.host.nodes[draw.host.place[tensor]].name in near:
            continue
        kind = str(draw.rng.choice(["gain", "bias", "channel"]))
        one = draw.sized(kind, tensor, 30, (40 if not found else 4) * MARGIN)
        if one is not None:
            found.append(one)
        if len(found) == 2:
            break
    if len(found) < 2 or draw.error(*(one.wrong for one in found)) < MARGIN * draw.engine.limit:
        return None
    positions = [[draw.host.place[one.wrong.tensor]] for one in found]
    truth = draw.truth(
        SEVERAL,
        positions,
        cause=f"two nodes, {found[0].visible / found[1].visible:.3g} to 1",
        introduced=found[0].introduced,
        noise=found[0].noise,
        visible=found[0].visible,
    )
    return draw.planted(truth, *(one.wrong for one in found))


def latent(draw: Draw) -> Planted | None:
    """A fault that the next node takes back, or that is too small by the time it reaches an output."""
    if draw.rng.random() < 0.5:
        placed = Drawing(draw.host.ground, draw.rng).cancelled(1000)
        if placed is not None:
            wrong = [draw.values(fault) for fault in placed.faults]
            seen = draw.error(*wrong)
            if seen < draw.engine.limit / 2 and all(draw.host.place[w.tensor] in draw.host.live for w in wrong):
                alone = [draw.alone(w) / draw.host.noise(w.tensor) for w in wrong]
                if min(alone) >= 12:
                    positions = [[draw.host.place[w.tensor]] for w in wrong]
                    truth = draw.truth(SEVERAL, positions, cause="one takes back what the other does", latent=True)
                    return draw.planted(dataclasses.replace(truth, visible=seen), *wrong)
    for tensor in draw.candidates():
        noise = draw.host.noise(tensor)
        weak = draw.fault("gain", tensor, 60 * noise) if noise < 1e-2 else None
        seen = draw.error(weak) if weak else 1.0
        if weak and seen < draw.engine.limit / 2 and (one := draw.measured(weak, noise, seen)):
            return draw.one(one, "too weak to be seen", latent=True)
    return None


def tactic(draw: Draw) -> Planted | None:
    """All nodes of one key are wrong, because the tactic that won for the key is."""
    host = draw.host
    shapes: dict[str, tuple[object, ...]] = {name: value.shape for name, value in host.right.items()}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in host.model.graph.initializer}
    good = set(eligible(draw.host.ground))
    by_key: dict[str, list[str]] = {}
    for i in sorted(host.live):
        node = host.nodes[i]
        if node.output[0] in good and len(node.output) == 1:
            by_key.setdefault(key_of(node, shapes), []).append(node.output[0])
    keys = [key for key, tensors in by_key.items() if len(tensors) <= 24]
    for i in draw.rng.permutation(len(keys))[:TRIES]:
        key = keys[i]
        wins = tactic_of(key, draw.engine.seed, draw.engine.tactics, draw.engine.noise)
        size = float(draw.rng.choice([0.02, 0.1, 0.3]))
        wrong = [
            dataclasses.replace(one, key=key, tactic=wins)
            for tensor in by_key[key]
            if (one := draw.fault("gain", tensor, size)) is not None
        ]
        if len(wrong) < len(by_key[key]) or draw.error(*wrong) < MARGIN * draw.engine.limit:
            continue
        positions = [[host.place[name]] for name in by_key[key]]
        label = SEVERAL if len(positions) > 1 else NODE
        cause = f"tactic {wins} of {draw.engine.tactics} for one of {len(by_key)} keys"
        return draw.planted(draw.truth(label, positions, cause=cause, visible=draw.error(*wrong)), *wrong)
    return None


_ROUNDED = {"MatMul", "Conv", "Gemm", "LayerNormalization", "Softmax", "Tanh", "Erf", "Sigmoid"}


def precision_set(draw: Draw, count: int) -> Planted | None:
    """Some nodes silently compute in a narrow type; none says so."""
    host = draw.host
    good = set(eligible(draw.host.ground))
    names = [
        node.output[0]
        for i, node in enumerate(host.nodes)
        if i in host.live and node.op_type in _ROUNDED and node.output[0] in good
        and host.right[node.output[0]].dtype == np.float32
    ]  # fmt: skip
    if len(names) < 2 * count:
        return None
    for narrow in ("bfloat16",) if len(host.nodes) > 3000 else ("float16", "bfloat16"):
        chosen: list[Wrong] = []
        for tensor in draw.rng.permutation(names)[: 2 * count + TRIES]:
            one = Wrong(str(tensor), NARROW, narrow=narrow)
            if draw.alone(one) >= 20 * host.noise(str(tensor)):
                chosen.append(one)
            if len(chosen) == count:
                break
        if len(chosen) < count or draw.error(*chosen) < 2 * draw.engine.limit:
            continue
        positions = sorted(host.place[one.tensor] for one in chosen)
        label = SEVERAL if count > 1 else NODE
        truth = draw.truth(label, [[p] for p in positions], cause=f"{count} nodes in {narrow}")
        return draw.planted(dataclasses.replace(truth, visible=draw.error(*chosen)), *chosen)
    return None


def healthy(draw: Draw, ill: bool) -> Planted | None:
    """Nothing is wrong; where the network is ill-conditioned the outputs may differ nonetheless."""
    seen = draw.error()
    if not ill and seen > draw.engine.limit / 2:
        return None
    cause = "nothing" if seen <= draw.engine.limit else "nothing, although the outputs differ"
    return Planted(draw.engine, Truth(NOBODY, cause=cause, visible=seen), draw.host.model, draw.host.feeds)
