"""Opening the buffer's file for its one writer: lock it, look at it, check the key; when it is damaged, salvage it.

Invariants:
    * One process writes. The lock is the system's, so that it ends with the process, however that ends.
    * Before anything is written the file's structure, its indexes and every row's tag have been checked.
    * Every key that a row may need is on record (`seal_keys`). A key that is not here refuses the start and changes
      nothing: an operator's mistake must never look like damage.
    * That a buffer exists is on record in a file beside it: one that is gone, or that a power cut has emptied, does not
      look like that of a new device.
    * The salvaged file is complete before it takes the damaged one's place; a crash in between is made good here.

Source: DESIGN section 4.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from bedside.agent.buffer.eviction import count
from bedside.agent.buffer.log import committing_frames
from bedside.agent.buffer.salvage import SEALED, Salvage, copy_sound_rows, set_aside, wrong_key
from bedside.agent.buffer.schema import MIGRATIONS
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.tags import TAGGED, damaged_rows, keep_tags, right_shape, shape_of
from bedside.agent.buffer.turn import Turn
from bedside.core.errors import StoreError, UnavailableError
from bedside.service.files import private_opener, sync_directory, write_durable
from bedside.service.sqlite import DAMAGED, Database, Result, open_database

_NO_DAMAGE_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
"""Failures of opening that say nothing about the file; after any other one, a copy of what proves itself is better."""
_PROBED_ROWS: Final = 16


class BufferDatabase(Database):
    """The buffer's file with its one writer; nobody else gets it until it is closed.

    `held` closes the connection, then lets the lock go. Several threads may use it: every transaction and every read
    takes a turn, and whoever uses `connection` itself, or does several things that belong together, takes one for it.

    Attributes:
        turn: to be held meanwhile.
        on_full: called when a transaction finds no space on the disk; that transaction is then tried once more.
    """

    on_full: Callable[[], None] | None = None

    def __init__(self, database: Database, held: ExitStack) -> None:
        super().__init__(database.connection, database.path)
        self._held = held
        self.turn = Turn()

    def run_tx(self, name: str, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """As `Database.run_tx`; on a full disk once more after `on_full`, whose own transactions are tried once."""
        with self.turn:
            try:
                return super().run_tx(name, work)
            except StoreError as error:
                if self.on_full is None or not is_full(error):
                    raise
            make_room, self.on_full = self.on_full, None
            try:
                make_room()
                return super().run_tx(name, work)
            finally:
                self.on_full = make_room

    def rows(self, sql: str, parameters: Sequence[str | int | bytes] = ()) -> list[sqlite3.Row]:
        """As `Database.rows`."""
        with self.turn:
            return super().rows(sql, parameters)

    def row(self, sql: str, parameters: Sequence[str | int | bytes] = ()) -> sqlite3.Row | None:
        """As `Database.row`."""
        with self.turn:
            return super().row(sql, parameters)

    def close(self) -> None:
        """Checkpoint, close, and let others write."""
        with self.turn:
            self._held.close()


def open_or_salvage(path: Path, sealer: Sealer) -> tuple[BufferDatabase, Salvage | None]:
    """Open the buffer at `path`; when it is malformed, salvage it into a new file.

    Raises:
        UnavailableError: `buffer-in-use`.
        ConfigError: `buffer-key-wrong`; the file is as it was.
        StoreError: `store-open` or `store-newer` for reasons other than damage, `store-write` when there is no room.
    """
    with ExitStack() as undo:
        undo.enter_context(_locked(path))
        _take_up(path)
        is_gone = _mark(path).exists() and not (path.exists() and path.stat().st_size)
        torn_commits, lost_commits = _missing_commits(path)
        try:
            database = _open_checked(path)
            salvage = Salvage(None, lost_commits=lost_commits, begun_anew=is_gone) if lost_commits or is_gone else None
        except (StoreError, UnicodeDecodeError) as error:
            if isinstance(error, StoreError) and not (
                _is_damage(error) or (error.code == "store-newer" and not _is_newer(path))
            ):
                raise
            database, salvage = _salvaged(path, sealer, lost_commits)
        undo.callback(database.close)
        _check_keys(database, sealer)
        if torn_commits:
            told = (("torn-commits", torn_commits), ("lost-commits", lost_commits))
            database.run_tx("end of the log", lambda tx: _count(tx, told))
        if salvage is not None and salvage.begun_anew:
            database.run_tx("lost buffer", lambda tx: count(tx, "", "", "lost-buffers", 1))
        if not _mark(path).exists():
            with suppress(StoreError):  # a disk that takes no writes is told of elsewhere
                write_durable(_mark(path), b"")
        return BufferDatabase(database, undo.pop_all()), salvage


def is_full(error: StoreError) -> bool:
    """Whether it was space on the disk that was missing."""
    return getattr(error.__cause__, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def _open_checked(path: Path) -> Database:
    database = open_database(path, MIGRATIONS, secure_delete=True, any_thread=True)
    with ExitStack() as undo:
        undo.callback(database.close)
        try:
            answer = database.connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if answer != "ok":
                raise StoreError(DAMAGED, f"{path} is damaged: {answer}")
            if shape_of(database.connection) != right_shape():
                raise StoreError(DAMAGED, f"{path} has other tables than it should")
            keep_tags(database)
            bad = [table for table in TAGGED if damaged_rows(database.connection, table)]
        except sqlite3.Error as error:
            raise StoreError("store-open", f"{path} cannot be checked: {error}") from error
        if bad:
            raise StoreError(DAMAGED, f"{path} has damaged rows in {', '.join(bad)}")
        undo.pop_all()
    return database


def _salvaged(path: Path, sealer: Sealer, lost_commits: int) -> tuple[Database, Salvage]:
    """Build the new file beside the damaged one, then swap them."""
    building = _building(path)
    _remove(building)
    with ExitStack() as undo:
        undo.callback(_remove, building)
        with closing(open_database(building, MIGRATIONS, secure_delete=True)) as database:
            keep_tags(database)
            saved, lost, unknown = copy_sound_rows(path, database, sealer)
            told = [(f"lost-{table}", rows) for table, rows in lost.items()]
            database.run_tx("salvage", lambda tx: _count(tx, told))
        undo.pop_all()
    aside = set_aside(path)
    building.rename(path)
    sync_directory(path.parent)
    begun_anew = bool(unknown) and not saved
    return _open_checked(path), Salvage(aside, saved, lost, lost_commits, unknown, begun_anew)


def _count(tx: sqlite3.Connection, told: Iterable[tuple[str, int]]) -> None:
    for name, amount in told:
        if amount:
            count(tx, "", "", name, amount)


def _take_up(path: Path) -> None:
    """Finish a swap that was cut off: the damaged file had gone, and the salvaged one had not come."""
    building = _building(path)
    if building.exists() and not path.exists():
        building.rename(path)
        sync_directory(path.parent)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.made")


def _building(path: Path) -> Path:
    return path.with_name(f"{path.name}.salvaged")


def _remove(path: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _missing_commits(path: Path) -> tuple[int, int]:
    """Transactions at the end of the log that do not hold, so that SQLite will drop them: torn (0 or 1), and lost.

    The last one may be what a power cut interrupted, of which nobody was told; what is before it was acknowledged.
    """
    commits = committing_frames(path.with_name(f"{path.name}-wal"))
    if not commits:
        return 0, 0
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the first read takes the log up
        taken = int(connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])
        missing = sum(number > taken for number in commits)
        return min(1, missing), max(0, missing - 1)
    return 0, 0


def _check_keys(database: Database, sealer: Sealer) -> None:
    """Record the key that seals, and refuse when a row needs one that is not here.

    Raises:
        ConfigError: `buffer-key-wrong`.
    """
    connection, ring = database.connection, sealer.ring
    recorded = {int(row[0]) for row in connection.execute("SELECT key_id FROM seal_keys")}
    unneeded = {number for number in recorded - ring.ids if not _needs(connection, number)}
    if recorded - ring.ids - unneeded or (not recorded and not _opens_some(connection, sealer)):
        raise wrong_key(database.path)
    new = {sealer.key_id} if recorded else ring.ids

    def work(tx: sqlite3.Connection) -> None:
        tx.executemany("DELETE FROM seal_keys WHERE key_id = ?", [(number,) for number in unneeded])
        tx.executemany("INSERT OR IGNORE INTO seal_keys (key_id) VALUES (?)", [(number,) for number in new])

    if unneeded or new - recorded:
        database.run_tx("seal keys", work)


def _needs(connection: sqlite3.Connection, number: int) -> bool:
    return any(
        connection.execute(f"SELECT 1 FROM {table} WHERE key_id = ? LIMIT 1", (number,)).fetchone() for table in SEALED
    )


def _opens_some(connection: sqlite3.Connection, sealer: Sealer) -> bool:
    """Whether a file from before keys were on record opens: some of its first rows, or it has none."""
    rows = [
        row[0] for table in SEALED for row in connection.execute(f"SELECT sealed FROM {table} LIMIT ?", (_PROBED_ROWS,))
    ]
    return not rows or any(sealer.opens(sealed) for sealed in rows)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UnavailableError(
                "buffer-in-use",
                f"another process writes to {path}",
                remedy="stop the agent first; two would write over each other",
            ) from error
        yield


def _open_lock(path: Path) -> BinaryIO:
    lock = path.with_name(f"{path.name}.lock")
    try:
        return open(lock, "ab", opener=private_opener)
    except OSError as error:
        raise StoreError(
            "store-open",
            f"{lock} cannot be opened: {error.strerror}",
            remedy="it is an empty file of the agent's user: remove what is there, and check its directory",
        ) from error


def _is_damage(error: StoreError) -> bool:
    cause: BaseException | None = error
    while isinstance(cause, StoreError):
        if cause.code == DAMAGED:
            return True
        cause = cause.__cause__
    if isinstance(cause, UnicodeDecodeError):  # a damaged name, or SQLite's message about it
        return True
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # none where text is no text
    return isinstance(cause, sqlite3.DatabaseError) and (code & 0xFF) not in _NO_DAMAGE_CODES


def _is_newer(path: Path) -> bool:
    """Whether the file has more migrations than we know; where it has not, one of their names is damaged."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM migrations").fetchone()[0]) > len(MIGRATIONS)
    return False
