"""The log keeps its tree, typed entries, checkpoints, cosignatures and verdicts; sets keep their rosters.

Entries that are there keep their leaves (the digest alone) and with them every root that plans have committed to.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bedside.coordinator.store.types import Whole
from bedside.core.tree import grown

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the tables and hash what is there."""
    empty = sa.text("x''" if op.get_bind().dialect.name == "sqlite" else "''::bytea")
    op.add_column("cohorts", sa.Column("rosters_digest", sa.LargeBinary()))
    for name in ("leaf", "plan_digest"):
        op.add_column("log_entries", sa.Column(name, sa.LargeBinary(), nullable=False, server_default=empty))
    op.create_index("ix_log_entries_plan_digest", "log_entries", ["plan_digest"])
    op.create_table(
        "log_nodes",
        sa.Column("level", Whole, primary_key=True, autoincrement=False),
        sa.Column("place", Whole, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "log_checkpoints",
        sa.Column("size", Whole, primary_key=True, autoincrement=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "log_cosignatures",
        sa.Column("credential_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("size", Whole, nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "verdicts",
        sa.Column("plan_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("credential_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("holds", sa.Boolean(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )
    _hash_entries(op.get_bind())


def _hash_entries(connection: sa.Connection) -> None:
    connection.execute(sa.text("UPDATE log_entries SET leaf = digest"))
    nodes: dict[tuple[int, int], bytes] = {}

    def look_up(level: int, place: int) -> bytes:
        return nodes[level, place]

    statement = sa.text("INSERT INTO log_nodes (level, place, hash) VALUES (:level, :place, :hash)")
    for size, row in enumerate(
        connection.execute(sa.text("SELECT leaf FROM log_entries ORDER BY position")).fetchall()
    ):
        for level, place, value in grown(size, bytes(row[0]), look_up):
            nodes[level, place] = value
            connection.execute(statement, {"level": level, "place": place, "hash": value})
