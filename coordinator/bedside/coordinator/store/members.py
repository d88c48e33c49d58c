"""Statements about sites and their members: rosters, credentials, tokens, requests, heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from bedside.coordinator.store.rows import fetch, fetch_one, insert_new, upsert, values_of
from bedside.coordinator.store.schema import CREDENTIALS, DEVICES, REQUESTS, ROSTERS, TOKEN_USES

PENDING = "pending"
ACTIVE = "active"
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RosterRow:
    """The newest roster of a site."""

    site: str
    version: int
    signed: bytes


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A credential that a site granted, whether its roster still lists it or not."""

    digest: bytes
    site: str
    subject: str
    signed: bytes


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request for a credential and the site's word on it."""

    digest: bytes
    site: str
    enrol: bytes
    needs_approval: bool
    phase: str
    credential_digest: bytes | None
    code: str
    sentence: str
    requested_at_s: int


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """The newest heartbeat of a device."""

    credential_digest: bytes
    sequence: int
    last_seen_s: int
    heartbeat: bytes


def rosters(tx: Connection) -> list[RosterRow]:
    """The newest roster of every site that has published one."""
    return fetch(tx, RosterRow, ROSTERS)


def put_roster(tx: Connection, row: RosterRow) -> None:
    """Replace a site's roster."""
    upsert(tx, ROSTERS, [values_of(row)])


def credentials(tx: Connection) -> list[CredentialRow]:
    """All credentials ever seen."""
    return fetch(tx, CredentialRow, CREDENTIALS)


def put_credential(tx: Connection, row: CredentialRow) -> None:
    """Remember a credential; a known one stays as it is."""
    insert_new(tx, CREDENTIALS, values_of(row))


def token_use_count(tx: Connection, token_digest: bytes) -> int:
    """How many different requests used a token."""
    statement = select(func.count()).select_from(TOKEN_USES).where(TOKEN_USES.c.token_digest == token_digest)
    return tx.execute(statement).scalar_one()


def put_request(tx: Connection, row: RequestRow, token_digest: bytes) -> None:
    """Remember a new request and count the use of its token, together."""
    tx.execute(
        REQUESTS.insert().values(
            digest=row.digest,
            site=row.site,
            enrol=row.enrol,
            needs_approval=row.needs_approval,
            phase=row.phase,
            requested_at_s=row.requested_at_s,
        )
    )
    tx.execute(TOKEN_USES.insert().values(token_digest=token_digest, request_digest=row.digest))


def request(tx: Connection, digest: bytes) -> RequestRow | None:
    """The request of that digest."""
    return fetch_one(tx, RequestRow, REQUESTS, REQUESTS.c.digest == digest)


def pending_requests(tx: Connection, site: str | None = None) -> list[RequestRow]:
    """Requests that wait for the word of `site`, or of any site; oldest first."""
    where = [REQUESTS.c.phase == PENDING]
    if site is not None:
        where.append(REQUESTS.c.site == site)
    return fetch(tx, RequestRow, REQUESTS, *where, order_by=REQUESTS.c.requested_at_s)


def pending_count(tx: Connection) -> int:
    """How many requests wait for the word of a site."""
    statement = select(func.count()).select_from(REQUESTS).where(REQUESTS.c.phase == PENDING)
    return tx.execute(statement).scalar_one()


def decide_request(
    tx: Connection, digest: bytes, phase: str, credential_digest: bytes | None, code: str, sentence: str
) -> None:
    """Write a site's word on a pending request; a request that was decided stays as it is."""
    tx.execute(
        update(REQUESTS)
        .where(REQUESTS.c.digest == digest, REQUESTS.c.phase == PENDING)
        .values(phase=phase, credential_digest=credential_digest, code=code, sentence=sentence)
    )


def credential(tx: Connection, digest: bytes) -> CredentialRow | None:
    """The credential of that digest."""
    return fetch_one(tx, CredentialRow, CREDENTIALS, CREDENTIALS.c.digest == digest)


def devices(tx: Connection) -> list[DeviceRow]:
    """The newest flushed heartbeat of every device."""
    return fetch(tx, DeviceRow, DEVICES)


def put_heartbeats(tx: Connection, rows: Mapping[bytes, DeviceRow]) -> None:
    """Replace the heartbeats of these devices, in one statement."""
    upsert(tx, DEVICES, [values_of(row) for row in rows.values()])
