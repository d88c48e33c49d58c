"""The device's journal: what it has seen, and how far each contribution is. Its own file, `journal.db`.

Invariants:
    * One contribution per plan, and one per (task, round number), ever.
    * A contribution's new state, its header and its outbox row are one transaction; only then is a byte sent.
    * The bytes of an upload never change: the row names one file and the header that was signed over it.
    * What was seen (rule T8) is durable before a plan that it admitted has any effect.
    * A freed delta is used once: the upload that it was encoded for and the end of its freedom are one transaction.

Source: DESIGN sections 3 (journal rule) and 5 (rule T8).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside.agent.rounds.journal_schema import MIGRATIONS
from bedside.agent.rounds.memory import ChainPoint, RoundPoint, Seen, TrusteePin
from bedside.core.errors import ProtocolError
from bedside.core.securesum.device import ContributionInput, ContributionState, advance
from bedside.service.sqlite import Database, open_database

JOURNAL_NAME: Final = "journal.db"

_S, _I = ContributionState, ContributionInput
_KEPT_DECLINED: Final = 256
_TAKEN_BACK: Final = "a session was erased, or consent or a label withdrawn"
"""Plans after which a declined one is forgotten; what was seen refuses it again."""
OPEN_STATES: Final = (_S.TRAINING, _S.READY, _S.ACCEPTED, _S.AWAITING)
"""States that still wait for something."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """One plan that this device has dealt with.

    Attributes:
        plan_digest: H.
        task: its task; empty for a plan that could not be read.
        round_number: its round.
        state: how far it is.
        offer: the serialised Offer, while it is open.
        code: why it was refused or dropped; empty otherwise.
        sentence: the same for a person.
    """

    plan_digest: bytes
    task: str
    round_number: int
    state: ContributionState
    offer: bytes
    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A signed header and the file of the words that it covers.

    Attributes:
        header: serialised Signed of kind `header`.
        file: name inside the outbox directory.
        size_bytes: length of that file.
    """

    plan_digest: bytes
    header: bytes
    file: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class KeptRow:
    """The sealed delta that a contribution was encoded from.

    Attributes:
        plan_digest: of the contribution that it belongs to now.
        file: name inside the outbox directory.
    """

    plan_digest: bytes
    file: str


