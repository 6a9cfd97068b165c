"""Cases: a network, what is wrong with the simulated library, and what a search has to say about it."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Mapping

from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics
from tests.bench.planted_tactics.networks import FAMILIES
from tests.simulated_tensorrt.plan import MODES, Fault, Plan, Where

KINDS = (
    "wrong", "nan", "overflow", "every", "non_opt", "second_profile", "execute_false", "execute_crash", "execute_hang",
    "sticky", "two", "together", "with_nan", "kernel", "build_none", "build_crash", "build_hang", "deserialize",
    "not_applied", "cache_ignored", "drifting", "miss", "garbage", "truncated", "listener", "chosen_refused", "node",
    "fused", "two_fused", "knob", "fused_and_tactic", "healthy",
)  # fmt: skip
"""What a case is about; see :func:`plant`."""

FUSIONS = ("fused", "two_fused", "knob", "fused_and_tactic")
PROCESSES = ("execute_crash", "execute_hang", "sticky", "build_crash", "build_hang")
"""Kinds that end or block a process, so that each engine needs one of its own."""

SUSPECTS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(KINDS, frozenset({"tactic"})),
    **dict.fromkeys(("fused", "two_fused", "knob"), frozenset({"fusion"})),
    "node": frozenset({"nodes"}),
    # Nothing can be pinned, or nobody is told of other tactics; then the triage says that it may be one.
    **dict.fromkeys(
        ("not_applied", "cache_ignored", "truncated"), frozenset({"fusion", "precision", "nodes", "tactic"})
    ),
    # The builder chooses anew each time, and may do well when it is asked again.
    "drifting": frozenset({"tactic", "nobody"}),
}
"""What a triage may say to search for, by kind."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One case, before it is known what the library chooses."""

    number: int
    kind: str
    family: str
    depth: int
    good: bool
    """Whether a good build is at hand."""
    version: str

    @property
    def seed(self) -> int:
        """Decides everything about it."""
        return 1000 + self.number


@dataclasses.dataclass(frozen=True)
class Planted:
    """What is wrong, and what a search must say."""

    plan: Plan
    culprits: tuple[frozenset[tuple[str, str]], ...] = ()
    """Bad tactics, by key and hash, those that fail together in one set."""
    nodes: tuple[frozenset[str], ...] = ()
    """Bad fused layers, by their nodes."""
    knob: str = ""
    """The knob that must be named."""
    nobody: bool = False
    """Nobody may be accused."""
    some: bool = False
    """Not every culprit shows in the outputs; it is right to name those without which the engine is right."""
    accomplices: frozenset[tuple[str, str]] = frozenset()
    """Tactics that are not clean either, though nobody has to notice."""
    may_give_up: bool = False
    """To name nobody is right, too: the library does not tell, or not let do, what is needed."""


def cases(count: int) -> list[Case]:
    """So many cases; kinds in turn, the rest drawn."""
    found = []
    for number in range(count):
        draw = random.Random(number)
        kind = KINDS[number % len(KINDS)]
        family = draw.choice(FAMILIES)
        if kind in ("non_opt", "second_profile"):
            family = "dynamic"
        deep = kind == "wrong" and draw.random() < 0.5
        if deep:
            family = draw.choice(("residual", "branches"))
        version = "11.4" if kind == "knob" or draw.random() < 0.5 else "10.16"
        depth = draw.choice((32, 48)) if deep else draw.choice((4, 6, 8, 12))
        good = draw.random() < 0.4 and kind not in (*FUSIONS, "healthy", "node", "second_profile")
        found.append(Case(number, kind, family, depth, good, version))
    return found


def plant(case: Case, keys: Mapping[str, KeyTactics], fused: list[tuple[str, ...]]) -> Planted:
    """What is wrong in a case.

    Args:
        case: The case.
        keys: What the healthy library chooses.
        fused: Nodes of its fused layers.
    """
    draw = random.Random(case.seed)
    rich = [tactics for tactics in keys.values() if len(tactics.rows) > 2]
    one, two, three = draw.sample(rich, 3)
    traits = _traits(case.kind)
    if case.kind == "kernel":
        return _one_kernel(draw, keys, one)
    faults, planted = _faults(case.kind, draw, (one, two, three), fused)
    return dataclasses.replace(planted, plan=Plan(faults=faults, **traits))


def _one_kernel(draw: random.Random, keys: Mapping[str, KeyTactics], one: KeyTactics) -> Planted:
    """A kernel that is wrong wherever it is used."""
    kernel = one.kernel(one.chosen)
    where = Where(kernel=f"^{re.escape(kernel)}$")
    fault = Fault("wrong_values", where, mode=draw.choice(MODES), amount=1.0, name="k")
    users = [tactics for tactics in keys.values() if tactics.kernel(tactics.chosen) == kernel]
    return Planted(Plan(faults=(fault,)), tuple(_blamed(tactics) for tactics in users), some=True)


