"""The commit beside the loop: while it waits for the disk everything goes on, and each row is there once, in order."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer import waiting
from bedside.agent.buffer.committer import Committer
from bedside.agent.buffer.labels import Labels
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Explanation, Label, Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.buffer.turn import PATIENCE_S, Turn
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind, Record
from bedside.service.platform import SystemEntropy

KEY = bytes(range(32))
T0 = 1_700_000_000_000_000_000
ECG, BED = StreamId("ecg"), StreamId("bed")
DEADLINE_S = 20.0


class HandClock:
    def __init__(self) -> None:
        self.at_s = 0.0

    def now_ns(self) -> int:
        return T0 + round(self.at_s * 1e9)

    def monotonic_s(self) -> float:
        return self.at_s


class Gate:
    """A disk: each commit of the thread waits here while it is closed, and may fail."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.fails: Callable[[], bool] = lambda: False

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql == "COMMIT":
            if threading.current_thread() is not threading.main_thread():
                self.reached.set()
                assert self.open.wait(DEADLINE_S)
            if self.fails():
                self._connection.execute("ROLLBACK")
                raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, *parameters)


class OpensTheGate:
    """A turn that opens the gate when the main thread asks for it: then, and not before, the commit may end."""

    def __init__(self, turn: Turn, gate: Gate) -> None:
        self._turn, self._gate = turn, gate

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._gate.open.set()
        self._turn.__enter__()

    def __exit__(self, *_: object) -> None:
        self._turn.__exit__()


class Device:
    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, HandClock()
        self.store = BufferStore(path, KEY, self.clock, SystemEntropy())
        self.committer = Committer(self.store, self.clock)
        self.gate = Gate(self.store.database.connection)
        self.store.database.connection = self.gate  # type: ignore[assignment]
        self.seconds = self.beats = self.decided = 0
        self.session = ""

    def say(self, seconds: int = 1, *, predict: bool = True) -> None:
        """So many seconds of signal, a record each, and a decision on it."""
        for _ in range(seconds):
            for _ in range(5):
                start_ns = T0 + self.seconds * 10**9 + (self.beats % 5) * 200_000_000
                values = np.full((10, 1), self.beats, np.int32)
                self.session = self.store.append(Block(ECG, start_ns, 50.0, values))
                self.beats += 1
            self.store.add_record(Record(BED, T0 + self.seconds * 10**9, {"pulse": float(self.seconds)}, {}))
            self.seconds += 1
            if predict:
                prediction = Prediction(ECG, self.session, T0, T0 + 1, "still", 0.5, b"m" * 32, 0.001)
                self.decided = self.store.add_prediction(prediction)
            self.clock.at_s += 1

    def hold(self) -> None:
        """Begin a commit that the disk does not let go on."""
        self.gate.reached.clear()
        self.gate.open.clear()
        self.committer.flush_due()
        assert self.gate.reached.wait(DEADLINE_S)

    def let_go(self) -> int:
        """Let the commit end; what became of it."""
        self.gate.open.set()
        return self.settle()

    def settle(self) -> int:
        deadline_s = time.monotonic() + DEADLINE_S
        while self.committer.busy:
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        return self.committer.flush_due()

    def opens_when_asked(self) -> None:
        turn = OpensTheGate(self.store.database.turn, self.gate)
        self.store.database.turn = self.store.group._turn = turn  # type: ignore[assignment]

    def close(self) -> None:
        with suppress(sqlite3.ProgrammingError):
            self.store.close()
        self.committer.close()

    def stored(self) -> tuple[list[int], list[float], list[int]]:
        """Blocks, records and predictions, in the order of their ids."""
        with closing(BufferReader(self.path, KEY)) as reader:
            assert reader.unreadable == 0
            beats = [
                int(beat)
                for session in reader.sessions(ECG)
                for part in reader.parts(ECG, session.session)
                for beat in part.values[::10, 0]
            ]
            records = [one.values["pulse"] for s in reader.sessions(BED) for one in reader.records(BED, s.session)]
            return beats, records, [one.number for one in reader.predictions(0, 100_000)]

    def holes(self) -> int:
        """Rows that are stored and follow on none; each table is read at one moment, whatever the thread does."""
        with closing(sqlite3.connect(self.path)) as reader:
            parts = reader.execute("SELECT start_ns, samples FROM blobs ORDER BY id").fetchall()
            records = reader.execute("SELECT time_ns FROM records ORDER BY id").fetchall()
            numbers = reader.execute("SELECT id FROM predictions ORDER BY id").fetchall()
        before = np.cumsum([0, *(samples for _, samples in parts)])
        expected = [T0 + int(samples) * 20_000_000 for samples in before]
        holes = sum(start != at for (start, _), at in zip(parts, expected[:-1], strict=True))
        holes += sum(time_ns != T0 + at * 10**9 for at, (time_ns,) in enumerate(records))
        return holes + sum(number != at for at, (number,) in enumerate(numbers, start=1))

    def all(self) -> tuple[list[int], list[float], list[int]]:
        return (
            list(range(self.beats)),
            [float(second) for second in range(self.seconds)],
            list(range(1, self.decided + 1)),
        )


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path / "b.db")
    yield made
    made.gate.fails = lambda: False
    made.gate.open.set()
    made.close()


