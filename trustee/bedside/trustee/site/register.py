"""What the site authority decided: credentials, rosters, tokens and their uses, requests. In the trustee's database.

Invariants:
    * A credential, the use of its token, the answer to its request and the roster that lists it are one transaction.
    * A roster's version is the stored one plus one, taken inside that transaction, so that two commands at the same
      time cannot sign two rosters of one version.
    * Of a request that was decided its body is not kept, and of refused ones only the newest: whoever relays requests
      cannot fill the site's disk.
    * No roster lists two trustees: devices believe any trustee that their site lists.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bedside.core.errors import RefusedError
from bedside.core.signing.envelope import digest, parse_strict
from bedside.core.signing.tokens import BearerToken, token_digest
from bedside.core.signing.trust import VerifiedCredential
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.enrolment_pb2 import EnrolRequest
from bedside.proto.v1.identity_pb2 import Role, Roster
from bedside.service.sqlite import Database

PENDING: Final = "pending"
GRANTED: Final = "granted"
REFUSED: Final = "refused"

MAX_REFUSED: Final = 1_000
"""Refused requests that are remembered, so that they are answered alike and shown."""

REFUSED_KEPT_S: Final = 30 * 86_400
"""Seconds that a refused request is remembered."""

SignRoster = Callable[[int, Sequence[bytes]], Signed]
"""Signs a roster of (version, ascending credential digests)."""


@dataclass(frozen=True, slots=True)
class Member:
    """A credential that was issued; listed while `revoked_at_s` is None."""

    digest: bytes
    subject: str
    role: int
    label: str
    issued_at_s: int
    revoked_at_s: int | None


@dataclass(frozen=True, slots=True)
class StoredRoster:
    """The newest roster."""

    version: int
    signed: Signed
    issued_at_s: int
    not_after_s: int
    published: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A credential request as it stands; `enrol` is kept while it waits."""

    digest: bytes
    fingerprint: str
    subject: str
    role: int
    label: str
    enrol: EnrolRequest
    received_at_s: int
    state: str
    credential: Signed | None
    code: str
    sentence: str


