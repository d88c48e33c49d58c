"""How every part of a device or trustee opens its SQLite file.

Invariants:
    * WAL, `synchronous=FULL` always, one writer connection which also checkpoints: a row is *acknowledged* when
      its commit returned (kill -9 cannot see a missing fsync; torn-write images can).
    * Migrations are named and ordered, and each runs inside the transaction that records its name.
    * All writes go through `run_tx(name, work)`; `work` may run once only and must not send anything: commit
      the new state and the outbox first, then send.

Source: DESIGN sections 3 and 4; sqlite.org/wal.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from bedside.core.errors import StoreError
from bedside.service.files import restrict_database

Result = TypeVar("Result")

DAMAGED: Final = "store-damaged"
"""Code of a database that no other try will read."""

_BUSY_TIMEOUT_MS: Final = 5_000
_CACHE_KIB: Final = 512
"""Pages that a connection keeps, a quarter of the default: the kernel has them too, and a device has several."""

_RESTORE: Final = "stop the program, keep the file as evidence, and restore the state directory from its backup"
_DAMAGED: Final = "check the disk and its permissions; restore a damaged file, or move it away to begin anew"


class Migration(NamedTuple):
    """One named step of a schema: SQL statements separated by semicolons. Never edited after release."""

    name: str
    script: str


class Database:
    """One SQLite file with its single writer connection.

    Not thread-safe: an asyncio process uses it from its loop only; a child opens its own, read-only. The agent's buffer
    takes turns with a thread of its own: see its `BufferDatabase`.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self.path = path

    def run_tx(self, name: str, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `work` in one immediate transaction and return its result once that is durable.

        Raises:
            StoreError: `store-write`, naming the transaction; nothing was written.
        """
        try:
            with self._transaction():
                return work(self.connection)
        except (sqlite3.Error, OverflowError) as error:
            raise StoreError(
                "store-write",
                f"{name} was not written to {self.path.name}: {error}",
                remedy="check free space and the permissions of the state directory",
            ) from error

    def rows(self, sql: str, parameters: Sequence[str | int | bytes] = ()) -> list[sqlite3.Row]:
        """Read: every row of one SELECT.

        Raises:
            StoreError: `store-read`.
        """
        with reading(self.path):
            return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[str | int | bytes] = ()) -> sqlite3.Row | None:
        """Read: the first row of one SELECT, None where there is none. Raises as `rows`."""
        with reading(self.path):
            found: sqlite3.Row | None = self.connection.execute(sql, parameters).fetchone()
            return found

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def close(self) -> None:
        """Checkpoint and close."""
        self.connection.close()


def open_database(
    path: Path, migrations: Sequence[Migration], *, secure_delete: bool = False, any_thread: bool = False
) -> Database:
    """Open or create the file at `path` for writing and bring its schema up to date.

    Args:
        path: of the file.
        migrations: its schema.
        secure_delete: overwrite what is deleted.
        any_thread: whether threads other than this one may use it; the caller sees to it that they take turns.

    Raises:
        StoreError: `store-open` when the file cannot be opened, `store-newer` when a newer version wrote it.
    """
    with _opening(path, "opened") as undo:
        path.parent.mkdir(parents=True, exist_ok=True)
        restrict_database(path)
        connection = sqlite3.connect(
            path, isolation_level=None, timeout=_BUSY_TIMEOUT_MS / 1000, check_same_thread=not any_thread
        )
        undo.callback(connection.close)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute(f"PRAGMA secure_delete={'ON' if secure_delete else 'OFF'}")
        database = Database(connection, path)
        _migrate(database, migrations)
        undo.pop_all()
    return database


def open_reader(path: Path, *, remedy: str = _DAMAGED) -> sqlite3.Connection:
    """Open the file at `path` for reading only, beside its writer; `remedy` is for a file that is damaged.

    Raises:
        StoreError: `store-open` when there is no such file.
    """
    with _opening(path, "read", remedy) as undo:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_MS / 1000)
        undo.callback(connection.close)
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
        undo.pop_all()
    return connection


def read_error(
    error: sqlite3.Error | UnicodeDecodeError, what: str = "the database", remedy: str = _RESTORE
) -> StoreError:
    """A failure of reading, outside of `run_tx`: `store-damaged`, or `store-read` where another try may do.

    Args:
        error: of SQLite.
        what: could not be read.
        remedy: for damage.
    """
    if not _is_damage(error):
        return StoreError("store-read", f"{what} cannot be read: {error}", remedy="check the disk, then try again")
    return StoreError(DAMAGED, f"{what} is damaged: {error}", remedy=remedy)


def _is_damage(error: Exception) -> bool:
    """The class itself is of a file that is no database any more; damaged names and messages are no text."""
    return type(error) in {sqlite3.DatabaseError, UnicodeDecodeError}


@contextmanager
def reading(path: Path | None = None, *, remedy: str = _RESTORE) -> Iterator[None]:
    """Name failures of reading, from the file at `path` where it is known. Raises StoreError: see `read_error`."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise read_error(error, path.name if path is not None else "the database", remedy) from error


@contextmanager
def _opening(path: Path, what: str, remedy: str = _DAMAGED) -> Iterator[ExitStack]:
    """Name failures of opening, and close what was opened until then."""
    try:
        with ExitStack() as undo:
            yield undo
    except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
        remedy = remedy if _is_damage(error) else _DAMAGED
        raise StoreError("store-open", f"{path} cannot be {what}: {error}", remedy=remedy) from error


def _migrate(database: Database, migrations: Sequence[Migration]) -> None:
    connection = database.connection
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_order INTEGER NOT NULL)")
    with closing(connection.execute("SELECT name FROM migrations ORDER BY applied_order")) as rows:
        applied = [row["name"] for row in rows]
    known = [migration.name for migration in migrations]
    if applied != known[: len(applied)]:
        raise StoreError(
            "store-newer",
            f"{database.path.name} was written by another version",
            remedy="install the version that wrote it, or a later one",
        )
    for order, migration in enumerate(migrations[len(applied) :], start=len(applied)):
        step = partial(_apply, migration=migration, order=order)
        database.run_tx(f"migration {migration.name}", step)


def _apply(transaction: sqlite3.Connection, migration: Migration, order: int) -> None:
    for statement in migration.script.split(";"):
        if statement.strip():
            transaction.execute(statement)
    transaction.execute("INSERT INTO migrations (name, applied_order) VALUES (?, ?)", (migration.name, order))
