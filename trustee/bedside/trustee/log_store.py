"""What a trustee keeps of the coordinator's log: how far it has read, whose words it did not say, what it recomputes.

Invariants:
    * Size, root and frontier, foreign words and drawn audits change together: an entry is never read without being
      looked at, nor looked at twice.
    * A foreign word stays until a person has handled it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bedside.core.signing.envelope import DIGEST_BYTES, parse_strict
from bedside.core.tree import Frontier
from bedside.proto.v1.common_pb2 import Signed
from bedside.service.sqlite import Database

_EMPTY: Final = Frontier()


@dataclass(frozen=True, slots=True)
class ForeignWord:
    """A word under this trustee's credential that it never said.

    Attributes:
        position: in the log.
        kind: opening, vote, answer or closed.
        plan_digest: H.
        cohort: of the plan.
        payload_digest: BLAKE2b-256 of the signed payload.
    """

    position: int
    kind: str
    plan_digest: bytes
    cohort: int
    payload_digest: bytes


@dataclass(frozen=True, slots=True)
class DueAudit:
    """A finished round that was drawn; `result_digest` is what the log says of it."""

    plan_digest: bytes
    result_digest: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading the log further."""

    frontier: Frontier
    foreign: Sequence[ForeignWord]
    drawn: Sequence[DueAudit]
    cosignature: Signed


class LogStore:
    """The log's tables in the trustee's file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def frontier(self) -> Frontier:
        """How far the log was read and verified."""
        row = self._database.connection.execute("SELECT size, frontier FROM log_view").fetchone()
        if row is None:
            return _EMPTY.copy()
        packed = bytes(row["frontier"])
        return Frontier(row["size"], [packed[at : at + DIGEST_BYTES] for at in range(0, len(packed), DIGEST_BYTES)])

    def said(self, payload_digest: bytes) -> bool:
        """Whether a payload of that digest is a link of this trustee's chain."""
        query = "SELECT 1 FROM chain WHERE payload_digest = ?"
        return self._database.connection.execute(query, (payload_digest,)).fetchone() is not None

    def opened(self, plan_digest: bytes) -> bool:
        """Whether this trustee opened a round of that plan."""
        query = "SELECT 1 FROM words WHERE plan_digest = ? AND kind = 'opening'"
        return self._database.connection.execute(query, (plan_digest,)).fetchone() is not None

    def accept(self, reading: Reading, at_s: int) -> None:
        """Go on from what was read, with everything that it brought."""
        frontier = reading.frontier
        view = (frontier.size, frontier.root(), b"".join(frontier.hashes), _bytes(reading.cosignature))

        def work(tx: sqlite3.Connection) -> None:
            tx.execute(
                "INSERT OR REPLACE INTO log_view (id, size, root, frontier, cosignature) VALUES (1, ?, ?, ?, ?)", view
            )
            for word in reading.foreign:
                told = (word.position, word.kind, word.plan_digest, word.cohort, word.payload_digest, at_s)
                tx.execute(
                    "INSERT INTO foreign_words (position, kind, plan_digest, cohort, payload_digest, seen_at_s)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    told,
                )
            for due in reading.drawn:
                statement = "INSERT OR IGNORE INTO audits (plan_digest, result_digest, drawn_at_s) VALUES (?, ?, ?)"
                tx.execute(statement, (due.plan_digest, due.result_digest, at_s))

        self._database.run_tx("accept log", work)

    def undelivered_cosignature(self) -> Signed | None:
        """The newest cosignature, until the coordinator has it."""
        row = self._database.connection.execute("SELECT cosignature FROM log_view WHERE delivered = 0").fetchone()
        return None if row is None else parse_strict(Signed, bytes(row["cosignature"]))

    def mark_cosignature_delivered(self, signed: Signed) -> None:
        """The coordinator took it, or refused it for good."""
        statement = "UPDATE log_view SET delivered = 1 WHERE cosignature = ?"
        self._database.run_tx("cosignature delivered", lambda tx: tx.execute(statement, (_bytes(signed),)))

    def foreign_words(self) -> list[ForeignWord]:
        """Those that nobody has handled yet."""
        rows = self._database.connection.execute(
            "SELECT * FROM foreign_words WHERE handled_at_s IS NULL ORDER BY position"
        ).fetchall()
        return [
            ForeignWord(
                row["position"], row["kind"], bytes(row["plan_digest"]), row["cohort"], bytes(row["payload_digest"])
            )
            for row in rows
        ]

    def handle_foreign_words(self, at_s: int) -> int:
        """A person has dealt with all of them; returns how many there were."""
        statement = "UPDATE foreign_words SET handled_at_s = ? WHERE handled_at_s IS NULL"
        return self._database.run_tx("handle foreign words", lambda tx: tx.execute(statement, (at_s,)).rowcount)

    def due_audits(self) -> list[DueAudit]:
        """Rounds that were drawn and have no verdict yet, oldest first."""
        rows = self._database.connection.execute("SELECT * FROM audits WHERE verdict IS NULL ORDER BY rowid").fetchall()
        return [DueAudit(bytes(row["plan_digest"]), bytes(row["result_digest"])) for row in rows]

    def store_verdict(self, plan_digest: bytes, signed: Signed) -> None:
        """Keep what came of an audit."""
        statement = "UPDATE audits SET verdict = ? WHERE plan_digest = ? AND verdict IS NULL"
        self._database.run_tx("store verdict", lambda tx: tx.execute(statement, (_bytes(signed), plan_digest)))

    def undelivered_verdicts(self) -> list[Signed]:
        """Verdicts that the coordinator does not have yet."""
        query = "SELECT verdict FROM audits WHERE verdict IS NOT NULL AND delivered = 0 ORDER BY rowid"
        return [parse_strict(Signed, bytes(row["verdict"])) for row in self._database.connection.execute(query)]

    def mark_verdict_delivered(self, signed: Signed) -> None:
        """The coordinator took it, or refused it for good."""
        statement = "UPDATE audits SET delivered = 1 WHERE verdict = ?"
        self._database.run_tx("verdict delivered", lambda tx: tx.execute(statement, (_bytes(signed),)))

    def verdicts(self) -> list[Signed]:
        """All verdicts, oldest first."""
        query = "SELECT verdict FROM audits WHERE verdict IS NOT NULL ORDER BY rowid"
        return [parse_strict(Signed, bytes(row["verdict"])) for row in self._database.connection.execute(query)]


def _bytes(signed: Signed) -> bytes:
    return signed.SerializeToString(deterministic=True)
