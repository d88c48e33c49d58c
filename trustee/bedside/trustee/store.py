"""What a trustee must never forget: rounds, its words in them, its chain, and the highest versions it has seen.

Invariants:
    * A word (opening, vote, answer, closing, refusal) of a round is inserted once and never replaced: the table's key
      allows no second one of a kind.
    * Each word's chain link, the ledger's charge and the round's new state are in the transaction that stores it.
    * Words are sent after their commit, and marked as delivered after that; what is not marked is sent again.
    * Floors only rise (rule T8).
    * What a later set is compared with is in the transaction of the opening and of the vote (see `past`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from bedside.core.errors import TrustError
from bedside.core.policy.sets import Members
from bedside.core.securesum.trustee import TrusteeInput, TrusteeState, advance
from bedside.core.signing.envelope import digest, parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.round_pb2 import Answer, Chain, Closed, Opening, Vote
from bedside.proto.v1.trustee_pb2 import SealRequest
from bedside.service.sqlite import Database, open_database
from bedside.trustee.ledger import Charge, charge, ledger_head
from bedside.trustee.past import note_members, note_opening
from bedside.trustee.schema import MIGRATIONS

UNFINISHED: Final = (TrusteeState.OPEN, TrusteeState.VOTED)

MAX_REFUSED_ROUNDS: Final = 10_000
"""Refused plans that are remembered, the newest: about 10 MB. Older ones are judged anew when they come again."""

_LINKED: Final[dict[str, type[Opening | Vote | Answer | Closed]]] = {
    "opening": Opening,
    "vote": Vote,
    "answer": Answer,
    "closed": Closed,
}

Build = Callable[[Chain], Signed]
"""Makes and signs a message around its chain link; must not send anything."""


class RoundKey(NamedTuple):
    """Which round of this trustee."""

    plan_digest: bytes
    cohort: int


@dataclass(frozen=True, slots=True)
class StoredRound:
    """A round as it stands.

    Attributes:
        key: plan and cohort.
        task: of the plan.
        round_number: of the plan.
        state: of the trustee's machine.
        plan: the signed plan; empty where it was refused.
        boot_id: under which its key was drawn.
        seal: what was judged at the vote, with the rosters that were used; None before.
        set_root: the set that was voted for; None before.
        judged_at_s: when.
        code: why it was refused, where it was.
        sentence: the same in words.
    """

    key: RoundKey
    task: str
    round_number: int
    state: TrusteeState
    plan: Signed
    boot_id: bytes
    seal: SealRequest | None = None
    set_root: bytes | None = None
    judged_at_s: int = 0
    code: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """A signed message of a round, ready to be sent."""

    key: RoundKey
    kind: str
    signed: Signed


@dataclass(frozen=True, slots=True)
class Floor:
    """The newest version of something that was seen; `digest` tells two of one version apart."""

    name: str
    value: int
    digest: bytes
    signed: Signed | None = None


class TrusteeStore:
    """The trustee's SQLite file. Used from one thread."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, path: Path) -> TrusteeStore:
        """Open or create the file. Raises StoreError."""
        return cls(open_database(path, MIGRATIONS))

    def close(self) -> None:
        """Checkpoint and close."""
        self.database.close()

    def revision(self) -> int:
        """Changes whenever another process has committed."""
        return int(self.database.connection.execute("PRAGMA data_version").fetchone()[0])

    def round(self, key: RoundKey) -> StoredRound | None:
        """The round, or None when it was never asked for."""
        query = "SELECT * FROM rounds WHERE plan_digest = ? AND cohort = ?"
        row = self.database.connection.execute(query, key).fetchone()
        return _round_of(row) if row else None

    def rounds(self, *states: TrusteeState) -> list[StoredRound]:
        """Rounds in any of `states`, oldest first."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT * FROM rounds WHERE state IN ({marks}) ORDER BY rowid"
        rows = self.database.connection.execute(query, [state.value for state in states]).fetchall()
        return [_round_of(row) for row in rows]

    def word(self, key: RoundKey, kind: str) -> Word | None:
        """The one word of that kind in that round."""
        query = "SELECT signed FROM words WHERE plan_digest = ? AND cohort = ? AND kind = ?"
        row = self.database.connection.execute(query, (*key, kind)).fetchone()
        return Word(key, kind, parse_strict(Signed, row["signed"])) if row else None

    def undelivered(self) -> list[Word]:
        """The outbox, oldest first."""
        rows = self.database.connection.execute("SELECT * FROM words WHERE delivered = 0 ORDER BY rowid").fetchall()
        return [
            Word(RoundKey(bytes(row["plan_digest"]), row["cohort"]), row["kind"], parse_strict(Signed, row["signed"]))
            for row in rows
        ]

    def mark_delivered(self, word: Word) -> None:
        """Note that the coordinator has taken the word, or refused it for good."""
        statement = "UPDATE words SET delivered = 1 WHERE plan_digest = ? AND cohort = ? AND kind = ?"
        self.database.run_tx("mark delivered", lambda tx: tx.execute(statement, (*word.key, word.kind)))

    def floor(self, name: str) -> Floor | None:
        """The highest version of `name` that was seen."""
        row = self.database.connection.execute("SELECT * FROM floors WHERE name = ?", (name,)).fetchone()
        return _floor_of(row) if row else None

    def raise_floors(self, floors: list[Floor]) -> None:
        """Remember newer versions.

        Raises:
            TrustError: `NAME-rollback`, or `NAME-fork` for another thing under the same version.
        """
        self.database.run_tx("raise floors", lambda tx: _raise_floors(tx, floors))

    def chain_head(self) -> tuple[int, bytes]:
        """Index and payload digest of the last link; (0, nothing) before the first."""
        return _chain_head(self.database.connection)

    def last_link(self) -> Chain | None:
        """The chain link inside the newest word that has one."""
        query = "SELECT kind, signed FROM words WHERE kind != 'refusal' ORDER BY rowid DESC LIMIT 1"
        row = self.database.connection.execute(query).fetchone()
        if row is None:
            return None
        return parse_strict(_LINKED[row["kind"]], parse_strict(Signed, row["signed"]).payload).chain

    def has_forgotten(self) -> bool:
        """Whether this file was once older than the trustee's own chain, so that charges may be missing from it."""
        query = "SELECT 1 FROM chain WHERE kind = 'lost' LIMIT 1"
        return self.database.connection.execute(query).fetchone() is not None

    def adopt_chain(self, index: int, link_digest: bytes) -> None:
        """Go on after a link that this file has lost: it was restored under a running machine."""
        statement = "INSERT INTO chain (link, payload_digest, kind) VALUES (?, ?, 'lost')"
        self.database.run_tx("adopt chain", lambda tx: tx.execute(statement, (index, link_digest)))

    def store_opening(self, opened: StoredRound, inputs: bytes, floors: list[Floor], build: Build, at_s: int) -> Word:
        """Store a round that this trustee opens, with its opening; `inputs` names what it computes."""

        def work(tx: sqlite3.Connection) -> Word:
            _raise_floors(tx, floors)
            _insert_round(tx, opened, at_s)
            note_opening(tx, opened.key, parse_strict(Plan, opened.plan.payload), inputs, at_s)
            return _say(tx, opened.key, "opening", opened.boot_id, build)

        return self.database.run_tx("store opening", work)

    def store_refusal(self, refused: StoredRound, signed: Signed, at_s: int) -> Word:
        """Store a round that this trustee does not open, with its refusal (which has no chain link)."""

        def work(tx: sqlite3.Connection) -> Word:
            _insert_round(tx, refused, at_s)
            _insert_word(tx, refused.key, "refusal", signed)
            _prune_refused(tx)
            return Word(refused.key, "refusal", signed)

        return self.database.run_tx("store refusal", work)

    def store_vote(
        self,
        before: StoredRound,
        seal: SealRequest,
        members: Members,
        entry: Charge,
        boot_id: bytes,
        build: Build,
        at_s: int,
    ) -> Word:
        """Lock the round on one set: state, what was judged, members, the ledger's charge and the vote, or nothing."""
        state = advance(before.state, TrusteeInput.VOTE)
        changes: dict[str, str | int | bytes] = {
            "seal": seal.SerializeToString(deterministic=True),
            "set_root": entry.set_root,
            "judged_at_s": at_s,
        }

        def work(tx: sqlite3.Connection) -> Word:
            _move(tx, before, state, at_s, changes)
            charge(tx, entry)
            note_members(tx, before.key, members)
            return _say(tx, before.key, "vote", boot_id, build)

        return self.database.run_tx("store vote", work)

    def store_answer(self, before: StoredRound, boot_id: bytes, build: Build, at_s: int) -> Word:
        """Store the one answer; its words are already in a durable file."""
        state = advance(before.state, TrusteeInput.ANSWER)

        def work(tx: sqlite3.Connection) -> Word:
            _move(tx, before, state, at_s, {})
            return _say(tx, before.key, "answer", boot_id, build)

        return self.database.run_tx("store answer", work)

    def store_closed(self, before: StoredRound, event: TrusteeInput, boot_id: bytes, build: Build, at_s: int) -> Word:
        """End a round without an answer."""
        state = advance(before.state, event)

        def work(tx: sqlite3.Connection) -> Word:
            _move(tx, before, state, at_s, {})
            return _say(tx, before.key, "closed", boot_id, build)

        return self.database.run_tx("store closed", work)

    def note_refused_set(self, before: StoredRound, code: str, sentence: str) -> None:
        """Remember for the operator why a set was not voted for."""
        changes: dict[str, str | int | bytes] = {"code": code, "sentence": sentence}
        self.database.run_tx("note refused set", lambda tx: _update(tx, before, changes))


