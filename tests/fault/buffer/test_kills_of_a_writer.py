"""kill -9 at random moments of a writing process: every sample is there exactly once, as far as it was told and beyond.

`BEDSIDE_BUFFER_KILLS` sets how often; 100 unless it is set.
"""

import os
import random
import select
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.store import BufferStore
from bedside.core.ids import StreamId
from bedside.firmware_bridge.recording import Recording, write_recording
from bedside.service.platform import SystemClock, SystemEntropy

KILLS = int(os.environ.get("BEDSIDE_BUFFER_KILLS", "100"))
LANES = 2
KEY = bytes(range(32))
RATE_HZ = 250.0
SAMPLES = 4_000_000
"""More than all runs together can write."""


@pytest.mark.timeout(1_800)
def test_every_sample_is_there_exactly_once(tmp_path: Path) -> None:
    ramp = np.arange(SAMPLES, dtype=np.int32)
    write_recording(tmp_path / "signal.npz", Recording(np.stack([ramp, ramp[::-1]], axis=1), RATE_HZ))
    with ThreadPoolExecutor(LANES) as lanes:
        written = list(lanes.map(lambda lane: kill_again_and_again(tmp_path, lane), range(LANES)))
    print(f"\n{KILLS} kills, samples stored: {written}")
    assert min(written) > 1_000


def kill_again_and_again(folder: Path, lane: int) -> int:
    """Returns the samples stored in the end."""
    rng, database, told = random.Random(lane), folder / f"lane-{lane}.db", 0
    for _ in range(KILLS // LANES):
        told = max(told, run_and_kill(folder / "signal.npz", database, rng))
        assert stored_samples(database) >= told
    store = BufferStore(database, KEY, SystemClock(), SystemEntropy())
    assert store.salvage is None
    store.close()
    with closing(BufferReader(database, KEY)) as reader:
        parts = [part for session in reader.sessions() for part in reader.parts(StreamId("ecg"), session.session)]
        assert (reader.unreadable, reader.counters()) == (0, {})
    values = np.concatenate([part.values for part in parts])
    numbers = np.sort(values[:, 0])
    assert np.array_equal(numbers, np.arange(len(numbers)))  # each once, none twice, none missing
    assert np.array_equal(values[:, 1], SAMPLES - 1 - values[:, 0])
    for part in parts:
        assert (part.start_ns - 1_700_000_000 * 10**9) * RATE_HZ / 1e9 == part.values[0, 0]
    return len(numbers)


def run_and_kill(signal: Path, database: Path, rng: random.Random) -> int:
    """Run the writer, kill it at a random moment, and return how many samples it told of."""
    command = [sys.executable, str(Path(__file__).with_name("killed_writer.py")), str(database), str(signal)]
    command.append(rng.choice(["flush", "beside"]))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        told = [b"0"]
        if rng.random() < 0.2:  # in its first moments, while it opens the file
            select.select([process.stdout], [], [], rng.uniform(0.1, 0.5))
        else:
            for _ in range(rng.randrange(1, 40)):
                told.append(process.stdout.readline())
        assert process.poll() is None, "the writer ended before it was killed"
        process.kill()
        told += process.stdout.read().splitlines()
    return int(told[-1])


def stored_samples(database: Path) -> int:
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        try:
            return int(connection.execute("SELECT coalesce(sum(samples), 0) FROM blobs").fetchone()[0])
        except sqlite3.OperationalError:  # killed before there were tables
            return 0