class Register:
    """The desk's tables."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def members(self) -> list[Member]:
        """Every credential that was ever issued, oldest first."""
        rows = self._select("SELECT * FROM credentials ORDER BY rowid")
        return [
            Member(
                bytes(row["digest"]), row["subject"], row["role"], row["label"], row["issued_at_s"], row["revoked_at_s"]
            )
            for row in rows
        ]

    def roster(self) -> StoredRoster | None:
        """The newest roster."""
        rows = self._select("SELECT * FROM rosters ORDER BY version DESC LIMIT 1")
        return _roster_of(rows[0]) if rows else None

    def mark_published(self, version: int) -> None:
        """Note that the coordinator has taken this roster."""
        statement = "UPDATE rosters SET published = 1 WHERE version = ?"
        self.database.run_tx("mark published", lambda tx: tx.execute(statement, (version,)))

    def add_token(self, bearer: BearerToken) -> None:
        """Remember a token that was minted; its secret half is not kept."""
        token = bearer.token
        row = (
            token_digest(bearer.signed),
            token.role,
            token.label,
            token.uses,
            token.issued_at_s,
            token.not_after_s,
        )
        statement = "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)"
        self.database.run_tx("add token", lambda tx: tx.execute(statement, row))

    def uses_left(self, digest_of_token: bytes) -> int | None:
        """Uses that are left of a token; None when this register never saw it."""
        rows = self._select(
            "SELECT uses - (SELECT count(*) FROM token_uses WHERE token_digest = digest) AS left_over"
            " FROM tokens WHERE digest = ?",
            digest_of_token,
        )
        return rows[0]["left_over"] if rows else None

    def tokens(self) -> list[tuple[str, int, int]]:
        """Label, uses left and expiry (seconds) of every token."""
        rows = self._select(
            "SELECT label, not_after_s, uses - (SELECT count(*) FROM token_uses WHERE token_digest = digest) AS"
            " left_over FROM tokens ORDER BY rowid"
        )
        return [(row["label"], row["left_over"], row["not_after_s"]) for row in rows]

    def request(self, request_digest: bytes) -> Request | None:
        """One request."""
        rows = self._select("SELECT * FROM requests WHERE digest = ?", request_digest)
        return _request_of(rows[0]) if rows else None

    def requests(self, state: str | None = None) -> list[Request]:
        """Requests, oldest first."""
        rows = self._select("SELECT * FROM requests WHERE state = coalesce(?, state) ORDER BY rowid", state)
        return [_request_of(row) for row in rows]

    def unsent(self) -> list[Request]:
        """Decided requests whose decision the coordinator has not taken yet."""
        rows = self._select("SELECT * FROM requests WHERE sent = 0 AND state != ? ORDER BY rowid", PENDING)
        return [_request_of(row) for row in rows]

    def mark_sent(self, request_digest: bytes, *, sent: bool = True) -> None:
        """Note whether the coordinator has the decision."""
        statement = "UPDATE requests SET sent = ? WHERE digest = ?"
        self.database.run_tx("mark sent", lambda tx: tx.execute(statement, (int(sent), request_digest)))

    def add_request(self, request: Request) -> None:
        """Store a request that waits, or that was refused."""

        def work(tx: sqlite3.Connection) -> None:
            _put_request(tx, request)
            _prune_refused(tx, request.received_at_s)

        self.database.run_tx("add request", work)

    def grant(
        self, request: Request, credential: VerifiedCredential, sign_roster: SignRoster, *, issued_at_s: int
    ) -> None:
        """Store credential, token use, decision and a roster that lists it. One transaction.

        Raises:
            StoreError: when the token's last use was taken meanwhile, or the request was granted before.
            RefusedError: `second-trustee`.
        """

        def work(tx: sqlite3.Connection) -> None:
            used = credential.credential.token_digest
            if used:
                tx.execute("INSERT INTO token_uses VALUES (?, ?)", (used, request.digest))
                if _overspent(tx, used):
                    raise sqlite3.IntegrityError("the token's last use was taken meanwhile")
            _put_request(tx, request)
            _list_credential(tx, credential, issued_at_s)
            _next_roster(tx, sign_roster)

        self.database.run_tx("grant credential", work)

    def list_member(self, credential: VerifiedCredential, sign_roster: SignRoster, *, issued_at_s: int) -> None:
        """Put a credential without a request on the roster: the site's own trustee."""

        def work(tx: sqlite3.Connection) -> None:
            _list_credential(tx, credential, issued_at_s)
            _next_roster(tx, sign_roster)

        self.database.run_tx("list member", work)

    def revoke(self, subject: str, sign_roster: SignRoster, *, at_s: int) -> bool:
        """Take a subject off the roster; False when nobody of that name is listed."""

        def work(tx: sqlite3.Connection) -> bool:
            gone = tx.execute(
                "UPDATE credentials SET revoked_at_s = ? WHERE subject = ? AND revoked_at_s IS NULL", (at_s, subject)
            )
            if gone.rowcount:
                _next_roster(tx, sign_roster)
            return gone.rowcount > 0

        return self.database.run_tx("revoke", work)

    def renew_roster(self, sign_roster: SignRoster) -> None:
        """Sign the same members again with a later expiry."""
        self.database.run_tx("renew roster", lambda tx: _next_roster(tx, sign_roster))

    def _select(self, query: str, *values: str | bytes | int | None) -> list[sqlite3.Row]:
        return self.database.connection.execute(query, values).fetchall()


def _list_credential(tx: sqlite3.Connection, credential: VerifiedCredential, issued_at_s: int) -> None:
    told = credential.credential
    tx.execute(
        "UPDATE credentials SET revoked_at_s = ? WHERE subject = ? AND revoked_at_s IS NULL",
        (issued_at_s, told.subject),
    )  # a new credential of the same key takes the place of the old one
    tx.execute(
        "INSERT INTO credentials (digest, subject, role, label, signed, issued_at_s) VALUES (?, ?, ?, ?, ?, ?)",
        (
            credential.digest,
            told.subject,
            told.role,
            told.label,
            credential.signed.SerializeToString(deterministic=True),
            issued_at_s,
        ),
    )


