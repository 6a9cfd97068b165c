"""About ten builds that tell what kind of search to start: each changes one thing, and some heal the failure."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence

from surgeon_debug.find.engine_builds import BuildRecord, Wish
from surgeon_debug.find.engine_trials import Recorded
from surgeon_debug.find.fusion_levers import flips_of
from surgeon_debug.find.tactic_census import Census
from surgeon_debug.runners.tensorrt.tactic_tables import by_key

_EDITABLE = ("editable", "true")


class Lever(enum.Enum):
    """What a build changes."""

    ANEW = "built anew"
    TACTICS = "other tactics"
    MORE_TACTICS = "yet other tactics"
    LEAST = "optimisation level 0"
    LOW = "optimisation level 1"
    TF32 = "TF32 off"
    STREAMS = "one stream"
    OUTPUTS = "every inner tensor an output"
    DEBUG = "every inner tensor marked for debugging"
    KNOBS = "all knobs of the compiler turned"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One build of the triage."""

    lever: Lever
    wish: Wish


@dataclasses.dataclass(frozen=True)
class Variants:
    """Elements are variants; a trial is of one."""

    variants: tuple[Variant, ...]
    keeps: bool = False

    def wish(self, elements: frozenset[int]) -> Wish:
        """The build of the one element."""
        (element,) = elements
        return self.variants[element].wish

    def objection(self, wish: Wish, record: BuildRecord) -> tuple[str, tuple[str, ...]]:
        """Why an engine whose tactics were pinned does not have them."""
        moved = tuple(key for key, hash_ in (wish.pins or {}).items() if record.tactics.get(key) != hash_)
        return (f"{len(moved)} keys are not as pinned after the build", moved) if moved else ("", ())

    def facts(self) -> str:
        """What builds depend on, but for the file of the cache, of which the pins are all that counts."""
        told = [dataclasses.asdict(dataclasses.replace(one.wish, cache="")) for one in self.variants]
        return f"triage {json.dumps([{**wish, 'pins': sorted((wish['pins'] or {}).items())} for wish in told])}"


def variants_of(seen: Recorded, tensors: Sequence[str]) -> Variants:
    """What to try with a model.

    Args:
        seen: The build that fails.
        tensors: Inner tensors that can be made outputs.
    """
    record = seen.record
    found = [Variant(Lever.ANEW, Wish((_EDITABLE,)))]
    base = by_key(record.tables, record.tactics)
    census, ops = Census(base), {key: tactics.op for key, tactics in base.items() if tactics.op}
    for lever, number in ((Lever.TACTICS, 1), (Lever.MORE_TACTICS, 2)):
        if number < census.rounds and record.cache:
            found.append(Variant(lever, Wish((_EDITABLE,), record.cache, census.round(number), ops)))
    found += [
        Variant(Lever.LEAST, Wish((("level", "0"),))),
        Variant(Lever.LOW, Wish((("level", "1"),))),
        Variant(Lever.TF32, Wish((("tf32", "false"),))),
        Variant(Lever.STREAMS, Wish((("aux_streams", "0"),))),
    ]
    if tensors:
        for lever, way in ((Lever.OUTPUTS, "output"), (Lever.DEBUG, "debug")):
            found.append(Variant(lever, Wish((("observe", way),), shown=tuple(tensors))))
    flips, _ = flips_of(record.knobs)
    if flips:
        found.append(Variant(Lever.KNOBS, Wish((("route", ";".join(flip.text for flip in flips)),))))
    return Variants(tuple(found))


class Suspect(enum.Enum):
    """What to search for."""

    TACTIC = "tactic"
    FUSION = "fusion"
    PRECISION = "precision"
    NODES = "nodes"
    GRAPH = "graph"
    NOBODY = "nobody"


def suspect_of(helps: Mapping[Lever, bool], deed: str = "it is right") -> tuple[Suspect, str]:
    """What the builds say, and why.

    What leaves most as it was counts first: other tactics change nothing else, while TF32, outputs, knobs and levels
    change tactics too.

    Args:
        helps: Whether a change did to the engine what ``deed`` says; changes with which nothing could be built are
            not in it.
        deed: What it did.
    """
    blind = not helps.keys() & {Lever.TACTICS, Lever.MORE_TACTICS}
    suspect, why, others = _suspect_of({lever for lever, helped in helps.items() if helped}, deed)
    if blind and suspect is not Suspect.TACTIC:
        others = "; other tactics could not be tried, so it may be one"
    return suspect, why + others


def _suspect_of(helped: set[Lever], deed: str) -> tuple[Suspect, str, str]:
    """What to search for, why, and what that says of other tactics."""
    if helped & {Lever.TACTICS, Lever.MORE_TACTICS}:
        return Suspect.TACTIC, f"with the same layers and other tactics {deed}", ""
    split = helped & {Lever.OUTPUTS, Lever.DEBUG, Lever.KNOBS}
    if Lever.TF32 in helped and not split:
        return Suspect.PRECISION, f"without TF32 {deed}", ", whatever is fused and whichever tactics are chosen"
    if split:
        which = next(lever for lever in (Lever.KNOBS, Lever.OUTPUTS, Lever.DEBUG) if lever in split)
        return Suspect.FUSION, f"{deed} with {which.value}", ", and other tactics do not help"
    if Lever.ANEW in helped:
        return Suspect.TACTIC, f"built anew {deed}: the builder chooses by times, and chose otherwise", ""
    if helped & {Lever.LEAST, Lever.LOW}:
        return Suspect.FUSION, f"only at a lower optimisation level {deed}, and that fuses less", ""
    if Lever.STREAMS in helped:
        return Suspect.FUSION, f"{deed} with one stream, so it depends on the order in which layers run", ""
    return Suspect.NODES, "it fails however it is built, so a layer of it is wrong by itself", ""