def _traits(kind: str) -> dict[str, object]:
    if kind == "drifting":
        return {"timing_seed": None, "timing_noise": 0.3}
    if kind == "miss":
        return {"misses_let_through": 1}
    return {}


def at(tactics: KeyTactics, hash_: str = "") -> Where:
    """The layer of a key, with one of its tactics; by default the one that is chosen."""
    return Where(node=_exactly(tactics.nodes[0]), tactic=hash_ or tactics.chosen)


def _exactly(name: str) -> str:
    return re.escape(name)


def _other(draw: random.Random, tactics: KeyTactics) -> str:
    return draw.choice([row.hash for row in tactics.rows if row.hash != tactics.chosen])


def _blamed(*tactics: KeyTactics) -> frozenset[tuple[str, str]]:
    return frozenset((one.key, one.chosen) for one in tactics)


def _faults(
    kind: str, draw: random.Random, drawn: tuple[KeyTactics, ...], fused: list[tuple[str, ...]]
) -> tuple[tuple[Fault, ...], Planted]:
    one, two, three = drawn
    mode = draw.choice(MODES)
    wrong = Fault("wrong_values", at(one), mode=mode, amount=draw.choice((0.5, 1.0, 4.0)), name="w")
    only = Planted(Plan(), (_blamed(one),))
    nobody = Planted(Plan(), nobody=True)
    alone = {
        "nan": "nan", "execute_false": "execute_false", "execute_crash": "execute_crash",
        "execute_hang": "execute_hang", "sticky": "cuda_error_sticky",
    }  # fmt: skip
    beside = {
        "build_none": "build_none", "build_crash": "build_crash", "build_hang": "build_hang",
        "deserialize": "deserialize_none",
    }  # fmt: skip
    if kind == "wrong":
        return (wrong,), only
    if kind in alone:
        return (Fault(alone[kind], at(one)),), only
    if kind in beside:
        return (wrong, Fault(beside[kind], at(two, _other(draw, two)))), only
    if kind == "overflow":
        return (dataclasses.replace(wrong, effect="nan"), Fault("fp16_overflow", at(two))), dataclasses.replace(
            only, accomplices=_blamed(two)
        )
    if kind == "every":
        return (dataclasses.replace(wrong, every=draw.choice((2, 3))),), only
    if kind == "non_opt":
        return (dataclasses.replace(wrong, non_opt_shape=True),), only
    if kind == "second_profile":
        return (dataclasses.replace(wrong, profile=1),), nobody
    if kind in ("two", "with_nan"):
        other = Fault("nan" if kind == "with_nan" else "wrong_values", at(two), amount=1.0)
        return (wrong, other), Planted(Plan(), (_blamed(one), _blamed(two)))
    if kind == "together":
        return (dataclasses.replace(wrong, also=at(two)),), Planted(Plan(), (_blamed(one, two),))
    if kind == "not_applied":
        return (wrong, Fault("tactic_not_applied")), nobody  # the library follows no pin
    if kind == "chosen_refused":
        return (Fault(draw.choice(("build_none", "deserialize_none")), at(one)),), only
    if kind in ("garbage", "truncated", "listener"):
        effect = {"garbage": "inspector_garbage", "truncated": "log_truncated", "listener": "listener_never_called"}
        return (wrong, Fault(effect[kind])), dataclasses.replace(only, may_give_up=kind == "truncated")
    return _special(kind, draw, (one, two, three), fused, wrong)


def _special(
    kind: str, draw: random.Random, drawn: tuple[KeyTactics, ...], fused: list[tuple[str, ...]], wrong: Fault
) -> tuple[tuple[Fault, ...], Planted]:
    one = drawn[0]
    nobody = Planted(Plan(), nobody=True)
    if kind == "cache_ignored":
        return (wrong, Fault("cache_ignored")), nobody
    if kind in ("drifting", "healthy"):
        if kind == "healthy":
            return (), nobody
        return (wrong,), Planted(Plan(), (_blamed(one),), may_give_up=True)
    if kind == "miss":
        return (wrong,), Planted(Plan(), (_blamed(one),))
    if kind == "node":
        return (dataclasses.replace(wrong, where=Where(node=_exactly(one.nodes[0]))),), nobody
    layers = draw.sample([nodes for nodes in fused if len(nodes) > 1], 2)
    first, second = (
        dataclasses.replace(wrong, where=Where(node=_exactly(nodes[0])), fused_with=(_exactly(nodes[1]),))
        for nodes in layers
    )
    if kind == "two_fused":
        return (first, second), Planted(Plan(), nodes=(frozenset(layers[0]), frozenset(layers[1])))
    if kind == "knob":
        return (first,), Planted(Plan(), nodes=(frozenset(layers[0]),), knob="any")
    if kind == "fused_and_tactic":
        return (dataclasses.replace(wrong, fused=True),), Planted(Plan(), (_blamed(one),), nobody=True)
    return (first,), Planted(Plan(), nodes=(frozenset(layers[0]),))
