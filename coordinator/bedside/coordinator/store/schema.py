"""The tables, as SQLAlchemy knows them. `migrations/` brings a file from one version of them to the next.

Signed messages are stored as the serialised envelopes that arrived; digests are BLAKE2b-256 of their payloads (32
bytes) unless a column says BLAKE3. Columns ending in `_s` are seconds since 1970, in `_ms` milliseconds.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, Integer, LargeBinary, MetaData, String, Table, UniqueConstraint

METADATA: Final = MetaData()

ROSTERS: Final = Table(
    "rosters",
    METADATA,
    Column("site", String, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("signed", LargeBinary, nullable=False),
)

CREDENTIALS: Final = Table(
    "credentials",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("site", String, nullable=False),
    Column("subject", String, nullable=False),
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
    Column("site", String, nullable=False, index=True),
    Column("enrol", LargeBinary, nullable=False),
    Column("needs_approval", Boolean, nullable=False),
    Column("phase", String, nullable=False),
    Column("credential_digest", LargeBinary),
    Column("code", String, nullable=False, default=""),
    Column("sentence", String, nullable=False, default=""),
    Column("requested_at_s", Integer, nullable=False),
)

DEVICES: Final = Table(
    "devices",
    METADATA,
    Column("credential_digest", LargeBinary, primary_key=True),
    Column("sequence", Integer, nullable=False),
    Column("last_seen_s", Integer, nullable=False),
    Column("heartbeat", LargeBinary, nullable=False),
)

BUNDLES: Final = Table(
    "bundles",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("name", String, nullable=False),
    Column("version", String, nullable=False),
    Column("signer", String, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("tar_digest", LargeBinary, nullable=False),
    Column("tar_bytes", Integer, nullable=False),
    Column("checkpoint_digest", LargeBinary, nullable=False),
    Column("checkpoint_bytes", Integer, nullable=False),
)

TASKS: Final = Table(
    "tasks",
    METADATA,
    Column("task", String, primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("last_round", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False, default=""),
    Column("started_at_s", Integer, nullable=False),
)

ROUNDS: Final = Table(
    "rounds",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("task", String, nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("started_at_s", Integer, nullable=False),
    Column("finished_at_s", Integer, nullable=False, default=0),
    Column("result", LargeBinary),
    UniqueConstraint("task", "number"),
)

COHORTS: Final = Table(
    "cohorts",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("cohort", Integer, primary_key=True),
    Column("phase", String, nullable=False),
    Column("phase_since_ms", Integer, nullable=False),
    Column("code", String, nullable=False, default=""),
    Column("sentence", String, nullable=False, default=""),
    Column("headers_digest", LargeBinary),
    Column("headers_bytes", Integer, nullable=False, default=0),
    Column("set_size", Integer, nullable=False, default=0),
    Column("sum_digest", LargeBinary),
    Column("sum_bytes", Integer, nullable=False, default=0),
    Column("rosters_digest", LargeBinary),
)

PHASES: Final = Table(
    "phases",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("cohort", Integer, primary_key=True),
    Column("phase", String, primary_key=True),
    Column("entered_ms", Integer, nullable=False),
)

TRUSTEE_WORDS: Final = Table(
    "trustee_words",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("cohort", Integer, primary_key=True),
    Column("credential_digest", LargeBinary, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("signed", LargeBinary, nullable=False),
)

UPLOADS: Final = Table(
    "uploads",
    METADATA,
    Column("header_digest", LargeBinary, primary_key=True),
    Column("plan_digest", LargeBinary, nullable=False),
    Column("cohort", Integer, nullable=False),
    Column("credential_digest", LargeBinary, nullable=False),
    Column("header", LargeBinary, nullable=False),
    Column("upload_blake3", LargeBinary, nullable=False),
    Column("upload_bytes", Integer, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("accepted", Boolean, nullable=False, default=False),
    Column("counted", Boolean, nullable=False, default=False),
    UniqueConstraint("plan_digest", "credential_digest"),
)

REFUSALS: Final = Table(
    "refusals",
    METADATA,
    Column("plan_digest", LargeBinary, primary_key=True),
    Column("credential_digest", LargeBinary, primary_key=True),
    Column("cohort", Integer, primary_key=True),
    Column("code", String, nullable=False),
    Column("sentence", String, nullable=False),
    Column("signed", LargeBinary, nullable=False),
)

LOG_ENTRIES: Final = Table(
    "log_entries",
    METADATA,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    # What is hashed: a serialised LogEntry, or in the oldest logs the digest alone.
    Column("leaf", LargeBinary, nullable=False),
    Column("plan_digest", LargeBinary, nullable=False, index=True),
)

# Complete subtrees of the log's Merkle tree: (level, place) covers the entries place 2^level and on.
LOG_NODES: Final = Table(
    "log_nodes",
    METADATA,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

LOG_CHECKPOINTS: Final = Table(
    "log_checkpoints",
    METADATA,
    Column("size", Integer, primary_key=True, autoincrement=False),
    Column("signed", LargeBinary, nullable=False),
)

# The newest of each trustee.
LOG_COSIGNATURES: Final = Table(
    "log_cosignatures",
    METADATA,
    Column("credential_digest", LargeBinary, primary_key=True),
    Column("size", Integer, nullable=False),
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
