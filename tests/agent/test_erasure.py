"""A session that was erased is nowhere: every byte of the state directory is searched."""

from __future__ import annotations

import copy
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.alarms import AlarmTable
from bedside.agent.buffer.derived import seal_window
from bedside.agent.buffer.erasure import Scrubber
from bedside.agent.buffer.expiry import ExpiredMinute
from bedside.agent.buffer.keys import KeyRing
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Alarm, Explanation, Moments, Prediction, StoredWindow, Summary
from bedside.agent.buffer.schema import OF_A_SESSION
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.store import BufferStore
from bedside.agent.erasure import KEPT_DELTAS, PERSONAL, erase_session
from bedside.agent.personal.files import PersonalFiles
from bedside.agent.rounds.journal import Contribution, Journal, KeptRow, OutboxRow
from bedside.agent.rounds.memory import Seen
from bedside.agent.rounds.outbox import Outbox
from bedside.core.errors import StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Quality, Record
from bedside.core.securesum.device import ContributionInput, ContributionState
from bedside.service.platform import SystemClock, SystemEntropy

KEY = bytes(range(32))
T0 = 1_700_000_000
CLOCK = SystemClock()
STREAMS = [StreamId(f"s{number}") for number in range(12)]
VICTIM = STREAMS[5]
SEALED = ("blobs", "records", "windows", "summaries", "explanations")


