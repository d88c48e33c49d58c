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

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Both forms."""
        with self._listing(ctx) as listing:
            return [*listing.command.collect_usage_pieces(listing), "|", "COMMAND", "[ARGS]..."]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of `list` before the commands: they are those of the plain form."""
        with self._listing(ctx) as listing:
            click.Command.format_options(listing.command, listing, formatter)
        self.format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands, and what `list` takes."""
        with self._listing(ctx) as listing:
            options = listing.command.shell_complete(listing, incomplete)
        names = click.Group.shell_complete(self, ctx, incomplete)
        # Where a shell offers folders, it forgets the words before them.
        places = [] if incomplete.startswith("-") else [CompletionItem(incomplete, type="dir")]
        return places + list({item.value: item for item in names + options if item.type == "plain"}.values())

    def _listing(self, ctx: click.Context) -> click.Context:
        return click.Context(self.commands[LIST], ctx, LIST)
