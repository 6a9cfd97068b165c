"""What a search over the ways to build one engine asks of a builder, and what it is told of each build.

A builder makes one engine at a time and runs it. That is all the search sees of TensorRT, so whatever can record and
pin its choices can be searched.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from surgeon_debug.find.oracle import Signature
from surgeon_debug.runners.tensorrt.tactic_log import TacticTable
from surgeon_debug.values import Feeds, Value


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is asked of one build besides what the runner's text says."""

    options: tuple[tuple[str, str], ...] = ()
    """Further options of the runner, by name; they replace those of its text."""
    cache: str = ""
    """The timing cache to begin with; empty for an empty one."""
    pins: Mapping[str, str] | None = None
    """The tactic's hash by cache key; None leaves the choice to the builder."""
    ops: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The op of each pinned key: if it gets another key, its tactic is to be the same."""
    strict: bool = False
    """Whether a build that has to time anything is to fail."""
    exact: bool = True
    """Whether ops that get new keys beside other tactics are to be built again until they have the tactics wanted of
    them; False takes what the builder chose for them, if it is known."""
    shown: tuple[str, ...] = ()
    """Tensors inside the model that are made outputs of the engine."""


@dataclasses.dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine, as its inspector tells."""

    name: str
    kind: str
    nodes: tuple[str, ...]
    """The ONNX nodes in it; empty where the engine does not say."""
    kernel: str = ""
    """The name of its tactic; empty where the engine does not say."""
    hash: str = ""
    """The hash of its tactic, likewise."""

    def to_json(self) -> list[Any]:
        """The layer as JSON."""
        return [self.name, self.kind, list(self.nodes), self.kernel, self.hash]

    @classmethod
    def from_json(cls, found: list[Any]) -> EngineLayer:
        """The layer that :meth:`to_json` wrote."""
        name, kind, nodes, kernel, hash_ = found
        return cls(name, kind, tuple(nodes), kernel, hash_)


@dataclasses.dataclass(frozen=True)
class Knob:
    """Something that the compiler can be told to do otherwise."""

    name: str
    value: str
    """What it is by default; empty if that is not said."""
    others: tuple[str, ...]
    """What else it can be."""
    help: str = ""


@dataclasses.dataclass(frozen=True)
class BuildRecord:
    """What one build left behind."""

    tactics: Mapping[str, str]
    """The hash of the tactic in use, by cache key."""
    tables: tuple[TacticTable, ...] = ()
    """What its log tells about tactics; only of what had to be timed."""
    layers: tuple[EngineLayer, ...] = ()
    """Its layers; empty if the inspector told nothing that makes sense."""
    knobs: tuple[Knob, ...] = ()
    """What the compiler could have been told; empty before TensorRT 11.1."""
    cache: str = ""
    """The file of the timing cache after the build; empty if none was written."""
    version: str = ""
    """The engine's version."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return {
            "tactics": dict(self.tactics),
            "tables": [table.to_json() for table in self.tables],
            "layers": [layer.to_json() for layer in self.layers],
            "knobs": [dataclasses.asdict(knob) for knob in self.knobs],
            "cache": self.cache,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> BuildRecord:
        """The record that :meth:`to_json` wrote.

        Raises:
            KeyError: A field is missing.
            TypeError: A field holds what no record has.
            ValueError: Likewise.
        """
        return cls(
            dict(found["tactics"]),
            tuple(TacticTable.from_json(table) for table in found["tables"]),
            tuple(EngineLayer.from_json(layer) for layer in found["layers"]),
            tuple(Knob(**{**knob, "others": tuple(knob["others"])}) for knob in found["knobs"]),
            str(found["cache"]),
            str(found["version"]),
        )


class Builds(Protocol):
    """Builds one engine after the other, and runs the last."""

    def build(self, wish: Wish) -> BuildRecord:
        """Build an engine.

        Raises:
            BuildRefused: There is none, or not as it was asked for.
            SurgeonError: Something is wrong that has nothing to do with the wish.
        """

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Run it.

        Raises:
            EngineFailure: It fails, in whatever way.
        """

    @property
    def precision(self) -> str | None:
        """The coarsest type it computes in, if that is coarser than the model's own."""

    def close(self) -> None:
        """Let go of the engine."""

    def abort(self) -> None:
        """End what is being done, from another thread."""


class Builder(Protocol):
    """Makes :class:`Builds`; it can be pickled."""

    @property
    def label(self) -> str:
        """The text of the runner."""

    def make(self) -> Builds:
        """Begin to build, in whatever process this is."""


def under_new_keys(wish: Wish, record: BuildRecord) -> Wish:
    """What to ask where a tactic has given neighbours other keys: their tactics under these, too.

    A tactic that wants another format makes its neighbours other ops to the cache, which are then timed anew.

    Args:
        wish: What was asked for.
        record: A build in whose cache there are more keys than are pinned; its tables tell what they stand for.

    Returns:
        A wish that begins with the cache of that build. A key whose op, or whose tactic under it, is not known keeps
        the tactic that the build gave it.
    """
    pins = dict(wish.pins or {})
    ops = collections.Counter(wish.ops.values())
    wanted = {op: pins[key] for key, op in wish.ops.items() if ops[op] == 1}
    found = {key: hash_ for key, hash_ in record.tactics.items() if key not in pins}
    for table in record.tables:
        hash_ = wanted.get(table.op, "")
        if table.key in found and table.row(hash_) is not None:
            found[table.key] = hash_
    return dataclasses.replace(wish, cache=record.cache, pins={**pins, **found})


def chosen_instead(wish: Wish, record: BuildRecord) -> dict[str, str] | None:
    """What ops that got new keys in a build were given instead of the tactics wanted of them.

    Args:
        wish: What was asked for.
        record: The build; its tables tell what the keys that are new stand for.

    Returns:
        The hash by the key that was pinned; None if not every new key is known to be of one of the ops.
    """
    pins = wish.pins or {}
    counts = collections.Counter(wish.ops.values())
    keys = {op: key for key, op in wish.ops.items() if counts[op] == 1}
    told = {table.key: table.op for table in record.tables}
    found = {}
    for key, hash_ in record.tactics.items():
        if key in pins:
            continue
        old = keys.get(told.get(key, ""))
        if old is None:
            return None
        if hash_ != pins[old]:
            found[old] = hash_
    return found


class BuildRefused(Exception):  # noqa: N818  (an outcome of a trial, not an error of ours)
    """There is no engine to judge: the build failed, crashed, hung, or did not do as it was told.

    Args:
        reason: Why, as a phrase.
        missed: Whether the builder had to time something although it was told not to.
        signature: How it failed, so that another build that fails in the same way is known; None if this is no
            failure of the builder but an engine that is not what was asked for.
        record: What is known of the build; None if nothing is. Without keys of a cache nothing can be pinned.
        last: What its log ends with, as a phrase; empty if that tells nothing.
    """

    def __init__(
        self,
        reason: str,
        *,
        missed: bool = False,
        signature: Signature | None = None,
        record: BuildRecord | None = None,
        last: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.missed = missed
        self.signature, self.record, self.last = signature, record, last
