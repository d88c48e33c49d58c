"""kill -9 while records are acknowledged: each that was is there, and what the sender repeats is there once."""

from __future__ import annotations

import os
import random
import select
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from bedside.agent.buffer.inspection import verify
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.store import BufferStore
from bedside.core.ids import StreamId
from bedside.service.platform import SystemClock, SystemEntropy

KILLS = int(os.environ.get("BEDSIDE_BUFFER_KILLS", "8"))
KEY = bytes(range(32))
BED = StreamId("bed")


def run_and_kill(database: Path, first: int, rng: random.Random) -> list[int]:
    """The numbers that were acknowledged before the process was killed, at a random moment."""
    command = [sys.executable, str(Path(__file__).with_name("acknowledging_writer.py")), str(database), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline() or -1) for _ in range(rng.randrange(1, 30))]
        select.select([process.stdout], [], [], rng.uniform(0, 0.01))
        assert process.poll() is None
        process.kill()
        told += [int(line) for line in process.stdout.read().splitlines() if line.strip()]
    return told


def numbers(database: Path) -> list[int]:
    with closing(BufferReader(database, KEY)) as reader:
        found = [
            int(record.values["number"])
            for session in reader.sessions()
            for record in reader.records(BED, session.session)
        ]
        assert reader.unreadable == 0
    return found


def test_every_acknowledged_record_is_there_once(tmp_path: Path) -> None:
    rng, database = random.Random(5), tmp_path / "b.db"
    acknowledged: set[int] = set()
    first = 0
    for _ in range(KILLS):
        acknowledged.update(run_and_kill(database, first, rng))
        stored = numbers(database)
        assert acknowledged <= set(stored)
        assert len(stored) == len(set(stored))
        # It begins again before the first that it saw no acknowledgement of, as a sender does that forgot some.
        first = max(0, next(at for at in range(10**9) if at not in acknowledged) - rng.randrange(8))
    store = BufferStore(database, KEY, SystemClock(), SystemEntropy())
    assert store.salvage is None
    store.close()
    assert sorted(numbers(database)) == list(range(len(numbers(database))))
    assert verify(database, Sealer(KEY), lambda _: None).problems == []
    with closing(sqlite3.connect(database)) as reader:
        (count,) = reader.execute("SELECT sum(count) FROM quarantine").fetchone()
        counters = dict(reader.execute("SELECT name, sum(value) FROM counters GROUP BY name").fetchall())
    assert count >= len([at for at in acknowledged if at % 7 == 0])
    assert counters.keys() == {"duplicate-records"}
    assert counters["duplicate-records"] >= len([at for at in acknowledged if at % 10 == 3])
