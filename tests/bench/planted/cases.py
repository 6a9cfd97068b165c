"""Cases: a kind of fault and a network, all decided by a seed and a number."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from tests.bench.planted import kinds_engine, kinds_values
from tests.bench.planted.draw import MARGIN, TRIES, Draw
from tests.bench.planted.engine import worst_output
from tests.bench.planted.host import RIGHT, Host, limit_of, values_of
from tests.bench.planted.models import SMALL, build, networks, sizes
from tests.bench.planted.plan import CRASH, HANG, REFUSAL, EnginePlan
from tests.bench.planted.rewrites import applications_of, rewritten
from tests.bench.planted.truth import CHANGE, Planted, Truth
from tests.bench.planted_layers.ill_conditioned import ILL_CONDITIONED

HEALTHY, REWRITE, BODY, DATA, PRECISION = "healthy", "rewrite", "body", "data dependent", "precision set"
KINDS = (
    "wrong kernel", "half precision", "off by one", "masked NaN", "flaky", CRASH, HANG, REFUSAL, "fusion", "two faults",
    "latent", "tactic", REWRITE, PRECISION, DATA, BODY, HEALTHY,
)  # fmt: skip
"""Every kind of case."""

_TURN = (*KINDS, *[HEALTHY] * 5)
"""Kinds in one turn: more than a quarter are healthy."""
_SHARES = {SMALL: 0.5, "200": 0.18, "1000": 0.18, "2000": 0.09, "10000": 0.05}
_SIZES_OF = {BODY: (SMALL,), DATA: (SMALL, "200"), REWRITE: (SMALL, "200", "1000")}
_WITH_BODIES = ("loop_rnn", "branches")
SAMPLES = 50
"""Samples of a case that depends on the data."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """One case before anything is built."""

    number: int
    seed: int
    kind: str
    size: str
    network: str
    turn: int = 0
    """How many cases of its kind come before it, so that every variety of a kind has its turn."""

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.number}: {self.kind} in {self.network}"


@dataclasses.dataclass(frozen=True)
class Case:
    """A case that is built; the network is the one that had a place for the fault."""

    spec: Spec
    planted: Planted

    @property
    def nodes(self) -> int:
        """Nodes of the main graph."""
        return len(self.planted.model.graph.node)

    def write(self, folder: Path) -> Path:
        """Write ``model.onnx``, ``inputs.npz``, ``plan.json`` and ``truth.json``; several samples go to ``inputs/``.

        Returns:
            The folder of the case.
        """
        planted = self.planted
        own = folder / f"{self.spec.number:04d}-{self.spec.kind.replace(' ', '-')}"
        own.mkdir(parents=True, exist_ok=True)
        onnx.save_model(planted.model, str(own / "model.onnx"))
        np.savez(own / "inputs.npz", **planted.feeds[0])
        if len(planted.feeds) > 1:
            (own / "inputs").mkdir(exist_ok=True)
            for i, feeds in enumerate(planted.feeds):
                np.savez(own / "inputs" / f"{i:03d}.npz", **feeds)
        if planted.rewrites is not None:
            (own / "rewrites.json").write_text(json.dumps(planted.rewrites, indent=1))
        dataclasses.replace(planted.plan, log="engine.log").write(own / "plan.json")
        about = {**dataclasses.asdict(self.spec), "nodes": self.nodes, "truth": planted.truth.to_json()}
        (own / "truth.json").write_text(json.dumps(about, indent=1))
        return own


def spec_of(folder: Path) -> Spec:
    """What the case in a folder is."""
    about = json.loads((folder / "truth.json").read_text())
    return Spec(**{field.name: about[field.name] for field in dataclasses.fields(Spec)})


def read_case(folder: Path) -> Case:
    """The case that :meth:`Case.write` wrote to a folder of its own."""
    about = json.loads((folder / "truth.json").read_text())
    several = sorted((folder / "inputs").glob("*.npz"))
    feeds = [dict(np.load(path)) for path in several or [folder / "inputs.npz"]]
    rewrites = folder / "rewrites.json"
    planted = Planted(
        EnginePlan.read(folder / "plan.json"),
        Truth.from_json(about["truth"]),
        onnx.load(str(folder / "model.onnx")),
        feeds,
        json.loads(rewrites.read_text()) if rewrites.exists() else None,
    )
    return Case(spec_of(folder), planted)


def draw_specs(
    count: int, seed: int, kinds: Sequence[str] | None = None, only_sizes: Sequence[str] | None = None
) -> list[Spec]:
    """The first ``count`` cases of a seed: kinds in turns, all else drawn.

    Args:
        count: How many.
        seed: Decides all of them; more cases of one seed begin with the fewer.
        kinds: Only these kinds; all if None.
        only_sizes: Only these sizes, each kind nonetheless in its own; all if None.
    """
    turn = [kind for kind in _TURN if kinds is None or kind in kinds]
    order = np.random.default_rng([seed, 0])
    drawn = itertools.chain.from_iterable(order.permutation(turn) for _ in itertools.count())
    found = []
    for number, kind in zip(range(count), map(str, drawn), strict=False):
        rng = np.random.default_rng([seed, 1, number])
        there = [s for s in _SIZES_OF.get(kind, sizes()) if only_sizes is None or s in only_sizes]
        there = there or list(_SIZES_OF[kind])
        shares = np.array([_SHARES[s] for s in there])
        size = str(rng.choice(there, p=shares / shares.sum()))
        network = str(rng.choice(_WITH_BODIES if kind == BODY else networks(size)))
        found.append(Spec(number, seed, kind, size, network, sum(spec.kind == kind for spec in found)))
    return found


def make_cases(
    count: int, seed: int, kinds: Sequence[str] | None = None, only_sizes: Sequence[str] | None = None
) -> list[Case]:
    """Cases, planted and checked; see :func:`draw_specs`."""
    return [plant(spec) for spec in draw_specs(count, seed, kinds, only_sizes)]


def plant(spec: Spec) -> Case:
    """Build a case; the next network of its size is tried where one has no place for such a fault.

    Raises:
        LookupError: No network of that size, nor a small one, has a place.
    """
    own = list(_WITH_BODIES) if spec.kind == BODY else networks(spec.size)
    start = own.index(spec.network)
    others = [name for name in networks(SMALL) if name not in own]
    for name in [*own[start:], *own[:start], *own[start:], *others]:
        for attempt in range(2):
            trial = dataclasses.replace(spec, network=name)
            rng = np.random.default_rng([spec.seed, 2, spec.number, attempt, zlib.crc32(name.encode())])
            planted = _planted(trial, rng)
            if planted is not None:
                return Case(dataclasses.replace(trial, network=planted[0]), planted[1])
    raise LookupError(f"no network has a place for {spec.name}")


def _planted(spec: Spec, rng: np.random.Generator) -> tuple[str, Planted] | None:
    """The name of the network as it was built, and the fault in it; None if there is no place."""
    ill = spec.kind == HEALTHY and spec.size == SMALL and rng.random() < 0.3
    name = str(rng.choice(list(ILL_CONDITIONED))) if ill else spec.network
    precision, variant = _precision(spec, rng, ill)
    seed = int(rng.integers(100_000))
    try:
        model = build(name + variant, seed)
    except (LookupError, ValueError):
        return None  # a network that cannot be converted
    optimize = "all" if not precision and len(model.graph.node) < 1500 and rng.random() < 0.5 else "none"
    engine = EnginePlan(
        seed=int(rng.integers(2**31)),
        optimize=optimize,
        precision=precision,
        fused=float(rng.choice([0.3, 0.4, 0.5, 0.6])),
        tactics=int(rng.integers(2, 41)),
    )
    engine = dataclasses.replace(engine, limit=limit_of(model, engine))
    host = Host(model, engine, SAMPLES if spec.kind == DATA else 1)
    if not ill and host.error(engine) > engine.limit / 3:
        return None
    found = _of_kind(spec, Draw(host, rng), ill)
    said = f" in {precision}" if precision else ""
    return None if found is None else (f"{name}{variant}{said and ' on an engine' + said}", found)


def _precision(spec: Spec, rng: np.random.Generator, ill: bool) -> tuple[str, str]:
    """The precision of the engine, and how the network is converted."""
    if spec.kind not in (HEALTHY, "wrong kernel") or spec.size not in (SMALL, "200"):
        return "", ""
    choices = [("", ""), ("float16", ""), ("bfloat16", "")]
    chances = [0.5, 0.25, 0.25]
    if spec.size == SMALL and not ill:
        choices += [("", " quantised"), ("", " in float16")]
        chances = [0.45, 0.15, 0.1, 0.15, 0.15]
    return choices[rng.choice(len(choices), p=chances)]


def _of_kind(spec: Spec, draw: Draw, ill: bool) -> Planted | None:
    match spec.kind:
        case "wrong kernel":
            return kinds_values.wrong_kernel(draw, (1000.0, 30.0, 1000.0, 30.0, 1000.0, 30.0, 3.0)[spec.turn % 7])
        case "half precision":
            return kinds_values.half_precision(draw)
        case "off by one":
            return kinds_values.off_by_one(draw)
        case "masked NaN":
            return kinds_values.masked_nan(draw)
        case "flaky":
            return kinds_values.flaky(draw, (0.3, 0.5, 0.1)[spec.turn % 3], spec.turn % 7 == 4)
        case "crash" | "hang" | "refusal":
            return kinds_engine.ending(draw, spec.kind)
        case "fusion":
            return kinds_engine.fusion(draw, (4, 2, 6, 3, 8, 5, 7)[spec.turn % 7])
        case "two faults":
            return kinds_engine.two_faults(draw)
        case "latent":
            return kinds_engine.latent(draw)
        case "tactic":
            return kinds_engine.tactic(draw)
        case "precision set":
            return kinds_engine.precision_set(draw, (5, 1, 20)[spec.turn % 3])
        case "data dependent":
            return kinds_values.data_dependent(draw)
        case "body":
            return kinds_values.in_body(draw)
        case "rewrite":
            return _rewrite(draw)
        case "healthy":
            return kinds_engine.healthy(draw, ill)
    raise ValueError(f"there is no kind '{spec.kind}'")


def _rewrite(draw: Draw) -> Planted | None:
    """Up to two hundred applications of right rewrites, one of them wrong."""
    host = draw.host
    graph = host.model.graph
    floats = [name for i in sorted(host.live) for name in host.nodes[i].output if name in host.right]
    floats = [name for name in floats if host.right[name].dtype == np.float32]
    found = applications_of(graph, floats)
    picked = [found[i] for i in draw.rng.permutation(len(found))[:200]]
    for i in draw.rng.permutation(len(picked))[:TRIES]:
        wrong = [{**a, "wrong": bool(j == i)} for j, a in enumerate(picked)]
        try:
            values = values_of(RIGHT, rewritten(host.model, wrong), host.feeds)
        except Exception:  # noqa: BLE001  (wrong in a way that does not run at all: another one is drawn)
            continue
        seen = worst_output(host.expected[0], values[0])
        if seen < MARGIN * draw.engine.limit:
            continue
        words = f"{picked[i]['rewrite']} at {picked[i]['tensor']}"
        truth = Truth(CHANGE, bits=math.log2(len(picked)), cause=words, visible=seen, change=int(i) + 1)
        return Planted(draw.engine, truth, host.model, host.feeds, {"applications": wrong})
    return None
