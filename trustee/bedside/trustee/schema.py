"""The tables of a trustee's database. A migration is never edited after its release."""

from __future__ import annotations

from typing import Final

from bedside.service.sqlite import Migration

MIGRATIONS: Final = (
    Migration(
        "0001 rounds",
        """
        CREATE TABLE rounds (
            plan_digest BLOB NOT NULL,
            cohort INTEGER NOT NULL,
            task TEXT NOT NULL,
            round_number INTEGER NOT NULL,
            state TEXT NOT NULL,
            plan BLOB NOT NULL,
            boot_id BLOB NOT NULL,
            changed_at_s INTEGER NOT NULL,
            seal BLOB,
            set_root BLOB,
            judged_at_s INTEGER,
            code TEXT NOT NULL DEFAULT '',
            sentence TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (plan_digest, cohort)
        );
        CREATE INDEX rounds_by_task ON rounds (task, state);
        CREATE TABLE words (
            plan_digest BLOB NOT NULL,
            cohort INTEGER NOT NULL,
            kind TEXT NOT NULL,
            signed BLOB NOT NULL,
            delivered INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (plan_digest, cohort, kind),
            FOREIGN KEY (plan_digest, cohort) REFERENCES rounds
        );
        CREATE TABLE chain (
            link INTEGER PRIMARY KEY,
            payload_digest BLOB NOT NULL,
            kind TEXT NOT NULL
        );
        CREATE TABLE floors (
            name TEXT PRIMARY KEY,
            value INTEGER NOT NULL,
            digest BLOB NOT NULL,
            signed BLOB
        )
        """,
    ),
    Migration(
        "0002 ledger",
        """
        CREATE TABLE ledger (
            entry INTEGER PRIMARY KEY,
            plan_digest BLOB NOT NULL,
            cohort INTEGER NOT NULL,
            task TEXT NOT NULL,
            round_number INTEGER NOT NULL,
            purpose INTEGER NOT NULL,
            set_root BLOB NOT NULL,
            set_size INTEGER NOT NULL,
            noise_multiplier_e6 INTEGER NOT NULL,
            charged_at_s INTEGER NOT NULL,
            digest BLOB NOT NULL,
            UNIQUE (plan_digest, cohort)
        )
        """,
    ),
    Migration(
        "0003 site",
        """
        CREATE TABLE credentials (
            digest BLOB PRIMARY KEY,
            subject TEXT NOT NULL,
            role INTEGER NOT NULL,
            label TEXT NOT NULL,
            signed BLOB NOT NULL,
            issued_at_s INTEGER NOT NULL,
            revoked_at_s INTEGER
        );
        CREATE TABLE rosters (
            version INTEGER PRIMARY KEY,
            signed BLOB NOT NULL,
            issued_at_s INTEGER NOT NULL,
            not_after_s INTEGER NOT NULL,
            published INTEGER NOT NULL DEFAULT 0
        );
        CREATE TABLE tokens (
            digest BLOB PRIMARY KEY,
            role INTEGER NOT NULL,
            label TEXT NOT NULL,
            uses INTEGER NOT NULL,
            issued_at_s INTEGER NOT NULL,
            not_after_s INTEGER NOT NULL
        );
        CREATE TABLE token_uses (
            token_digest BLOB NOT NULL,
            request_digest BLOB NOT NULL,
            PRIMARY KEY (token_digest, request_digest)
        );
        CREATE TABLE requests (
            digest BLOB PRIMARY KEY,
            fingerprint TEXT NOT NULL,
            subject TEXT NOT NULL,
            role INTEGER NOT NULL,
            label TEXT NOT NULL,
            enrol BLOB NOT NULL,
            received_at_s INTEGER NOT NULL,
            state TEXT NOT NULL,
            credential BLOB,
            code TEXT NOT NULL DEFAULT '',
            sentence TEXT NOT NULL DEFAULT '',
            sent INTEGER NOT NULL DEFAULT 0
        )
        """,
    ),
    Migration(
        "0004 past",
        """
        CREATE TABLE openings (
            plan_digest BLOB NOT NULL,
            cohort INTEGER NOT NULL,
            task TEXT NOT NULL,
            round_number INTEGER NOT NULL,
            purpose INTEGER NOT NULL,
            inputs BLOB NOT NULL,
            checkpoint BLOB NOT NULL,
            opened_at_s INTEGER NOT NULL,
            PRIMARY KEY (plan_digest, cohort)
        );
        CREATE INDEX openings_by_inputs ON openings (inputs);
        CREATE INDEX openings_by_task ON openings (task, round_number);
        CREATE INDEX openings_by_time ON openings (opened_at_s);
        CREATE INDEX openings_by_checkpoint ON openings (checkpoint);
        CREATE TABLE set_members (
            plan_digest BLOB NOT NULL,
            cohort INTEGER NOT NULL,
            site TEXT NOT NULL,
            devices BLOB NOT NULL,
            PRIMARY KEY (plan_digest, cohort, site)
        )
        """,
    ),
    Migration(
        "0005 log",
        """
        CREATE INDEX chain_by_digest ON chain (payload_digest);
        CREATE TABLE log_view (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            size INTEGER NOT NULL,
            root BLOB NOT NULL,
            frontier BLOB NOT NULL,
            cosignature BLOB NOT NULL,
            delivered INTEGER NOT NULL DEFAULT 0
        );
        CREATE TABLE foreign_words (
            position INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            plan_digest BLOB NOT NULL,
            cohort INTEGER NOT NULL,
            payload_digest BLOB NOT NULL,
            seen_at_s INTEGER NOT NULL,
            handled_at_s INTEGER
        );
        CREATE TABLE audits (
            plan_digest BLOB PRIMARY KEY,
            result_digest BLOB NOT NULL,
            drawn_at_s INTEGER NOT NULL,
            verdict BLOB,
            delivered INTEGER NOT NULL DEFAULT 0
        )
        """,
    ),
)
