"""Elements that are tactics: what a build with some of them is asked to do, and whether it did."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from surgeon_debug.find.engine_builds import BuildRecord, Wish, chosen_instead
from surgeon_debug.find.engine_kernels import kernels_disagree
from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics

_EDITABLE = (("editable", "true"),)


@dataclasses.dataclass(frozen=True)
class FreeChoice:
    """No element: the builder chooses, and what it chose is kept."""

    cache: str = ""
    """A timing cache to begin with; empty for an empty one."""
    digest: str = ""
    """A digest of it, since its path says nothing."""

    keeps = True

    def wish(self, elements: frozenset[int]) -> Wish:  # noqa: ARG002  (there are none)
        """Build as the builder likes, and write down what it did."""
        return Wish(_EDITABLE, cache=self.cache)

    def objection(self, wish: Wish, record: BuildRecord) -> tuple[str, tuple[str, ...]]:  # noqa: ARG002
        """None: whatever comes is what was wished for."""
        return "", ()

    def facts(self) -> str:
        """What a build depends on."""
        return f"free {self.digest}"


@dataclasses.dataclass(frozen=True)
class Pin:
    """A tactic for a key."""

    key: str
    hash: str


@dataclasses.dataclass(frozen=True)
class Pinned:
    """Elements are pins; keys without one have the tactic of the base."""

    cache: str
    """The timing cache that all builds begin with; it holds all keys."""
    base: Mapping[str, KeyTactics]
    """What every key has if no element says otherwise."""
    pins: tuple[Pin, ...] = ()
    """What each element pins; of two of one key the later counts."""
    keeps: bool = False
    """Whether the record of each build is to be kept with its trial."""
    strict: bool = False
    """Whether a build that has to time anything is to fail."""
    exact: bool = True
    """Whether ops that get other keys beside the pinned tactics are to be pinned under these, too."""

    def assigned(self, elements: frozenset[int]) -> dict[str, str]:
        """The tactic of every key."""
        found = {key: tactics.chosen for key, tactics in self.base.items()}
        for element in sorted(elements):
            found[self.pins[element].key] = self.pins[element].hash
        return found

    def wish(self, elements: frozenset[int]) -> Wish:
        """Build with every key pinned."""
        ops = {key: tactics.op for key, tactics in self.base.items() if tactics.op}
        pins = self.assigned(elements)
        return Wish(_EDITABLE, self.cache, pins, ops, strict=self.strict, exact=self.exact)

    def objection(self, wish: Wish, record: BuildRecord) -> tuple[str, tuple[str, ...]]:
        """Why the engine does not have just these tactics."""
        wanted = wish.pins or {}
        moved = [key for key, hash_ in wanted.items() if record.tactics.get(key) != hash_]
        if moved:
            return f"{self._named(moved)} not as pinned after the build", tuple(moved)
        # A neighbour that had to be timed does no harm, if that was allowed; nothing that was pinned has moved.
        new = [key for key in record.tactics if key not in wanted] if wish.strict else []
        if new:
            return f"{len(new)} keys are new after the build, {self._title(new[0])} for one", tuple(new)
        running = dict(wanted) if wish.exact else {**wanted, **(chosen_instead(wish, record) or {})}
        kept = {k: dataclasses.replace(tactics, chosen=running[k]) for k, tactics in self.base.items()}
        wrong = kernels_disagree(record, kept)
        if wrong:
            return f"the engine runs another kernel than was pinned for {self._title(wrong[0])}", tuple(wrong)
        return "", ()

    def facts(self) -> str:
        """What builds depend on."""
        pins = [[pin.key, pin.hash] for pin in self.pins]
        text = json.dumps([self.strict, self.exact, sorted(self.assigned(frozenset()).items()), pins])
        return f"pinned {hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"

    def _title(self, key: str) -> str:
        return self.base[key].title if key in self.base else key

    def _named(self, keys: list[str]) -> str:
        return self._title(keys[0]) + (f" and {len(keys) - 1} more are" if len(keys) > 1 else " is")
