"""What a source cannot have meant is refused alone: what other streams say is stored as if it had not been there."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.bounds import END_NS
from bedside.agent.buffer.labels import check_label
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Label, Prediction
from bedside.agent.buffer.schema import LAST_NS, first_id
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.store import BufferStore
from bedside.agent.buffer.waiting import part_row
from bedside.core.errors import BedsideError, MalformedError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Mark, MarkKind, Quality, Record
from bedside.ondevice.windows.part import NS_PER_S, Part
from bedside.service.platform import SystemClock, SystemEntropy

KEY = bytes(range(32))
T0 = 1_700_000_000 * NS_PER_S
GOOD = Block(StreamId("good"), T0, 50.0, np.zeros((10, 2), np.float32))
BAD = replace(GOOD, stream=StreamId("bad"))


@pytest.fixture
def store(tmp_path: Path):
    made = BufferStore(tmp_path / "b.db", KEY, SystemClock(), SystemEntropy())
    yield made
    made.close()


def stored(store: BufferStore) -> tuple[int, int, dict[tuple[str, str], int]]:
    """Rows of signal and predictions, and the counters by stream and name."""
    with closing(BufferReader(store.database.path, KEY)) as reader:
        rows = reader.rows()
    counters = store.database.rows("SELECT stream, name, value FROM counters")
    return rows["blobs"], rows["predictions"], {(row["stream"], row["name"]): row["value"] for row in counters}


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (replace(BAD, unit="u" * 65), "block-form"),
        (replace(BAD, unit="\ud800"), "block-form"),
        (replace(BAD, metric="m" * 70_000), "block-form"),
        (replace(BAD, metric="a\nb"), "block-form"),
        (replace(BAD, values=np.zeros((2, 1_025), np.int16)), "block-form"),
        (replace(BAD, values=np.zeros((2, 0), np.int16)), "block-form"),
        (replace(BAD, values=np.zeros((2, 2), np.float64)), "block-form"),
        (replace(BAD, values=np.zeros(2, np.int16)), "block-form"),
        *((replace(BAD, scale=scale), "block-form") for scale in (float("nan"), float("inf"))),
        *((replace(BAD, rate_hz=rate), "block-form") for rate in (1e300, 1e6 + 1, 0.0, -1.0, float("nan"))),
        (replace(BAD, rate_hz=float("inf")), "block-form"),
        *((replace(BAD, start_ns=at), "buffer-range") for at in (-1, END_NS - 1, LAST_NS, 1 << 80)),
        (replace(BAD, values=BAD.values[:0]), "empty-block"),
    ],
)
def test_a_block_outside_the_bounds_is_refused_alone(store, block, code) -> None:
    store.append(GOOD)
    with pytest.raises(BedsideError) as caught:
        store.append(block)
    assert caught.value.code == code
    assert store.flush() == 1
    assert store.sessions.current(BAD.stream) is None


def test_what_lies_just_inside_the_bounds_is_stored(store) -> None:
    for at, block in enumerate(
        [
            replace(BAD, unit="u" * 64, metric="m" * 64, scale=-1e300),
            replace(BAD, values=np.zeros((2, 1_024), np.int16), rate_hz=1e6),
            replace(BAD, start_ns=0),
            replace(BAD, start_ns=(END_NS // NS_PER_S - 1) * NS_PER_S),
        ]
    ):
        store.append(replace(block, stream=StreamId(f"s{at}")))
    assert store.flush() == 4


def test_times_that_no_column_holds_are_refused_for_records_marks_and_labels(store) -> None:
    for at_ns in (-1, END_NS, LAST_NS + 1):
        calls = (
            lambda at=at_ns: store.add_record(Record(BAD.stream, at, {"spo2": 1.0})),
            lambda at=at_ns: store.mark(Mark(BAD.stream, at, at, "", "replay", MarkKind.SESSION_OPEN)),
            lambda at=at_ns: store.mark(Mark(BAD.stream, at, at, "arm", "replay")),
            lambda at=at_ns: store.add_label(BAD.stream, 0, at, "arm", "cli"),
        )
        for call in calls:
            with pytest.raises(StoreError) as caught:
                call()
            assert caught.value.code == "buffer-range"
    with pytest.raises(MalformedError):
        check_label(Label(BAD.stream, SessionId(""), 0, END_NS, "arm", "cli"))
    with pytest.raises(StoreError):
        first_id(LAST_NS // NS_PER_S + 1, 1)
    assert store.sessions.current(BAD.stream) is None


@pytest.mark.parametrize("error", [OverflowError("int too large"), RuntimeError("whatever"), MemoryError()])
def test_a_part_that_cannot_be_sealed_is_counted_and_stops_no_other_stream(store, monkeypatch, caplog, error) -> None:
    seal = Sealer.seal

    def refuse(self: Sealer, part: Part) -> bytes:
        if part.stream == BAD.stream:
            raise error
        return seal(self, part)

    monkeypatch.setattr(Sealer, "seal", refuse)
    for second in range(3):  # the second and third complete a part, the last one is open
        at_ns = T0 + second * NS_PER_S
        store.append(replace(BAD, start_ns=at_ns))
        store.append(replace(GOOD, start_ns=at_ns))
    assert store.flush() == 3
    assert stored(store) == (3, 0, {("bad", "dropped-parts"): 3})
    assert caplog.text.count("part-dropped") == 1


def test_a_row_that_no_column_takes_costs_neither_the_commit_nor_its_neighbours(store) -> None:
    session = store.append(GOOD)
    part = Part(BAD.stream, session, T0 // NS_PER_S, T0, 50.0, GOOD.values, "1", "", 1.0, Quality.GOOD)
    row = part_row(part, b"sealed", 0, 0.0)
    store.append(BAD)
    store.group.waiting.add(replace(row, columns={**row.columns, "start_ns": LAST_NS + 1}))
    store.group.waiting.add(replace(row, columns={**row.columns, "rate_hz": float("nan")}))
    store.group.waiting.add(replace(row, second=1 << 40))
    sound = Prediction(GOOD.stream, session, T0, T0 + 1, "arm", 0.5, b"m" * 32, 0.1)
    for prediction in (sound, replace(sound, end_ns=LAST_NS + 1), replace(sound, confidence=float("nan")), sound):
        store.add_prediction(prediction)
    store.flush()
    assert stored(store) == (2, 2, {("bad", "dropped-parts"): 3, ("good", "dropped-predictions"): 2})
    assert not store.group.waiting


def test_a_second_of_many_channels_at_a_high_rate_is_cut_into_parts_that_can_be_stored(store) -> None:
    values = np.repeat(np.arange(20_000, dtype=np.int16)[:, np.newaxis], 1_024, axis=1)
    for first in range(0, len(values), 1_000):
        start_ns = T0 + first * 50_000
        session = store.append(replace(GOOD, start_ns=start_ns, rate_hz=20_000.0, values=values[first:][:1_000]))
    store.flush()
    assert stored(store)[2] == {}
    with closing(BufferReader(store.database.path, KEY)) as reader:
        (stretch,) = reader.read_range(GOOD.stream, session)
    assert np.array_equal(stretch.values, values)
