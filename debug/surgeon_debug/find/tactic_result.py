"""What a search for tactics leaves behind, and the result that is made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from surgeon_debug.find.engine_oracle import EngineSpec
from surgeon_debug.find.engine_trials import Recorded
from surgeon_debug.find.finding import Step, conclude
from surgeon_debug.find.good_cache import build_command, keep_cache
from surgeon_debug.find.tactic_census import Census, Coverage
from surgeon_debug.find.tactic_finding import BadTactic, Tactic, TacticCulprit, TacticFinding
from surgeon_debug.find.tactic_pins import Pinned
from surgeon_debug.find.tensorrt_builds import TensorrtBuilder
from surgeon_debug.find.trials import Trials
from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics


@dataclasses.dataclass
class TacticTrail:
    """What is known so far; whatever stops the search leaves it behind."""

    recorded: Recorded | None = None
    base: dict[str, KeyTactics] = dataclasses.field(default_factory=dict)
    culprits: list[TacticCulprit] = dataclasses.field(default_factory=list)
    coverage: Coverage | None = None
    census: Census | None = None
    alike: bool = False
    """Whether all builds of the census fail with the same error."""
    differing: int = 0
    moved: tuple[str, ...] = ()
    nothing: str = ""
    undecided: str = ""
    advice: str = ""
    cache: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)


class TacticResult:
    """Makes the result of what is known.

    Args:
        trail: What is known.
        spec: What was built.
        output: Where to put the timing cache; None for nowhere.
    """

    def __init__(self, trail: TacticTrail, spec: EngineSpec, output: Path | None) -> None:
        self._trail, self._spec, self._output = trail, spec, output

    def finding(self, model: str, labels: tuple[str, str], steps: tuple[Step, ...], stopped: str) -> TacticFinding:
        """The result; what it promises is written.

        Args:
            model: How it calls the model.
            labels: How it calls the reference and the suspect.
            steps: What was done.
            stopped: Why the search ended before it was over; empty if it did not.

        Raises:
            FileError: The timing cache cannot be written.
        """
        trail = self._trail
        named = bool(trail.culprits)
        end = conclude(
            named,
            nothing=trail.nothing,
            undecided=trail.undecided,
            advice="" if named else trail.advice,
            stopped=stopped,
        )
        cache = self._keep_cache(trail.cache)
        seen = trail.recorded
        unusable = trail.census.unusable if trail.census is not None else {}
        return TacticFinding(
            outcome=end.outcome,
            model=model,
            reference=labels[0],
            target=labels[1],
            version=seen.record.version if seen else "",
            keys=len(trail.base),
            differing=trail.differing,
            samples=len(self._spec.feeds),
            signature=seen.signature if seen else None,
            failure=seen.trial.words if seen else "",
            culprits=tuple(trail.culprits),
            coverage=trail.coverage,
            reason=end.reason,
            advice=end.advice,
            moved=trail.moved,
            unusable=tuple((trail.base[key].title, hash_, why) for (key, hash_), why in unusable.items()),
            cache=cache,
            command=self._command(model, cache),
            steps=steps,
            notes=(*trail.notes, *([end.note] if end.note else [])),
            rate=seen.rate if seen else None,
        )

    def _keep_cache(self, made: str) -> str:
        """Put the timing cache where it was asked for."""
        if not made or self._output is None:
            return ""
        seen = self._trail.recorded
        keep_cache(Path(made), self._output, seen.record.tables if seen else ())
        return str(self._output)

    def _command(self, model: str, cache: str) -> str:
        builder = self._spec.builder
        if not cache or not isinstance(builder, TensorrtBuilder):
            return ""
        return build_command(builder, model, Path(cache))


def member_of(made: Trials, dimension: Pinned, element: int, error: float | None, without: frozenset[int]) -> BadTactic:
    """A tactic that is to blame, and what stands in its place in a build that is right."""
    pin = dimension.pins[element]
    tactics = dimension.base[pin.key]
    return BadTactic(
        tactics.title,
        tactics.nodes,
        pin.key,
        _tactic(tactics, pin.hash, error),
        _tactic(tactics, tactics.chosen, made.errors.get(without)),
    )


def _tactic(tactics: KeyTactics, hash_: str, error: float | None) -> Tactic:
    row = next((row for row in tactics.rows if row.hash == hash_), None)
    return Tactic(hash_, row.kernel if row else "", row.milliseconds if row else None, error)
