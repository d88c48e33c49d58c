"""Where the token of a set-up comes from: an option that names its place, a credential of systemd, or a person."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bedside.core.errors import ConfigError, MalformedError
from bedside.core.signing.tokens import read_token
from bedside.service.link.address import check_told_address
from bedside.service.secret import CREDENTIAL_PREFIX, read_secret

if TYPE_CHECKING:
    from bedside.core.signing.tokens import BearerToken

CREDENTIAL: Final = "bedside-token"
"""Of systemd; where it is there, nothing need be named."""
MAX_TOKEN_CHARS: Final = 8_192
STDIN: Final = "-"
_TRIES: Final = 3


def find_token(place: str, *, asks: bool, environ: Mapping[str, str] = os.environ) -> BearerToken:
    """The token.

    Args:
        place: what `--token` says; empty for the credential, or a question.
        asks: whether there is somebody to ask.
        environ: names the directory of credentials.

    Raises:
        ConfigError: `token-needed`, or as `read_secret`.
        MalformedError: `bad-token`.
    """
    if place == STDIN:
        return _checked(text_on_stdin())
    if place:
        return _checked(read_secret(Path.cwd(), place, environ, option="--token"))
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and (Path(folder) / CREDENTIAL).exists():
        return _checked(read_secret(Path(folder), f"{CREDENTIAL_PREFIX}{CREDENTIAL}", environ, option="the token"))
    if not asks:
        raise ConfigError(
            "token-needed",
            "this device has not joined a site, and no token was given",
            remedy="--token FILE, or --token - to read it from standard input; `bedside site token` prints one",
        )
    return _ask()


def text_on_stdin() -> str:
    """The text of a token on standard input, where there may be any bytes."""
    return sys.stdin.buffer.read(MAX_TOKEN_CHARS).decode("ascii", "replace")


def _ask() -> BearerToken:
    for _ in range(_TRIES - 1):
        try:
            return _asked()
        except MalformedError as error:
            click.echo(f"{error.sentence}: {error.remedy}")
    return _asked()


def _asked() -> BearerToken:
    return _checked(click.prompt("Token (it is not shown)", hide_input=True))


def _checked(text: str) -> BearerToken:
    """Read a token, of which the address is shown to a person before anything else is known of who has made it."""
    bearer = read_token(text)
    try:
        check_told_address(bearer.token.enrolment_address)
    except MalformedError as error:
        raise MalformedError(
            "bad-token", "this token leads to no host and port", remedy="ask the site's admin for a new one"
        ) from error
    return bearer