def _say(tx: sqlite3.Connection, key: RoundKey, kind: str, boot_id: bytes, build: Build) -> Word:
    index, previous = _chain_head(tx)
    signed = build(
        Chain(boot_id=boot_id, index=index + 1, previous_digest=previous, ledger_head=ledger_head(tx)),
    )
    link = (index + 1, digest(signed.payload), kind)
    tx.execute("INSERT INTO chain (link, payload_digest, kind) VALUES (?, ?, ?)", link)
    _insert_word(tx, key, kind, signed)
    return Word(key, kind, signed)


def _insert_word(tx: sqlite3.Connection, key: RoundKey, kind: str, signed: Signed) -> None:
    statement = "INSERT INTO words (plan_digest, cohort, kind, signed) VALUES (?, ?, ?, ?)"
    tx.execute(statement, (*key, kind, signed.SerializeToString(deterministic=True)))


def _insert_round(tx: sqlite3.Connection, stored: StoredRound, at_s: int) -> None:
    tx.execute(
        "INSERT INTO rounds (plan_digest, cohort, task, round_number, state, plan, boot_id, changed_at_s, code,"
        " sentence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *stored.key,
            stored.task,
            stored.round_number,
            stored.state.value,
            stored.plan.SerializeToString(deterministic=True),
            stored.boot_id,
            at_s,
            stored.code,
            stored.sentence,
        ),
    )