def test_while_a_commit_waits_for_the_disk_everything_is_taken_and_then_stored_once(device) -> None:
    device.say(3)
    device.hold()
    for _ in range(20):
        device.say()
        assert device.committer.flush_due() == 0
        assert device.store.degraded == ""
    assert device.stored() == ([], [], [])
    assert device.let_go() == 5  # 2 whole seconds of signal, 3 records
    assert device.stored()[0] == list(range(10))
    device.settle()
    device.store.close()
    assert device.stored() == device.all()


def label(device: Device) -> None:
    device.store.add_label(ECG, T0, T0 + 1, "walk", "cli")
    with closing(BufferReader(device.path, KEY)) as reader:
        assert [one.label for one in reader.labels(device.session)] == ["walk"]


def many_labels(device: Device) -> None:
    labels = Labels(device.store)
    labels.add([Label(ECG, device.session, T0, T0 + 1, "walk", "cli")])
    assert [one.label for one in labels.page(device.session, 0)] == ["walk"]


def page_of_labels(device: Device) -> None:
    assert Labels(device.store).page(device.session, 0) == []


def session(device: Device) -> None:
    device.store.mark(Mark(ECG, T0 + 10**12, T0 + 10**12, "", "adt", MarkKind.SESSION_OPEN))
    assert device.store.sessions.current(ECG) != device.session


def new_stream(device: Device) -> None:
    device.store.append(Block(StreamId("other"), T0, 50.0, np.zeros((10, 1), np.int32)))


def explanation(device: Device) -> None:
    weights = np.zeros((4, 1), np.float32)
    assert device.store.put_explanation(Explanation(1, device.session, "occlusion", weights))


def gauge(device: Device) -> None:
    assert device.store.bytes > 0


def last_end(device: Device) -> None:
    assert device.store.sessions.last_end_ns(ECG) > T0


def flush(device: Device) -> None:
    device.store.flush()
    assert device.stored() == device.all()


def end(device: Device) -> None:
    device.store.close()
    assert device.stored() == device.all()


OTHERS = [label, many_labels, page_of_labels, session, new_stream, explanation, gauge, last_end, flush, end]


@pytest.mark.parametrize("work", OTHERS, ids=lambda work: work.__name__)
def test_whoever_else_uses_the_file_waits_for_the_commit_that_is_under_way(device, work) -> None:
    device.say(3)
    device.hold()
    device.say(2)
    device.opens_when_asked()
    work(device)
    if work is not end:
        device.settle()
        device.store.close()
    assert device.stored() == device.all()


@pytest.mark.parametrize("fails", [False, True])
def test_whoever_comes_before_the_thread_commits_its_batch_and_the_thread_does_nothing_any_more(device, fails) -> None:
    device.say(3)
    batch = device.store.take_batch()
    assert batch is not None
    device.say(2)
    assert device.store.take_batch() is None  # one at a time
    device.gate.fails = lambda: fails
    with pytest.raises(StoreError) if fails else nullcontext():
        device.store.flush()
    device.gate.fails = lambda: False
    durable = ([], [], []) if fails else device.all()
    assert device.stored() == durable
    device.store.group.write(batch)
    assert device.stored() == durable
    device.store.group.settle(batch)
    device.store.close()
    assert device.stored() == device.all()


def test_what_a_commit_failed_to_write_waits_before_what_came_later(device) -> None:
    device.say(3)
    device.hold()
    device.say(4)
    device.gate.fails = lambda: True
    with pytest.raises(StoreError) as caught:
        device.let_go()
    assert caught.value.code == "store-write"
    assert device.stored() == ([], [], [])
    device.gate.fails = lambda: False
    device.hold()
    device.let_go()
    assert device.stored()[1:] == device.all()[1:]
    device.store.close()
    assert device.stored() == device.all()


