"""The tables, as SQLAlchemy knows them. `migrations/` brings a file from one version of them to the next.

Signed messages are stored as the serialised envelopes that arrived; digests are BLAKE2b-256 of their payloads (32
bytes) unless a column says BLAKE3. Columns ending in `_s` are seconds since 1970, in `_ms` milliseconds.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, LargeBinary, MetaData, Table, UniqueConstraint

from bedside.coordinator.store.types import Text, Whole

METADATA: Final = MetaData()

ROSTERS: Final = Table(
    "rosters",
    METADATA,
    Column("site", Text, primary_key=True),
    Column("version", Whole, nullable=False),
    Column("signed", LargeBinary, nullable=False),
)

CREDENTIALS: Final = Table(
    "credentials",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("site", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("signed", LargeBinary, nullable=False),
)

TOKEN_USES: Final = Table(
    "token_uses",
    METADATA,
    Column("token_digest", LargeBinary, primary_key=True),
    Column("request_digest", LargeBinary, primary_key=True),
)

REQUESTS: Final = Table(
    "requests",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("site", Text, nullable=False, index=True),
    Column("enrol", LargeBinary, nullable=False),
    Column("needs_approval", Boolean, nullable=False),
    Column("phase", Text, nullable=False),
    Column("credential_digest", LargeBinary),
    Column("code", Text, nullable=False, default=""),
    Column("sentence", Text, nullable=False, default=""),
    Column("requested_at_s", Whole, nullable=False),
)

DEVICES: Final = Table(
    "devices",
    METADATA,
    Column("credential_digest", LargeBinary, primary_key=True),
    Column("sequence", Whole, nullable=False),
    Column("last_seen_s", Whole, nullable=False),
    Column("heartbeat", LargeBinary, nullable=False),
)

BUNDLES: Final = Table(
    "bundles",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("signer", Text, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("tar_digest", LargeBinary, nullable=False),
    Column("tar_bytes", Whole, nullable=False),
    Column("checkpoint_digest", LargeBinary, nullable=False),
    Column("checkpoint_bytes", Whole, nullable=False),
)

TASKS: Final = Table(
    "tasks",
    METADATA,
    Column("task", Text, primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("last_round", Whole, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("started_at_s", Whole, nullable=False),
)

ROUNDS: Final = Table(
    "rounds",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("task", Text, nullable=False, index=True),
    Column("number", Whole, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("started_at_s", Whole, nullable=False),
    Column("finished_at_s", Whole, nullable=False, default=0),
    Column("result", LargeBinary),
    UniqueConstraint("task", "number"),
)

COHORTS: Final = Table(
    "cohorts",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("cohort", Whole, primary_key=True),
    Column("phase", Text, nullable=False),
    Column("phase_since_ms", Whole, nullable=False),
    Column("code", Text, nullable=False, default=""),
    Column("sentence", Text, nullable=False, default=""),
    Column("headers_digest", LargeBinary),
    Column("headers_bytes", Whole, nullable=False, default=0),
    Column("set_size", Whole, nullable=False, default=0),
    Column("sum_digest", LargeBinary),
    Column("sum_bytes", Whole, nullable=False, default=0),
    Column("rosters_digest", LargeBinary),
)

PHASES: Final = Table(
    "phases",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("cohort", Whole, primary_key=True),
    Column("phase", Text, primary_key=True),
    Column("entered_ms", Whole, nullable=False),
)

TRUSTEE_WORDS: Final = Table(
    "trustee_words",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("cohort", Whole, primary_key=True),
    Column("credential_digest", LargeBinary, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("signed", LargeBinary, nullable=False),
)

UPLOADS: Final = Table(
    "uploads",
    METADATA,
    Column("header_digest", LargeBinary, primary_key=True),
    Column("plan_digest", LargeBinary, nullable=False),
    Column("cohort", Whole, nullable=False),
    Column("credential_digest", LargeBinary, nullable=False),
    Column("header", LargeBinary, nullable=False),
    Column("upload_blake3", LargeBinary, nullable=False),
    Column("upload_bytes", Whole, nullable=False),
    Column("sequence", Whole, nullable=False),
    Column("accepted", Boolean, nullable=False, default=False),
    Column("counted", Boolean, nullable=False, default=False),
    UniqueConstraint("plan_digest", "credential_digest"),
)

REFUSALS: Final = Table(
    "refusals",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("credential_digest", LargeBinary, primary_key=True),
    Column("cohort", Whole, primary_key=True),
    Column("code", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("signed", LargeBinary, nullable=False),
)

LOG_ENTRIES: Final = Table(
    "log_entries",
    METADATA,
    Column("position", Whole, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    # What is hashed: a serialised LogEntry, or in the oldest logs the digest alone.
    Column("leaf", LargeBinary, nullable=False),
    Column("plan_digest", LargeBinary, nullable=False, index=True),
)

# Complete subtrees of the log's Merkle tree: (level, place) covers the entries place 2^level and on.
LOG_NODES: Final = Table(
    "log_nodes",
    METADATA,
    Column("level", Whole, primary_key=True, autoincrement=False),
    Column("place", Whole, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

LOG_CHECKPOINTS: Final = Table(
    "log_checkpoints",
    METADATA,
    Column("size", Whole, primary_key=True, autoincrement=False),
    Column("signed", LargeBinary, nullable=False),
)

# The newest of each trustee.
LOG_COSIGNATURES: Final = Table(
    "log_cosignatures",
    METADATA,
    Column("credential_digest", LargeBinary, primary_key=True),
    Column("size", Whole, nullable=False),
    Column("signed", LargeBinary, nullable=False),
)

VERDICTS: Final = Table(
    "verdicts",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("credential_digest", LargeBinary, primary_key=True),
    Column("holds", Boolean, nullable=False),
    Column("signed", LargeBinary, nullable=False),
)

# One row: the coordinator whose database this is, and how often it has begun to serve from it.
TENURE: Final = Table(
    "tenure",
    METADATA,
    Column("sign_pk", LargeBinary, primary_key=True),
    Column("number", Whole, nullable=False),
)
