"""From rows of the low-rate tables, read with all their columns, to what they mean."""

from __future__ import annotations

import sqlite3

from bedside.agent.buffer.rows import Label, Prediction, Session
from bedside.core.ids import SessionId, StreamId


def session_of(row: sqlite3.Row) -> Session:
    """The session in a row of the table."""
    return Session(
        SessionId(row["session"]),
        StreamId(row["stream"]),
        row["opened_ns"],
        row["closed_ns"],
        bool(row["consent_training"]),
        row["origin"],
        row["expired_ns"],
        row["raw_ns"],
        row["anchor_ns"],
    )


def label_of(row: sqlite3.Row) -> Label:
    """The label in a row of the table."""
    return Label(
        StreamId(row["stream"]),
        SessionId(row["session"]),
        row["start_ns"],
        row["end_ns"],
        row["label"],
        row["origin"],
        bool(row["withdrawn"]),
        row["id"],
    )


def prediction_of(row: sqlite3.Row) -> Prediction:
    """The prediction in a row of the table."""
    return Prediction(
        StreamId(row["stream"]),
        SessionId(row["session"]),
        row["start_ns"],
        row["end_ns"],
        row["label"],
        row["confidence"],
        row["model"],
        row["latency_s"],
        row["model_name"],
        row["id"],
    )
