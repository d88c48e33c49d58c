"""Tables of the buffer. Every row carries its session.

The key of a blob or a record is its place: second, stream number, part number. It needs no further index, so that one
second of signal dirties as few pages as it can (an index would cost another 4 KiB per commit and stream), and the rows
of one stream's second are one range. A summary has the same key, of its minute.

A session's `expired_ns` is how far retention has come (`LAST_NS`: nothing raw is left). Where that cut a gap-free run,
`raw_ns` is the start of its first part that is still there, and `anchor_ns` the start of the run, from which windows
are counted.

Predictions, changes of alarms (`changed`) and records that a sink wants (`number`) are numbered in the order in which
they were stored: the tables are the queues of the sinks, and `deliveries` says how far each has come
(docs/adr/0020-the-buffer-is-the-queue.md).

A label's `value` is NULL where it only names a class. A prediction's `outputs` are those of a model without classes
(`buffer.outputs`), and an explanation's `output` is the one that it explains.

A stream's `refused` says that its newest session must not be trained on because somebody said so: those that begin by
themselves take that over, also when the session is forgotten.
"""

from __future__ import annotations

from typing import Final

from bedside.core.errors import StoreError
from bedside.service.sqlite import Migration

STREAM_BITS: Final = 12
PART_BITS: Final = 12
MAX_STREAMS: Final = 1 << STREAM_BITS
MAX_PARTS: Final = 1 << PART_BITS
LAST_NS: Final = (1 << 63) - 1
ID_PER_SECOND: Final = 1 << (STREAM_BITS + PART_BITS)

SALVAGE: Final = "see `bedside agent db verify DIR`; the agent keeps what proves itself when it starts the next time"
"""What to do about a damaged buffer: unlike other databases, it needs no backup."""

OF_A_SESSION: Final = (
    "blobs",
    "records",
    "windows",
    "summaries",
    "labels",
    "predictions",
    "explanations",
    "alarms",
    "counters",
    "sessions",
)
"""Tables whose rows belong to a session, and go with it."""

RAW_TABLES: Final = ("blobs", "records")
"""Tables of what sensors said, keyed by second, stream and part."""

