"""Statements about what happens in a round: cohorts, words of trustees, uploads and refusals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from bedside.coordinator.store import log
from bedside.coordinator.store.rows import fetch, fetch_one, insert_new, values_of
from bedside.coordinator.store.schema import COHORTS, PHASES, REFUSALS, ROUNDS, TRUSTEE_WORDS, UPLOADS
from bedside.core.log.entries import encode_entry
from bedside.core.securesum.aggregator import CohortPhase


@dataclass(frozen=True, slots=True)
class CohortRow:
    """How far a cohort is.

    `headers_digest` names the sealed set, `rosters_digest` the rosters that it was sealed by (rounds that were sealed
    by an earlier version have none), `sum_digest` (BLAKE3) the opened sum.
    """

    plan_digest: bytes
    cohort: int
    phase: str
    phase_since_ms: int
    code: str
    sentence: str
    headers_digest: bytes | None
    headers_bytes: int
    set_size: int
    sum_digest: bytes | None
    sum_bytes: int
    rosters_digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """When a cohort entered a phase."""

    cohort: int
    phase: str
    entered_ms: int


@dataclass(frozen=True, slots=True)
class WordRow:
    """An opening, vote, answer or closing of a trustee."""

    plan_digest: bytes
    cohort: int
    credential_digest: bytes
    kind: str
    digest: bytes
    signed: bytes


@dataclass(frozen=True, slots=True)
class UploadRow:
    """A device's header, and how far its bytes are. `counted` when it is in the sealed set."""

    header_digest: bytes
    plan_digest: bytes
    cohort: int
    credential_digest: bytes
    header: bytes
    upload_blake3: bytes
    upload_bytes: int
    sequence: int
    accepted: bool
    counted: bool


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """Why a device or trustee does not take part."""

    plan_digest: bytes
    credential_digest: bytes
    cohort: int
    code: str
    sentence: str
    signed: bytes


def put_cohort(tx: Connection, plan_digest: bytes, cohort: int, phase: str, now_ms: int) -> None:
    """Remember a new cohort in its first phase."""
    values = {"plan_digest": plan_digest, "cohort": cohort, "phase": phase, "phase_since_ms": now_ms}
    tx.execute(COHORTS.insert().values(values))
    _enter(tx, plan_digest, cohort, phase, now_ms)


def cohorts(tx: Connection, plan_digest: bytes) -> list[CohortRow]:
    """The cohorts of a plan in order."""
    return fetch(tx, CohortRow, COHORTS, COHORTS.c.plan_digest == plan_digest, order_by=COHORTS.c.cohort)


def set_phase(tx: Connection, row: CohortRow, phase: str, now_ms: int, code: str = "", sentence: str = "") -> None:
    """Move a cohort to another phase; the reason is set when it failed."""
    values = {"phase": phase, "phase_since_ms": now_ms, "code": code, "sentence": sentence}
    tx.execute(update(COHORTS).where(*_cohort_is(row.plan_digest, row.cohort)).values(values))
    _enter(tx, row.plan_digest, row.cohort, phase, now_ms)


def set_sealed(
    tx: Connection,
    row: CohortRow,
    headers_digest: bytes,
    headers_bytes: int,
    rosters_digest: bytes,
    members: Iterable[bytes],
) -> None:
    """Fix the set of a cohort and log it: the blobs of its headers and rosters, the credentials of its members."""
    listed = list(members)
    values = {
        "headers_digest": headers_digest,
        "headers_bytes": headers_bytes,
        "set_size": len(listed),
        "rosters_digest": rosters_digest,
    }
    tx.execute(update(COHORTS).where(*_cohort_is(row.plan_digest, row.cohort)).values(values))
    log.append(tx, encode_entry("header-set", headers_digest, row.plan_digest, cohort=row.cohort))
    for credential_digest in listed:
        where = (UPLOADS.c.plan_digest == row.plan_digest, UPLOADS.c.credential_digest == credential_digest)
        tx.execute(update(UPLOADS).where(*where).values(counted=True))


def open_phases(tx: Connection) -> dict[str, int]:
    """How many cohorts of rounds without a result are in each phase."""
    query = (
        select(COHORTS.c.phase, func.count())
        .join(ROUNDS, ROUNDS.c.plan_digest == COHORTS.c.plan_digest)
        .where(ROUNDS.c.result.is_(None))
        .group_by(COHORTS.c.phase)
    )
    return {phase.value: 0 for phase in CohortPhase} | {str(row[0]): int(row[1]) for row in tx.execute(query)}


def set_sum(tx: Connection, plan_digest: bytes, cohort: int, sum_digest: bytes, sum_bytes: int) -> None:
    """Remember the opened sum of a cohort."""
    values = {"sum_digest": sum_digest, "sum_bytes": sum_bytes}
    tx.execute(update(COHORTS).where(*_cohort_is(plan_digest, cohort)).values(values))


def phases(tx: Connection, plan_digest: bytes) -> list[PhaseRow]:
    """When each cohort entered each phase, in that order."""
    return fetch(tx, PhaseRow, PHASES, PHASES.c.plan_digest == plan_digest, order_by=PHASES.c.entered_ms)


