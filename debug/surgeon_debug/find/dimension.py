"""What the elements of a search over the ways to build one engine are."""

from __future__ import annotations

from typing import Protocol

from surgeon_debug.find.engine_builds import BuildRecord, Wish


class Dimension(Protocol):
    """What the elements of a search are, and how to build with some of them; it can be pickled."""

    def wish(self, elements: frozenset[int]) -> Wish:
        """What to ask of the builder."""

    def objection(self, wish: Wish, record: BuildRecord) -> tuple[str, tuple[str, ...]]:
        """Why a build is not what was wished for, and which cache keys show it; empty if it is."""

    def facts(self) -> str:
        """All that outcomes depend on besides the elements, in words."""

    @property
    def keeps(self) -> bool:
        """Whether the record of each build is to be kept with its trial."""
