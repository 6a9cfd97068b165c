"""The layout of ``surgeon compare --ladder``: one line a step, and what they come to."""

from __future__ import annotations

from rich.console import Console

from surgeon.report.cells import plain, short
from surgeon_debug.ladder import Ladder, LadderVerdict

_COLOURS = {
    LadderVerdict.RIGHT: "green",
    LadderVerdict.LOCATED: "red",
    LadderVerdict.FUSION: "red",
    LadderVerdict.UNKNOWN: "yellow",
}
_SPLIT = 3  # groups that are named
_WORDS = 240


def print_ladder(console: Console, found: Ladder) -> None:
    """Print the steps in the order in which they were made."""
    console.print("[bold]looked inside, each step more of a disturbance[/]")
    for rung in found.rungs:
        how = "not made" if rung.fails is None else "fails" if rung.fails else "right"
        seen = f", {len(rung.looks)} tensors seen" if rung.looks else ""
        console.print(f"  {rung.step.value}: {how}{seen}; {plain(short(rung.words, _WORDS))}")
    console.print(f"[bold {_COLOURS[found.verdict]}]{found.verdict.value}[/]: {plain(found.words)}")
    if found.ambiguous:
        console.print(
            "[bold]note:[/] a tensor of the engine may be one of several of the model; each was held against it"
        )
    if found.verdict is LadderVerdict.FUSION:
        split = found.rungs[-1].split
        for nodes in split[1 : 1 + _SPLIT]:
            console.print(f"  also taken apart: {plain(', '.join(nodes))}")
        console.print("[bold]next:[/] surgeon find fusion says which fusion it is")
    elif found.verdict is LadderVerdict.LOCATED:
        console.print("[bold]next:[/] surgeon find tactic says whether one of its kernels is at fault")
