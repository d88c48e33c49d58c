"""The sealed rows that are made from others: windows, summaries, explanations. How they are packed, and bound."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from bedside.agent.buffer.codec import decode_samples, encode_samples
from bedside.agent.buffer.rows import Explanation, Moments, StoredWindow, Summary
from bedside.agent.buffer.seal import Place, Sealer
from bedside.core.errors import MalformedError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Quality
from bedside.core.unreadable import UNREADABLE

MAX_SUMMARY_BYTES: Final = 1 << 20
"""Above 1,024 channels or 256 fields."""


class _Content(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    channels: list[tuple[str, str, int, float, float, float, float]]
    gaps: int
    quality: int


_DECODER: Final = msgspec.msgpack.Decoder(_Content)


def window_place(stream: str, session: str, start_ns: int, spec: bytes) -> Place:
    """What a sealed window is bound to."""
    return ("window", stream, session, start_ns, spec)


def summary_place(stream: str, session: str, minute: int) -> Place:
    """What a sealed summary is bound to."""
    return ("summary", stream, session, minute)


def explanation_place(session: str, prediction: int) -> Place:
    """What a sealed explanation is bound to."""
    return ("explanation", session, prediction)


@dataclass(frozen=True, slots=True)
class SealedWindow:
    """A row of `windows`, ready to be inserted."""

    stream: str
    session: str
    start_ns: int
    end_ns: int
    spec: bytes
    length: int
    channels: int
    label: str
    key_id: int
    sealed: bytes


def seal_window(sealer: Sealer, window: StoredWindow) -> SealedWindow:
    """Pack and seal a window, which takes about a millisecond. Raises MalformedError `blob-format`, see `codec`."""
    place = window_place(window.stream, window.session, window.start_ns, window.spec)
    sealed = sealer.seal_row(place, encode_samples(window.values))
    length, channels = window.values.shape
    return SealedWindow(
        window.stream, window.session, window.start_ns, window.end_ns, window.spec, length, channels, window.label,
        sealer.key_id, sealed,
    )  # fmt: skip


def open_window(sealer: Sealer, row: sqlite3.Row) -> StoredWindow:
    """The window in a row of `windows`. Raises StoreError and MalformedError as `Sealer.open`."""
    content = sealer.open_row(row["sealed"], window_place(row["stream"], row["session"], row["start_ns"], row["spec"]))
    return StoredWindow(
        StreamId(row["stream"]),
        SessionId(row["session"]),
        row["start_ns"],
        row["end_ns"],
        row["spec"],
        row["label"],
        _floats(content, row["length"], row["channels"]),
    )


def seal_summary(sealer: Sealer, summary: Summary) -> bytes:
    """Pack and seal a summary."""
    channels = [(m.name, m.unit, m.count, m.mean, m.minimum, m.maximum, m.deviation) for m in summary.channels]
    content = msgspec.msgpack.encode(_Content(channels, summary.gaps, int(summary.quality)))
    return sealer.seal_row(summary_place(summary.stream, summary.session, summary.minute), content)


def open_summary(sealer: Sealer, sealed: bytes, stream: StreamId, session: SessionId, minute: int) -> Summary:
    """The summary in a row. Raises StoreError and MalformedError as `Sealer.open`."""
    content = decode_summary(sealer.open_row(sealed, summary_place(stream, session, minute)))
    channels = tuple(Moments(*channel) for channel in content.channels)
    return Summary(stream, session, minute, channels, content.gaps, Quality(content.quality))


def decode_summary(data: bytes) -> _Content:
    """Unpack the content of a summary.

    Raises:
        MalformedError: `summary-format`.
    """
    if len(data) > MAX_SUMMARY_BYTES:
        raise MalformedError("summary-format", f"a summary exceeds {MAX_SUMMARY_BYTES} bytes")
    try:
        content = _DECODER.decode(data)
    except UNREADABLE as error:
        raise MalformedError("summary-format", "a summary does not unpack") from error
    if content.gaps < 0 or not 0 <= content.quality <= max(Quality) * 2 - 1:
        raise MalformedError("summary-format", "a summary holds what cannot be")
    return content


def seal_explanation(sealer: Sealer, explanation: Explanation) -> bytes:
    """Pack and seal an explanation. Raises MalformedError `blob-format` outside the limits of a part."""
    place = explanation_place(explanation.session, explanation.prediction)
    return sealer.seal_row(place, encode_samples(explanation.weights))


def open_explanation(sealer: Sealer, row: sqlite3.Row) -> Explanation:
    """The explanation in a row of `explanations`. Raises StoreError and MalformedError as `Sealer.open`."""
    content = sealer.open_row(row["sealed"], explanation_place(row["session"], row["prediction"]))
    return Explanation(
        row["prediction"],
        SessionId(row["session"]),
        row["method"],
        _floats(content, row["segments"], row["channels"]),
        row["output"],
    )


def _floats(data: bytes, rows: int, columns: int) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = decode_samples(data, rows, columns, "float32")  # type: ignore[assignment]  # as asked for
    return values


def insert_explanation(tx: sqlite3.Connection, explanation: Explanation, sealed: bytes, key_id: int) -> bool:
    """Insert an explanation, or put it in an earlier one's place; False when its session is gone."""
    segments, channels = explanation.weights.shape
    return (
        tx.execute(
            "INSERT OR REPLACE INTO explanations"
            " (prediction, session, method, segments, channels, key_id, sealed, output)"
            " SELECT ?, session, ?, ?, ?, ?, ?, ? FROM sessions WHERE session = ?",
            (
                *(explanation.prediction, explanation.method, segments, channels, key_id, sealed, explanation.output),
                explanation.session,
            ),
        ).rowcount
        > 0
    )