class Home:
    """A state directory in use: many small rows that come, move and go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rng = np.random.default_rng(11)
        self.store = self.open()
        self.sessions: dict[StreamId, SessionId] = {}
        self.seen: dict[SessionId, set[bytes]] = {}
        self.era = "first"

    def open(self) -> BufferStore:
        return BufferStore(self.path / "buffer.db", KEY, CLOCK, SystemEntropy(), cap_bytes=1 << 20, gap_s=5_000.0)

    def live(self, first: int, last: int) -> None:
        for second in range(first, last):
            for stream in STREAMS:
                self.say(stream, second)
            if second % 4 == 0:
                self.store.flush()
                self.look()

    def say(self, stream: StreamId, second: int) -> None:
        samples = int(self.rng.integers(5, 120))
        late = int(self.rng.integers(1, 900)) if self.rng.random() < 0.1 else 0
        at_ns = (T0 + second - late) * 10**9
        values = self.rng.integers(-3000, 3000, (samples, 2), np.int16)
        session = self.sessions[stream] = self.store.append(Block(stream, at_ns, 250.0, values))
        if self.rng.random() < 0.5:
            self.store.add_record(Record(stream, at_ns, {"hr": float(samples), "secret-field": 1.0}))
        if self.rng.random() < 0.1:
            self.store.add_label(stream, at_ns, at_ns + 1, f"diagnosis-{self.era}-{stream}-", "cli")
        number = self.store.add_prediction(
            Prediction(stream, session, at_ns, at_ns + 1, f"class-{self.era}-{stream}-", 0.5, b"m" * 32, 0.001)
        )
        if self.rng.random() < 0.1:
            self.store.put_explanation(Explanation(number, session, "gradient", self.rng.random((16, 2), np.float32)))

    def derive(self, stream: StreamId, minutes: int) -> None:
        for minute in range(minutes):
            with closing(BufferReader(self.store.database.path, KEY)) as reader:
                known = reader.session(self.sessions[stream])
            assert known is not None
            at_ns = (T0 + 60 * minute) * 10**9
            values = self.rng.random((20, 2), np.float32)
            window = StoredWindow(
                stream, known.session, at_ns, at_ns + 1, b"s" * 32, f"diagnosis-{self.era}-{stream}-", values
            )
            sealed = seal_window(Sealer(KEY, SystemEntropy()), window)
            moments = (Moments("0", "mV", 1, 1.0, 1.0, 1.0, 0.0),)
            summary = Summary(stream, known.session, at_ns // (60 * 10**9), moments, 0, Quality.GOOD)
            step = ExpiredMinute(known, at_ns, 0, 0, 0, windows=[sealed], summaries=[summary])
            assert self.store.expire(step)
        alarm = Alarm("fall", stream, self.sessions[stream], "high", T0 * 10**9, 0.9)
        AlarmTable(self.store).write([alarm])
        self.look()

    def look(self) -> None:
        """Remember what is sealed now, by session: also what will have been evicted by then."""
        for table in SEALED:
            for row in self.store.database.rows(f"SELECT session, sealed FROM {table}"):
                self.seen.setdefault(row["session"], set()).add(bytes(row["sealed"]))

    def erase(self, stream: StreamId) -> SessionId:
        self.era = "later"
        session = self.sessions[stream]
        self.store.forget(session)
        return session

    def traces(self, stream: StreamId, session: SessionId) -> list[str]:
        """What can still be found of a session, anywhere."""
        needles = {session.encode(), f"diagnosis-first-{stream}-".encode(), f"class-first-{stream}-".encode()}
        for sealed in self.seen[session]:
            middle = len(sealed) // 2
            needles |= {sealed[:16], sealed[middle : middle + 16], sealed[-16:]}
        found = []
        for file in self.path.rglob("*"):
            data = file.read_bytes() if file.is_file() else b""
            found += [f"{file.name}: {needle!r}" for needle in needles if needle in data]
        return found


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("lived-in"))
    made.live(0, 160)
    made.derive(VICTIM, 30)
    made.derive(STREAMS[6], 30)
    made.live(160, 240)
    made.store.close()
    return made


@pytest.fixture
def home(tmp_path: Path, lived_in: Home):
    shutil.copytree(lived_in.path, tmp_path / "state")
    made = copy.copy(lived_in)
    made.path, made.sessions = tmp_path / "state", dict(lived_in.sessions)
    made.rng = np.random.default_rng(12)  # whatever tests came before
    made.store = made.open()
    made.personal = PersonalFiles(made.path, KeyRing(KEY))
    yield made
    made.store.close()


def test_nothing_of_an_erased_session_is_left_and_the_others_are_whole(home) -> None:
    for suffix in ("", "-wal"):
        (home.path / f"buffer.db.damaged-1{suffix}").write_bytes(home.sessions[VICTIM].encode())
    home.store.flush()
    session = home.sessions[VICTIM]
    home.say(VICTIM, 240)  # it waits in memory
    home.store.add_record(Record(VICTIM, (T0 + 240) * 10**9, {"hr": 61.0}))  # earlier ones may have been evicted
    assert len(home.traces(VICTIM, session)) > 300
    others = {stream: one for stream, one in home.sessions.items() if stream != VICTIM}
    with closing(BufferReader(home.path / "buffer.db", KEY)) as reader:
        before = reader.rows()
        parts = {stream: [part.start_ns for part in reader.parts(stream, one)] for stream, one in others.items()}
        labels = {stream: reader.labels(one) for stream, one in others.items()}
    erased = erase_session(home.store, home.path, session, CLOCK, personal=home.personal)
    assert home.traces(VICTIM, session) == []
    assert set(erased) == {*OF_A_SESSION, KEPT_DELTAS, PERSONAL}
    assert [table for table in OF_A_SESSION if not erased[table]] == []
    home.store.flush()
    assert home.traces(VICTIM, session) == []
    with closing(BufferReader(home.path / "buffer.db", KEY)) as reader:
        after = reader.rows()
        assert all(before[table] - after[table] <= erased[table] for table in OF_A_SESSION)
        assert {stream: reader.labels(one) for stream, one in others.items()} == labels
        assert {
            stream: [part.start_ns for part in reader.parts(stream, one)] for stream, one in others.items()
        } == parts
        assert reader.unreadable == 0
    assert home.store.database.row("PRAGMA integrity_check")[0] == "ok"


def test_no_session_leaves_a_trace_however_its_rows_were_moved_about(home) -> None:
    for stream in STREAMS:
        session = home.erase(stream)
        assert home.traces(stream, session) == []
    home.store.close()
    home.store = home.open()
    assert home.store.salvage is None


def test_while_a_reader_keeps_an_old_state_the_erasure_is_not_called_done(home) -> None:
    session = home.sessions[VICTIM]
    with closing(sqlite3.connect(home.path / "buffer.db", isolation_level=None)) as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT count(*) FROM blobs").fetchone()
        with pytest.raises(StoreError) as caught:
            home.erase(VICTIM)
        assert caught.value.code == "erase-pending"
        assert "erased" in home.store.degraded
        home.live(240, 242)
        assert home.traces(VICTIM, session)
        holder.execute("COMMIT")
    home.live(242, 247)
    assert "erased" not in home.store.degraded
    assert home.traces(VICTIM, session) == []


def test_an_erasure_that_was_cut_short_ends_with_the_next_start(home, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Scrubber, "finish", lambda self, *_: False)
        with pytest.raises(StoreError):
            home.erase(VICTIM)
        assert home.store.degraded
        home.store.close()
    scrubbed: list[str] = []
    monkeypatch.setattr(Scrubber, "_fill_gaps", lambda self, file, at: scrubbed.append("once") or 0)
    home.store = home.open()
    assert (scrubbed, home.store.degraded) == (["once"], "")


def test_the_stream_goes_on_in_another_session(home) -> None:
    erased = home.erase(VICTIM)
    home.say(VICTIM, 250)
    assert home.sessions[VICTIM] != erased
    home.store.flush()


def test_every_kept_delta_goes_with_it_and_an_upload_stays(home) -> None:
    outbox, journal = Outbox(home.path), Journal.open(home.path)
    for number, digest in enumerate((b"1" * 32, b"2" * 32), start=1):
        plan = Contribution(digest, "watch", number, ContributionState.TRAINING, b"offer", "", "")
        row = OutboxRow(digest, b"header", Outbox.name_for(digest), 5)
        kept = KeptRow(digest, Outbox.kept_name_for(digest))
        journal.accept(plan, Seen(), now_ns=1)
        journal.commit_upload(row, kept, None, now_ns=2)
        (outbox.directory / row.file).write_bytes(b"masked")
        (outbox.directory / kept.file).write_bytes(b"sealed")
        if number == 1:
            journal.finish(digest, ContributionInput.BURNED, now_ns=3)
    outbox.discard(Outbox.name_for(b"1" * 32))
    journal.close()
    erased = erase_session(home.store, home.path, home.sessions[VICTIM], CLOCK, personal=home.personal)
    assert erased[KEPT_DELTAS] == 2
    assert [file.name for file in outbox.directory.iterdir()] == [Outbox.name_for(b"2" * 32)]
    with closing(Journal.open(home.path)) as journal:
        assert journal.freed("watch") is None
        assert journal.outbox(b"2" * 32) is not None


ERASER = """
import sys
from pathlib import Path
from bedside.agent.buffer.store import BufferStore
from bedside.service.platform import SystemClock, SystemEntropy
store = BufferStore(Path(sys.argv[1]), bytes(range(32)), SystemClock(), SystemEntropy(), cap_bytes=1 << 20)
print("open", flush=True)
store.forget(sys.argv[2])
print("gone", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("moment", ["open", "gone"])
def test_kill_9_during_an_erasure_leaves_all_or_nothing_after_the_next_start(home, moment) -> None:
    session = home.sessions[VICTIM]
    home.store.close()
    command = [sys.executable, "-c", ERASER, str(home.path / "buffer.db"), session]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == moment:
                break
        process.kill()
    home.store = home.open()
    with closing(BufferReader(home.path / "buffer.db", KEY)) as reader:
        there = reader.session(session) is not None
        parts = list(reader.parts(VICTIM, session))
    assert bool(parts) == there
    assert moment == "open" or not there
    assert there or home.traces(VICTIM, session) == []
