"""A buffer's key is replaced: nothing is lost at any kill -9, and nothing of the old key is left."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.keys import CREDENTIAL, KEY_FILE, key_id, load_key_ring
from bedside.agent.buffer.opening import open_or_salvage
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rotation import Rotation, rotate_key
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.store import BufferStore
from bedside.core.errors import ConfigError, StoreError, UnavailableError
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.service.keys import create_secret
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.sqlite import Database

ECG = StreamId("ecg")
T0_S = 1_700_000_000
ENTROPY = SystemEntropy()
SECONDS = 600
ROWS = SECONDS + 3


def values(second: int) -> np.ndarray:
    return np.random.default_rng(second).integers(-3000, 3000, (25, 2), np.int16)


class Home:
    """An identity directory and a buffer with one blob a second and a few rows of other tables."""

    def __init__(self, path: Path) -> None:
        self.identity, self.buffer = path / "identity", path / "buffer.db"
        self.identity.mkdir(mode=0o700)
        create_secret(self.identity / KEY_FILE, 32, ENTROPY)
        store = BufferStore(self.buffer, self.ring, SystemClock(), ENTROPY)
        for second in range(SECONDS):
            session = store.append(Block(ECG, (T0_S + second) * 10**9, 25.0, values(second)))
        store.flush()
        add_sealed_rows(store.database, Sealer(self.ring, ENTROPY), session)
        store.close()

    @property
    def ring(self):
        return load_key_ring(self.identity, {})

    def rotate(self, environ=None) -> Rotation:
        return rotate_key(self.buffer, self.identity, ENTROPY, lambda _: lambda _: None, environ or {})

    def assert_whole(self, environ=None) -> None:
        ring = load_key_ring(self.identity, environ or {})
        with closing(BufferReader(self.buffer, ring)) as reader:
            (session,) = reader.sessions()
            found = {part.second - T0_S: part.values for part in reader.parts(ECG, session.session)}
            assert reader.unreadable == 0
        assert found.keys() == set(range(SECONDS))
        assert all(np.array_equal(found[second], values(second)) for second in found)
        database, salvage = open_or_salvage(self.buffer, Sealer(ring))
        with closing(database):
            assert salvage is None
            for table, place in OTHERS.items():
                sealed = database.connection.execute(f"SELECT sealed FROM {table}").fetchone()[0]
                assert Sealer(ring).open_row(sealed, place) == f"content of {table}".encode()

    def bytes_on_disk(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.buffer.parent.rglob("*") if path.is_file())

    def sealed(self) -> list[bytes]:
        database, _ = open_or_salvage(self.buffer, Sealer(self.ring))
        with closing(database):
            return [row[0] for row in database.connection.execute("SELECT sealed FROM blobs")]


OTHERS = {"records": ("records", 1), "windows": ("windows", 1), "summaries": ("summaries", 1)}


def add_sealed_rows(database: Database, sealer: Sealer, session: str) -> None:
    sealed = {table: sealer.seal_row(place, f"content of {table}".encode()) for table, place in OTHERS.items()}
    tx, key = database.connection, sealer.key_id
    tx.execute(
        "INSERT INTO records (session, time_ns, key_id, sealed) VALUES (?, 1, ?, ?)",
        (session, key, sealed["records"]),
    )
    tx.execute(
        "INSERT INTO windows (stream, session, start_ns, end_ns, spec, length, channels, label, key_id, sealed)"
        " VALUES ('ecg', ?, 1, 2, x'00', 1, 1, 'walk', ?, ?)",
        (session, key, sealed["windows"]),
    )
    tx.execute(
        "INSERT INTO summaries (session, key_id, sealed) VALUES (?, ?, ?)",
        (session, key, sealed["summaries"]),
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_every_row_is_sealed_with_the_new_key_and_the_old_one_is_gone(home) -> None:
    old_key, old_sealed = home.ring.newest, home.sealed()
    told = []
    done = rotate_key(home.buffer, home.identity, ENTROPY, lambda rows: told.append(rows) or told.append, {})
    assert (told[0], sum(told[1:])) == (ROWS, ROWS)
    assert home.ring.newest != old_key
    assert len(home.ring.keys) == 1
    assert (sum(done.resealed.values()), dict(done.lost), done.key_id) == (ROWS, {}, key_id(home.ring.newest))
    home.assert_whole()
    on_disk = home.bytes_on_disk()
    assert old_key not in on_disk
    assert not [sealed for sealed in old_sealed if sealed[8:40] in on_disk or sealed[-40:-8] in on_disk]
    with pytest.raises(ConfigError) as caught:
        open_or_salvage(home.buffer, Sealer(old_key))
    assert caught.value.code == "buffer-key-wrong"


def test_while_the_agent_writes_nothing_is_rotated(home) -> None:
    store = BufferStore(home.buffer, home.ring, SystemClock(), ENTROPY)
    with pytest.raises(UnavailableError) as caught:
        home.rotate()
    assert caught.value.code == "buffer-in-use"
    store.close()
    assert [path.name for path in home.identity.iterdir()] == [KEY_FILE]


def test_an_agent_that_starts_in_the_middle_of_a_rotation_goes_on_with_both_keys(home, monkeypatch) -> None:
    steps = iter(range(2))

    def stop(_: float) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rotate_key(home.buffer, home.identity, ENTROPY, lambda _: stop, {})
    assert len(home.ring.keys) == 2
    home.assert_whole()
    store = BufferStore(home.buffer, home.ring, SystemClock(), ENTROPY)
    store.append(Block(ECG, (T0_S + SECONDS) * 10**9, 25.0, values(0)))
    store.close()
    done = home.rotate()
    assert 0 < sum(done.resealed.values()) < ROWS
    assert len(home.ring.keys) == 1


def test_a_damaged_row_does_not_stop_a_rotation_and_is_counted(home) -> None:
    database, _ = open_or_salvage(home.buffer, Sealer(home.ring))
    with closing(database):
        database.connection.execute("UPDATE blobs SET sealed = zeroblob(200) WHERE id = (SELECT min(id) FROM blobs)")
    done = home.rotate()
    assert dict(done.lost) == {"blobs": 1}
    with closing(BufferReader(home.buffer, home.ring)) as reader:
        assert reader.counters()["lost-blobs"] == 1


def test_with_a_wrong_key_nothing_is_changed(home) -> None:
    right = (home.identity / KEY_FILE).read_bytes()
    (home.identity / KEY_FILE).write_bytes(b"\1" * 32)
    with pytest.raises(ConfigError) as caught:
        home.rotate()
    assert caught.value.code == "buffer-key-wrong"
    assert str(home.buffer) in caught.value.remedy
    (home.identity / KEY_FILE).write_bytes(right)
    home.assert_whole()


def test_rows_move_to_a_credential_and_the_file_is_erased(home, tmp_path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / CREDENTIAL).write_bytes(b"\2" * 32)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    home.assert_whole(environ)  # at once: the file's key still opens what it sealed
    done = home.rotate(environ)
    assert (done.by_credential, done.key_id) == (True, key_id(b"\2" * 32))
    assert list(home.identity.iterdir()) == []
    home.assert_whole(environ)


def test_a_key_whose_rows_are_all_gone_is_not_missed(home) -> None:
    database, _ = open_or_salvage(home.buffer, Sealer(home.ring))
    with closing(database):
        for table in ("blobs", *OTHERS):
            database.connection.execute(f"DELETE FROM {table}")
    database, salvage = open_or_salvage(home.buffer, Sealer(b"\3" * 32))
    database.close()
    assert salvage is None


CHILD = """
import os
import signal
import sys
from pathlib import Path
from bedside.agent.buffer.rotation import rotate_key
from bedside.service.platform import SystemEntropy
at = int(sys.argv[3])
def step(name):
    global at
    at -= 1
    if at < 0:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(lambda event, _: step(event) if event in ("open", "os.rename", "os.remove") else None)
