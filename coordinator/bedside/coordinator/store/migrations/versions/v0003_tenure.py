"""Whose database it is, and how often a coordinator has begun to serve from it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bedside.coordinator.store.types import Whole

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "tenure",
        sa.Column("sign_pk", sa.LargeBinary(), primary_key=True),
        sa.Column("number", Whole, nullable=False),
    )
