"""What the cap does not drop has shares of it: labels are refused, alarms make room, signal keeps its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.alarms import AlarmTable
from bedside.agent.buffer.labels import MAX_LABELS, Labels
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Alarm, Label
from bedside.agent.buffer.store import BufferStore
from bedside.agent.buffer.waiting import MAX_WAITING_LABELS
from bedside.core.errors import ProtocolError, StoreError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind
from bedside.service.platform import SystemClock, SystemEntropy

ECG = StreamId("ecg")
CAP = 1 << 20
S = 1_000_000_000
T0 = 1_700_000_000 * S


@pytest.fixture
def store(tmp_path: Path):
    opened = open_store(tmp_path)
    opened.sessions.open(ECG, T0, "cli")
    yield opened
    opened.close()


def open_store(path: Path) -> BufferStore:
    return BufferStore(path / "b.db", bytes(32), SystemClock(), SystemEntropy(), cap_bytes=CAP)


def batch(number: int) -> list[Label]:
    return [Label(ECG, "", T0 + S, T0 + S + 1, f"{number}-{index}".ljust(64, "x"), "api") for index in range(50)]


def fill(store: BufferStore) -> int:
    """Add labels until they are refused; how many there are."""
    number = 0
    with pytest.raises(ProtocolError) as error:  # noqa: PT012 - some call of many is refused
        for number in range(100):
            Labels(store).add(batch(number))
    assert (error.value.code, "forget" in error.value.remedy) == ("labels-full", True)
    return 50 * number


def rows(store: BufferStore, table: str) -> int:
    return store.database.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def raised(store: BufferStore, number: int, **times: int) -> Alarm:
    return Alarm("fall", ECG, store.sessions.current(ECG), "low", T0 + number, 0.9, **times)


def test_labels_beyond_a_quarter_of_the_cap_are_refused_whole_and_the_estimate_is_what_they_take(store) -> None:
    before = store.bytes
    stored = fill(store)
    assert rows(store, "labels") == stored > 0
    assert 0.6 * CAP / 4 < store.bytes - before < 1.1 * CAP / 4
    Labels(store).add(batch(0))  # which are there already


def test_what_was_taken_back_or_is_gone_makes_room_again_and_a_start_counts_the_same(store, tmp_path) -> None:
    connection = store.database.connection
    empty = store.quota.used_bytes(connection)
    with pytest.raises(StoreError):
        store.run("fails", lambda tx: (tx.execute("DELETE FROM sessions"), tx.execute("no such statement")))
    assert store.quota.used_bytes(connection) == empty
    fill(store)
    full = store.quota.used_bytes(connection)
    store.close()
    again = open_store(tmp_path)
    assert again.quota.used_bytes(again.database.connection) == full
    again.forget(again.sessions.current(ECG))
    assert again.quota.used_bytes(again.database.connection) == 0
    again.close()


def test_the_oldest_alarms_that_are_over_and_seen_go_first_and_one_that_is_raised_stays(store) -> None:
    table = AlarmTable(store)
    open_one, unseen, *_ = table.write(
        [raised(store, 0), raised(store, 1, cleared_ns=T0 + 9)]
        + [raised(store, n, cleared_ns=T0 + 9, acknowledged_ns=T0 + 9) for n in range(2, 1_000)]
    )
    kept = [alarm.number for alarm in table.newest(10_000, open_only=False)]
    assert kept[:2] == [open_one.number, unseen.number]
    assert kept[-1] == 1_000
    assert len(kept) < 500
    reader = BufferReader(store.database.path, bytes(32))
    assert reader.counters()["evicted-alarms"] == 1_000 - len(kept)
    reader.close()
    table.write([raised(store, n, cleared_ns=T0 + 9) for n in range(1_000)])
    kept = [alarm.number for alarm in table.newest(10_000, open_only=False)]
    assert kept[0] == open_one.number
    assert unseen.number not in kept


def test_an_alarm_that_made_room_is_put_back_when_it_is_written_again(store) -> None:
    table = AlarmTable(store)
    (first, *_) = table.write([raised(store, n, cleared_ns=T0 + 9) for n in range(1_000)])
    assert first.number not in [one.number for one in table.newest(10_000, open_only=False)]
    (again,) = table.write([replace(first, cleared_ns=0)])
    assert again == table.find(first.number)


def test_sessions_by_hand_have_a_share_and_those_of_the_signal_always_open(store) -> None:
    with pytest.raises(ProtocolError) as error:  # noqa: PT012 - some call of many is refused
        for at in range(1_000):
            store.quota.check_sessions()
            store.sessions.open(ECG, T0 + at, "adt")
    assert error.value.code == "sessions-full"
    before = rows(store, "sessions")
    store.mark(Mark(ECG, T0 + 10 * S, T0 + 10 * S, "", "adt", MarkKind.SESSION_OPEN))
    assert rows(store, "sessions") == before + 1


def test_a_buffer_whose_share_for_labels_is_full_says_so(store) -> None:
    assert store.degraded == ""
    for at in range(2_000):
        store.mark(Mark(ECG, T0 + at, T0 + at + 1, "x" * 64, "replay"))
    store.flush()
    assert "labels" in store.degraded
    assert rows(store, "labels") < 2_000
    reader = BufferReader(store.database.path, bytes(32))
    assert reader.counters()["dropped-labels"] == 2_000 - rows(store, "labels")
    reader.close()


def test_a_buffer_that_holds_less_than_a_minute_of_signal_says_so(store) -> None:
    values = np.random.default_rng(1).integers(-(2**31), 2**31, (4_000, 4), np.int32)
    for second in range(30):
        store.append(Block(ECG, T0 + second * S, 4_000.0, values))
        store.flush()
    assert "60 s" in store.degraded
    for second in range(30, 1_000, 20):
        store.append(Block(ECG, T0 + second * S, 100.0, values[:2_000]))
        store.flush()
    assert store.degraded == ""


def test_labels_of_a_source_wait_together_are_bounded_and_have_sound_names(store) -> None:
    for name in ("a\nb", "x" * 65, " ", "\u202e"):
        store.mark(Mark(ECG, T0, T0 + 1, name, "replay"))
    commits = []
    store.database.connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    for at in range(MAX_WAITING_LABELS + 5):
        store.mark(Mark(ECG, T0 + at, T0 + at + 1, "beat", "replay"))
    assert (rows(store, "labels"), commits) == (0, [])
    store.flush()
    assert len(commits) == 1
    counts = {row["name"]: row["value"] for row in store.database.rows("SELECT name, value FROM counters")}
    assert counts["refused-labels"] == 4
    assert counts["dropped-labels"] == MAX_WAITING_LABELS + 5 - rows(store, "labels")


def test_a_label_may_be_called_like_a_mark_of_a_session(store) -> None:
    session = store.sessions.current(ECG)
    for name in ("session-close", "session-open"):
        store.mark(Mark(ECG, T0, T0 + 1, name, "replay"))
    assert store.forget(session)["labels"] == 2


def test_the_same_label_is_looked_for_by_all_that_tells_it_apart(store) -> None:
    plan = store.database.rows(
        "EXPLAIN QUERY PLAN SELECT * FROM labels"
        " WHERE session = ? AND start_ns = ? AND end_ns = ? AND label = ? AND origin = ?",
        ("s", 1, 2, "x", "api"),
    )
    assert "session=? AND start_ns=? AND end_ns=? AND label=?" in plan[0]["detail"]
    assert MAX_LABELS <= 1_024
