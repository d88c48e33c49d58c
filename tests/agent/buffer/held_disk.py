"""A buffer on a disk that a test holds: each commit of the thread waits at a gate, and may fail."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from bedside.agent.buffer.committer import Committer
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.buffer.turn import Turn
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Record
from bedside.service.platform import SystemEntropy
from hand_clock import T0, HandClock

KEY = bytes(range(32))
ECG, BED = StreamId("ecg"), StreamId("bed")
DEADLINE_S = 20.0


class Gate:
    """A disk: each commit of the thread waits here while it is closed, and may fail."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.commits = 0
        self.fails: Callable[[], bool] = lambda: False

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql == "COMMIT":
            if threading.current_thread() is not threading.main_thread():
                self.reached.set()
                assert self.open.wait(DEADLINE_S)
            self.commits += 1
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

    def counters(self) -> dict[str, int]:
        with closing(BufferReader(self.path, KEY)) as reader:
            return reader.counters()

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
