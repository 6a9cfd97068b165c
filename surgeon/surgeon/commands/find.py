"""``surgeon find``: a group with one command for each kind of culprit."""

from __future__ import annotations

import click

from surgeon.lazy_group import LazyGroup

_COMMANDS = {
    "nodes": "The smallest sets of nodes that fail, by an engine or by a check of yours.",
    "tactic": "The kernel that makes an engine of TensorRT wrong, and a timing cache without it.",
    "fusion": "The fused layer that makes an engine of TensorRT wrong, and what breaks it.",
    "auto": "Ten builds of an engine of TensorRT that say which of these to search for.",
}


@click.group("find", cls=LazyGroup, table=_COMMANDS, prefix="surgeon.commands.find_")
def command() -> None:
    """Name the culprit of a failure: the smallest thing that is to blame, verified.

    Ends with 0 if a culprit is named, 1 if there is nothing to find, 3 if it could not decide.
    """
