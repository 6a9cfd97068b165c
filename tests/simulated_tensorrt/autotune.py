"""The choice of tactics: measured or from the cache, and what the log says about it in its two dialects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tests.simulated_tensorrt.callbacks import Journal
from tests.simulated_tensorrt.engine_file import Choice
from tests.simulated_tensorrt.fusion import Group, metadata_of
from tests.simulated_tensorrt.graph import Graph
from tests.simulated_tensorrt.plan import Plan
from tests.simulated_tensorrt.tactics import Tactic, key_of, measured, tactics_of
from tests.simulated_tensorrt.values import single

_HEADER = (
    "tactic_id, cost(in ms), cost/fastest_cost, prediction_correlation, kernel_name, tactic_hash, tunable_parameter"
)


class BuildRefusedError(Exception):
    """The build ends with None."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What tuning depends on besides the graph."""

    editable: bool
    strict: bool
    """ERROR_ON_TIMING_CACHE_MISS."""
    uses_cache: bool
    ignores_cache: bool
    """The planted fault: the cache is written and not read."""
    tf32: bool
    level: int
    most: int
    profile: int
    sizes: Mapping[str, Any]
    """Optimal sizes of the inputs."""
    flags: tuple[str, ...]
    """Other flags that go into keys."""
    seed: int | None
    workspace: int
    """Bytes; tactics that need more are not tried."""


