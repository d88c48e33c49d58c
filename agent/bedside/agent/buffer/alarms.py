"""The table of alarms. Every change is durable when its call returns, and has a number, which ascends."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bedside.agent.buffer.eviction import count_all
from bedside.agent.buffer.numbers import last_number
from bedside.agent.buffer.rows import Alarm
from bedside.agent.buffer.store import BufferStore
from bedside.core.errors import ProtocolError
from bedside.core.ids import SessionId, StreamId

_OPEN: Final = "(cleared_ns = 0 OR acknowledged_ns = 0)"


class AlarmTable:
    """Reads and writes alarms."""

    def __init__(self, buffer: BufferStore) -> None:
        self._buffer = buffer
        self._database = buffer.database
        self._last_change = last_number(self._database, "alarms")

    def write(self, alarms: Sequence[Alarm]) -> list[Alarm | None]:
        """Insert alarms without a number and replace the others, all in one transaction; what made room is put back.

        Returns them with their numbers, None for those whose session has been erased.

        Raises:
            StoreError: `store-write`; nothing was written.
        """

        def work(tx: sqlite3.Connection) -> list[Alarm | None]:
            written = [_write(tx, alarm, self._last_change + at) for at, alarm in enumerate(alarms, 1)]
            self._last_change += len(alarms)  # a number is not used again, whatever becomes of its row
            count_all(tx, self._buffer.quota.drop_alarms(tx))
            return written

        return self._buffer.run("alarms", work)

    def newest(self, limit: int, *, open_only: bool) -> list[Alarm]:
        """The newest alarms, as they were raised; `open_only` leaves out what has cleared and has been seen."""
        where = f"WHERE {_OPEN}" if open_only else ""
        rows = self._database.rows(f"SELECT * FROM alarms {where} ORDER BY id DESC LIMIT ?", (limit,))  # ours
        return [alarm_of(row) for row in reversed(rows)]

    def count_open(self) -> tuple[int, int]:
        """How many are not both cleared and acknowledged, and how many of these have not cleared."""
        row = self._database.row(f"SELECT count(*), coalesce(sum(cleared_ns = 0), 0) FROM alarms WHERE {_OPEN}")  # ours
        return (row[0], row[1]) if row is not None else (0, 0)

    def latest(self) -> list[Alarm]:
        """The newest alarm of every rule and stream."""
        rows = self._database.rows(
            "SELECT * FROM alarms WHERE id IN (SELECT max(id) FROM alarms GROUP BY rule, stream) ORDER BY id"
        )
        return [alarm_of(row) for row in rows]

    def find(self, number: int) -> Alarm:
        """One alarm.

        Raises:
            ProtocolError: `no-such-alarm`.
        """
        row = self._database.row("SELECT * FROM alarms WHERE id = ?", (number,))
        if row is None:
            raise ProtocolError(
                "no-such-alarm", f"there is no alarm {number}", remedy="bedside agent alarms list DIRECTORY"
            )
        return alarm_of(row)


def _write(tx: sqlite3.Connection, alarm: Alarm, change: int) -> Alarm | None:
    if alarm.number:
        done = tx.execute(
            "UPDATE alarms SET priority = ?, cleared_ns = ?, acknowledged_ns = ?, acknowledged_by = ?,"
            " escalated_ns = ?, changed = ? WHERE id = ?",
            (
                alarm.priority,
                alarm.cleared_ns,
                alarm.acknowledged_ns,
                alarm.acknowledged_by,
                alarm.escalated_ns,
                change,
                alarm.number,
            ),
        )
        if done.rowcount:
            return alarm
    done = tx.execute(
        "INSERT INTO alarms (id, rule, stream, session, priority, raised_ns, value, prediction, cleared_ns,"
        " acknowledged_ns, acknowledged_by, escalated_ns, changed)"
        " SELECT ?, ?, ?, session, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM sessions WHERE session = ?",
        (
            alarm.number or None,
            alarm.rule,
            alarm.stream,
            alarm.priority,
            alarm.raised_ns,
            alarm.value,
            alarm.prediction,
            alarm.cleared_ns,
            alarm.acknowledged_ns,
            alarm.acknowledged_by,
            alarm.escalated_ns,
            change,
            alarm.session,
        ),
    )
    return replace(alarm, number=done.lastrowid or 0) if done.rowcount else None


def alarm_of(row: sqlite3.Row) -> Alarm:
    """The alarm in a row of the table."""
    return Alarm(
        rule=row["rule"],
        stream=StreamId(row["stream"]),
        session=SessionId(row["session"]),
        priority=row["priority"],
        raised_ns=row["raised_ns"],
        value=row["value"],
        prediction=row["prediction"],
        cleared_ns=row["cleared_ns"],
        acknowledged_ns=row["acknowledged_ns"],
        acknowledged_by=row["acknowledged_by"],
        escalated_ns=row["escalated_ns"],
        number=row["id"],
    )
