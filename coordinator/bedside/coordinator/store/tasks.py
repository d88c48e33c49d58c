"""Statements about bundles, tasks and rounds. Plans and results are logged as they are stored."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, desc, func, select, update

from bedside.coordinator.store import log
from bedside.coordinator.store.rows import fetch, fetch_one, insert_new, upsert, values_of
from bedside.coordinator.store.schema import BUNDLES, COHORTS, ROUNDS, TASKS
from bedside.core.log.entries import encode_entry
from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.signing import digest
from bedside.proto.v1.common_pb2 import Signed

RUNNING = "running"
STOPPING = "stopping"
FINISHED = "finished"
FAILED = "failed"
STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class BundleRow:
    """An imported bundle; its files are blobs."""

    digest: bytes
    name: str
    version: str
    signer: str
    manifest: bytes
    tar_digest: bytes
    tar_bytes: int
    checkpoint_digest: bytes
    checkpoint_bytes: int


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task: what was asked for, the last round it shall have, and how it stands."""

    task: str
    request: bytes
    last_round: int
    state: str
    reason: str
    started_at_s: int


@dataclass(frozen=True, slots=True)
class RoundRow:
    """A round; it is open until it has a result."""

    plan_digest: bytes
    task: str
    number: int
    plan: bytes
    started_at_s: int
    finished_at_s: int
    result: bytes | None


def put_bundle(tx: Connection, row: BundleRow) -> None:
    """Remember an imported bundle; importing it again changes nothing."""
    insert_new(tx, BUNDLES, values_of(row))


def bundle(tx: Connection, digest: bytes) -> BundleRow | None:
    """The bundle of that digest."""
    return fetch_one(tx, BundleRow, BUNDLES, BUNDLES.c.digest == digest)


def put_task(tx: Connection, row: TaskRow) -> None:
    """Start a task, or start it again with other parameters."""
    upsert(tx, TASKS, [values_of(row)])


def task(tx: Connection, name: str) -> TaskRow | None:
    """The task of that name."""
    return fetch_one(tx, TaskRow, TASKS, TASKS.c.task == name)


def active_tasks(tx: Connection) -> list[TaskRow]:
    """Tasks that still have something to do."""
    return fetch(tx, TaskRow, TASKS, TASKS.c.state.in_((RUNNING, STOPPING)), order_by=TASKS.c.task)


def set_task_state(tx: Connection, name: str, state: str, reason: str = "") -> None:
    """Change how a task stands."""
    tx.execute(update(TASKS).where(TASKS.c.task == name).values(state=state, reason=reason))


def put_round(tx: Connection, row: RoundRow) -> None:
    """Remember a new plan, which is the log's next entry."""
    tx.execute(
        ROUNDS.insert().values(
            plan_digest=row.plan_digest, task=row.task, number=row.number, plan=row.plan, started_at_s=row.started_at_s
        )
    )
    log.append(tx, encode_entry("plan", row.plan_digest, row.plan_digest))


def finish_round(tx: Connection, plan_digest: bytes, result: Signed, now_s: int) -> None:
    """Close a round with its signed result, and log that; a round that has one keeps it."""
    encoded = result.SerializeToString(deterministic=True)
    done = tx.execute(
        update(ROUNDS)
        .where(ROUNDS.c.plan_digest == plan_digest, ROUNDS.c.result.is_(None))
        .values(result=encoded, finished_at_s=now_s)
    )
    if done.rowcount:
        log.append(tx, encode_entry("result", digest(result.payload), plan_digest))


def round_by_plan(tx: Connection, plan_digest: bytes) -> RoundRow | None:
    """The round of that plan."""
    return fetch_one(tx, RoundRow, ROUNDS, ROUNDS.c.plan_digest == plan_digest)


def round_of_task(tx: Connection, name: str, number: int = 0) -> RoundRow | None:
    """A round of a task by number; 0 is the newest."""
    where = [ROUNDS.c.task == name] if name else []
    if number:
        where.append(ROUNDS.c.number == number)
    rows = fetch(tx, RoundRow, ROUNDS, *where, order_by=desc(_age()), limit=1)
    return rows[0] if rows else None


def open_rounds(tx: Connection) -> list[RoundRow]:
    """Rounds without a result, oldest first."""
    return fetch(tx, RoundRow, ROUNDS, ROUNDS.c.result.is_(None), order_by=_age())


def newest_opened(tx: Connection) -> RoundRow | None:
    """The newest round that has a result in which a sum was opened."""
    opened = select(COHORTS.c.plan_digest).where(COHORTS.c.phase == CohortPhase.OPENED.value)
    where = (ROUNDS.c.result.is_not(None), ROUNDS.c.plan_digest.in_(opened))
    rows = fetch(tx, RoundRow, ROUNDS, *where, order_by=desc(_age()), limit=1)
    return rows[0] if rows else None


def rounds(tx: Connection, name: str, limit: int) -> list[RoundRow]:
    """The newest rounds, of one task or (with an empty name) of all; newest first."""
    where = [ROUNDS.c.task == name] if name else []
    return fetch(tx, RoundRow, ROUNDS, *where, order_by=desc(_age()), limit=limit)


def states(tx: Connection) -> dict[str, int]:
    """How many tasks are in each state."""
    counted = {
        str(row[0]): int(row[1]) for row in tx.execute(select(TASKS.c.state, func.count()).group_by(TASKS.c.state))
    }
    return dict.fromkeys((RUNNING, STOPPING, FINISHED, FAILED, STOPPED), 0) | counted


def outcomes(tx: Connection) -> dict[str, int]:
    """How many rounds have ended with an opened sum, and how many without one."""
    opened = select(COHORTS.c.plan_digest).where(COHORTS.c.phase == CohortPhase.OPENED.value)
    finished = select(func.count()).select_from(ROUNDS).where(ROUNDS.c.result.is_not(None))
    all_count = tx.execute(finished).scalar_one()
    opened_count = tx.execute(finished.where(ROUNDS.c.plan_digest.in_(opened))).scalar_one()
    return {"opened": opened_count, "failed": all_count - opened_count}


def _age() -> ColumnElement[int]:
    """Rounds in the order in which they were made, within and across tasks."""
    return ROUNDS.c.started_at_s * 1_000_000 + ROUNDS.c.number
