"""One database behind `run_tx(name, work)`.

Invariants:
    * SQLite in WAL with `synchronous=FULL` and one connection: a change is durable when `run_tx` returned.
    * `work` may read and write only; whoever acts on what it returns does so after the commit (commit, then act), so
      that a process killed in between acts again after its restart.
    * `work` gets the open transaction, so that several tables change together or not at all.

Source: DESIGN sections 3 and 8; Janus' `Datastore.run_tx`; sqlite.org/wal.html.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from bedside.core.errors import StoreError
from bedside.service.files import restrict_database

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

Result = TypeVar("Result")

_BUSY_TIMEOUT_S: Final = 5.0
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")


class _RawConnection(Protocol):
    isolation_level: str | None

    def execute(self, statement: str) -> object: ...


class Store:
    """The coordinator's database. Safe to use from several threads; transactions run one after another."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()

    def run_tx(self, name: str, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in one transaction and return its result once that is durable.

        Raises:
            StoreError: `store-write`, naming the transaction; nothing was changed.
        """
        try:
            with self._turn, self._engine.begin() as transaction:
                return work(transaction)
        except SQLAlchemyError as error:
            raise StoreError(
                "store-write",
                f"the transaction {name} failed: {type(error).__name__}: {getattr(error, 'orig', None) or error}",
                remedy="check free space and the permissions of the coordinator's directory",
            ) from error

    def close(self) -> None:
        """Checkpoint and close."""
        with self._turn:
            self._engine.dispose()


def open_store(path: Path) -> Store:
    """Open or create the SQLite file at `path` and bring its schema up to date.

    Raises:
        StoreError: `store-open` when it cannot be opened, or when a newer version wrote it.
    """
    from bedside.coordinator.store.migration import upgrade  # noqa: PLC0415, RUF100  # Alembic costs 0.2 s

    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": _BUSY_TIMEOUT_S},
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin_immediate)
    try:
        restrict_database(path)
        upgrade(engine)
    except (SQLAlchemyError, OSError) as error:
        engine.dispose()
        raise StoreError("store-open", f"{path} cannot be opened: {error}") from error
    return Store(engine)


def _prepare(connection: object, _entry: ConnectionPoolEntry) -> None:
    raw = cast("_RawConnection", connection)
    raw.isolation_level = None  # transactions begin where we say, not where the driver guesses
    for pragma in _PRAGMAS:
        raw.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
