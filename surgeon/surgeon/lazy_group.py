"""A group of commands that are known by name and imported when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose commands are known by name and imported when they are used.

    Args:
        table: What each command does, by name.
        prefix: What comes before a command's name in the name of its module; the module holds it as ``command``.
        attributes: What click gives its groups.
    """

    def __init__(self, *, table: Mapping[str, str], prefix: str, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._table = table
        self._prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """Names, in the table's order."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        if cmd_name not in self._table:
            return None
        command = importlib.import_module(self._prefix + cmd_name).command
        assert isinstance(command, click.Command)
        # click wants the character; docstrings are raw and have a backslash and a b.
        command.help = (command.help or "").replace("\\b\n", "\b\n")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse a name that is none, with the one that was meant."""
        if args and args[0] not in self._table and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], self._table, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else f" See '{ctx.command_path} --help'."
            raise click.UsageError(f"there is no command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table, which needs no import."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._table.items()))
