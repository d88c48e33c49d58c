"""The buffer as a whole: what goes in comes out, stays, is capped, and survives."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.agent.buffer.labels import Labels
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind
from bedside.service.platform import SystemClock, SystemEntropy
from hand_clock import T0, HandClock

KEY = bytes(range(32))
ECG = StreamId("ecg")


def open_store(path: Path, clock: HandClock | None = None, **options) -> BufferStore:
    return BufferStore(path, KEY, clock or HandClock(), SystemEntropy(), **options)


def block(values: np.ndarray, start_ns: int = T0, stream: StreamId = ECG, rate_hz: float = 250.0) -> Block:
    return Block(stream, start_ns, rate_hz, values, unit="mV", metric="MDC_ECG_ELEC_POTL", scale=0.5)


def feed(store: BufferStore, values: np.ndarray, start_ns: int = T0, step: int = 10) -> str:
    session = ""
    for i in range(0, len(values), step):
        session = store.append(block(values[i : i + step], start_ns + i * 4_000_000))
    return session


def noise(samples: int, channels: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, (samples, channels), np.int16)


@settings(deadline=None, database=None, max_examples=25)
@given(st.integers(1, 700), st.integers(1, 37), st.integers(0, 10**9), st.sampled_from([50.0, 250.0, 360.0]))
def test_a_stream_comes_back_sample_exact(tmp_path_factory, samples, step, phase_ns, rate_hz) -> None:
    path = tmp_path_factory.mktemp("b") / "b.db"
    store, values = open_store(path), noise(samples, 2)
    for i in range(0, samples, step):
        start_ns = T0 + phase_ns + round(i * 1e9 / rate_hz)
        session = store.append(block(values[i : i + step], start_ns, rate_hz=rate_hz))
    store.close()
    reader = BufferReader(path, KEY)
    (stretch,) = reader.read_range(ECG, session)
    seconds = {(T0 + phase_ns + i * 10**9 // round(rate_hz)) // 10**9 for i in range(samples)}
    assert reader.rows()["blobs"] == len(seconds)
    reader.close()
    assert np.array_equal(stretch.values, values)
    assert (stretch.start_ns, stretch.unit, stretch.scale) == (T0 + phase_ns, "mV", 0.5)


def test_gaps_and_late_samples_are_kept_apart_and_in_order(tmp_path) -> None:
    store, values = open_store(tmp_path / "b.db"), noise(300)
    feed(store, values[:100])
    store.flush()
    feed(store, values[200:], T0 + 200 * 4_000_000)
    store.flush()
    session = feed(store, values[100:200], T0 + 100 * 4_000_000)
    store.close()
    reader = BufferReader(tmp_path / "b.db", KEY)
    stretches = reader.read_range(ECG, session)
    half = reader.read_range(ECG, session, T0 + 40_000_000, T0 + 80_000_000)
    reader.close()
    assert np.array_equal(np.concatenate([s.values for s in stretches]), values)
    assert np.array_equal(half[0].values, values[10:20])


def test_a_flush_waits_for_its_second_and_not_longer(tmp_path) -> None:
    clock = HandClock()
    store = open_store(tmp_path / "b.db", clock)
    for i in range(25):
        store.append(block(noise(10), T0 + i * 40_000_000))
        assert store.flush_due() == 0
        clock.at_s += 0.04
    store.append(block(noise(10), T0 + 25 * 40_000_000))
    assert store.flush_due() == 1
    clock.at_s += 1.1
    assert store.flush_due() == 1
    store.close()


def test_sessions_and_labels_by_hand_are_durable_at_once_the_rest_with_the_group(tmp_path) -> None:
    store = open_store(tmp_path / "b.db")
    store.mark(Mark(ECG, T0, T0, "", "replay", MarkKind.SESSION_OPEN))
    store.mark(Mark(ECG, T0 + 10**9, T0 + 2 * 10**9, "sitting", "replay"))
    store.add_label(ECG, T0, T0 + 10**9, "walking", "cli")
    session = store.append(block(noise(10)))
    store.add_prediction(Prediction(ECG, session, T0, T0 + 1, "walking", 0.9, b"m", 0.001))
    reader = BufferReader(tmp_path / "b.db", KEY)
    assert [x.label for x in reader.labels(session)] == ["walking"]
    assert reader.predictions() == []
    store.flush()
    assert [p.label for p in reader.predictions()] == ["walking"]
    assert reader.predictions(after=reader.predictions()[-1].number) == []
    Labels(store).withdraw(reader.labels(session)[0].number)
    assert [x.label for x in reader.labels(session)] == ["sitting"]
    reader.close()
    store.close()


def test_after_a_kill_signal_time_starts_behind_what_was_predicted_on_signal_that_is_lost(tmp_path) -> None:
    store = open_store(tmp_path / "b.db")
    session = feed(store, noise(250))
    store.add_prediction(Prediction(ECG, session, T0 + 10**9, T0 + 3 * 10**9, "walking", 0.9, b"m", 0.001))
    store.close()
    store = open_store(tmp_path / "b.db")
    assert store.sessions.current(ECG) == session
    assert store.sessions.last_end_ns(ECG) == T0 + 3 * 10**9
    store.close()


def test_a_long_silence_begins_another_session_and_a_restart_does_not(tmp_path) -> None:
    store = open_store(tmp_path / "b.db", gap_s=5.0)
    first = feed(store, noise(250))
    store.close()
    store = open_store(tmp_path / "b.db", gap_s=5.0)
    assert store.append(block(noise(10), T0 + 2 * 10**9)) == first
    assert store.append(block(noise(10), T0 + 60 * 10**9)) != first
    assert store.sessions.last_end_ns(ECG) == T0 + 60 * 10**9 + 40_000_000
    store.close()


def test_the_cap_holds_after_every_commit_and_every_dropped_part_is_counted(tmp_path) -> None:
    store, cap, written = open_store(tmp_path / "b.db", cap_bytes=300_000), 300_000, 0
    for second in range(100):
        feed(store, noise(250, seed=second), T0 + second * 10**9)
        written += store.flush()
        assert store.bytes <= cap
    session = feed(store, noise(250), T0 + 100 * 10**9)
    written += store.flush()
    store.close()
    reader = BufferReader(tmp_path / "b.db", KEY)
    kept, dropped = reader.rows()["blobs"], reader.counters()
    assert kept + dropped["evicted-parts"] == written == 101
    assert dropped["evicted-samples"] == dropped["evicted-parts"] * 250
    stretches = reader.read_range(ECG, session)
    assert stretches[-1].start_ns + len(stretches[-1].values) * 4_000_000 == T0 + 101 * 10**9
    assert reader.oldest_ns() == stretches[0].start_ns
    reader.close()


@pytest.mark.parametrize(
    "change", ["UPDATE blobs SET id = id + 16777216", "UPDATE blobs SET session = 'aaaaaaaaaaaaaaaa'"]
)
def test_a_blob_in_another_place_does_not_open(tmp_path, change) -> None:
    store = open_store(tmp_path / "b.db")
    session = feed(store, noise(250))
    store.close()
    with sqlite3.connect(tmp_path / "b.db") as db:
        db.execute(change)
        session = db.execute("SELECT session FROM blobs").fetchone()[0]
    db.close()
    reader = BufferReader(tmp_path / "b.db", KEY)
    assert list(reader.parts(ECG, session)) == []
    assert reader.unreadable == 1
    reader.close()


def test_forgotten_signal_and_labels_are_gone_from_the_file(tmp_path) -> None:
    path = tmp_path / "b.db"
    store = open_store(path)
    session = feed(store, noise(250))
    store.add_label(ECG, T0, T0 + 1, "secret-diagnosis", "cli")
    store.flush()
    db = sqlite3.connect(path)
    needle = db.execute("SELECT sealed FROM blobs").fetchone()[0][200:260]
    db.close()
    store.forget(session)
    files = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert needle not in files
    assert b"secret-diagnosis" not in files
    assert session.encode() not in files
    store.close()


def test_a_prediction_is_stored_under_the_number_that_was_told(tmp_path) -> None:
    store = open_store(tmp_path / "b.db")

    def predict() -> int:
        return store.add_prediction(Prediction(ECG, session, T0, T0 + 1, "walking", 0.9, b"m", 0.001))

    session = feed(store, noise(250))
    assert [predict(), predict()] == [1, 2]
    store.forget(session)
    store.close()
    store = open_store(tmp_path / "b.db")
    session = feed(store, noise(250))
    told = predict()
    store.close()
    reader = BufferReader(tmp_path / "b.db", KEY)
    assert [p.number for p in reader.predictions()] == [told] == [3]
    reader.close()


def test_a_damaged_file_is_set_aside_and_what_proves_itself_is_saved(tmp_path) -> None:
    path, rng = tmp_path / "b.db", np.random.default_rng(5)
    store = open_store(path)
    store.add_label(ECG, T0, T0 + 1, "walking", "cli")
    for second in range(400):
        session = feed(store, noise(250, seed=second), T0 + second * 10**9)
    store.close()
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for page in rng.choice(np.arange(pages // 2, pages), 4, replace=False):
            file.seek(int(page) * 4096)
            file.write(rng.bytes(4096))
    store = open_store(path)
    assert store.salvage is not None
    assert "damaged" in store.degraded
    assert store.salvage.renamed_to.exists()
    assert store.salvage.blobs >= 380
    feed(store, noise(250), T0 + 500 * 10**9)
    store.close()
    reader = BufferReader(path, KEY)
    for part in reader.parts(ECG, session, to_ns=T0 + 400 * 10**9):
        assert np.array_equal(part.values, noise(250, seed=(part.start_ns - T0) // 10**9))
    assert (reader.unreadable, len(reader.labels(session))) == (0, 1)
    reader.close()


def test_a_file_that_is_no_database_is_set_aside(tmp_path) -> None:
    (tmp_path / "b.db").write_bytes(b"garbage" * 4096)
    store = open_store(tmp_path / "b.db")
    assert store.salvage is not None
    assert (
        sum(store.salvage.lost.values()) < 100
    )  # a device must be back at once, not after a day's worth of failing reads
    store.close()
    again = open_store(tmp_path / "b.db")
    assert again.degraded == ""
    again.close()


def test_a_refusing_disk_loses_nothing_that_waits(tmp_path) -> None:
    store = open_store(tmp_path / "b.db")
    session = feed(store, noise(250))
    store.database.connection.execute("PRAGMA query_only=ON")
    with pytest.raises(StoreError):
        store.flush()
    store.database.connection.execute("PRAGMA query_only=OFF")
    assert store.flush() == 1
    store.close()
    reader = BufferReader(tmp_path / "b.db", KEY)
    assert np.array_equal(reader.read_range(ECG, session)[0].values, noise(250))
    reader.close()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from bedside.agent.buffer.store import BufferStore
from bedside.core.samples import Block
from bedside.service.platform import SystemClock, SystemEntropy
store = BufferStore(Path(sys.argv[1]), bytes(range(32)), SystemClock(), SystemEntropy())
second = int(sys.argv[2])
while True:
    values = np.full((250, 8), second % 30000, np.int16)
    store.append(Block("ecg", (1_700_000_000 + second) * 10**9, 250.0, values))
    store.flush()
    print(second, flush=True)
    second += 1
"""


def test_every_acknowledged_second_survives_kill_9(tmp_path) -> None:
    acknowledged = -1
    for kill in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "b.db"), str(acknowledged + 1)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(7 + 13 * kill):
            acknowledged = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        tail = process.stdout.read().split("\n")[:-1]
        acknowledged = int(tail[-1]) if tail else acknowledged
        process.stdout.close()
        process.wait()
    store = BufferStore(tmp_path / "b.db", KEY, SystemClock(), SystemEntropy())
    assert store.salvage is None
    store.close()
    reader = BufferReader(tmp_path / "b.db", KEY)
    (session,) = reader.sessions(ECG)
    seconds = {p.second - 1_700_000_000: p.values for p in reader.parts(ECG, session.session)}
    reader.close()
    assert set(range(acknowledged + 1)) <= set(seconds)
    assert all((values == second).all() for second, values in seconds.items())
