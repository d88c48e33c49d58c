"""One read-only query against a database of the hospital. Blocking: its calls belong in a thread.

Invariants:
    * Nothing is written, by three belts: the text is one SELECT (or WITH); the transaction is read-only, which
      PostgreSQL and SQLite enforce whatever functions the query calls; and the page in `docs/sources.md` asks for a
      user that may only read.
    * No message holds the password, or a value of a row.

Source: PostgreSQL, SET TRANSACTION READ ONLY; SQLite, PRAGMA query_only and `mode=ro`; SQLAlchemy 2.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from bedside.agent.kinds import require
from bedside.agent.sources.sql.rows import TableRow
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, ConfigError, UnavailableError
from bedside.core.vocabulary.reading import shown

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.exc import DBAPIError

Watermark = int | float | str | datetime

CONNECT_TIMEOUT_S: Final = 10
MAX_SAME_ROWS: Final = 10_000
"""Rows with one and the same watermark, which no page may part."""

_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_READS: Final = re.compile(r"\s*(?:select|with)\b", re.IGNORECASE)
_STEPS: Final = 10_000
"""Instructions of SQLite between two looks at the clock."""
_WRITES: Final = frozenset({"25006", "SQLITE_READONLY"})
_TOO_LONG: Final = frozenset({"57014", "SQLITE_INTERRUPT"})
_OF_QUERY: Final = ("42", "SQLITE_ERROR")
"""What is wrong with the text of a query; what these errors say is about its names, never about values."""
_FORBIDDEN: Final = frozenset({"password", "options", "passfile", "service"})


class Page(NamedTuple):
    """Rows in the order of their watermark; `more` when further ones wait behind them."""

    rows: list[TableRow]
    more: bool


def check_query(source: str, query: str) -> str:
    """Return the query without what ends it.

    Raises:
        ConfigError: `sql-query`: it is not one SELECT, or lacks `:since`.
    """
    from sqlalchemy import text

    bare = _COMMENT.sub(" ", query)
    body = query.strip().removesuffix(";").rstrip()
    parameters = set(text(query).compile().params)
    rules = (
        (_READS.match(bare) is not None, "a query begins with SELECT or WITH"),
        (";" not in _COMMENT.sub(" ", body), "a query is one statement"),
        (parameters == {"since"}, "a query has one parameter, :since"),
        (re.search(r"\border\s+by\b", bare, re.IGNORECASE) is not None, "a query has an ORDER BY its watermark"),
    )
    for holds, sentence in rules:
        if not holds:
            raise ConfigError("sql-query", f"source {source}: {sentence}", remedy="correct the query in agent.toml")
    return body


class Database:
    """Asks one query.

    Attributes:
        kind: `postgresql` or `sqlite`.
    """

    def __init__(self, url: str, password: str, query: str, timeout_s: float, directory: Path, clock: Clock) -> None:
        """Prepare; nothing is opened.

        Args:
            url: of SQLAlchemy, without a password.
            password: empty for none.
            query: from `check_query`.
            timeout_s: of one page.
            directory: the path of a SQLite file starts there.
            clock: for the time that a page takes.

        Raises:
            ConfigError: `sql-url`, `extra-missing`.
        """
        from sqlalchemy import make_url, text
        from sqlalchemy.exc import ArgumentError

        try:
            known = make_url(url)
        except (ArgumentError, ValueError):
            raise _bad_url("it is not a URL") from None
        if known.password is not None or _FORBIDDEN & known.query.keys():
            raise _bad_url("it must hold neither a password nor options: name where the password lies")
        self.kind = known.get_backend_name()
        self._name = shown(known.database or "")
        self._password = password
        self._query = text(query)
        self._timeout_s = timeout_s
        self._clock = clock
        self._deadline_s = 0.0
        self._stop: Callable[[], object] = _nothing
        if self.kind == "postgresql":
            self._engine = self._postgresql(known)
        elif self.kind == "sqlite" and known.database not in {None, "", ":memory:"} and not known.query:
            self._engine = self._sqlite(directory / str(known.database))
        else:
            raise _bad_url("postgresql and files of sqlite are what is read without a chance to write")

    def page(self, since: Watermark, limit: int, watermark: str) -> Page:
        """The rows behind `since`: about `limit` of them, and all that share the last one's watermark.

        Raises:
            UnavailableError: `sql-unavailable`, `sql-timeout`.
            ConfigError: `sql-query`, `sql-writes`, `sql-order`, `sql-columns`.
        """
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        self._deadline_s = self._clock.monotonic_s() + self._timeout_s
        try:
            with (
                self._engine.connect() as connection,
                self._stoppable(connection),
                connection.execute(self._query, {"since": since}) as result,
            ):
                names = list(result.keys())
                return page_of((dict(zip(names, row, strict=True)) for row in result), names, limit, watermark)
        except DBAPIError as error:
            raise self._failure(error) from None  # its text may hold values of rows
        except (SQLAlchemyError, OSError, ValueError, TypeError) as error:
            raise _bad_query(type(error).__name__) from None

    def cancel(self) -> None:
        """End the query that another thread waits for, if there is one: a process that stops waits for its threads."""
        with suppress(Exception):  # the connection may end by itself just now
            self._stop()

    @contextmanager
    def _stoppable(self, connection: Connection) -> Iterator[None]:
        driver = connection.connection.driver_connection
        self._stop = driver.cancel if self.kind == "postgresql" else driver.interrupt  # type: ignore[union-attr]  # open
        try:
            yield
        finally:
            self._stop = _nothing

    def _postgresql(self, url: URL) -> Engine:
        require("psycopg", "bedside[sql]")
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        timeout_ms = round(self._timeout_s * 1000)
        settings = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "tcp_user_timeout": timeout_ms,
            "options": f"-c default_transaction_read_only=on -c statement_timeout={timeout_ms}",
        }
        if self._password:
            settings["password"] = self._password
        engine = create_engine(url.set(drivername="postgresql+psycopg"), poolclass=NullPool, connect_args=settings)
        return engine.execution_options(postgresql_readonly=True, stream_results=True)

    def _sqlite(self, path: Path) -> Engine:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=self._timeout_s)
            connection.execute("PRAGMA query_only=ON")
            connection.set_progress_handler(lambda: self._clock.monotonic_s() > self._deadline_s, _STEPS)
            return connection

        return create_engine("sqlite://", creator=connect, poolclass=NullPool)

    def _failure(self, error: DBAPIError) -> BedsideError:
        """What went wrong, without a value of a row in it, and without the password."""
        cause = error.orig
        code = str(getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or "")
        if code.startswith(tuple(_WRITES)):
            return ConfigError(
                "sql-writes", "the query tries to write, and may only read", remedy="write a query that only reads"
            )
        if code in _TOO_LONG:
            return UnavailableError(
                "sql-timeout",
                f"the database {self._name} did not answer within {self._timeout_s:g} s",
                remedy="give the watermark an index, lower page_rows or raise timeout_s",
            )
        words = str(cause).strip().splitlines()[:1] if not code or code.startswith(_OF_QUERY) else []
        said = shown(words[0].rpartition("failed: ")[2]) if words else type(cause).__name__
        if self._password:
            said = said.replace(self._password, "***")
        if code.startswith(_OF_QUERY):
            return _bad_query(said)
        return UnavailableError(
            "sql-unavailable",
            f"the database {self._name} is not there, or refuses: {said} {code}".rstrip(),
            remedy="check the url, the user and its password, and that the database runs",
        )


def _nothing() -> None:
    """There is no query."""


def page_of(answer: Iterable[TableRow], names: Sequence[str], limit: int, watermark: str) -> Page:
    """Cut a page from an answer with columns of these names, where the watermark changes.

    Raises:
        ConfigError: `sql-order`, `sql-columns`.
    """
    rows: list[TableRow] = []
    latest: object = None
    if watermark not in names:
        raise ConfigError(
            "sql-columns",
            f"the query gives no column {shown(watermark)!r}",
            remedy=f"its columns are {shown(', '.join(names))}",
        )
    for name, times in Counter(names).items():
        if times > 1:
            raise ConfigError(
                "sql-columns",
                f"the query gives {times} columns {shown(name)!r}, and nobody can tell which one is meant",
                remedy="name each with AS, or leave out those that are not needed",
            )
    for row in answer:
        mark = row[watermark]
        if not _ascends(latest, mark):
            raise ConfigError(
                "sql-order",
                f"the rows do not ascend by {shown(watermark)}, or lack it",
                remedy="ORDER BY the watermark, and leave out rows without one",
            )
        if len(rows) >= limit and mark != latest:
            return Page(rows, more=True)
        if len(rows) >= limit + MAX_SAME_ROWS:
            raise ConfigError(
                "sql-order",
                f"over {MAX_SAME_ROWS} rows have the same {shown(watermark)}",
                remedy="take a watermark that differs from row to row",
            )
        rows.append(row)
        latest = mark
    return Page(rows, more=False)


def _ascends(latest: object, mark: object) -> bool:
    try:
        return mark is not None and (latest is None or mark >= latest)  # type: ignore[operator]  # of one column
    except TypeError:
        return False


def _bad_url(sentence: str) -> ConfigError:
    return ConfigError(
        "sql-url", f"the url of the database: {sentence}", remedy="postgresql://user@host/name or sqlite:///file.db"
    )


def _bad_query(sentence: str) -> ConfigError:
    return ConfigError("sql-query", f"the database refuses the query: {sentence}", remedy="correct the query")
