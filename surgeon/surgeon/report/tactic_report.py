"""The layout of ``surgeon find tactic``: which kernel, for which nodes, what to use instead, and how that was found."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from surgeon.report.cells import middle, plain
from surgeon.report.engine_search import (
    error_words,
    facts_grid,
    listed,
    phrase,
    print_end,
    print_model,
    print_verdict,
)
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.tactic_finding import BadTactic, Tactic, TacticCulprit, TacticFinding

_CULPRITS = 4
_MEMBERS = 4
_UNUSABLE = 3


def print_tactic(console: Console, found: TacticFinding) -> None:
    """Print a finding on one screen."""
    print_verdict(console, found.outcome, _answer(console, found), found.reason)
    samples = "1 sample" if found.samples == 1 else f"{found.samples} samples"
    words = [f"{found.keys:,} tunable ops", samples, f"reference {middle(found.reference, 60)}"]
    print_model(console, words, found.model, found.version)
    grid = facts_grid()
    for label, text in _facts(console, found):
        grid.add_row(label, text)
    if grid.row_count:
        console.print(grid)
    advice = found.advice
    if found.outcome is FindOutcome.FOUND and not found.command and not any(one.cured for one in found.culprits):
        advice = "no build without the culprit was right, so there is no timing cache to use"
    print_end(console, found.steps, found.notes, advice, found.command)


def _answer(console: Console, found: TacticFinding) -> str:
    if not found.culprits:
        return ""
    if len(found.culprits) > 1:
        return f"{len(found.culprits)} bad tactics, each is enough"
    (one,) = found.culprits
    width = max(24, console.width - 60)
    if len(one.members) > 1:
        return f"{len(one.members)} tactics that are wrong together"
    member = one.members[0]
    return f"the tactic of op '{middle(member.op, width)}' makes the engine wrong"


def _facts(console: Console, found: TacticFinding) -> Iterator[tuple[str, str]]:
    if found.failure:
        yield "the engine", phrase(found.failure)
    if found.rate is not None:
        yield "flaky", f"it fails in {found.rate:.0%} of its runs"
    for one in found.culprits[:_CULPRITS]:
        yield from _culprit(console, one)
    if len(found.culprits) > _CULPRITS:
        yield "and", f"{len(found.culprits) - _CULPRITS} more (--json has them all)"
    if found.culprits:
        one = found.culprits[0]
        alone = {True: "fails", False: "is right", None: "could not be judged"}[one.alone]
        yield "alone", f"an engine that has no other suspected tactic {alone}"
        cured = {True: "right", False: "still wrong", None: "not known"}[one.cured]
        yield "without", f"the engine is {cured} when only that is replaced"
    if found.coverage is not None:
        yield "census", phrase(found.coverage.words)
    for op, hash_, why in found.unusable[:_UNUSABLE]:
        yield "not usable", f"{plain(hash_)} for {middle(op, 40)}: {phrase(why, 120)}"
    if len(found.unusable) > _UNUSABLE:
        yield "", f"and {len(found.unusable) - _UNUSABLE} more (--json has them all)"
    if found.moved:
        yield "keys", listed(found.moved, 3, 40)
    if found.cache:
        yield "cache", f"{plain(found.cache)} avoids it"


def _culprit(console: Console, one: TacticCulprit) -> Iterator[tuple[str, str]]:
    room = max(24, console.width - 18)
    for member in one.members[:_MEMBERS]:
        yield "op", middle(member.op, room)
        yield "key", plain(member.key)
        if member.nodes:
            yield "nodes", listed(member.nodes, 4, room)
        yield "bad", _tactic(member.bad, room)
        yield "good", _tactic(member.good, room) + _slower(member)
    if len(one.members) > _MEMBERS:
        yield "", f"and {len(one.members) - _MEMBERS} more (--json has them all)"


def _tactic(tactic: Tactic, room: int) -> str:
    name = f" {middle(tactic.kernel, max(24, room - 50))}" if tactic.kernel else ""
    return f"{plain(tactic.hash)}{name}{error_words(tactic.error)}"


def _slower(member: BadTactic) -> str:
    bad, good = member.bad.milliseconds, member.good.milliseconds
    if not bad or not good:
        return ""
    return f", {good / bad - 1:+.0%} time"
