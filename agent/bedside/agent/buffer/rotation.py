"""Replacing the key of a buffer that nobody else writes to.

    make the next key, durably -> seal every row anew, a slice at a time -> forget the old key's id
    -> overwrite what old pages left behind -> erase the old key's file

Invariants:
    * Until the last row is sealed anew both keys are on the disk, so that kill -9 at any point loses nothing; the same
      command goes on where it was.
    * A slice is one transaction of bounded size. Bytes under the old key are overwritten, in the file and in its log;
      damaged files that were set aside, which only the old key opens, are removed.
    * A key that systemd provides is not changed here: rows are sealed with it, and its administrator drops the old one.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bedside.agent.buffer.erasure import ERASE_WAIT_MS, Scrubber, mark_erasure
from bedside.agent.buffer.eviction import count
from bedside.agent.buffer.keys import (
    KEY_FILE,
    NEXT_KEY_FILE,
    KeyRing,
    begin_next_key,
    erase_filed_key,
    finish_next_key,
    has_credential,
    load_key_ring,
)
from bedside.agent.buffer.opening import open_or_salvage
from bedside.agent.buffer.salvage import SEALED
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.tags import key_columns
from bedside.core.clock import Entropy
from bedside.core.errors import StoreError
from bedside.service.sqlite import Database

_SLICE_ROWS: Final = 256

Advance = Callable[[float], None]
"""Told how many more rows are done."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did.

    Attributes:
        key_id: of the key that every row is now sealed with.
        resealed: rows by table.
        lost: damaged rows by table, which opened with no key and were dropped.
        by_credential: whether the key is systemd's.
    """

    key_id: int
    resealed: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    by_credential: bool = False


def rows_to_reseal(database: Database, key_id: int) -> int:
    """Rows that are sealed with another key than this one."""
    return sum(
        int(database.connection.execute(f"SELECT count(*) FROM {table} WHERE key_id <> ?", (key_id,)).fetchone()[0])
        for table in SEALED
    )


def rotate_key(
    path: Path,
    identity_directory: Path,
    entropy: Entropy,
    begin: Callable[[int], Advance],
    environ: Mapping[str, str] = os.environ,
    *,
    beside: Callable[[KeyRing], None] = lambda _: None,
) -> Rotation:
    """Seal every row of the buffer at `path` with a new key, and erase the old one.

    Args:
        path: of the buffer's file.
        identity_directory: where keys lie in files.
        entropy: for the new key and the nonces.
        environ: names the directory of systemd's credentials.
        begin: called once with the number of rows, returns what is told of the progress.
        beside: seals other files with the newest key of the ring, before the old ones are erased.

    Raises:
        UnavailableError: `buffer-in-use` while the agent runs.
        ConfigError: `buffer-key-wrong`, `buffer-key-missing` and the like; nothing was changed.
        StoreError: `store-write`, `file-write`; call again to go on.
    """
    by_credential = has_credential(environ)
    with ExitStack() as held:
        database, _ = open_or_salvage(path, Sealer(load_key_ring(identity_directory, environ)))
        scrubber = Scrubber(database)
        held.callback(scrubber.close)
        held.callback(database.close)
        if not by_credential:
            begin_next_key(identity_directory, entropy)
        ring = load_key_ring(identity_directory, environ)
        beside(ring)
        sealer = Sealer(ring, entropy)
        note = "INSERT OR IGNORE INTO seal_keys (key_id) VALUES (?)"
        database.run_tx("new key", lambda tx: tx.execute(note, (sealer.key_id,)))
        resealed, lost = _reseal(database, sealer, begin(rows_to_reseal(database, sealer.key_id)))
        database.run_tx("old keys", lambda tx: _forget_old_keys(tx, sealer.key_id))
        if not scrubber.finish(wait_ms=ERASE_WAIT_MS):
            raise StoreError(
                "buffer-read",
                "another process reads the buffer, so that its old pages cannot be overwritten",
                remedy="end it, then call again: the rest is done",
            )
        if by_credential:
            for name in (KEY_FILE, NEXT_KEY_FILE):
                erase_filed_key(identity_directory / name)
        else:
            finish_next_key(identity_directory)
    return Rotation(sealer.key_id, +resealed, +lost, by_credential)


def _reseal(database: Database, sealer: Sealer, advance: Advance) -> tuple[Counter[str], Counter[str]]:
    resealed: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for table in SEALED:
        while (done := database.run_tx("seal anew", lambda tx, t=table: _reseal_slice(tx, t, sealer))) != (0, 0):  # type: ignore[misc]  # the default binds the loop's value
            resealed[table] += done[0]
            lost[table] += done[1]
            advance(sum(done))
    return resealed, lost


def _reseal_slice(tx: sqlite3.Connection, table: str, sealer: Sealer) -> tuple[int, int]:
    """Seal some rows anew; return how many, and how many were damaged and are gone."""
    keys = key_columns(table)
    place = " AND ".join(f"{name} = ?" for name in keys)
    rows = tx.execute(
        f"SELECT {', '.join(keys)}, sealed FROM {table} WHERE key_id <> ? LIMIT {_SLICE_ROWS}", (sealer.key_id,)
    ).fetchall()
    lost = 0
    for row in rows:
        where = [row[name] for name in keys]
        try:
            sealed = sealer.reseal(row["sealed"])
        except StoreError:
            tx.execute(f"DELETE FROM {table} WHERE {place}", where)
            lost += 1
            continue
        tx.execute(f"UPDATE {table} SET sealed = ?, key_id = ? WHERE {place}", (sealed, sealer.key_id, *where))
    if lost:
        count(tx, "", "", f"lost-{table}", lost)
    return len(rows) - lost, lost


def _forget_old_keys(tx: sqlite3.Connection, newest: int) -> None:
    tx.execute("DELETE FROM seal_keys WHERE key_id <> ?", (newest,))
    mark_erasure(tx)