def test_what_waits_behind_a_commit_is_bounded_and_what_goes_is_the_oldest_and_counted(device, monkeypatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING_BYTES", 4_000)
    monkeypatch.setattr(waiting, "MAX_WAITING_PREDICTIONS", 10)
    device.say(3)
    device.hold()
    device.say(60)
    device.gate.fails = lambda: True
    with pytest.raises(StoreError):
        device.let_go()
    device.gate.fails = lambda: False
    device.store.close()
    beats, records, predictions = device.stored()
    with closing(BufferReader(device.path, KEY)) as reader:
        gone = reader.counters()
    assert beats == list(range(device.beats))[-len(beats) :]
    assert len(records) + gone["dropped-records"] == device.seconds
    assert len(beats) // 5 + gone["dropped-parts"] == device.seconds
    assert predictions == list(range(device.decided - 9, device.decided + 1))
    assert gone["dropped-predictions"] == device.decided - 10


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_a_session_that_is_forgotten_during_its_commit_is_gone_and_does_not_come_back(device, fails, begun) -> None:
    device.say(3)
    victim = device.session
    if begun:
        device.hold()
        device.gate.fails = lambda: fails and threading.current_thread() is not threading.main_thread()
    else:
        assert device.store.take_batch() is not None
    device.say(2)
    device.opens_when_asked()
    gone = device.store.forget(victim)
    assert (gone["blobs"], gone["sessions"]) == (4, 1)
    if begun:
        device.settle()
    device.store.close()
    beats, records, predictions = device.stored()
    assert (beats, predictions) == ([], [])
    assert records == device.all()[1]
    assert victim.encode() not in device.path.read_bytes()


def test_a_disk_that_hangs_is_told_of_and_nobody_waits_for_it_any_more(device) -> None:
    store = device.store
    device.say(3)
    device.hold()
    device.clock.at_s += PATIENCE_S
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            device.committer.flush_due()
        assert (caught.value.code, "hangs" in caught.value.sentence) == ("store-write", True)
        device.say()
        for refused in (
            lambda: store.add_label(ECG, T0, T0 + 1, "walk", "cli"),
            lambda: store.forget("no session"),
            store.flush,
            store.close,
        ):
            with pytest.raises(StoreError) as caught:
                refused()
            assert caught.value.code == "store-write"
    device.let_go()
    device.say(2)
    device.hold()
    device.opens_when_asked()
    label(device)  # which waits again
    device.settle()
    store.close()
    assert device.stored() == device.all()


def test_a_turn_may_be_taken_again_by_its_holder_and_by_others_when_it_has_ended() -> None:
    turn, refused = Turn(patience_s=0.0), []

    def other() -> None:
        try:
            with turn:
                refused.append("")
        except StoreError as error:
            refused.append(error.code)

    for holds in (True, False):
        thread = threading.Thread(target=other)
        if holds:
            with turn, turn:
                thread.start()
                thread.join()
        else:
            thread.start()
            thread.join()
    assert refused == ["store-write", ""]


@pytest.mark.parametrize("seed", range(6))
def test_on_a_disk_that_often_fails_every_row_is_there_once_and_in_order(device, seed) -> None:
    rng, failures = random.Random(seed), []

    def fails() -> bool:
        failures.append(1)
        return rng.random() < 0.4

    device.say()
    device.store.flush()
    device.gate.fails = fails
    labels = 0
    for _ in range(150):
        what = rng.choice(("say", "say", "say", "commit", "commit", "settle", "label", "flush"))
        with suppress(StoreError):
            if what == "say":
                device.say()
            elif what == "commit":
                device.committer.flush_due()
            elif what == "settle":
                device.settle()
            elif what == "label":
                device.store.add_label(ECG, T0, T0 + 1, "walk", "cli")
                labels += 1
            else:
                device.store.flush()
        assert device.holes() == 0  # nothing is durable before what came earlier
    device.gate.fails = lambda: False
    device.store.close()
    assert device.stored() == device.all()
    with closing(BufferReader(device.path, KEY)) as reader:
        assert len(reader.labels(device.session)) == labels
        assert reader.counters() == {}
    assert len(failures) > 20
