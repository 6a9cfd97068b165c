"""A builder without an engine: keys, tactics and faults are written down, and every build is counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.find.engine_builds import BuildRecord, BuildRefused, EngineLayer, Wish
from surgeon_debug.find.engine_oracle import EngineSpec
from surgeon_debug.find.tactic_pins import FreeChoice
from surgeon_debug.runners.tensorrt.tactic_log import Dialect, TacticRow, TacticTable
from surgeon_debug.values import Feeds, Value


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong in an engine that has all of some tactics."""

    tactics: frozenset[tuple[str, str]]
    """Keys and hashes; none: in every engine."""
    effect: str = "wrong"
    """``wrong``, ``nan``, ``near`` (a limit) or ``crash`` at run time, ``refuse`` or ``hang`` at build time,
    ``unpinned``, ``miss``."""
    every: int = 1
    """In each so many runs of an engine."""


def key_of(index: int) -> str:
    """The key of an op."""
    return f"0x{index + 1:032x}"


def hash_of(index: int, tactic: int) -> str:
    """The hash of a tactic of an op, in the order of their times."""
    return hex(0x1000 * (index + 1) + tactic)


@dataclasses.dataclass(frozen=True)
class ScriptedBuilder:
    """Makes builds of an engine with so many keys; see :class:`surgeon_debug.find.engine_builds.Builder`."""

    counts: tuple[int, ...]
    """Tactics of every key."""
    faults: tuple[Fault, ...] = ()
    chosen: tuple[int, ...] = ()
    """What the builder chooses for each key, by the place in its table; the first unless given."""
    drift: tuple[str, ...] = ()
    """Keys that do not replay."""
    label: str = "onnxruntime"
    log: str = ""
    """A file to which every build writes a line."""

    def make(self) -> ScriptedBuilds:
        """Begin to build."""
        return ScriptedBuilds(self)

    def free(self) -> dict[str, str]:
        """What the builder chooses by itself."""
        return {key_of(i): hash_of(i, self.chosen[i] if self.chosen else 0) for i in range(len(self.counts))}

    def tables(self) -> tuple[TacticTable, ...]:
        """What the log tells."""
        return tuple(
            TacticTable(
                f"op{i}_myl0_{i}",
                key_of(i),
                (f"node{i}",),
                tuple(TacticRow(f"kernel{i}_{t // 2}", hash_of(i, t), 0.01 * (t + 1)) for t in range(count)),
                self.free()[key_of(i)],
                Dialect.EDITABLE,
            )
            for i, count in enumerate(self.counts)
        )


class ScriptedBuilds:
    """See :class:`surgeon_debug.find.engine_builds.Builds`."""

    precision = None

    def __init__(self, script: ScriptedBuilder) -> None:
        self._script = script
        self._engine: set[tuple[str, str]] = set()
        self._runs = 0

    def build(self, wish: Wish) -> BuildRecord:
        """Build, or not."""
        script = self._script
        if script.log:
            with Path(script.log).open("a") as file:
                file.write("build\n")
        tactics = {**script.free(), **(wish.pins or {})}
        if wish.pins is not None:
            tactics |= {key: hash_of(9999, 0) for key in script.drift}
        self._engine, self._runs = set(tactics.items()), 0
        for fault in self._faults("refuse", "hang", "crash build"):
            raise BuildRefused(f"it said {fault.effect}")
        if wish.strict and self._faults("miss"):
            raise BuildRefused("a neighbour had to be timed", missed=True)
        for fault in self._faults("unpinned"):
            tactics |= {key: script.free()[key] for key, _ in fault.tactics}
        tables = () if wish.pins is not None else script.tables()
        layers = tuple(EngineLayer(t.op, "gemm", t.nodes, "", "") for t in script.tables())
        return BuildRecord(tactics, tables, layers, version="0.0")

    def _faults(self, *effects: str) -> list[Fault]:
        return [f for f in self._script.faults if f.effect in effects and f.tactics <= self._engine]

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Compute, wrongly if a fault says so."""
        self._runs += 1
        x = np.asarray(feeds["x"]).copy()
        for _ in self._faults("near"):
            odd = sum(int(hash_, 16) for _, hash_ in self._engine) % 2
            x += 2.7e-4 * (0.9 if odd else 1.2)  # beside a limit of 1e-4 for the relative L2
        for fault in self._faults("wrong", "nan", "crash"):
            place = self._script.faults.index(fault)
            if self._runs % fault.every:
                continue
            if fault.effect == "crash":
                raise EngineFailure("it crashed, ended by SIGSEGV", ending=Ending.CRASHED)
            x += np.nan if fault.effect == "nan" else 1.0 + 0.5 * place
        return {"y": x}

    def close(self) -> None:
        """Nothing to let go of."""

    def abort(self) -> None:
        """Nothing to end."""


def scripted_spec(folder: Path, builder: ScriptedBuilder) -> EngineSpec:
    """A search's spec on a model with one node."""
    path = folder / "model.onnx"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    value = np.arange(4, dtype=np.float32) + 1
    return EngineSpec(path, [{"x": value}], [{"y": value}], builder, FreeChoice())