class Journal:
    """The journal of one device; used from one loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, state_dir: Path) -> Journal:
        """Open or create `journal.db`. Raises StoreError."""
        return cls(open_database(state_dir / JOURNAL_NAME, MIGRATIONS))

    def close(self) -> None:
        """Checkpoint and close."""
        self._database.close()

    def seen(self) -> Seen:
        """Everything remembered for rule T8."""
        run = self._database.rows
        versions = {row["what"]: row for row in run("SELECT what, version, root FROM seen_version")}
        log = versions.get("log")
        pins = [TrusteePin(subject, row["root"]) for subject, row in _under("trustee:", versions).items()]
        return Seen(
            federation_version=versions["federation"]["version"] if "federation" in versions else 0,
            log_size=log["version"] if log else 0,
            log_root=log["root"] if log else b"",
            rosters={site: row["version"] for site, row in _under("roster:", versions).items()},
            results={task: row["version"] for task, row in _under("result:", versions).items()},
            rounds={
                row["task"]: RoundPoint(row["round_number"], row["plan_digest"])
                for row in run("SELECT task, round_number, plan_digest FROM seen_round")
            },
            chains={
                row["trustee"]: ChainPoint(row["link"], row["digest"])
                for row in run("SELECT trustee, link, digest FROM seen_chain")
            },
            trustee=pins[0] if pins else None,
        )

    def accept(self, contribution: Contribution, seen: Seen, *, now_ns: int) -> None:
        """Remember `seen` and a plan that will be contributed to.

        Raises:
            ProtocolError: `contributed-before`: this task and round number had another plan.
        """

        def work(tx: sqlite3.Connection) -> None:
            _check_once(tx, contribution)
            _store_seen(tx, seen)
            _insert(tx, contribution, now_ns)

        self._database.run_tx("accept-plan", work)

    def refuse(self, contribution: Contribution, signed_refusal: bytes, seen: Seen | None, *, now_ns: int) -> None:
        """Remember that a plan was declined, and the signed refusal that is to be sent."""

        def work(tx: sqlite3.Connection) -> None:
            if seen is not None:
                _store_seen(tx, seen)
            _insert(tx, contribution, now_ns)
            _owe(tx, contribution.plan_digest, signed_refusal)
            tx.execute(
                "DELETE FROM contribution WHERE state = 'declined' AND id <= (SELECT max(id) FROM contribution) - ?"
                " AND plan_digest NOT IN (SELECT plan_digest FROM refusal)",
                (_KEPT_DECLINED,),
            )

        self._database.run_tx("refuse-plan", work)

    def owe_refusal(self, plan_digest: bytes, signed_refusal: bytes) -> None:
        """Remember a signed refusal that is to be sent for a plan that bytes were committed for."""
        self._database.run_tx("owe-refusal", lambda tx: _owe(tx, plan_digest, signed_refusal))

    def remember(self, seen: Seen) -> None:
        """Make a step of `seen` durable by itself."""
        self._database.run_tx("remember", lambda tx: _store_seen(tx, seen))

    def commit_upload(self, row: OutboxRow, kept: KeptRow, freed: KeptRow | None, *, now_ns: int) -> None:
        """The header and its bytes are final: from here on they are sent, and nothing else for this plan.

        Args:
            row: what is sent.
            kept: the delta that it was encoded from.
            freed: the delta of this task that was free until now. It has become `kept`, or its time is over.
            now_ns: nanoseconds since 1970.
        """

        def work(tx: sqlite3.Connection) -> None:
            _move(tx, row.plan_digest, _I.TRAINED, now_ns)
            tx.execute(
                "INSERT INTO outbox (plan_digest, header, file, size_bytes) VALUES (?, ?, ?, ?)",
                (row.plan_digest, row.header, row.file, row.size_bytes),
            )
            if freed is not None:
                _move(tx, freed.plan_digest, _I.REUSED if freed.file == kept.file else _I.SUPERSEDED, now_ns)
                tx.execute("DELETE FROM kept WHERE plan_digest = ?", (freed.plan_digest,))
            tx.execute("INSERT INTO kept (plan_digest, file) VALUES (?, ?)", (kept.plan_digest, kept.file))

        self._database.run_tx("commit-upload", work)

    def mark_sent(self, plan_digest: bytes, *, now_ns: int) -> None:
        """The coordinator holds every byte; the file may go, the header stays until the receipt."""
        self._database.run_tx("mark-sent", lambda tx: _move(tx, plan_digest, _I.ACKNOWLEDGED, now_ns))

    def finish(
        self, plan_digest: bytes, event: ContributionInput, *, now_ns: int, code: str = "", sentence: str = ""
    ) -> None:
        """Move a contribution on by its receipt, or by its round's end; its offer and outbox row go.

        Its kept delta goes as well, unless the receipt freed it.
        """

        def work(tx: sqlite3.Connection) -> None:
            state = _move(tx, plan_digest, event, now_ns, code, sentence)
            if state is not _S.FREED:
                tx.execute("DELETE FROM kept WHERE plan_digest = ?", (plan_digest,))
            tx.execute("UPDATE contribution SET offer = NULL WHERE plan_digest = ?", (plan_digest,))
            tx.execute("DELETE FROM outbox WHERE plan_digest = ?", (plan_digest,))

        self._database.run_tx("finish-contribution", work)

    def turn_away(self, plan_digest: bytes, *, now_ns: int, code: str, sentence: str) -> None:
        """The coordinator wants no more bytes; the delta waits for the own trustee's word."""
        self._database.run_tx("turn-away", lambda tx: _move(tx, plan_digest, _I.TURNED_AWAY, now_ns, code, sentence))

    def refusal_sent(self, plan_digest: bytes) -> None:
        """The coordinator has the refusal."""
        self._database.run_tx(
            "refusal-sent", lambda tx: tx.execute("DELETE FROM refusal WHERE plan_digest = ?", (plan_digest,))
        )

    def find(self, plan_digest: bytes) -> Contribution | None:
        """The contribution to one plan."""
        row = self._database.row("SELECT * FROM contribution WHERE plan_digest = ?", (plan_digest,))
        return None if row is None else _contribution(row)

    def open_contributions(self) -> list[Contribution]:
        """Those that still wait for something, oldest first."""
        rows = self._database.rows(
            f"SELECT * FROM contribution WHERE state IN ({','.join('?' * len(OPEN_STATES))}) ORDER BY id",
            [state.value for state in OPEN_STATES],
        )
        return [_contribution(row) for row in rows]

    def newest(self) -> Contribution | None:
        """The plan that was dealt with last, whatever came of it."""
        row = self._database.row("SELECT * FROM contribution ORDER BY id DESC LIMIT 1")
        return None if row is None else _contribution(row)

    def outbox(self, plan_digest: bytes) -> OutboxRow | None:
        """What is to be sent for one plan."""
        row = self._database.row("SELECT * FROM outbox WHERE plan_digest = ?", (plan_digest,))
        return None if row is None else OutboxRow(row["plan_digest"], row["header"], row["file"], row["size_bytes"])

    def outbox_files(self) -> set[str]:
        """Names of the files that rows of unfinished uploads, and kept deltas, refer to."""
        rows = self._database.rows(
            "SELECT file FROM outbox JOIN contribution USING (plan_digest) WHERE state = 'ready'"
            " UNION SELECT file FROM kept"
        )
        return {row["file"] for row in rows}

    def kept(self, plan_digest: bytes) -> KeptRow | None:
        """The delta that a contribution was encoded from, while it may still be given back."""
        row = self._database.row("SELECT * FROM kept WHERE plan_digest = ?", (plan_digest,))
        return None if row is None else KeptRow(row["plan_digest"], row["file"])

    def freed(self, task: str) -> KeptRow | None:
        """The delta of a task that the own trustee gave back."""
        row = self._database.row(
            "SELECT kept.* FROM kept JOIN contribution USING (plan_digest)"
            " WHERE task = ? AND state = 'freed' ORDER BY id DESC LIMIT 1",
            (task,),
        )
        return None if row is None else KeptRow(row["plan_digest"], row["file"])

    def drop_kept(self, *, now_ns: int) -> list[str]:
        """Every kept delta goes, because it may rest on what is erased or withdrawn now; returns their files.

        What is committed to be sent stays: nobody can read it, and nothing else may be sent in its place.
        """

        def work(tx: sqlite3.Connection) -> list[str]:
            kept = tx.execute(
                "SELECT plan_digest, file, state FROM kept JOIN contribution USING (plan_digest)"
            ).fetchall()
            for row in kept:
                if ContributionState(row["state"]) is _S.FREED:
                    _move(tx, row["plan_digest"], _I.SUPERSEDED, now_ns, "taken-back", _TAKEN_BACK)
            tx.execute("DELETE FROM kept")
            tx.execute(
                "INSERT INTO seen_version (what, version) VALUES ('erasures', 1)"
                " ON CONFLICT (what) DO UPDATE SET version = version + 1"
            )
            return [row["file"] for row in kept]

        return self._database.run_tx("drop-kept", work)

    def erasures(self) -> int:
        """How often something was erased or withdrawn: training that began before the last time must not be used."""
        row = self._database.row("SELECT version FROM seen_version WHERE what = 'erasures'")
        return 0 if row is None else int(row["version"])

    def unsent_refusals(self) -> list[tuple[bytes, bytes]]:
        """(plan digest, serialised Signed) of refusals that the coordinator has not confirmed."""
        rows = self._database.rows("SELECT plan_digest, signed FROM refusal")
        return [(row["plan_digest"], row["signed"]) for row in rows]


