"""The queue of one sink: rows of the buffer above a cursor. There is no second copy of anything.

Invariants:
    * The cursor moves behind a row only when the receiver has acknowledged it, when it was refused for good, when it
      lies beyond the cap of what may wait, or when it cannot be read; the last three are counted.
    * What is read is sent at once or read again: no row of an erased session waits in memory.

Source: docs/adr/0020-the-buffer-is-the-queue.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from bedside.agent.buffer.deliveries import Delivery
from bedside.agent.buffer.outgoing import Numbered, OutgoingReader, Selection, Stored
from bedside.agent.buffer.rows import Alarm, Prediction
from bedside.agent.sinks.kind import SinkOptions
from bedside.agent.sinks.outgoing import Outgoing, SentAlarm, SentPrediction, SentRecord, What, derive_id

ORDER: Final[tuple[What, ...]] = ("alarms", "predictions", "records")
"""Alarms go first."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one sort, to be delivered together.

    Attributes:
        items: the rows; none where none of them can be read.
        sessions: theirs, in the same order; they stay here.
        upto: number of the last row.
        unreadable: how many rows among them cannot be read.
    """

    what: What
    items: tuple[Outgoing, ...]
    sessions: tuple[str, ...]
    upto: int
    unreadable: int = 0

    def without(self, erased: Collection[str]) -> Batch:
        """The same without rows of sessions that were erased after it was read."""
        kept = [one for one in zip(self.items, self.sessions, strict=True) if one[1] not in erased]
        return replace(self, items=tuple(item for item, _ in kept), sessions=tuple(name for _, name in kept))

    def singly(self) -> list[Batch]:
        """Each of its rows for itself, without those that cannot be read."""
        return [
            replace(self, items=(item,), sessions=(name,), unreadable=0)
            for item, name in zip(self.items, self.sessions, strict=True)
        ]


class Queue:
    """What one sink has to deliver. Use in the thread of its reader.

    Attributes:
        cursors: how far it has come, by sort.
    """

    def __init__(
        self, options: SinkOptions, cursors: Mapping[What, Delivery], reader: OutgoingReader, device: str
    ) -> None:
        self._options = options
        self._reader = reader
        self._device = device
        self._selection = selection_of(options)
        self.cursors = {what: cursors[what] for what in ORDER if what in cursors}

    def next_batch(self, limit: int) -> Batch | None:
        """The next rows, at most `limit`; None when nothing waits. What the selection leaves out is passed over.

        Raises:
            StoreError: `store-read`.
        """
        for what in self.cursors:
            newest = self._reader.newest(what)
            self._keep_cap(what, newest)
            cursor = self.cursors[what]
            rows = self._reader.page(what, self._selection, cursor.number, newest, limit)
            if rows:
                return self._batch(what, rows, rows[-1].number)
            if newest > cursor.number:
                self.cursors[what] = replace(cursor, number=newest)
        return None

    def since(self, since_ns: int, limit: int) -> Iterator[Batch]:
        """Yield what is stored of a time and later, whatever was sent before."""
        for what in self.cursors:
            after = 0
            while rows := self._reader.since(what, self._selection, since_ns, after, limit):
                after = rows[-1].place
                yield self._batch(what, rows, 0, again=True)

    def sent(self, batch: Batch, now_ns: int) -> None:
        """The receiver has acknowledged all of a batch."""
        cursor = self._behind(batch)
        self.cursors[batch.what] = replace(
            cursor, sent=cursor.sent + len(batch.items), sent_ns=now_ns if batch.items else cursor.sent_ns
        )

    def refused(self, batch: Batch) -> None:
        """The receiver will not take a batch, which is left out from now on."""
        cursor = self._behind(batch)
        self.cursors[batch.what] = replace(cursor, refused=cursor.refused + len(batch.items))

    def done(self, now_ns: int) -> None:
        """A schedule was worked off."""
        self.cursors = {what: replace(cursor, done_ns=now_ns) for what, cursor in self.cursors.items()}

    def waiting(self) -> int:
        """How many rows wait."""
        return sum(
            self._reader.count(what, self._selection, cursor.number, self._reader.newest(what))
            for what, cursor in self.cursors.items()
        )

    def newest(self, what: What, limit: int) -> Batch:
        """The newest rows that it would send, to be looked at."""
        return self._batch(what, self._reader.newest_rows(what, self._selection, limit), 0)

    def _behind(self, batch: Batch) -> Delivery:
        """The cursor behind a batch; what of it cannot be read is skipped."""
        cursor = self.cursors[batch.what]
        unreadable = batch.unreadable if batch.upto else 0  # what is sent again was counted before
        return replace(cursor, number=max(cursor.number, batch.upto), skipped=cursor.skipped + unreadable)

    def _keep_cap(self, what: What, newest: int) -> None:
        """Skip the oldest rows beyond the cap, and count them."""
        cursor = self.cursors[what]
        if newest - cursor.number <= self._options.max_waiting:
            return
        excess = self._reader.count(what, self._selection, cursor.number, newest) - self._options.max_waiting
        if excess > 0:
            last = self._reader.number_at(what, self._selection, cursor.number, newest, excess)
            self.cursors[what] = replace(cursor, number=last, skipped=cursor.skipped + excess)

    def _batch(self, what: What, rows: list[Numbered], upto: int, *, again: bool = False) -> Batch:
        items, sessions = [], []
        for found in rows:
            if found.row is not None:
                items.append(outgoing(found, found.row, self._device, self._options.subjects, again=again))
                sessions.append(found.session)
        return Batch(what, tuple(items), tuple(sessions), upto, len(rows) - len(items))


def selection_of(options: SinkOptions) -> Selection:
    """What a sink's options let through."""
    return Selection(options.streams, options.models, options.labels, options.min_confidence, options.only_changes)


def outgoing(
    found: Numbered, row: Stored, device: str, subjects: Mapping[str, str], *, again: bool = False
) -> Outgoing:
    """A row as it leaves: with its ids, and without its session.

    Args:
        found: where the row was.
        row: what it says.
        device: id of this device.
        subjects: what streams are called outside.
        again: sent once more on demand.
    """
    number, subject = found.number, subjects.get(row.stream, "")
    its = (row.stream, found.session, number, found.place)
    if isinstance(row, Prediction):
        same = derive_id(device, "prediction", *its, row.end_ns)
        decided = SentPrediction(
            row.label, row.confidence, row.start_ns, row.end_ns, row.model_name, row.model, row.outputs
        )
        return Outgoing(number, same, same, device, row.stream, subject, decided, again)
    if isinstance(row, Alarm):
        same = derive_id(device, "alarm", row.stream, found.session, row.rule, found.place, row.raised_ns)
        change = derive_id(device, "change", same.hex, number)
        alarm = SentAlarm(
            row.rule,
            row.priority,
            row.value,
            row.raised_ns,
            row.cleared_ns,
            row.acknowledged_ns,
            row.acknowledged_by,
            row.escalated_ns,
        )
        return Outgoing(number, same, change, device, row.stream, subject, alarm, again)
    same = derive_id(device, "record", *its, row.time_ns)
    record = SentRecord(row.time_ns, row.values, row.units, row.quality)
    return Outgoing(number, same, same, device, row.stream, subject, record, again)
