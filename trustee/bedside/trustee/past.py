"""What this trustee opened before, and for whom: the memory behind quotas and the differencing guard (rule T4).

Invariants:
    * An opening is noted in the transaction that stores it, a set's members in the one that stores the vote: after
      kill -9 either both are there or neither, so that no sum is opened that a later set is not compared with.
    * A set counts from its vote on, unless its key was burned: what was lost may have been answered.
    * Nothing is ever removed; a device costs 16 bytes per set.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from bedside.core.policy.history import PastRound
from bedside.core.policy.sets import EarlierSet, Members
from bedside.core.securesum.trustee import TrusteeState
from bedside.proto.v1.plan_pb2 import PURPOSE_EVALUATE, Plan

DEVICE_NAME_BYTES: Final = 16
"""Bytes of a credential's digest that name a device here: nobody finds two credentials that share them."""

MAY_BE_OPEN: Final = (TrusteeState.VOTED, TrusteeState.ANSWERED, TrusteeState.LOST)
"""States of a round whose set was voted for, in which its sum may be known to the coordinator."""


def note_opening(tx: sqlite3.Connection, key: tuple[bytes, int], plan: Plan, inputs: bytes, at_s: int) -> None:
    """Remember a round that is opened, inside the caller's transaction."""
    tx.execute(
        "INSERT INTO openings (plan_digest, cohort, task, round_number, purpose, inputs, checkpoint, opened_at_s)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*key, plan.task, plan.round_number, plan.purpose, inputs, plan.checkpoint.digest, at_s),
    )


def note_members(tx: sqlite3.Connection, key: tuple[bytes, int], members: Members) -> None:
    """Remember a set that is voted for, inside the caller's transaction."""
    rows = [(*key, site, b"".join(sorted(devices))) for site, devices in sorted(members.items())]
    tx.executemany("INSERT INTO set_members (plan_digest, cohort, site, devices) VALUES (?, ?, ?, ?)", rows)


def past_rounds(connection: sqlite3.Connection, since_s: int, checkpoint: bytes) -> list[PastRound]:
    """What `judge_history` judges by: all openings since then, and all evaluations of one checkpoint."""
    rows = connection.execute(
        "SELECT purpose, checkpoint, opened_at_s FROM openings WHERE opened_at_s > ?"
        " OR (checkpoint = ? AND purpose = ?)",
        (since_s, checkpoint, PURPOSE_EVALUATE),
    )
    return [PastRound(row["purpose"], bytes(row["checkpoint"]), row["opened_at_s"]) for row in rows]


def opened_plan(connection: sqlite3.Connection, task: str, round_number: int) -> tuple[bytes, bytes] | None:
    """Plan digest and checkpoint of a round that this trustee opened."""
    query = "SELECT plan_digest, checkpoint FROM openings WHERE task = ? AND round_number = ?"
    row = connection.execute(query, (task, round_number)).fetchone()
    return (bytes(row["plan_digest"]), bytes(row["checkpoint"])) if row else None


def sets_of_inputs(connection: sqlite3.Connection, inputs: bytes) -> Iterator[EarlierSet]:
    """Every set that may be open over the same inputs, in any task, newest first."""
    return _sets(connection, "openings.inputs = ?", (inputs,))


def sets_of_task(connection: sqlite3.Connection, task: str, limit: int) -> Iterator[EarlierSet]:
    """The last sets of a task that may be open, newest first."""
    return _sets(connection, "openings.task = ?", (task,), limit)


def _sets(
    connection: sqlite3.Connection, where: str, values: tuple[bytes | str, ...], limit: int = -1
) -> Iterator[EarlierSet]:
    marks = ", ".join("?" * len(MAY_BE_OPEN))
    rows = connection.execute(
        "SELECT openings.* FROM openings JOIN rounds USING (plan_digest, cohort)"
        f" WHERE {where} AND rounds.set_root IS NOT NULL AND rounds.state IN ({marks})"
        " ORDER BY openings.rowid DESC LIMIT ?",
        (*values, *(state.value for state in MAY_BE_OPEN), limit),
    ).fetchall()
    for row in rows:
        members = _members(connection, (bytes(row["plan_digest"]), row["cohort"]))
        yield EarlierSet(row["task"], row["round_number"], members)


def _members(connection: sqlite3.Connection, key: tuple[bytes, int]) -> Members:
    query = "SELECT site, devices FROM set_members WHERE plan_digest = ? AND cohort = ?"
    return {row["site"]: _names(bytes(row["devices"])) for row in connection.execute(query, key)}


def _names(joined: bytes) -> frozenset[bytes]:
    return frozenset(joined[at : at + DEVICE_NAME_BYTES] for at in range(0, len(joined), DEVICE_NAME_BYTES))
