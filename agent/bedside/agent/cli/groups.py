"""Groups of commands whose plain form lists: `bedside agent alarms DIR` is `bedside agent alarms list DIR`."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

LIST = "list"


class ListingGroup(click.Group):
    """A group that lists when its first word is none of its commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` before words that do not begin with a command; `--help` alone explains the group."""
        if args and args[0] not in self.commands and not (len(args) == 1 and args[0] in ctx.help_option_names):
            args = [LIST, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands, and the directory that `list` takes."""
        return [*super().shell_complete(ctx, incomplete), CompletionItem(incomplete, type="dir")]
