"""A time that a person types, as an option of several commands."""

from __future__ import annotations

from typing import Final

import click

from bedside.agent.cli.label_file import parse_moment
from bedside.core.errors import MalformedError


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic in the stubs alone
    """A time as `label add` takes it, in nanoseconds since 1970."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read ISO 8601, or seconds since 1970. Raises click.BadParameter."""
        if isinstance(value, int):
            return value
        try:
            return parse_moment(str(value))
        except MalformedError as error:
            self.fail(error.sentence, param, ctx)


MOMENT: Final = Moment()
