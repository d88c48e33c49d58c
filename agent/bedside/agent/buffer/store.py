"""The buffer's writer.

Invariants:
    * Signal and predictions ride a group commit: what arrived is durable at most 1.1 s later, when the owner calls
      `flush_due` at least every 40 ms. Sessions, labels and consent commit before their call returns.
    * A failed commit loses nothing: what was waiting still waits, up to a bound, beyond which the oldest is dropped
      and counted.
    * The cap holds after every commit.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bedside.agent.buffer.eviction import ROW_BYTES, count, evict, evict_predictions, stored_bytes
from bedside.agent.buffer.joiner import Joiner
from bedside.agent.buffer.keys import Keys
from bedside.agent.buffer.opening import open_or_salvage
from bedside.agent.buffer.part import Part, end_ns
from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.salvage import Salvage
from bedside.agent.buffer.schema import MAX_PARTS, OF_A_SESSION, first_id
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.sessions import Sessions
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import ConfigError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Mark
from bedside.service.sqlite import Database

GROUP_COMMIT_S: Final = 1.0
OPEN_PART_S: Final = 1.06
"""An unfinished part is written at this age: one block later than a full one of a waveform."""
DEFAULT_CAP_BYTES: Final = 256 << 20
MIN_CAP_BYTES: Final = 64 << 10
MAX_WAITING_BYTES: Final = 8 << 20
"""Sealed bytes held while the disk refuses: about an hour of 8 channels at 250 Hz."""
MAX_WAITING_PREDICTIONS: Final = 10_000
DEFAULT_GAP_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    part: Part
    sealed: bytes
    arrived_s: float


class BufferStore:
    """One writer of one buffer file. Not thread-safe.

    Attributes:
        sessions: the open sessions.
        salvage: what happened on opening a damaged file; None when it was sound.
        bytes: of all blobs with their rows.
    """

    def __init__(
        self,
        path: Path,
        keys: Keys,
        clock: Clock,
        entropy: Entropy,
        *,
        cap_bytes: int = DEFAULT_CAP_BYTES,
        gap_s: float = DEFAULT_GAP_S,
        consent_training: bool = True,
    ) -> None:
        """Open or create the file; a malformed one is renamed aside and salvaged.

        Raises:
            StoreError: `store-open`, `store-newer`.
            ConfigError: `buffer-cap`.
        """
        if cap_bytes < MIN_CAP_BYTES:
            raise ConfigError("buffer-cap", f"a buffer of {cap_bytes} bytes is too small", remedy="allow 64 KiB")
        self._clock = clock
        self._sealer = Sealer(keys, entropy)
        self._cap_bytes = cap_bytes
        self._database, self.salvage = open_or_salvage(path, self._sealer)
        self.sessions = Sessions(self._database, entropy, gap_ns=round(gap_s * 1e9), consent_training=consent_training)
        self.bytes = stored_bytes(self._database.connection)
        self._streams = {
            StreamId(row["name"]): int(row["number"])
            for row in self._database.connection.execute("SELECT number, name FROM streams")
        }
        self._joiners: dict[StreamId, Joiner] = {}
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._predictions: deque[tuple[float, Prediction]] = deque()
        self._last_number = _last_prediction_number(self._database)
        self._dropped: dict[tuple[str, str, str], int] = {}

    @property
    def database(self) -> Database:
        """For the device's other low-rate tables that must share a transaction."""
        return self._database

    @property
    def degraded(self) -> str:
        """Why the buffer is not what it was; empty when it is sound."""
        return self.salvage.sentence() if isinstance(self.salvage, Salvage) else ""

    def append(self, block: Block) -> SessionId:
        """Take a block and return the session it belongs to; durable with a later flush."""
        if block.stream not in self._streams:
            self._add_stream(block.stream)
        if not len(block.values):
            raise StoreError("empty-block", f"stream {block.stream} delivered a block without samples")
        first_id(end_ns(block) // 1_000_000_000, 0)
        session = self.sessions.of(block)
        now_s = self._clock.monotonic_s()
        joiner = self._joiners.setdefault(block.stream, Joiner())
        opened_s = joiner.opened_s
        for part in joiner.add(block, session, now_s):
            self._wait(part, now_s if opened_s is None else opened_s)
        return session

    def mark(self, mark: Mark) -> None:
        """Take a session's begin or end, or a label; durable when this returns.

        A label belongs to the session that is open; without one it opens one.
        """
        if mark.label == "session-open":
            self.sessions.open(mark.stream, mark.start_ns, mark.origin)
        elif mark.label == "session-close":
            self.sessions.close(mark.stream, mark.start_ns)
        else:
            self.add_label(mark.stream, mark.start_ns, mark.end_ns, mark.label, mark.origin)

    def add_label(self, stream: StreamId, start_ns: int, end_ns: int, label: str, origin: str) -> int:
        """Store a label of the stream's open session and return its number; durable when this returns."""
        session = self.sessions.current(stream) or self.sessions.open(stream, start_ns, "gap")
        return self._database.run_tx(
            "label",
            lambda tx: int(
                tx.execute(
                    "INSERT INTO labels (stream, session, start_ns, end_ns, label, origin) VALUES (?, ?, ?, ?, ?, ?)",
                    (stream, session, start_ns, end_ns, label, origin),
                ).lastrowid
                or 0
            ),
        )

    def withdraw_label(self, number: int) -> bool:
        """Mark a label as withdrawn, durably; False when there is none."""
        return self._database.run_tx(
            "withdraw label",
            lambda tx: tx.execute("UPDATE labels SET withdrawn = 1 WHERE id = ?", (number,)).rowcount > 0,
        )

    def add_prediction(self, prediction: Prediction) -> int:
        """Take a prediction, durable with a later flush, and return the number that it will be stored under."""
        self._last_number += 1
        self._predictions.append((self._clock.monotonic_s(), replace(prediction, number=self._last_number)))
        if len(self._predictions) > MAX_WAITING_PREDICTIONS:
            _, oldest = self._predictions.popleft()
            self._drop(oldest.stream, oldest.session, "dropped-predictions", 1)
        return self._last_number

    def count(self, stream: StreamId, session: str, name: str, amount: int) -> None:
        """Add to a durable counter with the next commit."""
        self._drop(stream, session, name, amount)

    def flush_due(self) -> int:
        """Commit when something has waited for a second; return the rows of signal that are now durable."""
        now_s = self._clock.monotonic_s()
        for joiner in self._joiners.values():
            opened_s = joiner.opened_s
            if opened_s is not None and now_s - opened_s >= OPEN_PART_S:
                self._close_part(joiner, opened_s)
        oldest = [self._waiting[0].arrived_s] if self._waiting else []
        oldest += [self._predictions[0][0]] if self._predictions else []
        return self._commit() if oldest and now_s - min(oldest) >= GROUP_COMMIT_S else 0

    def flush(self) -> int:
        """Commit everything, unfinished parts too; return the rows of signal that are now durable.

        Raises:
            StoreError: `store-write`; everything still waits.
        """
        for joiner in self._joiners.values():
            if joiner.opened_s is not None:
                self._close_part(joiner, joiner.opened_s)
        return self._commit()

    def forget(self, session: SessionId) -> None:
        """Erase every row of a session, also those that wait, and overwrite their pages."""
        self.flush()

        def work(tx: sqlite3.Connection) -> None:
            for table in OF_A_SESSION:
                tx.execute(f"DELETE FROM {table} WHERE session = ?", (session,))

        self._database.run_tx("forget session", work)
        self._database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.sessions.drop(session)
        self.bytes = stored_bytes(self._database.connection)

    def close(self) -> None:
        """Commit everything and close."""
        try:
            self.flush()
        finally:
            self._database.close()

    def _add_stream(self, stream: StreamId) -> None:
        number = self._database.run_tx(
            "stream", lambda tx: int(tx.execute("INSERT INTO streams (name) VALUES (?)", (stream,)).lastrowid or 0)
        )
        self._streams[stream] = number

    def _close_part(self, joiner: Joiner, opened_s: float) -> None:
        for part in joiner.close():
            self._wait(part, opened_s)

    def _wait(self, part: Part, arrived_s: float) -> None:
        sealed = self._sealer.seal(part)
        self._waiting.append(_Waiting(part, sealed, arrived_s))
        self._waiting_bytes += len(sealed)
        while self._waiting_bytes > MAX_WAITING_BYTES:
            oldest = self._waiting.popleft()
            self._waiting_bytes -= len(oldest.sealed)
            self._drop(oldest.part.stream, oldest.part.session, "dropped-parts", 1)

    def _drop(self, stream: str, session: str, name: str, amount: int) -> None:
        place = (stream, session, name)
        self._dropped[place] = self._dropped.get(place, 0) + amount

    def _commit(self) -> int:
        if not (self._waiting or self._predictions or self._dropped):
            return 0
        total_bytes = self._database.run_tx("signal", self._write)
        rows = len(self._waiting)
        self.bytes = total_bytes
        self._waiting.clear()
        self._waiting_bytes = 0
        self._predictions.clear()
        self._dropped.clear()
        return rows

    def _write(self, tx: sqlite3.Connection) -> int:
        total_bytes = self.bytes
        for waiting in self._waiting:
            total_bytes += self._insert(tx, waiting)
        tx.executemany(
            "INSERT INTO predictions (id, stream, session, start_ns, end_ns, label, confidence, model, latency_s,"
            " model_name) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    p.number,
                    p.stream,
                    p.session,
                    p.start_ns,
                    p.end_ns,
                    p.label,
                    p.confidence,
                    p.model,
                    p.latency_s,
                    p.model_name,
                )
                for _, p in self._predictions
            ],
        )
        if self._predictions:
            evict_predictions(tx)
        for (stream, session, name), amount in self._dropped.items():
            count(tx, stream, session, name, amount)
        return evict(tx, total_bytes, self._cap_bytes, {number: name for name, number in self._streams.items()})

    def _insert(self, tx: sqlite3.Connection, waiting: _Waiting) -> int:
        part = waiting.part
        first = first_id(part.second, self._streams[part.stream])
        last = tx.execute(
            "SELECT max(id) FROM blobs WHERE id BETWEEN ? AND ?", (first, first + MAX_PARTS - 1)
        ).fetchone()[0]
        blob_id = first if last is None else last + 1
        if blob_id >= first + MAX_PARTS:
            count(tx, part.stream, part.session, "dropped-parts", 1)
            return 0
        samples, channels = part.values.shape
        tx.execute(
            "INSERT INTO blobs (id, session, start_ns, end_ns, rate_hz, samples, channels, dtype, flags, key_id,"
            " sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                blob_id,
                part.session,
                part.start_ns,
                end_ns(part.block()),
                part.rate_hz,
                samples,
                channels,
                part.values.dtype.name,
                int(part.quality),
                self._sealer.key_id,
                waiting.sealed,
            ),
        )
        return len(waiting.sealed) + ROW_BYTES


def _last_prediction_number(database: Database) -> int:
    """The highest number that was ever stored, also when its row is gone: numbers are not used again."""
    row = database.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'predictions'").fetchone()
    return int(row["seq"]) if row is not None else 0