def _contribution(row: sqlite3.Row) -> Contribution:
    return Contribution(
        plan_digest=row["plan_digest"],
        task=row["task"],
        round_number=row["round_number"],
        state=ContributionState(row["state"]),
        offer=row["offer"] or b"",
        code=row["code"],
        sentence=row["sentence"],
    )


def _check_once(tx: sqlite3.Connection, contribution: Contribution) -> None:
    row = tx.execute(
        "SELECT 1 FROM contribution WHERE task = ? AND round_number = ? AND plan_digest <> ? AND state <> 'declined'",
        (contribution.task, contribution.round_number, contribution.plan_digest),
    ).fetchone()
    if row is not None:
        raise ProtocolError(
            "contributed-before",
            f"this device has already contributed to round {contribution.round_number} of {contribution.task}",
        )


def _owe(tx: sqlite3.Connection, plan_digest: bytes, signed_refusal: bytes) -> None:
    tx.execute("INSERT OR REPLACE INTO refusal (plan_digest, signed) VALUES (?, ?)", (plan_digest, signed_refusal))


def _insert(tx: sqlite3.Connection, contribution: Contribution, now_ns: int) -> None:
    row = tx.execute("SELECT 1 FROM contribution WHERE plan_digest = ?", (contribution.plan_digest,)).fetchone()
    if row is not None:
        event = _I.START if contribution.state is _S.TRAINING else _I.REFUSE
        _move(tx, contribution.plan_digest, event, now_ns, contribution.code, contribution.sentence)
        return
    tx.execute(
        "INSERT INTO contribution (plan_digest, task, round_number, state, offer, code, sentence, changed_at_ns)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            contribution.plan_digest,
            contribution.task,
            contribution.round_number,
            contribution.state.value,
            contribution.offer or None,
            contribution.code,
            contribution.sentence,
            now_ns,
        ),
    )


