"""From rows of the low-rate tables, read with all their columns, to what they mean."""

from __future__ import annotations

import sqlite3

from bedside.agent.buffer.outputs import decode_outputs
from bedside.agent.buffer.rows import Label, Output, Prediction, Session
from bedside.core.errors import MalformedError
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
        row["value"],
    )


def prediction_of(row: sqlite3.Row) -> Prediction:
    """The prediction in a row of the table; damaged outputs are none, and the row's tag tells of them."""
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
        _outputs_of(row["outputs"]),
    )


def _outputs_of(data: bytes) -> tuple[Output, ...]:
    try:
        return decode_outputs(data)
    except MalformedError:
        return ()
