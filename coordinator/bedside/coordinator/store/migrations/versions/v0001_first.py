"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bedside.coordinator.store.types import Text, Whole

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table of the first release."""
    _create_members()
    _create_rounds()
    _create_cohorts()
    _create_messages()


def _create_members() -> None:
    op.create_table(
        "rosters",
        sa.Column("site", Text(), primary_key=True),
        sa.Column("version", Whole, nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "credentials",
        sa.Column("digest", sa.LargeBinary(), primary_key=True),
        sa.Column("site", Text(), nullable=False),
        sa.Column("subject", Text(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "token_uses",
        sa.Column("token_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("request_digest", sa.LargeBinary(), primary_key=True),
    )
    op.create_table(
        "requests",
        sa.Column("digest", sa.LargeBinary(), primary_key=True),
        sa.Column("site", Text(), nullable=False, index=True),
        sa.Column("enrol", sa.LargeBinary(), nullable=False),
        sa.Column("needs_approval", sa.Boolean(), nullable=False),
        sa.Column("phase", Text(), nullable=False),
        sa.Column("credential_digest", sa.LargeBinary()),
        sa.Column("code", Text(), nullable=False),
        sa.Column("sentence", Text(), nullable=False),
        sa.Column("requested_at_s", Whole, nullable=False),
    )
    op.create_table(
        "devices",
        sa.Column("credential_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("sequence", Whole, nullable=False),
        sa.Column("last_seen_s", Whole, nullable=False),
        sa.Column("heartbeat", sa.LargeBinary(), nullable=False),
    )


def _create_rounds() -> None:
    op.create_table(
        "bundles",
        sa.Column("digest", sa.LargeBinary(), primary_key=True),
        sa.Column("name", Text(), nullable=False),
        sa.Column("version", Text(), nullable=False),
        sa.Column("signer", Text(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("tar_digest", sa.LargeBinary(), nullable=False),
        sa.Column("tar_bytes", Whole, nullable=False),
        sa.Column("checkpoint_digest", sa.LargeBinary(), nullable=False),
        sa.Column("checkpoint_bytes", Whole, nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("task", Text(), primary_key=True),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("last_round", Whole, nullable=False),
        sa.Column("state", Text(), nullable=False),
        sa.Column("reason", Text(), nullable=False),
        sa.Column("started_at_s", Whole, nullable=False),
    )
    op.create_table(
        "rounds",
        sa.Column("plan_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("task", Text(), nullable=False, index=True),
        sa.Column("number", Whole, nullable=False),
        sa.Column("plan", sa.LargeBinary(), nullable=False),
        sa.Column("started_at_s", Whole, nullable=False),
        sa.Column("finished_at_s", Whole, nullable=False),
        sa.Column("result", sa.LargeBinary()),
        sa.UniqueConstraint("task", "number"),
    )


def _create_cohorts() -> None:
    op.create_table(
        "cohorts",
        sa.Column("plan_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("cohort", Whole, primary_key=True),
        sa.Column("phase", Text(), nullable=False),
        sa.Column("phase_since_ms", Whole, nullable=False),
        sa.Column("code", Text(), nullable=False),
        sa.Column("sentence", Text(), nullable=False),
        sa.Column("headers_digest", sa.LargeBinary()),
        sa.Column("headers_bytes", Whole, nullable=False),
        sa.Column("set_size", Whole, nullable=False),
        sa.Column("sum_digest", sa.LargeBinary()),
        sa.Column("sum_bytes", Whole, nullable=False),
    )
    op.create_table(
        "phases",
        sa.Column("plan_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("cohort", Whole, primary_key=True),
        sa.Column("phase", Text(), primary_key=True),
        sa.Column("entered_ms", Whole, nullable=False),
    )


def _create_messages() -> None:
    op.create_table(
        "trustee_words",
        sa.Column("plan_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("cohort", Whole, primary_key=True),
        sa.Column("credential_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("kind", Text(), primary_key=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "uploads",
        sa.Column("header_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("plan_digest", sa.LargeBinary(), nullable=False),
        sa.Column("cohort", Whole, nullable=False),
        sa.Column("credential_digest", sa.LargeBinary(), nullable=False),
        sa.Column("header", sa.LargeBinary(), nullable=False),
        sa.Column("upload_blake3", sa.LargeBinary(), nullable=False),
        sa.Column("upload_bytes", Whole, nullable=False),
        sa.Column("sequence", Whole, nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.UniqueConstraint("plan_digest", "credential_digest"),
    )
    op.create_table(
        "refusals",
        sa.Column("plan_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("credential_digest", sa.LargeBinary(), primary_key=True),
        sa.Column("cohort", Whole, primary_key=True),
        sa.Column("code", Text(), nullable=False),
        sa.Column("sentence", Text(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "log_entries",
        sa.Column("position", Whole, primary_key=True, autoincrement=False),
        sa.Column("kind", Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
    )
