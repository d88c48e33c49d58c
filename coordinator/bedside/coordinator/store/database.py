"""One database behind `run_tx(name, work)`, in SQLite or PostgreSQL.

Invariants:
    * A change is durable when `run_tx` returned: SQLite in WAL with `synchronous=FULL`, PostgreSQL by its own promise.
    * Transactions run one after another: SQLite begins each with BEGIN IMMEDIATE, PostgreSQL runs them SERIALIZABLE and
      is asked again, a few times, when it gave one up for another's sake.
    * `work` may read and write only, and may run again; whoever acts on what it returns does so after the commit
      (commit, then act), so that a process killed in between acts again after its restart.
    * `work` gets the open transaction, so that several tables change together or not at all.
    * Nobody waits for a server that is gone: calls are refused at once while a thread connects again. A process that
      finds that another one has served meanwhile never writes again.

Source: DESIGN sections 3 and 8; Janus' `Datastore.run_tx`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bedside.coordinator.database_url import DatabaseUrl
from bedside.coordinator.store import tenure
from bedside.coordinator.store.postgres import is_lost, may_succeed_again, postgres_engine, words_of
from bedside.coordinator.store.sqlite import sqlite_engine
from bedside.core.errors import BedsideError, StoreError, UnavailableError
from bedside.service.files import restrict_database
from bedside.service.logs import event

Result = TypeVar("Result")

MAX_ATTEMPTS: Final = 5
"""Times that a transaction is run before a conflict is an error."""
FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 5.0
"""Between two tries to connect again."""

_LOGGER: Final = logging.getLogger(__name__)
_REMEDIES: Final = {
    "sqlite": "check free space and the permissions of the coordinator's directory",
    "postgresql": "check the server's free space and log, and that the user may write to the database",
}


class Store:
    """The coordinator's database. Safe to use from several threads; transactions run one after another.

    Attributes:
        kind: `sqlite` or `postgresql`.
        name: of the file or the database, for people.
        trouble: why it cannot be used now; empty while it can.
        is_replaced: another process has served from it; this one can never use it again.
        measure: wraps each transaction, by its name.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.kind = engine.dialect.name
        self.name = name
        self.trouble = ""
        self.is_replaced = False
        self.measure: Callable[[str], AbstractContextManager[object]] = nullcontext
        self._engine = engine
        self._turn = threading.Lock()
        self._tenure: int | None = None
        self._closing = threading.Event()
        self._reviver: threading.Thread | None = None

    def begin_tenure(self, sign_pk: bytes) -> None:
        """Claim the database for the coordinator with that key, before anything is read from it.

        Raises:
            ConfigError: `other-database`.
            StoreError, UnavailableError: as `run_tx`.
        """
        self._tenure = self.run_tx("begin-tenure", lambda tx: tenure.begin(tx, sign_pk))

    def run_tx(self, name: str, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in one transaction and return its result once that is durable.

        Raises:
            StoreError: `store-write`, naming the transaction; nothing was changed.
            UnavailableError: `store-unavailable`: the server is gone. Only a transaction whose commit was on its way
                may have happened, as with any call that is cut off.
        """
        with self.measure(name), self._turn:
            attempts = MAX_ATTEMPTS
            while True:
                attempts -= 1
                if self.trouble:
                    raise self._unavailable()
                try:
                    with self._connect() as connection, connection.begin():
                        return work(connection)
                except DBAPIError as error:
                    if self.kind == "postgresql" and is_lost(error):
                        self._lose(words_of(error.orig or error))
                        raise self._unavailable() from error
                    if attempts == 0 or not may_succeed_again(error):
                        raise self._failed(name, error) from error
                except SQLAlchemyError as error:
                    raise self._failed(name, error) from error

    def close(self) -> None:
        """Checkpoint and close."""
        self._closing.set()
        if self._reviver is not None:
            self._reviver.join()
        with self._turn:
            self._engine.dispose()

    def _connect(self) -> Connection:
        try:
            return self._engine.connect()
        except UnavailableError as error:
            self._lose(error.sentence)
            raise

    def _unavailable(self) -> UnavailableError:
        return UnavailableError(
            "store-unavailable",
            f"the coordinator's database cannot be used: {self.trouble}",
            remedy="try again later; it is connected to again by itself",
        )

    def _failed(self, name: str, error: SQLAlchemyError) -> StoreError:
        cause = getattr(error, "orig", None) or error
        return StoreError(
            "store-write",
            f"the transaction {name} failed: {type(error).__name__}: {words_of(cause)}",
            remedy=_REMEDIES[self.kind],
        )

    def _lose(self, why: str) -> None:
        """Refuse everything from now on, and have a thread connect again."""
        self.trouble = why
        event(_LOGGER, "store-lost", level=logging.ERROR, database=self.name, reason=why)
        self._engine.dispose()
        self._reviver = threading.Thread(target=self._revive, name="store-revive", daemon=True)
        self._reviver.start()

    def _revive(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._closing.wait(wait_s):
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            try:
                with self._engine.begin() as transaction:
                    number = tenure.number(transaction)
            except BedsideError as error:
                self.trouble = error.sentence
            except SQLAlchemyError as error:
                self.trouble = words_of(getattr(error, "orig", None) or error)
            else:
                if self._tenure not in (None, number):
                    self.trouble = "another coordinator has served from it meanwhile"
                    self.is_replaced = True
                    self._engine.dispose()
                else:
                    self.trouble = ""
                    event(_LOGGER, "store-back", database=self.name)
                return


def open_store(place: Path | DatabaseUrl, password: Callable[[], str] = str) -> Store:
    """Open or create the database and bring its schema up to date.

    Args:
        place: a SQLite file, or a database of PostgreSQL, which must be there.
        password: for PostgreSQL; called at every connection.

    Raises:
        StoreError: `store-open` when it cannot be opened, or `store-newer` when a newer version wrote it.
        UnavailableError: `already-running`: another coordinator serves from it; or `store-unavailable`.
        ConfigError: `extra-missing`, or as `password`.
    """
    from bedside.coordinator.store.migration import upgrade  # noqa: PLC0415, RUF100  # Alembic costs 0.2 s

    engine = sqlite_engine(place) if isinstance(place, Path) else postgres_engine(place, password)
    name = str(place) if isinstance(place, Path) else place.name
    try:
        if isinstance(place, Path):
            restrict_database(place)
        upgrade(engine)
    except (SQLAlchemyError, OSError) as error:
        engine.dispose()
        why = words_of(getattr(error, "orig", None) or error)
        raise StoreError(
            "store-open", f"{name} cannot be opened: {why}", remedy=_REMEDIES[engine.dialect.name]
        ) from error
    except BedsideError:
        engine.dispose()
        raise
    return Store(engine, name)
