"""What the byte cap does not drop has shares of it: labels are refused beyond theirs, alarms make room for each other.

So nobody who adds to them drives the signal out. Labels are taken while labels, alarms and sessions stay within a
quarter of the cap. Alarms alone take a sixteenth: beyond that the oldest go that are over and were seen, then the
oldest that are over; one that is raised never goes, and there is one of a rule and stream at most. Sessions are opened
by hand while all sessions stay within a sixteenth, however many labels there are; those that the signal opens always
are, for it must not be taken for another person's.

What rows take is an estimate, kept with every change of the three tables by triggers of the writing connection, within
the transaction that changes them. So it is looked up and never summed, and nothing about it is in the file.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Final

from bedside.agent.buffer.opening import BufferDatabase
from bedside.core.errors import ProtocolError

_SHARE: Final = 4
_SMALL_SHARE: Final = 16
_BATCH_ROWS: Final = 16
_KIND_BYTES: Final = 512
"""A row of the quarantine with its index, at most: the kind stands in both."""
_MAX_KINDS: Final = 2_000
_COSTS: Final = {
    "labels": "150 + length({0}.stream) + 2 * length({0}.label) + length({0}.origin) + 12 * ({0}.value IS NOT NULL)",
    "alarms": "160 + length({0}.stream) + 2 * length({0}.rule)",
    "sessions": "150 + 2 * length({0}.stream)",
}
"""Bytes of a row with its indexes, pages being three quarters full; measured on tables of a million rows."""
_OVER: Final = (
    "SELECT id, stream, session FROM alarms WHERE cleared_ns > 0 AND acknowledged_ns > 0 ORDER BY id LIMIT ?",
    "SELECT id, stream, session FROM alarms WHERE cleared_ns > 0 ORDER BY id LIMIT ?",
)


class Quota:
    """The shares of one buffer's writer.

    Attributes:
        full: whether no label was taken any more when last somebody looked.
        max_kinds: rows of the quarantine: a thirty-second of the cap at most.
    """

    def __init__(self, database: BufferDatabase, cap_bytes: int) -> None:
        """Sum up what the tables hold, and keep the sum from now on."""
        self._database = database
        connection = database.connection
        self.limit_bytes = cap_bytes // _SHARE
        self.small_bytes = cap_bytes // _SMALL_SHARE
        self.max_kinds = min(_MAX_KINDS, self.small_bytes // 2 // _KIND_BYTES)
        connection.execute("CREATE TEMP TABLE shares (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL)")
        for table, cost in _COSTS.items():
            connection.execute(
                f"INSERT INTO temp.shares SELECT ?, coalesce(sum({cost.format(table)}), 0) FROM main.{table}", (table,)
            )
            for event, sign, row in (("INSERT", "+", "new"), ("DELETE", "-", "old")):
                connection.execute(
                    f"CREATE TEMP TRIGGER {table}_share_{row} AFTER {event} ON main.{table} BEGIN"
                    f" UPDATE shares SET bytes = bytes {sign} ({cost.format(row)}) WHERE name = '{table}'; END"
                )
        self.full = self.used_bytes(connection) >= self.limit_bytes

    def used_bytes(self, connection: sqlite3.Connection) -> int:
        """What labels, alarms and sessions take together."""
        return int(connection.execute("SELECT sum(bytes) FROM temp.shares").fetchone()[0])

    def is_full(self, connection: sqlite3.Connection) -> bool:
        """Look whether no label is taken any more."""
        self.full = self.used_bytes(connection) >= self.limit_bytes
        return self.full

    def check_labels(self, tx: sqlite3.Connection) -> None:
        """Look behind the insertion of labels whether they may stay.

        Raises:
            ProtocolError: `labels-full`.
        """
        if self.used_bytes(tx) > self.limit_bytes:
            raise ProtocolError(
                "labels-full",
                f"labels, alarms and sessions take all of their {self.limit_bytes >> 10} KiB, a quarter of the buffer",
                remedy="forget sessions that nobody needs, or raise cap_mib in [buffer]",
            )

    @property
    def sessions_full(self) -> bool:
        """Whether no session is opened any more but those that signal opens."""
        with self._database.turn:
            return self._take(self._database.connection, "sessions") >= self.small_bytes

    def check_sessions(self) -> None:
        """Look before a session is opened by hand whether it may be.

        Raises:
            ProtocolError: `sessions-full`.
        """
        if self.sessions_full:
            raise ProtocolError(
                "sessions-full",
                f"sessions take all of their {self.small_bytes >> 10} KiB, a sixteenth of the buffer",
                remedy="forget sessions that nobody needs, or raise cap_mib in [buffer]",
            )

    def drop_alarms(self, tx: sqlite3.Connection) -> Counter[tuple[str, str, str]]:
        """Drop the oldest alarms beyond their share; returns what to count."""
        gone: Counter[tuple[str, str, str]] = Counter()
        for sql in _OVER:
            while self._take(tx, "alarms") > self.small_bytes and (rows := tx.execute(sql, (_BATCH_ROWS,)).fetchall()):
                for row in rows:
                    tx.execute("DELETE FROM alarms WHERE id = ?", (row["id"],))
                    gone[row["stream"], row["session"], "evicted-alarms"] += 1
        return gone

    def _take(self, connection: sqlite3.Connection, table: str) -> int:
        return int(connection.execute("SELECT bytes FROM temp.shares WHERE name = ?", (table,)).fetchone()[0])