def _prune_refused(tx: sqlite3.Connection) -> None:
    tx.execute(
        "DELETE FROM words WHERE kind = 'refusal' AND rowid NOT IN"
        " (SELECT rowid FROM words WHERE kind = 'refusal' ORDER BY rowid DESC LIMIT ?)",
        (MAX_REFUSED_ROUNDS,),
    )
    tx.execute(
        "DELETE FROM rounds WHERE state = ? AND NOT EXISTS (SELECT 1 FROM words"
        " WHERE words.plan_digest = rounds.plan_digest AND words.cohort = rounds.cohort)",
        (TrusteeState.REFUSED.value,),
    )


def _move(
    tx: sqlite3.Connection,
    before: StoredRound,
    state: TrusteeState,
    at_s: int,
    changes: dict[str, str | int | bytes],
) -> None:
    _update(tx, before, {**changes, "state": state.value, "changed_at_s": at_s})


def _update(tx: sqlite3.Connection, before: StoredRound, changes: dict[str, str | int | bytes]) -> None:
    settings = ", ".join(f"{column} = ?" for column in changes)
    where = "plan_digest = ? AND cohort = ? AND state = ?"
    done = tx.execute(
        f"UPDATE rounds SET {settings} WHERE {where}", (*changes.values(), *before.key, before.state.value)
    )
    if done.rowcount != 1:
        raise sqlite3.IntegrityError("the round is no longer in the state that was read")


def _chain_head(connection: sqlite3.Connection) -> tuple[int, bytes]:
    row = connection.execute("SELECT link, payload_digest FROM chain ORDER BY link DESC LIMIT 1").fetchone()
    return (row["link"], bytes(row["payload_digest"])) if row else (0, b"")


def _raise_floors(tx: sqlite3.Connection, floors: list[Floor]) -> None:
    for new in floors:
        row = tx.execute("SELECT * FROM floors WHERE name = ?", (new.name,)).fetchone()
        check_floor(_floor_of(row) if row else None, new)
        signed = None if new.signed is None else new.signed.SerializeToString(deterministic=True)
        tx.execute("INSERT OR REPLACE INTO floors VALUES (?, ?, ?, ?)", (new.name, new.value, new.digest, signed))


def check_floor(old: Floor | None, new: Floor) -> None:
    """Refuse what is older than `old`, or a twin of it.

    Raises:
        TrustError: `KIND-rollback` or `KIND-fork`, KIND being the part of the name before a slash.
    """
    kind = new.name.partition("/")[0]
    if old is not None and new.value < old.value:
        raise TrustError(f"{kind}-rollback", f"{new.name} went back from {old.value} to {new.value}")
    if old is not None and new.value == old.value and new.digest != old.digest:
        raise TrustError(f"{kind}-fork", f"{new.name} has two different versions {new.value}")


def _floor_of(row: sqlite3.Row) -> Floor:
    signed = None if row["signed"] is None else parse_strict(Signed, row["signed"])
    return Floor(row["name"], row["value"], bytes(row["digest"]), signed)


def _round_of(row: sqlite3.Row) -> StoredRound:
    return StoredRound(
        key=RoundKey(bytes(row["plan_digest"]), row["cohort"]),
        task=row["task"],
        round_number=row["round_number"],
        state=TrusteeState(row["state"]),
        plan=parse_strict(Signed, row["plan"]),
        boot_id=bytes(row["boot_id"]),
        seal=None if row["seal"] is None else parse_strict(SealRequest, row["seal"]),
        set_root=None if row["set_root"] is None else bytes(row["set_root"]),
        judged_at_s=row["judged_at_s"] or 0,
        code=row["code"],
        sentence=row["sentence"],
    )
