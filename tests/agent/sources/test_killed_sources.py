"""An agent that follows files and asks a database is killed again and again: every row is stored exactly once."""

import random
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.core.ids import StreamId

KILLS = 4
CONFIG = """
[link]
enabled = false
[[sources]]
kind = "csv"
name = "vitals"
[sources.options]
stream = "vitals"
mode = "tail"
path = "vitals.csv"
time_format = "ns"
every_s = 0.02
[sources.options.fields.heart_rate]
code = "hr"
sent_unit = "/min"
low = 0
high = 1e6
[[sources]]
kind = "csv"
name = "wave"
[sources.options]
stream = "wave"
mode = "tail"
path = "wave.csv"
time_format = "ns"
rate_hz = 250.0
columns = ["ii"]
every_s = 0.02
[[sources]]
kind = "sql"
name = "his"
[sources.options]
stream = "lab"
url = "sqlite:///his.db"
query = "SELECT id, time, hr FROM lab WHERE id > :since ORDER BY id"
watermark = "id"
watermark_type = "integer"
time_format = "ns"
every_s = 0.1
page_rows = 7
[sources.options.fields.heart_rate]
code = "hr"
sent_unit = "/min"
low = 0
high = 1e6
"""


class Writer:
    """Other programs that write all the while: a monitor's files, which are rotated, and a database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begin_ns = time.time_ns() - 3_600 * 10**9
        self.written = 0
        self.heard = False
        """The agent has found the first files: what was rotated away before it came, nobody follows."""
        self._stop = threading.Event()
        with closing(sqlite3.connect(folder / "his.db")) as database, database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE lab (id INTEGER PRIMARY KEY, time INTEGER, hr REAL)")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            number = self.written
            if number == 0 or (self.heard and number % 150 == 0):
                for name, header in (("vitals.csv", "time,hr\n"), ("wave.csv", "time,ii\n")):
                    path = self.folder / name
                    if path.exists():
                        path.rename(f"{path}.{number}")
                    path.write_text(header)
            at_ns = self.begin_ns + number * 40_000_000
            row = f"{at_ns},{number}\n" + ("never,1\n" if number % 10 == 0 else "")
            with (self.folder / "vitals.csv").open("a") as file:
                file.write(row[:9])
                file.flush()
                file.write(row[9:])
            with (self.folder / "wave.csv").open("a") as file:
                file.writelines(f"{at_ns + n * 4_000_000},{number * 10 + n}\n" for n in range(10))
            with closing(sqlite3.connect(self.folder / "his.db", timeout=10)) as database, database:
                database.execute("INSERT INTO lab (time, hr) VALUES (?, ?)", (at_ns, number))
            self.written = number + 1


class Stored:
    """What is in the buffer."""

    def __init__(self, folder: Path) -> None:
        with closing(
            BufferReader(folder / "state" / "buffer.db", load_key_ring(folder / "state" / "identity"))
        ) as reader:
            self.records = {
                stream: [
                    int(record.values["heart_rate"])
                    for session in reader.sessions(StreamId(stream))
                    for record in reader.records(StreamId(stream), session.session)
                ]
                for stream in ("vitals", "lab")
            }
            stretches = [
                stretch.values[:, 0]
                for session in reader.sessions(StreamId("wave"))
                for stretch in reader.read_range(StreamId("wave"), session.session)
            ]
        self.samples = np.concatenate([*stretches, np.empty(0)]).astype(int).tolist()
        with closing(sqlite3.connect(folder / "state" / "buffer.db")) as database:
            self.left_out = sum(row[0] for row in database.execute("SELECT count FROM quarantine"))

    @property
    def least(self) -> int:
        return min(len(set(rows)) for rows in (*self.records.values(), [sample // 10 for sample in self.samples]))


def test_every_row_is_stored_exactly_once_whenever_the_agent_is_killed(device) -> None:
    (device.path / "agent.toml").write_text(CONFIG)
    chance, writer = random.Random(5), Writer(device.path)
    try:
        for _ in range(KILLS):
            (device.path / "run" / "agent.sock").unlink(missing_ok=True)
            device.start()
            device.await_value(lambda: (device.path / "run" / "agent.sock").is_socket(), bool)
            if not writer.heard:
                device.await_value(lambda: (device.path / "state" / "positions" / "wave.json").exists(), bool)
                device.await_value(lambda: (device.path / "state" / "positions" / "vitals.json").exists(), bool)
                writer.heard = True
            until_s = time.monotonic() + chance.uniform(0.1, 0.9)
            device.await_value(time.monotonic, lambda now_s, until_s=until_s: now_s > until_s)
            device.stop(signal.SIGKILL)
    finally:
        writer.stop()
    (device.path / "run" / "agent.sock").unlink(missing_ok=True)
    device.start()
    device.await_value(lambda: Stored(device.path).least, lambda rows: rows >= writer.written)
    device.stop()
    stored = Stored(device.path)
    assert stored.records["lab"] == list(range(writer.written))
    assert stored.records["vitals"] == list(range(writer.written))
    assert stored.samples == list(range(10 * writer.written))
    bad_rows = (writer.written + 9) // 10
    # Only a bad row that nothing stored lies behind may be counted again: one for each kill.
    assert bad_rows <= stored.left_out <= bad_rows + KILLS
