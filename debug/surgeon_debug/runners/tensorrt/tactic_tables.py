"""Which tactics a build could choose from and which it chose, by cache key; and what differs between two builds."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from surgeon_debug.runners.tensorrt.tactic_log import TacticRow, TacticTable, normal_hash


@dataclasses.dataclass(frozen=True)
class KeyTactics:
    """One key of an editable timing cache."""

    key: str
    """``0x`` and 32 hexadecimal digits."""
    op: str
    """The op as the log calls it; empty if no log told of it."""
    nodes: tuple[str, ...]
    """The ONNX nodes that it computes."""
    rows: tuple[TacticRow, ...]
    """The tactics that were tried; empty if no log told of it."""
    chosen: str
    """The hash of the tactic in use."""

    @property
    def title(self) -> str:
        """What to call it."""
        return self.op or self.key

    def kernel(self, hash_: str) -> str:
        """The kernel of a tactic; empty if no log told of it."""
        return next((row.kernel for row in self.rows if row.hash == hash_), "")


def by_key(tables: Iterable[TacticTable], cache: Mapping[str, str]) -> dict[str, KeyTactics]:
    """What is known of each key of a cache.

    Args:
        tables: Tables of the log of the build that filled it; of several for one key the last that has rows counts.
        cache: The hash of the tactic by key; keys and hashes in any spelling.
    """
    told: dict[str, TacticTable] = {}
    for table in tables:
        if table.key and (table.rows or table.key not in told):
            told[table.key] = table
    found = {}
    for raw, hash_ in cache.items():
        key = raw.lower()
        known = told.get(key)
        op, nodes, rows = (known.op, known.nodes, _once(known.rows)) if known is not None else ("", (), ())
        found[key] = KeyTactics(key, op, nodes, rows, normal_hash(hash_))
    return found


def _once(rows: Sequence[TacticRow]) -> tuple[TacticRow, ...]:
    return tuple({row.hash: row for row in reversed(rows)}.values())[::-1]


@dataclasses.dataclass(frozen=True)
class TacticChange:
    """An op whose tactic differs between two builds."""

    op: str
    """The op, or the key where no log tells of it."""
    nodes: tuple[str, ...]
    key: str
    """The key in the second build, or in the first if the second has none."""
    before: str
    """The hash in the first build; empty if the op has no key there."""
    after: str
    """The hash in the second build; empty likewise."""
    before_kernel: str
    """Its kernel; empty if no log told of it."""
    after_kernel: str
    rekeyed: bool = False
    """Whether the op has another key in each build: another shape, type, flag or fusion."""


@dataclasses.dataclass(frozen=True)
class TacticDiff:
    """What differs between two builds."""

    same: int
    """Keys with the same tactic in both."""
    changed: tuple[TacticChange, ...]
    """Keys of both with another tactic in each."""
    only_first: tuple[TacticChange, ...]
    """Ops of the first build only: the second fuses otherwise there."""
    only_second: tuple[TacticChange, ...]
    """Ops of the second build only."""
    rekeyed: tuple[TacticChange, ...]
    """Ops of both whose key is another in each."""

    @property
    def equal(self) -> bool:
        """Whether both have the same keys with the same tactics."""
        return not (self.changed or self.only_first or self.only_second or self.rekeyed)

    def to_json(self) -> dict[str, Any]:
        """The difference as JSON."""
        names = ("changed", "only_first", "only_second", "rekeyed")
        return {"same": self.same, **{name: [dataclasses.asdict(x) for x in getattr(self, name)] for name in names}}


def diff_tactics(first: Mapping[str, KeyTactics], second: Mapping[str, KeyTactics]) -> TacticDiff:
    """Compare two builds, by key, then by op.

    Args:
        first: Keys of one build; see :func:`by_key`.
        second: Keys of the other.
    """
    shared = [key for key in first if key in second]
    changed = [_change(first[key], second[key]) for key in shared if first[key].chosen != second[key].chosen]
    gone = [tactics for key, tactics in first.items() if key not in second]
    new = [tactics for key, tactics in second.items() if key not in first]
    # An op is told by its name only where that name stands for one key on each side.
    places: dict[str, list[KeyTactics]] = collections.defaultdict(list)
    for tactics in new:
        places[tactics.op].append(tactics)
    counts = collections.Counter(tactics.op for tactics in gone)
    partners = {op: found[0] for op, found in places.items() if op and len(found) == counts[op] == 1}
    rekeyed = [_change(old, partners[old.op], rekeyed=True) for old in gone if old.op in partners]
    return TacticDiff(
        len(shared) - len(changed),
        tuple(changed),
        tuple(_change(old, None) for old in gone if old.op not in partners),
        tuple(_change(None, one) for one in new if one.op not in partners),
        tuple(rekeyed),
    )


def _change(old: KeyTactics | None, new: KeyTactics | None, *, rekeyed: bool = False) -> TacticChange:
    one = new or old
    assert one is not None
    named = next((side for side in (new, old) if side is not None and side.op), one)
    # A build that found everything in its cache told nothing; the other's log may know the kernel.
    sides = [side for side in (old, new) if side is not None]

    def kernel(side: KeyTactics | None) -> str:
        if side is None:
            return ""
        return next((found for other in (side, *sides) if (found := other.kernel(side.chosen))), "")

    return TacticChange(
        named.title,
        named.nodes,
        one.key,
        old.chosen if old else "",
        new.chosen if new else "",
        kernel(old),
        kernel(new),
        rekeyed,
    )
