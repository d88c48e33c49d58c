"""A bad card flips bits: what is read back is right or missing, what is missing is counted, and the agent goes on.

`BEDSIDE_BIT_FLIPS` sets in how many copies of a buffer a bit is flipped; 500 unless it is set.
"""

import os
import random
import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.service.platform import SystemClock, SystemEntropy

FLIPS = int(os.environ.get("BEDSIDE_BIT_FLIPS", "500"))
KEY = bytes(range(32))
T0_S = 1_700_000_000
SECONDS = 24
STREAMS = (StreamId("ecg"), StreamId("wrist"))
NEW = StreamId("new")


def values(stream: str, second: int) -> np.ndarray:
    seed = [STREAMS.index(StreamId(stream)), second]
    return np.random.default_rng(seed).integers(-3000, 3000, (250, 2), np.int16)


class Truth:
    """A buffer, and everything that it holds."""

    def __init__(self, folder: Path) -> None:
        self.database, self.log = folder / "b.db", folder / "b.db-wal"
        self.store = BufferStore(self.database, KEY, SystemClock(), SystemEntropy())
        self.sessions: dict[str, str] = {}
        for second in range(SECONDS):
            at_ns = (T0_S + second) * 10**9
            for stream in STREAMS:
                self.sessions[stream] = self.store.append(Block(stream, at_ns, 250.0, values(stream, second)))
            self.store.add_label(STREAMS[0], at_ns, at_ns + 10**9, f"label-{second}", "cli")
            self.store.add_prediction(
                Prediction(STREAMS[0], self.sessions[STREAMS[0]], at_ns, at_ns + 1, f"class-{second}", 0.5, b"m", 0.25)
            )
            if second % 8 == 7:
                self.store.flush()
        self.found = look(self.database)

    def copy(self, folder: Path) -> Path:
        """The files as a kill would leave them: the newest transactions are in the log alone."""
        for file in (self.database, self.log):
            shutil.copyfile(file, folder / file.name)
        return folder / self.database.name


def look(database: Path) -> dict[tuple[object, ...], object]:
    """All that the reader gives out, by what it is."""
    with closing(BufferReader(database, KEY)) as reader:
        found: dict[tuple[object, ...], object] = {}
        for session in reader.sessions():
            if session.stream == NEW:
                continue
            found["session", session.session] = session
            for label in reader.labels(session.session):
                found["label", label.number] = label
            for part in reader.parts(session.stream, session.session):
                found["part", part.stream, part.session, part.second] = (part.start_ns, part.values.tobytes())
        for prediction in reader.predictions():
            found["prediction", prediction.number] = prediction
        return found


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    made = Truth(tmp_path_factory.mktemp("truth"))
    yield made
    made.store.close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def flip(database: Path, rng: random.Random, bits: int) -> None:
    files = [file for file in (database, database.with_name("b.db-wal")) if file.exists()]
    sizes = [file.stat().st_size for file in files]
    for _ in range(bits):
        (file,) = rng.choices(files, sizes)
        at = rng.randrange(file.stat().st_size)
        with file.open("r+b") as opened:
            opened.seek(at)
            old = opened.read(1)[0]
            opened.seek(at)
            opened.write(bytes([old ^ (1 << rng.randrange(8))]))


def go_on(database: Path) -> tuple[bool, dict[str, int]]:
    """Open as the agent does, take new signal, and say whether loss was told of, with the durable counters."""
    store = BufferStore(database, KEY, SystemClock(), SystemEntropy())
    told = store.salvage is not None
    new = values(STREAMS[0], 1_000)
    session = store.append(Block(NEW, (T0_S + 1_000) * 10**9, 250.0, new))
    store.close()
    with closing(BufferReader(database, KEY)) as reader:
        (part,) = reader.parts(NEW, session)
        assert np.array_equal(part.values, new)
        counters = reader.counters()
    return told, counters


def judge(truth: Truth, database: Path) -> str:
    """Whether the file, opened again, holds the truth, or part of it and says so."""
    told, counters = go_on(database)
    found = look(database)
    wrong = {what for what, value in found.items() if value != truth.found.get(what)}
    assert not wrong, wrong
    missing = truth.found.keys() - found.keys()
    lost = sum(number for name, number in counters.items() if name.startswith("lost-"))
    torn = counters.get("torn-commits", 0)
    with closing(BufferReader(database, KEY)) as reader:
        for stream, session in truth.sessions.items():
            list(reader.parts(StreamId(stream), session))
        unreadable = reader.unreadable
    if not missing:
        return "salvaged whole" if told else "whole"
    assert lost or unreadable or torn, f"{len(missing)} missing without a word: {sorted(missing, key=str)[:3]}"
    return "lost and counted" if lost else "unreadable and counted" if unreadable else "torn and counted"


@pytest.mark.timeout(1_800)
def test_no_flipped_bit_is_silently_wrong(truth, folder) -> None:
    verdicts: Counter[str] = Counter()
    for number in range(FLIPS):
        for old in folder.iterdir():
            old.unlink()
        database = truth.copy(folder)
        with_log = number % 2 == 0
        if not with_log:
            BufferStore(database, KEY, SystemClock(), SystemEntropy()).close()
        flip(database, random.Random(number), 1 if number % 10 else 20)
        verdicts[judge(truth, database)] += 1
    print(f"\n{FLIPS} copies with flipped bits: {dict(verdicts)}")
    assert sum(verdicts.values()) == FLIPS
    assert verdicts["lost and counted"] + verdicts["unreadable and counted"] > FLIPS // 10


def test_a_running_agents_reader_never_gives_out_a_flipped_row(truth, folder) -> None:
    """Between two openings nobody looks at the whole file: every row that is read is looked at by itself."""
    seen: Counter[str] = Counter()
    for number in range(FLIPS):
        for old in folder.iterdir():
            old.unlink()
        database = truth.copy(folder)
        BufferStore(database, KEY, SystemClock(), SystemEntropy()).close()
        flip(database, random.Random(-1 - number), 1)
        try:
            found = look(database)
        except StoreError as error:
            seen[error.code] += 1
            continue
        assert all(value == truth.found.get(what) for what, value in found.items())
        seen["right"] += 1
    assert seen["right"] > FLIPS // 2
