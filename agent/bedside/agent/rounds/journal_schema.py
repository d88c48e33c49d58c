"""Tables of `journal.db`."""

from __future__ import annotations

from typing import Final

from bedside.service.sqlite import Migration

MIGRATIONS: Final = (
    Migration(
        "0001-journal",
        """
        CREATE TABLE seen_version (what TEXT PRIMARY KEY, version INTEGER NOT NULL, root BLOB NOT NULL DEFAULT x'');
        CREATE TABLE seen_round (task TEXT PRIMARY KEY, round_number INTEGER NOT NULL, plan_digest BLOB NOT NULL);
        CREATE TABLE seen_chain (trustee TEXT PRIMARY KEY, link INTEGER NOT NULL, digest BLOB NOT NULL);
        CREATE TABLE contribution (
            id INTEGER PRIMARY KEY,
            plan_digest BLOB NOT NULL UNIQUE,
            task TEXT NOT NULL,
            round_number INTEGER NOT NULL,
            state TEXT NOT NULL,
            offer BLOB,
            code TEXT NOT NULL DEFAULT '',
            sentence TEXT NOT NULL DEFAULT '',
            changed_at_ns INTEGER NOT NULL
        );
        CREATE TABLE outbox (
            plan_digest BLOB PRIMARY KEY REFERENCES contribution (plan_digest),
            header BLOB NOT NULL,
            file TEXT NOT NULL,
            size_bytes INTEGER NOT NULL
        );
        CREATE TABLE refusal (
            plan_digest BLOB PRIMARY KEY REFERENCES contribution (plan_digest),
            signed BLOB NOT NULL
        )
        """,
    ),
    Migration(
        "0002-kept",
        """
        CREATE TABLE kept (
            plan_digest BLOB PRIMARY KEY REFERENCES contribution (plan_digest),
            file TEXT NOT NULL
        )
        """,
    ),
)
