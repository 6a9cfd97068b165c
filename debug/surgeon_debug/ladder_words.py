"""The sentences of the ladder."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon_debug.ladder import Group, Row, Rung, Step
from surgeon_debug.seen_tensor import Look
from surgeon_debug.verdict import Verdict

LIMITS_NOTE = (
    "your limits judge the outputs, the table of tolerances tensors inside; with --pieces your limits judge both"
)
"""What a reader must know where there are limits of the caller's."""

_NAMED = 4
_DONE = {
    Step.UNFUSED: "unfused tensors shown",
    Step.MARKED: "a few tensors marked",
    Step.OUTPUTS: "tensors of the group made outputs",
}


def named(nodes: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(nodes[:_NAMED]) + (f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else "")


def group_words(group: Group) -> str:
    """What a group does wrong."""
    who = named(group.nodes) if group.nodes else f"the layer {named(group.layers)}"
    if len(group.nodes) > 1:
        who += " (computed together)" if len(group.layers) == 1 else " (nothing between them was shown)"
    given = "given right values" if group.reads else "computed from the model's inputs"
    makes = "and makes wrong ones" if group.reads else "and wrong"
    words = f"{who} {'are' if len(group.nodes) > 1 else 'is'} {given} {makes}"
    if len(group.nodes) > 1:
        words = words.replace(" and makes ", " and make ")
    if group.inside:
        words += f"; inside, {group.inside[0]} is the first that is wrong, in iteration {group.inside[1]}"
    if group.candidates > 1:
        words += f"; which tensor shows it is not sure, it may be one of {group.candidates}"
    return words


def alone_words(alone: bool | None) -> str:
    """Whether a group is wrong when it runs alone, as the end of a sentence."""
    if alone is None:
        return ""
    return ", also when it runs alone" if alone else ", but not when it runs alone: what is beside it matters"


def others_words(others: Sequence[Group]) -> str:
    """Other groups, as the end of a sentence."""
    if not others:
        return ""
    who = "; ".join(named(group.nodes) for group in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    count = "one other group goes wrong" if len(others) == 1 else f"{len(others)} other groups go wrong"
    return f". Independently of it {count}: {who}{more}"


def healed_words(rung: Rung, split: Sequence[str], *, flaky: bool, rounds: int) -> str:
    """What follows from outputs that a step makes right."""
    words = f"the outputs are right with {_DONE.get(rung.step, rung.step.value)}"
    if flaky:
        return f"{words}, in {rounds} rounds; but the failure comes and goes, so that may be chance"
    if split:
        words += f": the fault depends on fusion; {named(split)} are computed together in the engine that is wrong, "
        words += "and apart in this one"
    elif rung.kernels:
        words += ", and the same nodes are computed together as before"
    else:
        words += ", and nothing tells why: the same nodes are computed together, by the same kernels"
    if rung.kernels:
        other = "have other kernels" if len(rung.kernels) > 1 else "has another kernel"
        words += f"; {named(rung.kernels)} {other} than before, which may be why"
    return words


def precision_words(grown: Sequence[Look], precision: str) -> str:
    """What follows where outputs are wrong and no layer is.

    Args:
        grown: Looks at tensors whose errors are those of what they are made of, grown; empty if conditioning alone
            explains the failure.
        precision: What the engine computes in.
    """
    if not grown:
        return "what is wrong with the outputs is explained by what the rounding of inputs becomes inside"
    worst = max(look.rel_l2 for look in grown)
    return (
        f"no layer stands out: the error grows from layer to layer, up to {worst:.2g} inside, and none adds more than "
        f"{precision} and its inputs explain"
    )


def unseen_words(seen: Rung) -> str:
    """Why no group could be named."""
    if seen.fails is None:
        return f"the tensors inside could not be looked at: {seen.words}"
    if not seen.looks:
        return "the engine showed no tensor"
    return "no layer of the engine could be told to be the first that is wrong"


def table_notes(rows: Sequence[Row], looks: Sequence[Look], iterations: int) -> list[str]:
    """What a reader must know to trust the table.

    Args:
        rows: The table.
        looks: What it was made of.
        iterations: How many iterations of loops the reference has kept.
    """
    notes = []
    skipped = [row for row in rows if row.verdict is Verdict.SKIPPED]
    bodies = {look.name for look in looks if look.how == "body" and not look.compared}
    lost = [row for row in skipped if row.name in bodies]
    if lost:
        were = "was seen and not compared" if len(lost) == 1 else "were seen and not compared"
        notes.append(
            f"{_tensors(len(lost))} inside bodies {were}; --iterations and --inner say how much of bodies the "
            "reference keeps, --pieces compares them otherwise"
        )
    if cut := bodies - {row.name for row in lost}:
        notes.append(f"of {_tensors(len(cut))} inside loops the first {iterations} iterations were compared")
    if others := [row for row in skipped if row.name not in bodies]:
        notes.append(
            f"{_tensors(len(others))} of the engine could not be compared, the first is {others[0].name}: "
            f"{others[0].reason}"
        )
    return notes


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"
