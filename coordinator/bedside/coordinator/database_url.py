"""Where the database is: `postgresql://USER@HOST:PORT/NAME?sslmode=verify-full`, and never a password in it.

Source: PostgreSQL, 34.1.1.2 Connection URIs, and 34.1.2 for the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from bedside.core.errors import ConfigError

SCHEMES: Final = ("postgresql", "postgres")
PARAMETERS: Final = frozenset(
    {
        "channel_binding",
        "gssencmode",
        "host",
        "krbsrvname",
        "port",
        "require_auth",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "target_session_attrs",
    }
)
"""What may stand behind the question mark: where the server is, and how to trust it."""
MAX_URL_CHARS: Final = 2_000
MAX_PARAMETERS: Final = 32


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A database of a PostgreSQL server.

    Attributes:
        name: of the database.
        parameters: of libpq, with `dbname` and without a password.
    """

    name: str
    parameters: Mapping[str, str]

    @property
    def host(self) -> str:
        """Names, addresses, or the folder of a socket; empty for libpq's own choice."""
        return self.parameters.get("host", "")

    def __str__(self) -> str:
        """For people: no user, and no parameters."""
        port = self.parameters.get("port", "")
        return f"postgresql://{self.host}{f':{port}' if port else ''}/{self.name}"


def parse_database_url(text: str) -> DatabaseUrl:
    """Read the option `database`.

    Raises:
        ConfigError: `database-url`; the error does not hold the text, which may hold a password.
    """
    try:
        split = urlsplit(text) if len(text) <= MAX_URL_CHARS and text.isprintable() else urlsplit("")
        port = split.port
        pairs = parse_qsl(split.query, keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise _bad("it is not a URL") from None
    if split.scheme not in SCHEMES or split.fragment:
        raise _bad("it is not a URL of PostgreSQL")
    name = unquote(split.path.removeprefix("/"))
    if not name or "/" in name:
        raise _bad("it names no database")
    if split.password is not None:
        raise _bad("it holds a password")
    strange = sorted({key for key, _ in pairs} - PARAMETERS)
    if strange or len(dict(pairs)) != len(pairs):
        raise _bad("it has a parameter twice, or one that it may not have")
    parameters = {"dbname": name}
    told = {"user": unquote(split.username or ""), "host": unquote(split.hostname or ""), "port": str(port or "")}
    parameters |= {key: value for key, value in told.items() if value}
    parameters |= dict(pairs)
    if not all(value.isprintable() for value in parameters.values()):
        raise _bad("it has a character that nobody can read")
    return DatabaseUrl(name, parameters)


def _bad(why: str) -> ConfigError:
    return ConfigError(
        "database-url",
        f"database cannot be used: {why}",
        remedy="write postgresql://USER@HOST/NAME?sslmode=verify-full; the password lies where database_password says",
    )
