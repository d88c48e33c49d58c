"""SQLite: one file, one connection, and durable when a transaction has ended.

Source: sqlite.org/wal.html, sqlite.org/pragma.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

_BUSY_TIMEOUT_S: Final = 5.0
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")


class _RawConnection(Protocol):
    isolation_level: str | None

    def execute(self, statement: str) -> object: ...


def sqlite_engine(path: Path) -> Engine:
    """The engine of the file at `path`; nothing is opened."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": _BUSY_TIMEOUT_S},
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _prepare(connection: object, _entry: ConnectionPoolEntry) -> None:
    raw = cast("_RawConnection", connection)
    raw.isolation_level = None  # transactions begin where we say, not where the driver guesses
    for pragma in _PRAGMAS:
        raw.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
