"""A file that an older version wrote opens, keeps everything, and survives a kill in the middle of its migration."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.inspection import describe
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.schema import MIGRATIONS, first_id
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.store import BufferStore
from bedside.agent.buffer.tags import TAGGED, UNTAGGED, is_sound, key_columns, tag_of
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Quality
from bedside.ondevice.windows.part import Part
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.sqlite import open_database

KEY = bytes(range(32))
ECG = StreamId("ecg")
SESSION = SessionId("00112233aabbccdd")
T0 = 1_700_000_000
SECONDS = 40


def values(second: int) -> np.ndarray:
    return np.random.default_rng(second).integers(-3000, 3000, (250, 8), np.int16)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as `buffer-1` left it: signal, a label, a prediction, a counter, a session that is open."""
    path = tmp_path / "b.db"
    sealer = Sealer(KEY, SystemEntropy())
    with closing(open_database(path, MIGRATIONS[:1], secure_delete=True)) as database:

        def work(tx: sqlite3.Connection) -> None:
            tx.execute("INSERT INTO streams (name) VALUES ('ecg')")
            tx.execute(
                "INSERT INTO sessions (session, stream, opened_ns, consent_training, origin)"
                " VALUES (?, 'ecg', ?, 1, 'gap')",
                (SESSION, T0 * 10**9),
            )
            for second in range(SECONDS):
                at_ns = (T0 + second) * 10**9
                part = Part(ECG, SESSION, T0 + second, at_ns, 250.0, values(second), "mV", "", 0.5, Quality.GOOD)
                tx.execute(
                    "INSERT INTO blobs VALUES (?, ?, ?, ?, 250.0, 250, 8, 'int16', 0, ?)",
                    (first_id(T0 + second, 1), SESSION, at_ns, at_ns + 10**9, sealer.seal(part)),
                )
            columns = "stream, session, start_ns, end_ns, label, origin"
            tx.execute(f"INSERT INTO labels ({columns}) VALUES ('ecg', ?, 1, 2, 'n', 'cli')", (SESSION,))
            tx.execute(
                "INSERT INTO predictions VALUES (17, 'ecg', ?, 1, ?, 'walk', 0.9, x'aa', 0.001)",
                (SESSION, (T0 + SECONDS + 5) * 10**9),
            )
            tx.execute("INSERT INTO counters VALUES ('ecg', ?, 'evicted-parts', 3)", (SESSION,))

        database.run_tx("old", work)
    return path


def check(path: Path) -> None:
    store = BufferStore(path, KEY, SystemClock(), SystemEntropy())
    assert store.salvage is None
    assert store.sessions.current(ECG) == SESSION
    assert store.sessions.last_end_ns(ECG) == (T0 + SECONDS + 5) * 10**9
    with closing(BufferReader(path, KEY)) as reader:
        (session,) = reader.sessions(ECG)
        assert (session.expired_ns, session.consent_training) == (0, True)
        found = {part.second - T0: part.values for part in reader.parts(ECG, SESSION)}
        assert found.keys() == set(range(SECONDS))
        assert all(np.array_equal(found[second], values(second)) for second in found)
        (label,) = reader.labels(SESSION)
        prediction = reader.prediction(17)
        assert prediction is not None
        assert (label.label, prediction.label, prediction.model_name) == ("n", "walk", "")
        assert describe(path)["counters"] == [{"stream": ECG, "counter": "evicted-parts", "value": 3}]
        assert reader.unreadable == 0
    for table in TAGGED:
        assert all(is_sound(row) for row in store.database.rows(f"SELECT * FROM {table}"))
    block = Block(ECG, (T0 + SECONDS + 6) * 10**9, 250.0, values(0), "mV", "", 0.5)
    assert store.append(block) == SESSION
    store.close()


def test_what_an_older_version_wrote_is_read_and_added_to(old) -> None:
    check(old)
    with closing(sqlite3.connect(old)) as db:
        names = [row[0] for row in db.execute("SELECT name FROM migrations ORDER BY applied_order")]
    assert names == [migration.name for migration in MIGRATIONS]


MIGRATOR = """
import os, signal, sqlite3, sys
from pathlib import Path
import bedside.service.sqlite as service
from bedside.agent.buffer.store import BufferStore
from bedside.service.platform import SystemClock, SystemEntropy
left = int(sys.argv[2])
class Killed(sqlite3.Connection):
    def execute(self, sql, *parameters):
        global left
        if not sql.startswith(("PRAGMA", "SELECT")):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(sql, *parameters)
real = sqlite3.connect
service.sqlite3.connect = lambda *a, **k: real(*a, **{**k, "factory": Killed})
BufferStore(Path(sys.argv[1]), bytes(range(32)), SystemClock(), SystemEntropy()).close()
print("done")
"""


@pytest.mark.parametrize("statements", [0, 2, 5, 12, 20, 27, 35, 45, 52, 60])
def test_a_kill_in_the_middle_of_a_migration_leaves_a_file_that_opens(old, statements) -> None:
    command = [sys.executable, "-c", MIGRATOR, str(old), str(statements)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == -signal.SIGKILL or done.stdout == "done\n", done.stderr
    assert done.returncode == -signal.SIGKILL or statements > 50
    check(old)


def test_a_file_with_tags_gets_new_columns_and_loses_no_row(old) -> None:
    """`buffer-3` had tags, which a column more would make wrong."""
    with closing(open_database(old, MIGRATIONS[:3], secure_delete=True)) as database:

        def work(tx: sqlite3.Connection) -> None:
            tx.execute(
                "INSERT INTO alarms (rule, stream, session, priority, raised_ns, value)"
                " VALUES ('r', 'ecg', ?, 'low', 1, 0.5)",
                (SESSION,),
            )
            sealed = Sealer(KEY, SystemEntropy()).seal_row(("record", ECG, SESSION, T0 * 10**9), b"content")
            tx.execute(
                "INSERT INTO records (id, session, time_ns, key_id, sealed) VALUES (?, ?, ?, 0, ?)",
                (first_id(T0, 1), SESSION, T0 * 10**9, sealed),
            )
            for table in ("streams", "sessions", "blobs", "records", "labels", "predictions", "alarms", "counters"):
                rows = tx.execute(f"SELECT * FROM {table}").fetchall()
                for row in rows:
                    plain = [row[name] for name in row.keys() if name not in UNTAGGED]  # noqa: SIM118
                    keys = " AND ".join(f"{name} = ?" for name in key_columns(table))
                    places = [row[name] for name in key_columns(table)]
                    tx.execute(f"UPDATE {table} SET tag = ? WHERE {keys}", (tag_of(*plain), *places))
            tx.execute(f"PRAGMA application_id = {0x62656473}")

        database.run_tx("tagged", work)
    check(old)
    with closing(sqlite3.connect(old)) as db:
        assert db.execute("SELECT rule, changed FROM alarms").fetchall() == [("r", 0)]
        assert db.execute("SELECT count(*), max(number) FROM records").fetchone() == (1, 0)
