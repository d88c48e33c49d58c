"""The buffer's writer.

Invariants:
    * Signal, records, predictions and the labels of sources ride a group commit: what arrived is durable at most 1.1 s
      later, when the owner calls `flush_due` (or its `Committer`'s) at least every 40 ms. Sessions, labels by hand,
      consent and explanations commit before their call returns.
    * A failed commit loses nothing: what was waiting still waits, up to a bound, beyond which the oldest is dropped
      and counted.
    * One thread calls, but for `group.write`, which may run in another one (see `committer`): that holds the database's
      turn, and so does everything here that uses the connection, the places of rows, or the evictor. What arrives while
      it runs waits for the next commit; rows become durable in the order in which they were sealed.
    * The cap holds after every commit: pages in use, whatever is in them (see `eviction`).
    * The files are bounded. The database exceeds the cap by 16 rows at most, the log beside it an eighth of the cap
      (4 MiB at most) by one commit of half a MiB. Readers of this package never hold the log back: they read a page
      of rows at a time.
    * A full disk is a smaller cap: the oldest goes until what is new fits, but no record of the last hour, and the cap
      grows back as space returns.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from bedside.agent.buffer.ahead import SessionsAhead
from bedside.agent.buffer.bounds import check_times, times_of
from bedside.agent.buffer.derived import insert_explanation, seal_explanation
from bedside.agent.buffer.erasure import ERASE_WAIT_MS, Scrubber, erase, erase_pending
from bedside.agent.buffer.eviction import MIN_HORIZON_S, YOUNG_RECORDS_WENT, Evictor, insert_label, used_bytes
from bedside.agent.buffer.expiry import ExpiredMinute, ExpiredRows
from bedside.agent.buffer.group import Batch, GroupCommit
from bedside.agent.buffer.inserter import Inserter
from bedside.agent.buffer.keys import Keys
from bedside.agent.buffer.late import LateRecords
from bedside.agent.buffer.losses import Losses
from bedside.agent.buffer.numbers import RecordNumbers, StreamNumbers, last_prediction_number
from bedside.agent.buffer.open_parts import OpenParts
from bedside.agent.buffer.opening import BufferDatabase, open_or_salvage
from bedside.agent.buffer.places import RawPlaces
from bedside.agent.buffer.quarantine import clear, quarantined
from bedside.agent.buffer.quota import Quota
from bedside.agent.buffer.records import encode_record, record_place
from bedside.agent.buffer.room import Room, log_bytes_for
from bedside.agent.buffer.rows import Explanation, Label, Prediction, Quarantined, is_label_name
from bedside.agent.buffer.schema import first_id
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.sessions import Sessions
from bedside.agent.buffer.waiting import record_row
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import ConfigError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Mark, MarkKind, Record, Unmapped
from bedside.ondevice.windows.part import NS_PER_S
from bedside.service.logs import event

Result = TypeVar("Result")

_LOGGER = logging.getLogger(__name__)

GROUP_COMMIT_S: Final = 1.0
DEFAULT_CAP_BYTES: Final = 256 << 20
MIN_CAP_BYTES: Final = 256 << 10
"""The empty tables take about 100 KiB."""
DEFAULT_GAP_S: Final = 600.0

_MAX_LOG_PAGES: Final = 1_000
_PAGE_BYTES: Final = 4_096


class BufferStore:
    """One writer of one buffer file. Not thread-safe, but for `group.write`.

    Attributes:
        sessions: the open sessions.
        ahead: sessions that the disk has refused so far.
        erased: sessions that were forgotten since the start; what still comes of them is not kept.
        group: what waits, and how it is committed.
        losses: what the disk has refused, by stream.
        quota: of what the cap does not drop.
        salvage: what happened on opening a damaged file; None when it was sound.
        queued: numbers of the records that a sink wants.
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
        priorities: Mapping[str, int] | None = None,
    ) -> None:
        """Open or create the file; a malformed one is renamed aside and salvaged.

        Args:
            path: of the file.
            keys: that seal it.
            clock: for the group commit.
            entropy: for nonces and session ids.
            cap_bytes: of pages in use.
            gap_s: silence after which what comes belongs to another session.
            consent_training: what a session starts with.
            priorities: by stream, 0 for others; where space is short, signal of the lowest goes first.

        Raises:
            StoreError: `store-open`, `store-newer`.
            ConfigError: `buffer-cap`.
        """
        if cap_bytes < MIN_CAP_BYTES:
            raise ConfigError("buffer-cap", f"a buffer of {cap_bytes} bytes is too small", remedy="allow 256 KiB")
        self._clock = clock
        self._sealer = Sealer(keys, entropy)
        self._database, self.salvage = open_or_salvage(path, self._sealer)
        connection = self._database.connection
        log_pages = log_bytes_for(path, min(_MAX_LOG_PAGES * _PAGE_BYTES, cap_bytes // 8)) // _PAGE_BYTES
        connection.execute(f"PRAGMA wal_autocheckpoint={log_pages}")
        connection.execute(f"PRAGMA journal_size_limit={log_pages * _PAGE_BYTES}")
        self._scrubber = Scrubber(self._database)
        if self._scrubber.pending:
            self._scrubber.finish()  # an erasure was cut short
        self._streams = StreamNumbers(self._database)
        self._places = RawPlaces(connection)
        self._evictor = Evictor(self._places, cap_bytes, priorities or {}, self._streams.names)
        self.quota = Quota(self._database, cap_bytes)
        self._room = Room(self._database, self._evictor, self._places, log_pages * _PAGE_BYTES)
        self.sessions = Sessions(
            self._database,
            entropy,
            self._latest_end_ns,
            gap_ns=round(gap_s * 1e9),
            consent_training=consent_training,
            in_doubt=self._in_doubt,
        )
        self.losses = Losses(clock)
        self.ahead = SessionsAhead(self.sessions, clock, entropy, self.losses.note, gap_ns=round(gap_s * 1e9))
        self._late = LateRecords(self._database, self.sessions, self.quota, clock, entropy, gap_ns=round(gap_s * 1e9))
        self.erased: set[SessionId] = set()
        self.doubted: Callable[[SessionId], object] = lambda _: None  # hears of consent that is lost by itself
        inserter = Inserter(self._evictor, self._places, self._streams.by_name, self.quota, self._sealer)
        self.group = GroupCommit(self._database.turn, self._room, inserter, self._scrubber, self.losses.note)
        self._parts = OpenParts(self._sealer, self.group)
        self._last_number = last_prediction_number(self._database)
        self.queued = RecordNumbers(self._database)

    @property
    def clock(self) -> Clock:
        """The clock of the process."""
        return self._clock

    @property
    def database(self) -> BufferDatabase:
        """For the device's other low-rate tables that must share a transaction."""
        return self._database

    def run(self, name: str, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a transaction of the low-rate tables, on a full disk after having made room.

        Raises:
            StoreError: `store-write`; nothing was written.
        """
        return self._room.run(name, work)

    @property
    def bytes(self) -> int:
        """Of the file's pages that hold something."""
        with self._database.turn:
            return used_bytes(self._database.connection)

    @property
    def degraded(self) -> str:
        """Why the buffer is not what it was; empty when it is sound."""
        if self.salvage is not None:
            return self.salvage.sentence()
        if self._scrubber.pending:
            return "a reader keeps what was erased in the log; it goes when that reader ends"
        if self._evictor.drops_young_records:
            return YOUNG_RECORDS_WENT
        if self._evictor.squeezed:
            return "the disk is full: the buffer keeps less than its cap"
        if self.quota.full:
            return "labels, alarms and sessions take all of their share of the buffer: no more labels are taken"
        return f"the buffer holds less than {MIN_HORIZON_S} s of signal" if self._evictor.is_short else ""

    def append(self, block: Block) -> SessionId:
        """Take a block and return the session it belongs to; durable with a later flush.

        Raises:
            MalformedError: `block-form`.
            StoreError: `empty-block`, `buffer-range`, `store-write`. Nothing of the block was taken.
        """
        start_ns, end_ns = times_of(block)
        first_id(end_ns // NS_PER_S, self._streams.of(block.stream))
        session = self.sessions.of(block.stream, start_ns, end_ns)
        self._parts.add(block, session, self._clock.monotonic_s())
        return session

    def add_record(self, record: Record) -> SessionId:
        """Take a record and return the session it belongs to; durable with a later flush, unless it was before.

        Raises:
            MalformedError: `record-format`.
            StoreError: `buffer-range`, `sessions-full` for a late one, `store-write`.
        """
        content = encode_record(record)
        times_of(record)
        first_id(record.time_ns // NS_PER_S, self._streams.of(record.stream))
        session = self._late.session_of(record.stream, record.time_ns) or self.sessions.of(
            record.stream, record.time_ns, record.time_ns
        )
        sealed = self._sealer.seal_row(record_place(record.stream, session, record.time_ns), content)
        now_s = self._clock.monotonic_s()
        key_id, number = self._sealer.key_id, self.queued.following(record.stream)
        self.group.waiting.add(record_row(record.stream, session, record.time_ns, sealed, key_id, now_s, number))
        return session

    def mark(self, mark: Mark) -> None:
        """Take a session's begin or end, durable when this returns, or a label, durable with a later flush.

        A label belongs to the session that is open; without one it opens one. One without a sound name is counted as
        refused. A session by hand that waits for its signal is the one that a source begins, and ends only behind it.

        Raises:
            StoreError: `buffer-range`, `store-write`.
        """
        check_times(mark.start_ns, mark.end_ns)
        if mark.kind is not MarkKind.LABEL and self.sessions.awaits(mark.stream, mark.start_ns):
            return  # what was opened by hand waits for the signal behind this mark
        if mark.kind is not MarkKind.LABEL and self.group.waiting.labels:
            self.group.commit()  # who finds that a session has ended finds its labels
        if mark.kind is MarkKind.SESSION_OPEN:
            self.sessions.open(mark.stream, mark.start_ns, mark.origin)
        elif mark.kind is MarkKind.SESSION_CLOSE:
            self.sessions.close(mark.stream, mark.start_ns)
        else:
            self._take_label(mark)

    def _take_label(self, mark: Mark) -> None:
        session = self.sessions.of_label(mark.stream, mark.start_ns)
        if is_label_name(mark.label):
            label = Label(mark.stream, session, mark.start_ns, mark.end_ns, mark.label, mark.origin)
            self.group.waiting.add_label(label, self._clock.monotonic_s())
        else:
            self.count(mark.stream, session, "refused-labels", 1)

    def add_label(self, stream: StreamId, start_ns: int, end_ns: int, label: str, origin: str) -> int:
        """Store a label of the stream's open session and return its number; durable when this returns.

        Raises:
            StoreError: `buffer-range`, `store-write`.
        """
        check_times(start_ns, end_ns)
        session = self.sessions.of_label(stream, start_ns)
        row = Label(stream, session, start_ns, end_ns, label, origin)
        return self._room.run("label", lambda tx: insert_label(tx, row))

    def put_explanation(self, explanation: Explanation) -> bool:
        """Store why a prediction was made, durably; False when its session is gone. A later one takes its place.

        Raises:
            MalformedError: `blob-format` for weights beyond the limits of a part.
        """
        sealed = seal_explanation(self._sealer, explanation)

        def work(tx: sqlite3.Connection) -> bool:
            self._evictor.make_room(tx, len(sealed))
            return insert_explanation(tx, explanation, sealed, self._sealer.key_id)

        return self._room.run("explanation", work)

    def add_prediction(self, prediction: Prediction) -> int:
        """Take a prediction, durable with a later flush, and return the number that it will be stored under."""
        self._last_number += 1
        self.group.waiting.add_prediction(replace(prediction, number=self._last_number), self._clock.monotonic_s())
        return self._last_number

    def quarantine(self, unmapped: Unmapped) -> None:
        """Count what a source could not understand; durable with a later flush."""
        self.group.waiting.add_unmapped(quarantined(unmapped), self._clock.monotonic_s())

    def clear_quarantine(self, source: str = "", reason: str = "") -> list[Quarantined]:
        """Remove what was counted of a source and a reason, of all where empty, durably, and return it.

        Raises:
            StoreError: `store-write`.
        """
        self.group.commit()
        return self._room.run("clear quarantine", lambda tx: clear(tx, source, reason))

    def count(self, stream: StreamId, session: str, name: str, amount: int) -> None:
        """Add to a durable counter with the next commit."""
        self.group.waiting.counts[stream, session, name] += amount

    def _in_doubt(self, stream: StreamId, session: SessionId, length_ns: int) -> None:
        """A session may hold the next person's rows, of whom was told too late."""
        self.count(stream, session, "after-late-adt", 1)
        event(_LOGGER, "after-late-adt", level=logging.WARNING, stream=stream, seconds=length_ns // NS_PER_S)
        self.doubted(session)

    def flush_due(self) -> int:
        """Commit when something has waited for a second; return the rows of raw data that are now durable.

        Raises:
            StoreError: `store-write`; everything still waits.
        """
        return self.group.commit() if self._is_due() else 0

    def take_batch(self, *, now: bool = False) -> Batch | None:
        """Where `flush_due` would commit: what it would, for `group.write` in another thread, then for `group.settle`.

        None when nothing is due, and while another batch is under way. With `now`, what waits is due.
        """
        is_due = self._is_due() or (now and self.group.waiting)
        return self.group.begin() if is_due and self.group.under_way is None else None

    def close_parts(self, streams: Collection[StreamId]) -> None:
        """End the unfinished parts of these streams, so that the next commit has all of them."""
        self._parts.close(streams)

    def flush(self) -> int:
        """Commit everything, unfinished parts too; return the rows of raw data that are now durable.

        Raises:
            StoreError: `store-write`; everything still waits.
        """
        self._parts.close()
        return self.group.commit()

    def expire(self, step: ExpiredMinute | ExpiredRows) -> bool:
        """Take one step of retention; False when what it was made from has changed in between."""
        with self._database.turn:
            done = self._room.run(
                "expire", lambda tx: step.apply(tx, self._sealer, self._evictor, self._streams.by_name)
            )
            if done and isinstance(step, ExpiredMinute) and step.session.stream in self._streams.by_name:
                self._places.drop_before(self._streams.of(step.session.stream), step.first_second)
            return done

    def forget(self, session: SessionId) -> dict[str, int]:
        """Erase every row of a session, also those that wait, and overwrite their pages; return rows by table.

        When this returns, neither the file nor its log holds any of them, and damaged files that were set aside are
        removed. It reads the file once: a second for some 350 MiB on an SSD.

        Raises:
            StoreError: `erase-pending`: the rows are gone, but a reader keeps old pages in use. They go as soon as it
                has ended: with a later flush, with `forget` again, or with the next start.
        """
        with self._database.turn:
            rows = self.delete(session)
            if not self._scrubber.finish(session, ERASE_WAIT_MS):
                raise erase_pending()
        return rows

    def delete(self, session: SessionId) -> dict[str, int]:
        """Delete every row of a session, also those that wait; return rows by table. `scrubbing` is to follow."""
        self.erased.add(session)
        self.ahead.drop(session)
        with self._database.turn:
            self.group.finish()  # what it could not write waits again, and goes now
            waiting = self.group.waiting.drop(session)
            self._parts.drop(session)
            rows = self._room.run("forget session", lambda tx: erase(tx, self._places, session, self._last_number))
            self._scrubber.pending = True
            self.sessions.drop(session)
        return {table: amount + waiting.get(table, 0) for table, amount in rows.items()}

    def scrubbing(self, session: SessionId) -> AbstractContextManager[Callable[[], bool | None]]:
        """Overwrite the pages of what was deleted beside whoever else writes: call what this gives, in any thread.

        It returns False while a reader keeps old pages in use, and None when all is done. It raises StoreError
        `erase-incomplete`. One at a time.
        """
        return self._scrubber.beside(self._database.turn, session)

    def close(self) -> None:
        """Commit everything, after what is under way, and close."""
        try:
            self.flush()
        finally:
            self._database.close()
            self._scrubber.close()

    def _latest_end_ns(self, stream: StreamId, session: SessionId, opened_ns: int) -> int:
        number = self._streams.by_name.get(stream)
        return self._places.latest_end_ns(number, session, opened_ns) if number is not None else 0

    def _is_due(self) -> bool:
        """Whether something has waited for a second; ends the parts that are too old to go on waiting for samples."""
        now_s = self._clock.monotonic_s()
        self._parts.close_old(now_s)
        oldest_s = self.group.waiting.oldest_s
        return oldest_s is not None and now_s - oldest_s >= GROUP_COMMIT_S