MIGRATIONS: Final = (
    Migration(
        "buffer-1",
        """
        CREATE TABLE streams (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
        CREATE TABLE sessions (
            number INTEGER PRIMARY KEY, session TEXT NOT NULL UNIQUE, stream TEXT NOT NULL,
            opened_ns INTEGER NOT NULL, closed_ns INTEGER, consent_training INTEGER NOT NULL, origin TEXT NOT NULL);
        CREATE INDEX sessions_stream ON sessions (stream, opened_ns);
        CREATE TABLE blobs (
            id INTEGER PRIMARY KEY, session TEXT NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
            rate_hz REAL NOT NULL, samples INTEGER NOT NULL, channels INTEGER NOT NULL, dtype TEXT NOT NULL,
            flags INTEGER NOT NULL, sealed BLOB NOT NULL);
        CREATE TABLE labels (
            id INTEGER PRIMARY KEY, stream TEXT NOT NULL, session TEXT NOT NULL, start_ns INTEGER NOT NULL,
            end_ns INTEGER NOT NULL, label TEXT NOT NULL, origin TEXT NOT NULL, withdrawn INTEGER NOT NULL DEFAULT 0);
        CREATE INDEX labels_session ON labels (session, start_ns);
        CREATE TABLE predictions (
            id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, session TEXT NOT NULL,
            start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, label TEXT NOT NULL, confidence REAL NOT NULL,
            model BLOB NOT NULL,
            latency_s REAL NOT NULL);
        CREATE TABLE counters (
            stream TEXT NOT NULL, session TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL,
            PRIMARY KEY (stream, session, name)) WITHOUT ROWID;
        """,
    ),
    Migration(
        "buffer-2",
        """
        ALTER TABLE blobs ADD COLUMN key_id INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE predictions ADD COLUMN model_name TEXT NOT NULL DEFAULT '';
        ALTER TABLE sessions ADD COLUMN expired_ns INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE sessions ADD COLUMN raw_ns INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE sessions ADD COLUMN anchor_ns INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX sessions_raw ON sessions (number) WHERE expired_ns < 9223372036854775807;
        CREATE TABLE records (
            id INTEGER PRIMARY KEY, session TEXT NOT NULL, time_ns INTEGER NOT NULL, key_id INTEGER NOT NULL,
            sealed BLOB NOT NULL);
        CREATE TABLE windows (
            id INTEGER PRIMARY KEY, stream TEXT NOT NULL, session TEXT NOT NULL, start_ns INTEGER NOT NULL,
            end_ns INTEGER NOT NULL, spec BLOB NOT NULL, length INTEGER NOT NULL, channels INTEGER NOT NULL,
            label TEXT NOT NULL, key_id INTEGER NOT NULL, sealed BLOB NOT NULL);
        CREATE UNIQUE INDEX windows_place ON windows (session, spec, start_ns);
        CREATE INDEX windows_end ON windows (end_ns);
        CREATE INDEX labels_end ON labels (end_ns);
        CREATE TABLE summaries (
            id INTEGER PRIMARY KEY, session TEXT NOT NULL, key_id INTEGER NOT NULL, sealed BLOB NOT NULL);
        CREATE TABLE explanations (
            prediction INTEGER PRIMARY KEY, session TEXT NOT NULL, method TEXT NOT NULL, segments INTEGER NOT NULL,
            channels INTEGER NOT NULL, key_id INTEGER NOT NULL, sealed BLOB NOT NULL);
        CREATE INDEX explanations_session ON explanations (session);
        CREATE TABLE alarms (
            id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL, stream TEXT NOT NULL, session TEXT NOT NULL,
            priority TEXT NOT NULL, raised_ns INTEGER NOT NULL, value REAL NOT NULL,
            prediction INTEGER NOT NULL DEFAULT 0, cleared_ns INTEGER NOT NULL DEFAULT 0,
            acknowledged_ns INTEGER NOT NULL DEFAULT 0, acknowledged_by TEXT NOT NULL DEFAULT '',
            escalated_ns INTEGER NOT NULL DEFAULT 0);
        ALTER TABLE streams ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX alarms_session ON alarms (session);
        CREATE INDEX alarms_open ON alarms (rule, stream) WHERE cleared_ns = 0 OR acknowledged_ns = 0;
        """,
    ),
    Migration(
        "buffer-3",
        """
        CREATE TABLE seal_keys (key_id INTEGER PRIMARY KEY, tag INTEGER NOT NULL DEFAULT -1);
        ALTER TABLE streams ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        ALTER TABLE sessions ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        ALTER TABLE blobs ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        ALTER TABLE records ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        ALTER TABLE windows ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        ALTER TABLE summaries ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        ALTER TABLE labels ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        ALTER TABLE predictions ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        ALTER TABLE explanations ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        ALTER TABLE alarms ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        ALTER TABLE counters ADD COLUMN tag INTEGER NOT NULL DEFAULT -1;
        DROP INDEX labels_session;
        CREATE INDEX labels_place ON labels (session, start_ns, end_ns, label);
        """,
    ),
    Migration(
        "buffer-4",
        """
        CREATE TABLE quarantine (
            id INTEGER PRIMARY KEY, source TEXT NOT NULL, reason TEXT NOT NULL, what TEXT NOT NULL,
            count INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
            tag INTEGER NOT NULL DEFAULT -1);
        CREATE UNIQUE INDEX quarantine_kind ON quarantine (source, reason, what);
        CREATE TABLE deliveries (
            sink TEXT NOT NULL, what TEXT NOT NULL, number INTEGER NOT NULL, sent INTEGER NOT NULL,
            skipped INTEGER NOT NULL, refused INTEGER NOT NULL, sent_ns INTEGER NOT NULL, done_ns INTEGER NOT NULL,
            tag INTEGER NOT NULL DEFAULT -1, PRIMARY KEY (sink, what)) WITHOUT ROWID;
        ALTER TABLE alarms ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX alarms_changed ON alarms (changed);
        ALTER TABLE records ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX records_number ON records (number) WHERE number > 0;
        UPDATE alarms SET tag = -1;
        UPDATE records SET tag = -1;
        PRAGMA application_id = 0;
        """,
    ),
    Migration(
        "buffer-5",
        """
        ALTER TABLE labels ADD COLUMN value REAL;
        ALTER TABLE predictions ADD COLUMN outputs BLOB NOT NULL DEFAULT x'';
        ALTER TABLE explanations ADD COLUMN output TEXT NOT NULL DEFAULT '';
        UPDATE labels SET tag = -1;
        UPDATE predictions SET tag = -1;
        UPDATE explanations SET tag = -1;
        PRAGMA application_id = 0;
        """,
    ),
)


def first_id(second: int, stream_number: int) -> int:
    """Id of part 0 of a stream's second.

    Raises:
        StoreError: `buffer-range` before 1970, or where the columns of times end, in April 2262.
    """
    if not 0 <= second <= LAST_NS // 1_000_000_000 or not 0 <= stream_number < MAX_STREAMS:
        raise StoreError("buffer-range", "a sample's time or its stream number cannot be stored")
    return (second << (STREAM_BITS + PART_BITS)) | (stream_number << PART_BITS)


def ids_of(second: int, stream_number: int) -> tuple[int, int]:
    """First and last id of a stream's second. Raises as `first_id`."""
    first = first_id(second, stream_number)
    return first, first + MAX_PARTS - 1


def second_of(blob_id: int) -> int:
    """The second in a blob's id."""
    return blob_id >> (STREAM_BITS + PART_BITS)


def stream_number_of(blob_id: int) -> int:
    """The stream number in a blob's id."""
    return (blob_id >> PART_BITS) & (MAX_STREAMS - 1)