def put_word(tx: Connection, row: WordRow) -> WordRow:
    """Remember a trustee's word, and log it; returns the one that counts: the first of its kind stays for ever."""
    if insert_new(tx, TRUSTEE_WORDS, values_of(row)):
        _log(tx, row.kind, row.digest, row)
    kept = words(tx, row.plan_digest, row.cohort, row.kind)
    return next(word for word in kept if word.credential_digest == row.credential_digest)


def words(tx: Connection, plan_digest: bytes, cohort: int | None = None, kind: str | None = None) -> list[WordRow]:
    """The trustees' words on a plan, of one cohort and kind when given."""
    where = [TRUSTEE_WORDS.c.plan_digest == plan_digest]
    if cohort is not None:
        where.append(TRUSTEE_WORDS.c.cohort == cohort)
    if kind is not None:
        where.append(TRUSTEE_WORDS.c.kind == kind)
    return fetch(tx, WordRow, TRUSTEE_WORDS, *where)


def vote_count(tx: Connection) -> int:
    """How many votes of trustees there are."""
    statement = select(func.count()).select_from(TRUSTEE_WORDS).where(TRUSTEE_WORDS.c.kind == "vote")
    return tx.execute(statement).scalar_one()


def charged_openings(tx: Connection, task: str = "") -> list[tuple[str, bytes]]:
    """Task and signed opening of each round and trustee that has voted; of one task when it is named."""
    opening, vote = TRUSTEE_WORDS.alias("opening"), TRUSTEE_WORDS.alias("vote")
    same = [opening.c[name] == vote.c[name] for name in ("plan_digest", "cohort", "credential_digest")]
    query = (
        select(ROUNDS.c.task, opening.c.signed)
        .join(opening, opening.c.plan_digest == ROUNDS.c.plan_digest)
        .join(vote, and_(*same))
        .where(opening.c.kind == "opening", vote.c.kind == "vote")
    )
    if task:
        query = query.where(ROUNDS.c.task == task)
    return [(str(row[0]), bytes(row[1])) for row in tx.execute(query)]


def unclosed_plans(tx: Connection, credential_digest: bytes) -> list[tuple[bytes, int]]:
    """Plans and cohorts that a trustee opened and has neither answered nor closed."""
    mine = fetch(tx, WordRow, TRUSTEE_WORDS, TRUSTEE_WORDS.c.credential_digest == credential_digest)
    ended = {(word.plan_digest, word.cohort) for word in mine if word.kind in ("answer", "closed")}
    return [key for word in mine if (key := (word.plan_digest, word.cohort)) not in ended and word.kind == "opening"]


def put_upload(tx: Connection, row: UploadRow) -> UploadRow:
    """Remember a device's header; returns the one that counts: the first for its plan stays."""
    insert_new(tx, UPLOADS, values_of(row))
    where = (UPLOADS.c.plan_digest == row.plan_digest, UPLOADS.c.credential_digest == row.credential_digest)
    kept = fetch_one(tx, UploadRow, UPLOADS, *where)
    return row if kept is None else kept


def upload(tx: Connection, header_digest: bytes) -> UploadRow | None:
    """The upload whose header has that digest."""
    return fetch_one(tx, UploadRow, UPLOADS, UPLOADS.c.header_digest == header_digest)


def uploads(tx: Connection, plan_digest: bytes, cohort: int | None = None) -> list[UploadRow]:
    """The uploads to a plan in the order of their credentials."""
    where = [UPLOADS.c.plan_digest == plan_digest]
    if cohort is not None:
        where.append(UPLOADS.c.cohort == cohort)
    return fetch(tx, UploadRow, UPLOADS, *where, order_by=UPLOADS.c.credential_digest)


def accept_upload(tx: Connection, header_digest: bytes) -> None:
    """All bytes are durable and match."""
    tx.execute(update(UPLOADS).where(UPLOADS.c.header_digest == header_digest).values(accepted=True))


def put_refusal(tx: Connection, row: RefusalRow) -> bool:
    """Remember why a device does not take part; the first word stays. Whether this is it."""
    return insert_new(tx, REFUSALS, values_of(row))


def put_trustee_refusal(tx: Connection, row: RefusalRow, payload_digest: bytes) -> bool:
    """Remember why a trustee does not take part, and log it; the first word stays. Whether this is it."""
    is_first = insert_new(tx, REFUSALS, values_of(row))
    if is_first:
        _log(tx, "refusal", payload_digest, row)
    return is_first


def refusals(tx: Connection, plan_digest: bytes) -> list[RefusalRow]:
    """All refusals of a plan."""
    return fetch(tx, RefusalRow, REFUSALS, REFUSALS.c.plan_digest == plan_digest)


def _log(tx: Connection, kind: str, payload_digest: bytes, row: WordRow | RefusalRow) -> None:
    """In the transaction that stores the word: log and rounds are never out of step."""
    leaf = encode_entry(
        kind, payload_digest, row.plan_digest, cohort=row.cohort, credential_digest=row.credential_digest
    )
    log.append(tx, leaf)


def _enter(tx: Connection, plan_digest: bytes, cohort: int, phase: str, now_ms: int) -> None:
    values = {"plan_digest": plan_digest, "cohort": cohort, "phase": phase, "entered_ms": now_ms}
    insert_new(tx, PHASES, values)


def _cohort_is(plan_digest: bytes, cohort: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (COHORTS.c.plan_digest == plan_digest, COHORTS.c.cohort == cohort)