def _move(
    tx: sqlite3.Connection,
    plan_digest: bytes,
    event: ContributionInput,
    now_ns: int,
    code: str = "",
    sentence: str = "",
) -> ContributionState:
    row = tx.execute("SELECT state FROM contribution WHERE plan_digest = ?", (plan_digest,)).fetchone()
    if row is None:
        raise ProtocolError("no-contribution", "there is no contribution to this plan")
    state = advance(ContributionState(row["state"]), event)
    tx.execute(
        "UPDATE contribution SET state = ?, code = ?, sentence = ?, changed_at_ns = ? WHERE plan_digest = ?",
        (state.value, code, sentence, now_ns, plan_digest),
    )
    return state


def _under(prefix: str, rows: dict[str, sqlite3.Row]) -> dict[str, sqlite3.Row]:
    return {what.removeprefix(prefix): row for what, row in rows.items() if what.startswith(prefix)}


def _store_seen(tx: sqlite3.Connection, seen: Seen) -> None:
    versions = [("federation", seen.federation_version, b""), ("log", seen.log_size, seen.log_root)]
    versions += [(f"roster:{site}", version, b"") for site, version in seen.rosters.items()]
    versions += [(f"result:{task}", number, b"") for task, number in seen.results.items()]
    if seen.trustee is not None:
        tx.execute("DELETE FROM seen_version WHERE what LIKE 'trustee:%'")
        versions.append((f"trustee:{seen.trustee.subject}", 1, seen.trustee.credential_digest))
    tx.executemany("INSERT OR REPLACE INTO seen_version (what, version, root) VALUES (?, ?, ?)", versions)
    tx.executemany(
        "INSERT OR REPLACE INTO seen_round (task, round_number, plan_digest) VALUES (?, ?, ?)",
        [(task, point.round_number, point.plan_digest) for task, point in seen.rounds.items()],
    )
    tx.executemany(
        "INSERT OR REPLACE INTO seen_chain (trustee, link, digest) VALUES (?, ?, ?)",
        [(trustee, point.index, point.digest) for trustee, point in seen.chains.items()],
    )
