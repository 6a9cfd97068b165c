"""``surgeon find``: a group with one command for each kind of culprit."""

from __future__ import annotations

import click

from surgeon.lazy_group import LazyGroup

_COMMANDS = {"nodes": "The smallest sets of nodes that fail, by an engine or by a check of yours."}


@click.group("find", cls=LazyGroup, table=_COMMANDS, prefix="surgeon.commands.find_")
def command() -> None:
    """Name the culprit of a failure: the smallest thing that is to blame, verified.

    Ends with 0 if a culprit is named, 1 if there is nothing to find, 3 if it could not decide.
    """
