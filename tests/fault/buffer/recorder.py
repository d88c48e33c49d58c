"""Records every write, truncation, sync and deletion that the real store causes.

The store's own code runs unmodified. Its `sqlite3.connect` is answered by apsw, behind the few methods of the sqlite3
module that `bedside.service.sqlite.Database` and the buffer use, because only apsw lets a file system of ours stand
below SQLite. One thing differs from a device: the log's index lies in memory (`locking_mode=EXCLUSIVE`, since apsw's
files have no shared memory), which changes no write and no sync.
"""

from __future__ import annotations

import os
import sqlite3
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw


class Op(NamedTuple):
    """One thing that happened to `file`: write, truncate, sync, delete or ack. `at` is its offset, size or number."""

    file: str
    kind: str
    at: int
    data: bytes = b""


LOG: list[Op] = []


class _File(apsw.VFSFile):
    def __init__(self, name: object, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = os.path.basename(str(path))
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        LOG.append(Op(self._name, "write", offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        LOG.append(Op(self._name, "truncate", size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        LOG.append(Op(self._name, "sync", 0))
        super().xSync(flags)


class _FileSystem(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("recorded", "unix")

    def xOpen(self, name: object, flags: list[int]) -> _File:  # noqa: N802
        return _File(name, flags)

    def xDelete(self, path: str, sync_directory: bool) -> None:  # noqa: N802
        LOG.append(Op(os.path.basename(path), "delete", int(sync_directory)))
        super().xDelete(path, sync_directory)


class Row(tuple):
    """A row by position and by name, as sqlite3.Row."""

    names: tuple[str, ...]

    def keys(self) -> list[str]:
        return list(self.names)

    def __getitem__(self, at):
        return tuple.__getitem__(self, self.names.index(at) if isinstance(at, str) else at)


class _Cursor:
    def __init__(self, connection: apsw.Connection, cursor: apsw.Cursor) -> None:
        self._cursor = cursor
        self.lastrowid, self.rowcount = connection.last_insert_rowid(), connection.changes()

    def __iter__(self) -> Iterator[Row]:
        for values in self._cursor:
            row = Row(values)
            row.names = tuple(column[0] for column in self._cursor.get_description())
            yield row

    def close(self) -> None:
        self._cursor.close()

    def fetchall(self) -> list[Row]:
        return list(self)

    def fetchone(self) -> Row | None:
        return next(iter(self), None)


class _Connection:
    """What the store uses of sqlite3.Connection."""

    def __init__(self, path: str, synchronous: str) -> None:
        self._connection = apsw.Connection(path, vfs="recorded")
        self._synchronous = synchronous
        self.row_factory = None
        self.execute("PRAGMA locking_mode=EXCLUSIVE")

    def execute(self, sql: str, parameters: object = ()) -> _Cursor:
        if sql == "PRAGMA synchronous=FULL":
            sql = f"PRAGMA synchronous={self._synchronous}"
        return _Cursor(self._connection, self._connection.execute(sql, parameters))

    def executemany(self, sql: str, rows: object) -> _Cursor:
        return _Cursor(self._connection, self._connection.executemany(sql, rows))

    def create_function(self, name: str, arguments: int, function: object, *, deterministic: bool = False) -> None:
        self._connection.create_scalar_function(name, function, arguments, deterministic=deterministic)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def recorded(monkeypatch, synchronous: str) -> Iterator[list[Op]]:
    """While inside, databases that `bedside.service.sqlite` opens are recorded; yields the growing log."""
    file_system = _FileSystem()
    stand_in = types.SimpleNamespace(
        **{name: getattr(sqlite3, name) for name in dir(sqlite3) if not name.startswith("_")}
        | {"connect": lambda path, **_: _Connection(str(Path(path)), synchronous)}
    )
    LOG.clear()
    with monkeypatch.context() as patch:
        patch.setattr("bedside.service.sqlite.sqlite3", stand_in)
        yield LOG
    file_system.unregister()
