"""Statements about the append-only log, its checkpoints, and what trustees say about it.

Invariants:
    * An entry is appended in the transaction that stores what it is about; positions have no gaps.
    * Complete subtrees are stored when they become complete and never change, so that appending costs O(1) on average,
      and a root, path or proof of any size O(log^2 n) reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Connection, desc, func, select

from bedside.coordinator.store.rows import fetch, insert_new, upsert, values_of
from bedside.coordinator.store.schema import LOG_CHECKPOINTS, LOG_COSIGNATURES, LOG_ENTRIES, LOG_NODES, VERDICTS
from bedside.core.errors import MalformedError
from bedside.core.log.entries import NAMES, encode_entry, read_entry
from bedside.core.tree import Node, consistency_at, grown, inclusion_at, root_at


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One entry; `leaf` is what is hashed."""

    position: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A signed checkpoint of that size."""

    size: int
    signed: bytes


@dataclass(frozen=True, slots=True)
class CosignatureRow:
    """A trustee's newest cosignature."""

    credential_digest: bytes
    size: int
    signed: bytes


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """A trustee's word on a round that it has recomputed."""

    plan_digest: bytes
    credential_digest: bytes
    holds: bool
    signed: bytes


def append(tx: Connection, leaf: bytes) -> int:
    """Add an entry; returns its position."""
    entry = read_entry(leaf)
    position = size(tx)
    values = {
        "position": position,
        "kind": NAMES[entry.kind],
        "digest": entry.payload_digest,
        "leaf": leaf,
        "plan_digest": entry.plan_digest,
    }
    tx.execute(LOG_ENTRIES.insert().values(values))
    nodes = [{"level": level, "place": place, "hash": value} for level, place, value in grown(position, leaf, node(tx))]
    tx.execute(LOG_NODES.insert(), nodes)
    return position


def size(tx: Connection) -> int:
    """How many entries there are."""
    newest = tx.execute(select(func.max(LOG_ENTRIES.c.position))).scalar_one()
    return 0 if newest is None else int(newest) + 1


def node(tx: Connection) -> Node:
    """Looks up complete subtrees."""

    def look_up(level: int, place: int) -> bytes:
        where = (LOG_NODES.c.level == level, LOG_NODES.c.place == place)
        return bytes(tx.execute(select(LOG_NODES.c.hash).where(*where)).scalar_one())

    return look_up


def root(tx: Connection, at_size: int) -> bytes:
    """The root that the log had at that size."""
    return root_at(at_size, node(tx))


def consistency(tx: Connection, old: int, new: int) -> list[bytes]:
    """Proof that the log of `new` entries begins with the one of `old` entries.

    Raises:
        MalformedError: `no-such-log`, when there are fewer entries than that.
    """
    _check_range(tx, old, new)
    return consistency_at(old, new, node(tx))


def inclusions(tx: Connection, positions: Sequence[int], at_size: int) -> list[list[bytes]]:
    """The audit paths of entries in the log of `at_size` entries; raises as `consistency`."""
    for position in positions:
        _check_range(tx, position + 1, at_size)
    look_up = cache(node(tx))  # neighbours share most of their paths
    return [inclusion_at(position, at_size, look_up) for position in positions]


def leaves(tx: Connection, first: int, count: int) -> list[bytes]:
    """Leaves from `first` on, at most `count`."""
    where = (LOG_ENTRIES.c.position >= first, LOG_ENTRIES.c.position < first + count)
    return [row.leaf for row in fetch(tx, EntryRow, LOG_ENTRIES, *where, order_by=LOG_ENTRIES.c.position)]


def entries_of(tx: Connection, plan_digest: bytes) -> list[EntryRow]:
    """All typed entries of a round, in their order."""
    where = LOG_ENTRIES.c.plan_digest == plan_digest
    return fetch(tx, EntryRow, LOG_ENTRIES, where, order_by=LOG_ENTRIES.c.position)


def untyped_entries(tx: Connection, *digests: bytes) -> list[EntryRow]:
    """Entries from before entries had types, by the digests they hold."""
    return fetch(tx, EntryRow, LOG_ENTRIES, LOG_ENTRIES.c.leaf.in_(digests), order_by=LOG_ENTRIES.c.position)


def newest_checkpoint(tx: Connection) -> CheckpointRow | None:
    """The checkpoint of the largest size."""
    rows = fetch(tx, CheckpointRow, LOG_CHECKPOINTS, order_by=desc(LOG_CHECKPOINTS.c.size), limit=1)
    return rows[0] if rows else None


def put_checkpoint(tx: Connection, row: CheckpointRow) -> None:
    """Remember a signed checkpoint: one for each size that was asked for."""
    tx.execute(LOG_CHECKPOINTS.insert().values(size=row.size, signed=row.signed))


def put_cosignature(tx: Connection, row: CosignatureRow) -> None:
    """Remember a trustee's cosignature unless it has vouched for a larger log already."""
    upsert(tx, LOG_COSIGNATURES, [values_of(row)], where=LOG_COSIGNATURES.c.size < row.size)


def cosignatures(tx: Connection) -> list[CosignatureRow]:
    """The newest cosignature of every trustee."""
    return fetch(tx, CosignatureRow, LOG_COSIGNATURES, order_by=LOG_COSIGNATURES.c.credential_digest)


def put_verdict(tx: Connection, row: VerdictRow, payload_digest: bytes) -> bool:
    """Remember a verdict and log it; the first of a trustee on a round stays. Whether it is new."""
    fresh = insert_new(tx, VERDICTS, values_of(row))
    if fresh:
        append(tx, encode_entry("verdict", payload_digest, row.plan_digest, credential_digest=row.credential_digest))
    return fresh


def verdicts(tx: Connection, limit: int) -> list[VerdictRow]:
    """The newest verdicts, newest first."""
    where = LOG_ENTRIES.c.kind == "verdict"
    newest = select(LOG_ENTRIES.c.plan_digest).where(where).order_by(desc(LOG_ENTRIES.c.position)).limit(limit)
    plans = [bytes(row[0]) for row in tx.execute(newest)]
    rows = fetch(tx, VerdictRow, VERDICTS, VERDICTS.c.plan_digest.in_(plans))
    return sorted(rows, key=lambda row: plans.index(row.plan_digest))[:limit]


def _check_range(tx: Connection, old: int, new: int) -> None:
    if not 0 <= old <= new <= size(tx):
        raise MalformedError("no-such-log", f"the log never had {old} entries before {new}")
