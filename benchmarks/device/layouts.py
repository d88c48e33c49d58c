"""Unpaced ingest into one buffer file: `python layouts.py LAYOUT FILE SECONDS`; prints one JSON object.

`ours` is the agent's store, fed with blocks of 40 ms and looked after as the agent does it, on a clock that runs with
the signal: it commits as often as on a device. `catching-up` is the same store on the machine's clock, as on a device
that is given an old recording: it commits once per second of the machine's. The peers keep one row per value and
commit once per second of signal, durably as well: `rows` through sqlite3, `sqlite-utils` through its insert_all.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.store import BufferStore
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.service.platform import SystemClock, SystemEntropy
from device.loaded import written_bytes
from device.signals import WAVE_CHANNELS, WAVE_RATE_HZ, wave

BLOCK_SAMPLES = 10
NS_PER_S = 1_000_000_000
KEY = b"k" * 32
BEGIN_NS = 1_800_000_000 * NS_PER_S


class SignalClock:
    """Time as the signal tells it."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return BEGIN_NS + self.ns

    def monotonic_s(self) -> float:
        """Seconds since the signal began."""
        return self.ns / NS_PER_S


def ours(file: Path, values: np.ndarray, *, catching_up: bool = False) -> float:
    """Feed the agent's store; the seconds that it took."""
    signal = SignalClock()
    store = BufferStore(file, KEY, SystemClock() if catching_up else signal, SystemEntropy())
    step_ns = round(BLOCK_SAMPLES / WAVE_RATE_HZ * NS_PER_S)
    began_s = time.perf_counter()
    for first in range(0, len(values), BLOCK_SAMPLES):
        start_ns = signal.now_ns()
        signal.ns += step_ns
        store.append(Block(StreamId("ecg"), start_ns, WAVE_RATE_HZ, values[first : first + BLOCK_SAMPLES]))
        store.flush_due()
    store.close()
    took_s = time.perf_counter() - began_s
    with closing(BufferReader(file, KEY)) as reader:
        if (kept := reader.rows()["blobs"]) != len(values) / WAVE_RATE_HZ:
            raise SystemExit(f"{kept} seconds of signal are in the buffer")
    return took_s


def catching_up(file: Path, values: np.ndarray) -> float:
    """As `ours`, on the machine's clock."""
    return ours(file, values, catching_up=True)


def _rows(values: np.ndarray) -> Iterator[list[tuple[int, int, int]]]:
    rate = round(WAVE_RATE_HZ)
    for first in range(0, len(values), rate):
        second = values[first : first + rate].tolist()
        yield [(first + at, channel, value) for at, row in enumerate(second) for channel, value in enumerate(row)]


def rows(file: Path, values: np.ndarray) -> float:
    """One row per value through sqlite3."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (ts, channel, value)")
    began_s = time.perf_counter()
    for batch in _rows(values):
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", batch)
        connection.execute("COMMIT")
    connection.close()
    return time.perf_counter() - began_s


def sqlite_utils(file: Path, values: np.ndarray) -> float:
    """One row per value through sqlite-utils."""
    import sqlite_utils as library

    connection = sqlite3.connect(file)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
    table = library.Database(connection)["t"]
    names = ("ts", "channel", "value")
    began_s = time.perf_counter()
    for batch in _rows(values):
        table.insert_all((dict(zip(names, row, strict=True)) for row in batch), batch_size=len(batch))
    connection.close()
    return time.perf_counter() - began_s


LAYOUTS: dict[str, Callable[[Path, np.ndarray], float]] = {
    "ours": ours, "catching-up": catching_up, "rows": rows, "sqlite-utils": sqlite_utils
}  # fmt: skip


def main() -> None:
    """Measure one layout."""
    layout, file, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    values = wave(0, seconds)
    before, cpu_s = written_bytes(), time.process_time()
    took_s = LAYOUTS[layout](file, values)
    told = {
        "x_realtime": seconds / took_s,
        "x_cpu": seconds / (time.process_time() - cpu_s),
        "kib_per_s": (written_bytes() - before) / seconds / 1024,
        "file_kib_per_s": file.stat().st_size / seconds / 1024,
        "values": seconds * round(WAVE_RATE_HZ) * WAVE_CHANNELS,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
