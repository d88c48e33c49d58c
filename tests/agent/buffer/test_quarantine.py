"""The quarantine: every count arrives, in few rows, and nothing in them is anybody's."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.agent.buffer import waiting
from bedside.agent.buffer.inspection import describe, verify
from bedside.agent.buffer.quarantine import OTHER, quarantined
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Quarantined
from bedside.agent.buffer.schema import MIGRATIONS
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.store import MIN_CAP_BYTES, BufferStore
from bedside.agent.buffer.tags import NO_TAG
from bedside.agent.buffer.waiting import Waiting
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Unmapped
from bedside.core.vocabulary.reading import Reason
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.sqlite import open_database

KEY = bytes(range(32))
T0 = 1_700_000_000_000_000_000


def open_store(path, **options) -> BufferStore:
    return BufferStore(path, KEY, SystemClock(), SystemEntropy(), **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "b.db"


def stored(path, source: str = "", reason: str = "") -> list[Quarantined]:
    with closing(BufferReader(path, KEY)) as reader:
        found = reader.quarantine(source, reason)
        assert reader.unreadable == 0
    return found


def unmapped(what: str = "hr", count: int = 1, at: int = 0, source: str = "ward", reason: str = "unknown-code"):
    return Unmapped(source, reason, what, T0 + at, count)


def test_counts_of_a_kind_are_added_up_with_its_first_and_last_time(path) -> None:
    store = open_store(path)
    for at, count in ((5, 1), (2, 3), (9, 1)):
        store.quarantine(unmapped(count=count, at=at))
    store.quarantine(unmapped("spo2", at=4))
    store.flush()
    store.quarantine(unmapped(count=10, at=1))
    store.quarantine(unmapped(reason=Reason.BAD_TIME, at=7))
    store.close()
    assert stored(path) == [
        Quarantined("ward", "bad-time", "hr", 1, T0 + 7, T0 + 7),
        Quarantined("ward", "unknown-code", "hr", 15, T0 + 1, T0 + 9),
        Quarantined("ward", "unknown-code", "spo2", 1, T0 + 4, T0 + 4),
    ]
    assert [row.what for row in stored(path, "ward", "bad-time")] == ["hr"]
    assert stored(path, "other") == stored(path, reason="bad-message") == []
    assert verify(path, Sealer(KEY), lambda _: None).problems == []
    assert {row["table"]: row["rows"] for row in describe(path)["tables"]}["quarantine"] == 3


@pytest.mark.parametrize("cap_bytes", [MIN_CAP_BYTES, 64 << 20])
def test_a_sender_that_invents_codes_fills_a_few_rows_and_every_count_arrives(path, cap_bytes) -> None:
    store = open_store(path, cap_bytes=cap_bytes)
    for number in range(4_500):
        store.quarantine(unmapped(f"{number}-{'x' * 45}", source=f"s{number % 3}"))
        if number % 700 == 0:
            store.flush()
    size = store.bytes
    store.close()
    found = stored(path)
    most = store.quota.max_kinds + 3
    assert most // 2 < len(found) <= most
    assert sum(row.count for row in found) == 4_500
    assert sum(row.what == OTHER for row in found) == 3
    assert size < cap_bytes // 32 + (180 << 10)


def test_what_waits_while_the_disk_refuses_is_bounded_too(monkeypatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING_KINDS", 10)
    held = Waiting(lambda _: None)
    for number in range(500):
        held.add_unmapped(quarantined(unmapped(f"c{number}", at=number)), 1.0)
    later = Waiting(lambda _: None)
    later.add_unmapped(quarantined(unmapped("c3", at=-5)), 2.0)
    later.add_unmapped(quarantined(unmapped("c700", at=700)), 2.0)
    held.follow(later)
    rows = list(held.unmapped.values())
    assert len(rows) == 11
    assert sum(row.count for row in rows) == 502
    assert {row.what: row for row in rows}["c3"].first_ns == T0 - 5
    assert held.oldest_s == 1.0


@given(st.text(max_size=150), st.text(max_size=150), st.integers(), st.integers())
@settings(max_examples=200)
def test_whatever_a_source_says_fits_into_a_row_and_holds_no_words(reason, what, time_ns, count) -> None:
    row = quarantined(Unmapped("ward", reason, what, time_ns, count))
    assert row.reason in set(Reason)
    assert len(row.what) <= 124
    assert row.what == what or row.what.startswith("(")
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("SELECT ?, ?, ?", (row.count, row.first_ns, row.what))


def test_clearing_takes_what_waits_as_well_and_leaves_nothing_of_it_in_the_file(path) -> None:
    store = open_store(path)
    store.quarantine(unmapped("ZQX-SECRET-1"))
    store.flush()
    store.quarantine(unmapped("ZQX-SECRET-2", 4))
    store.quarantine(unmapped("ZQX-STAYS-3", source="other"))
    assert [(row.what, row.count) for row in store.clear_quarantine("ward")] == [
        ("ZQX-SECRET-1", 1),
        ("ZQX-SECRET-2", 4),
    ]
    assert store.clear_quarantine("ward", "unknown-code") == []
    store.close()
    assert [row.what for row in stored(path)] == ["ZQX-STAYS-3"]
    whole = b"".join(one.read_bytes() for one in path.parent.iterdir())
    assert b"ZQX-STAYS-3" in whole
    assert b"ZQX-SECRET" not in whole


def test_eviction_and_forgetting_leave_it_alone(path) -> None:
    store = open_store(path, cap_bytes=MIN_CAP_BYTES)
    store.quarantine(unmapped())
    noise = np.random.default_rng(1).integers(-(2**15), 2**15, (250, 8)).astype(np.int16)
    for second in range(200):
        session = store.append(Block(StreamId("ecg"), T0 + second * 10**9, 250.0, noise))
    store.flush()
    store.forget(session)
    store.close()
    assert [row.count for row in stored(path)] == [1]


def test_a_damaged_row_is_lost_and_counted_and_its_neighbours_are_kept(path) -> None:
    store = open_store(path)
    for what in ("a", "b", "c"):
        store.quarantine(unmapped(what))
    store.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE quarantine SET count = 9 WHERE what = 'b'")
        db.commit()
    with closing(BufferReader(path, KEY)) as reader:
        assert [row.what for row in reader.quarantine()] == ["a", "c"]
        assert reader.unreadable == 1
    assert [one.table for one in verify(path, Sealer(KEY), lambda _: None).problems] == ["quarantine"]
    store = open_store(path)
    assert store.salvage is not None
    assert dict(store.salvage.lost) == {"quarantine": 1}
    store.quarantine(unmapped("a"))
    store.close()
    assert [(row.what, row.count) for row in stored(path)] == [("a", 2), ("c", 1)]


def test_a_file_of_the_version_before_gets_the_table(path) -> None:
    with closing(open_database(path, MIGRATIONS[:3], secure_delete=True)) as old:
        old.run_tx("old", lambda tx: tx.execute("INSERT INTO streams (name) VALUES ('ecg')"))
    store = open_store(path)
    assert store.salvage is None
    store.quarantine(unmapped())
    store.close()
    assert len(stored(path)) == 1
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM quarantine WHERE tag = ?", (NO_TAG,)).fetchone() == (0,)


def test_what_the_disk_refuses_is_counted_when_it_takes_it_again(path, monkeypatch) -> None:
    store = open_store(path)
    store.quarantine(unmapped(count=3))
    with monkeypatch.context() as patch:
        patch.setattr(store.database, "run_tx", _refuses)
        with pytest.raises(StoreError):
            store.flush()
        store.quarantine(unmapped(count=4))
    store.close()
    assert [row.count for row in stored(path)] == [7]


def _refuses(*_: object) -> None:
    raise StoreError("store-write", "no")