import sqlite3
from bedside.service.sqlite import Database
run = Database.run_tx
def run_tx(self, name, work):
    step(name)
    done = run(self, name, work)
    step(name)
    return done
Database.run_tx = run_tx
at = int(sys.argv[3])
rotate_key(Path(sys.argv[1]), Path(sys.argv[2]), SystemEntropy(), lambda _: lambda _: None, {})
"""


def test_kill_9_at_any_step_loses_nothing_and_the_next_call_finishes(home) -> None:
    killed = 0
    old_key = home.ring.newest
    for step in range(100):
        command = [sys.executable, "-c", CHILD, str(home.buffer), str(home.identity), str(step)]
        done = subprocess.run(command, check=False, capture_output=True, timeout=60)
        status = done.returncode
        assert status in (0, -9), done.stderr
        home.assert_whole()
        killed += status != 0
        if status == 0:
            break
    assert killed > 15
    assert len(home.ring.keys) == 1
    assert old_key not in home.bytes_on_disk()


def test_without_a_key_the_error_says_where_it_is_looked_for(home) -> None:
    (home.identity / KEY_FILE).unlink()
    with pytest.raises(ConfigError) as caught:
        home.rotate()
    assert caught.value.code == "buffer-key-missing"


def test_a_reader_that_holds_the_log_is_named(home, monkeypatch) -> None:
    with closing(BufferReader(home.buffer, home.ring)) as reader:
        reader._connection.execute("BEGIN")
        reader._connection.execute("SELECT count(*) FROM blobs").fetchone()
        monkeypatch.setattr("bedside.agent.buffer.rotation.ERASE_WAIT_MS", 1)
        with pytest.raises(StoreError) as caught:
            home.rotate()
        assert caught.value.code == "buffer-read"
        reader._connection.execute("COMMIT")
    home.rotate()
    home.assert_whole()