class Autotuner:
    """Chooses tactics for one build.

    Args:
        graph: The network.
        cache: The timing cache; None for none.
        plan: Traits.
        journal: Where the log goes.
    """

    def __init__(self, graph: Graph, cache: Any, plan: Plan, journal: Journal) -> None:
        self.graph = graph
        self.cache = cache
        self.plan = plan
        self.journal = journal
        self.misses = 0
        self.layouts: dict[str, str] = {}

    def choose(self, group: Group, tuning: Tuning) -> Choice | None:
        """The tactic of a layer; None for layers that have no choice.

        Raises:
            BuildRefusedError: A miss, or a tactic from the cache that does not fit.
        """
        if group.kind not in ("conv", "product"):
            return None
        op = op_name(group, tuning.profile)
        parts = self._parts(group, tuning)
        tactics = self._tactics(group, tuning, parts)
        keyed = tuning.editable and not (self.plan.classic and group.kind == "conv")
        key = key_of(op if keyed else "", parts)
        found = self._cached(op, key, keyed, tuning, tactics)
        if found is None:
            found, time = self._time(group, op, key, keyed, tuning, tactics)
            self._remember(key, keyed, found, time, tuning)
        for i in group.nodes:
            self.layouts.update(dict.fromkeys(self.graph.nodes[i].output, found.layout))
        return Choice(found.kernel, found.hash, tactics.index(found), found.layout)

    def _parts(self, group: Group, tuning: Tuning) -> dict[str, Any]:
        nodes = [self.graph.nodes[i] for i in group.nodes]
        made = {name for node in nodes for name in node.output}
        read = [name for node in nodes for name in node.input if name and name not in made]
        return {
            "operators": [node.op_type for node in nodes],
            "attributes": [str(sorted(a.SerializeToString() for a in node.attribute)) for node in nodes],
            "inputs": [[self.graph.types.get(n, "?"), list(self.graph.shapes.get(n) or ())] for n in read],
            "layouts": [self.layouts.get(n, "linear") for n in read if group.kind == "conv"],
            "sizes": sorted((n, list(s)) for n, s in tuning.sizes.items()),
            "tf32": tuning.tf32,
            "flags": list(tuning.flags),
            "device": self.plan.device,
            "profile": tuning.profile,
        }

    def _tactics(self, group: Group, tuning: Tuning, parts: dict[str, Any]) -> list[Tactic]:
        last = self.graph.nodes[group.nodes[-1]].output[0]
        volume = 1
        for size in self.graph.shapes.get(last) or ():
            volume *= max(size, 1)
        head = next(i for i in group.nodes if self.graph.nodes[i].op_type not in ("QuantizeLinear", "DequantizeLinear"))
        dtype = self.graph.types.get(self.graph.nodes[head].input[0], "FLOAT")
        most = tuning.most if tuning.most >= 0 else 3 if tuning.level == 0 else -1
        signature = key_of("", {**parts, "layouts": [], "tf32": False, "profile": 0})
        return tactics_of(group.kind, dtype, tuning.tf32, volume, signature, most)

    def _cached(self, op: str, key: str, keyed: bool, tuning: Tuning, tactics: list[Tactic]) -> Tactic | None:
        if self.cache is None or not tuning.uses_cache:
            return None
        table = self.cache._entries if keyed else self.cache._plain
        if tuning.ignores_cache or key not in table:
            if not tuning.ignores_cache:
                self._miss(op, key, tuning)
            return None
        chosen = next((t for t in tactics if t.hash == table[key][0]), None)
        if chosen is None:
            raise BuildRefusedError(
                2, f"Tactic 0x{table[key][0]:x} of the timing cache is not valid for op {op}(key: {key})"
            )
        return chosen

    def _miss(self, op: str, key: str, tuning: Tuning) -> None:
        if not tuning.strict:
            return
        self.misses += 1
        if self.misses > self.plan.misses_let_through:
            raise BuildRefusedError(
                2, f"Assertion !errorOnMiss failed. Timing cache miss for op {op}(key: {key}) with errorOnMiss set"
            )

    def _fitting(self, tactics: list[Tactic], tuning: Tuning) -> list[Tactic]:
        fitting = [tactic for tactic in tactics if tactic.scratch <= tuning.workspace]
        if not fitting:
            raise BuildRefusedError(10, "Could not find any implementation: every tactic needs more workspace")
        return fitting

    def _time(
        self, group: Group, op: str, key: str, keyed: bool, tuning: Tuning, tactics: list[Tactic]
    ) -> tuple[Tactic, float]:
        seed = None if tuning.seed is None else f"{tuning.seed}|{key}|{op}"
        table = measured(self._fitting(tactics, tuning), self.plan.timing_noise, seed)
        if self.plan.classic and group.kind == "conv":
            self._classic(op, table, [t for t in tactics if t.scratch > tuning.workspace], tuning.workspace)
        else:
            self._table(group, op, key if keyed else "", table, tuning)
        return table[0]

    def _prefix(self) -> str:
        return "(foreignNode) " if self.plan.foreign_prefix else ""

    def _table(self, group: Group, op: str, key: str, table: list[tuple[Tactic, float]], tuning: Tuning) -> None:
        prefix = self._prefix() if group.kind == "product" else ""
        best = table[0][1]
        with_key = f"(key: {key})" if key else ""
        say = self.journal.verbose
        say(f"{prefix}Autotuning op {op}{with_key}: {metadata_of(group, self.graph)}")
        say(f"{prefix}Sorted table of all evaluated tactics:")
        say(f"{prefix}{_HEADER}")
        for tactic, time in table:
            correlation = 0.5 + (tactic.hash % 1000) / 2000
            row = (
                f"{tactic.place:4d}, {time:.7f}, {time / best:.5f}, {correlation:.5f}, {tactic.kernel}, {tactic.text},"
            )
            say(prefix + row)
        say(f"{prefix}The selected tactic is (tactic hash, cost(in ms)):{table[0][0].text}, {best:.7f}")
        if tuning.uses_cache and self.cache is not None:
            say(f"{prefix}Writing the best tactic ({table[0][0].text}) to cache")

    def _classic(self, op: str, table: list[tuple[Tactic, float]], left: list[Tactic], workspace: int) -> None:
        say = self.journal.verbose
        say(f"=============== Computing costs for {op}")
        say("*************** Autotuning format combination: Float(-1,-1,-1,1) -> Float(-1,-1,-1,1) ***************")
        say(f"--------------- Timing Runner: {op} (CudnnConvolution[0x80000000])")
        say("Skipping CudnnConvolution: No valid tactics for " + op)
        say(f"--------------- Timing Runner: {op} (CaskConvolution[0x80000009])")
        for tactic, time in sorted(table, key=lambda pair: pair[0].place):
            say(f"Tactic Name: {tactic.kernel} Tactic: 0x{tactic.hash:016x} Time: {time:.6g}")
        for tactic in left:
            skipped = f"skipped. Scratch requested: {tactic.scratch}, available: {workspace}"
            say(f"Tactic Name: {tactic.kernel} Tactic: 0x{tactic.hash:016x} {skipped}")
        best, time = table[0]
        say(
            f"{op} (CaskConvolution[0x80000009]) profiling completed in 0.0512 seconds. "
            f"Fastest Tactic: 0x{best.hash:016x} Time: {time:.6g}"
        )
        say(f">>>>>>>>>>>>>>> Chose Runner Type: CaskConvolution Tactic: 0x{best.hash:016x}")

    def _remember(self, key: str, keyed: bool, tactic: Tactic, time: float, tuning: Tuning) -> None:
        if self.cache is not None and tuning.uses_cache:
            table = self.cache._entries if keyed else self.cache._plain
            table[key] = (tactic.hash, single(time))


def op_name(group: Group, profile: int) -> str:
    """What the autotuner calls a layer: near its name in the engine, not equal to it."""
    base = group.name.rsplit("_myl", 1)[0] if group.kind == "product" else group.name
    return base if profile == 0 else f"{base} [profile {profile}]"