def _next_roster(tx: sqlite3.Connection, sign_roster: SignRoster) -> None:
    version = tx.execute("SELECT coalesce(max(version), 0) + 1 FROM rosters").fetchone()[0]
    rows = tx.execute("SELECT digest, subject, role FROM credentials WHERE revoked_at_s IS NULL").fetchall()
    trustees = [row["subject"] for row in rows if row["role"] == Role.ROLE_TRUSTEE]
    if len(trustees) > 1:
        raise RefusedError(
            "second-trustee",
            f"a roster lists one trustee; here it would list {', '.join(trustees)}",
            remedy="take the one that is not this site's own off it with `bedside site revoke`",
        )
    signed = sign_roster(version, sorted(bytes(row["digest"]) for row in rows))
    from_payload = _roster_times(signed)
    tx.execute(
        "INSERT INTO rosters (version, signed, issued_at_s, not_after_s) VALUES (?, ?, ?, ?)",
        (version, signed.SerializeToString(deterministic=True), *from_payload),
    )


def _roster_times(signed: Signed) -> tuple[int, int]:
    roster = parse_strict(Roster, signed.payload)
    return roster.issued_at_s, roster.not_after_s


def _overspent(tx: sqlite3.Connection, digest_of_token: bytes) -> bool:
    spent = tx.execute("SELECT count(*) FROM token_uses WHERE token_digest = ?", (digest_of_token,)).fetchone()[0]
    row = tx.execute("SELECT uses FROM tokens WHERE digest = ?", (digest_of_token,)).fetchone()
    return row is None or spent > row["uses"]


def _put_request(tx: sqlite3.Connection, request: Request) -> None:
    credential = None if request.credential is None else request.credential.SerializeToString(deterministic=True)
    tx.execute(
        "INSERT INTO requests (digest, fingerprint, subject, role, label, enrol, received_at_s, state, credential,"
        " code, sentence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET"
        " state = excluded.state, enrol = excluded.enrol, credential = excluded.credential, code = excluded.code,"
        " sentence = excluded.sentence, sent = 0",
        (
            request.digest,
            request.fingerprint,
            request.subject,
            request.role,
            request.label,
            request.enrol.SerializeToString(deterministic=True) if request.state == PENDING else b"",
            request.received_at_s,
            request.state,
            credential,
            request.code,
            request.sentence,
        ),
    )


def _prune_refused(tx: sqlite3.Connection, now_s: int) -> None:
    tx.execute("DELETE FROM requests WHERE state = ? AND received_at_s < ?", (REFUSED, now_s - REFUSED_KEPT_S))
    tx.execute(
        "DELETE FROM requests WHERE state = ? AND rowid NOT IN"
        " (SELECT rowid FROM requests WHERE state = ? ORDER BY rowid DESC LIMIT ?)",
        (REFUSED, REFUSED, MAX_REFUSED),
    )


def _roster_of(row: sqlite3.Row) -> StoredRoster:
    return StoredRoster(
        row["version"],
        parse_strict(Signed, row["signed"]),
        row["issued_at_s"],
        row["not_after_s"],
        bool(row["published"]),
    )


def _request_of(row: sqlite3.Row) -> Request:
    return Request(
        digest=bytes(row["digest"]),
        fingerprint=row["fingerprint"],
        subject=row["subject"],
        role=row["role"],
        label=row["label"],
        enrol=parse_strict(EnrolRequest, row["enrol"]),
        received_at_s=row["received_at_s"],
        state=row["state"],
        credential=None if row["credential"] is None else parse_strict(Signed, row["credential"]),
        code=row["code"],
        sentence=row["sentence"],
    )


def request_digest(enrol: EnrolRequest) -> bytes:
    """How a request is named."""
    return digest(enrol.request.payload)
