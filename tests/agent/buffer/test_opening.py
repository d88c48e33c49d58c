"""What happens when the buffer's file is opened: one writer, the right key, sound rows, or a salvage that counts."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedside.agent.buffer.keys import KeyRing, key_id
from bedside.agent.buffer.log import committing_frames
from bedside.agent.buffer.opening import open_or_salvage
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.salvage import MAX_SET_ASIDE, set_aside_files
from bedside.agent.buffer.schema import MIGRATIONS, first_id
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.store import BufferStore
from bedside.agent.buffer.tags import TAGGED, tag_of
from bedside.core.errors import ConfigError, StoreError, UnavailableError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Quality
from bedside.ondevice.windows.part import Part
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.sqlite import open_database

KEY, OTHER = bytes(range(32)), b"\1" * 32
ECG = StreamId("ecg")
T0_S = 1_700_000_000
ENTROPY = SystemEntropy()


def values(second: int) -> np.ndarray:
    return np.random.default_rng(second).integers(-3000, 3000, (250, 2), np.int16)


def open_store(path: Path, keys=KEY) -> BufferStore:
    return BufferStore(path, keys, SystemClock(), ENTROPY)


def fill(path: Path, seconds: int = 60) -> None:
    store = open_store(path)
    for second in range(seconds):
        store.append(Block(ECG, (T0_S + second) * 10**9, 250.0, values(second)))
        if second % 10 == 0:
            store.add_label(ECG, (T0_S + second) * 10**9, (T0_S + second + 1) * 10**9, f"label-{second}", "cli")
    store.close()


def damage(path: Path, change: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()


def files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if not one.name.endswith((".lock", "-shm"))}


def test_every_table_of_the_schema_has_tags() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        for migration in MIGRATIONS:
            connection.executescript(migration.script)
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert {name for name in tables if not name.startswith("sqlite_")} == set(TAGGED)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_zero_has_no_sign_as_sqlite_stores_none(zero) -> None:
    assert tag_of("alarm", zero) == tag_of("alarm", 0.0)


def test_one_process_writes(tmp_path) -> None:
    store = open_store(tmp_path / "b.db")
    with pytest.raises(UnavailableError) as caught:
        open_store(tmp_path / "b.db")
    assert caught.value.code == "buffer-in-use"
    store.close()
    open_store(tmp_path / "b.db").close()


def test_a_pipe_in_place_of_the_lock_is_refused_and_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "b.db.lock")
    with pytest.raises(StoreError, match="lock cannot be opened"):
        open_store(tmp_path / "b.db")


def test_a_file_of_the_first_version_stays_readable_and_gets_tags_and_a_key_on_record(tmp_path) -> None:
    path = tmp_path / "b.db"
    sealer = Sealer(KEY, ENTROPY)
    with closing(open_database(path, MIGRATIONS[:1])) as old:
        old.run_tx("old rows", lambda tx: write_old_rows(tx, sealer))
    with pytest.raises(ConfigError) as caught:
        open_store(path, OTHER)
    assert caught.value.code == "buffer-key-wrong"
    store = open_store(path, KeyRing(OTHER, KEY))
    assert store.salvage is None
    keys = {row["key_id"] for row in store.database.rows("SELECT key_id FROM seal_keys")}
    assert keys == {key_id(KEY), key_id(OTHER)}
    store.close()
    with closing(BufferReader(path, KEY)) as reader:
        assert [part.values.tobytes() for part in reader.parts(ECG, SessionId("s"))] == [values(0).tobytes()]
        assert [label.label for label in reader.labels(SessionId("s"))] == ["walking"]
        assert reader.unreadable == 0


def write_old_rows(tx: sqlite3.Connection, sealer: Sealer) -> None:
    at_ns = T0_S * 10**9
    part = Part(ECG, SessionId("s"), T0_S, at_ns, 250.0, values(0), "mV", "MDC_ECG_ELEC_POTL", 1.0, Quality.GOOD)
    tx.execute("INSERT INTO streams (number, name) VALUES (1, 'ecg')")
    tx.execute(
        "INSERT INTO sessions (session, stream, opened_ns, consent_training, origin) VALUES ('s', 'ecg', ?, 1, 'gap')",
        (at_ns,),
    )
    tx.execute(
        "INSERT INTO blobs (id, session, start_ns, end_ns, rate_hz, samples, channels, dtype, flags, sealed)"
        " VALUES (?, 's', ?, ?, 250.0, 250, 2, 'int16', 0, ?)",
        (first_id(T0_S, 1), at_ns, at_ns + 10**9, sealer.seal(part)),
    )
    tx.execute(
        "INSERT INTO labels (stream, session, start_ns, end_ns, label, origin)"
        " VALUES ('ecg', 's', ?, ?, 'walking', 'cli')",
        (at_ns, at_ns + 10**9),
    )


def test_a_changed_label_is_lost_and_counted_and_the_rest_is_kept(tmp_path) -> None:
    fill(tmp_path / "b.db")
    damage(tmp_path / "b.db", "UPDATE labels SET label = 'other' WHERE id = 3")
    store = open_store(tmp_path / "b.db")
    assert store.salvage is not None
    assert (dict(store.salvage.lost), store.salvage.blobs) == ({"labels": 1}, 60)
    assert "1 labels lost" in store.degraded
    store.close()
    with closing(BufferReader(tmp_path / "b.db", KEY)) as reader:
        assert reader.counters()["lost-labels"] == 1
        (session,) = reader.sessions(ECG)
        assert len(reader.labels(session.session)) == 5
        assert len(list(reader.parts(ECG, session.session))) == 60


@pytest.mark.parametrize(
    "flip",
    [(b"end_ns INTEGER", b"end_os INTEGER"), (b"end_ns INTEGER", b"end\xf0ns INTEGER"), (b"buffer-1", b"buffer-0")],
)
def test_a_damaged_schema_costs_no_row(tmp_path, flip) -> None:
    fill(tmp_path / "b.db")
    content = (tmp_path / "b.db").read_bytes()
    assert flip[0] in content
    (tmp_path / "b.db").write_bytes(content.replace(flip[0], flip[1], 1))
    store = open_store(tmp_path / "b.db")
    assert store.salvage is not None
    assert (dict(store.salvage.lost), store.salvage.blobs) == ({}, 60)
    store.close()


def test_with_a_wrong_key_not_even_a_damaged_file_is_touched(tmp_path) -> None:
    fill(tmp_path / "b.db")
    for change in ("UPDATE labels SET label = 'other' WHERE id = 3", "UPDATE seal_keys SET key_id = key_id + 1"):
        damage(tmp_path / "b.db", change)
        before = files(tmp_path)
        with pytest.raises(ConfigError) as caught:
            open_store(tmp_path / "b.db", OTHER)
        assert caught.value.code == "buffer-key-wrong"
        assert files(tmp_path) == before
    store = open_store(tmp_path / "b.db")
    assert store.salvage is not None
    assert store.salvage.blobs == 60
    store.close()


def test_without_room_for_a_copy_the_damaged_file_stays_as_it_is(tmp_path, monkeypatch) -> None:
    fill(tmp_path / "b.db")
    damage(tmp_path / "b.db", "UPDATE labels SET label = 'other' WHERE id = 3")
    before = files(tmp_path)

    def refuse(*_: object) -> None:
        raise StoreError("store-write", "database or disk is full")

    monkeypatch.setattr("bedside.agent.buffer.opening.copy_sound_rows", refuse)
    with pytest.raises(StoreError):
        open_store(tmp_path / "b.db")
    assert files(tmp_path) == before


def test_a_swap_that_was_cut_off_is_finished(tmp_path) -> None:
    fill(tmp_path / "b.db")
    (tmp_path / "b.db").rename(tmp_path / "b.db.salvaged")
    store = open_store(tmp_path / "b.db")
    assert store.database.rows("SELECT count(*) FROM blobs")[0][0] == 60
    store.close()


def test_a_bad_card_does_not_fill_itself_with_damaged_files(tmp_path) -> None:
    for _ in range(MAX_SET_ASIDE + 2):
        fill(tmp_path / "b.db", 3)
        damage(tmp_path / "b.db", "UPDATE labels SET label = 'other' WHERE id = 1")
        open_store(tmp_path / "b.db").close()
    kept = set_aside_files(tmp_path / "b.db")
    assert [one.name for one in kept] == ["b.db.damaged-3", "b.db.damaged-4"]


def test_commits_behind_a_flipped_bit_of_the_log_are_counted(tmp_path) -> None:
    (tmp_path / "living").mkdir()
    store = open_store(tmp_path / "living" / "b.db")
    for second in range(12):
        store.append(Block(ECG, (T0_S + second) * 10**9, 250.0, values(second)))
        store.flush()
    for name in ("b.db", "b.db-wal"):
        (tmp_path / name).write_bytes((tmp_path / "living" / name).read_bytes())
    store.close()
    frames = committing_frames(tmp_path / "b.db-wal")
    log = bytearray((tmp_path / "b.db-wal").read_bytes())
    log[32 + (frames[-5] - 1) * (24 + 4096) + 500] ^= 1
    (tmp_path / "b.db-wal").write_bytes(log)
    store = open_store(tmp_path / "b.db")
    assert store.salvage is not None
    assert store.salvage.lost_commits == 4  # of five; the last might be what a power cut interrupted
    store.close()
    with closing(BufferReader(tmp_path / "b.db", KEY)) as reader:
        (session,) = reader.sessions(ECG)
        assert len(list(reader.parts(ECG, session.session))) == 7
        assert (reader.counters()["lost-commits"], reader.counters()["torn-commits"]) == (4, 1)


@pytest.mark.parametrize("content", [b"", b"short", bytes(32), b"\xff" * 64, bytes(5_000)])
def test_a_log_that_is_none_says_nothing(tmp_path, content) -> None:
    (tmp_path / "b.db-wal").write_bytes(content)
    assert committing_frames(tmp_path / "b.db-wal") == []


@settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from([b"", bytes.fromhex("377f0682002de218"), bytes.fromhex("377f0683")]))
def test_any_bytes_are_a_log_with_some_commits_or_none(tmp_path, content, head) -> None:
    (tmp_path / "b.db").write_bytes(content)
    (tmp_path / "b.db-wal").write_bytes(head + content)
    assert len(committing_frames(tmp_path / "b.db-wal")) <= len(content)


@pytest.mark.parametrize("how", ["gone", "empty", 100, 3_000, 4_096])
def test_a_buffer_that_is_gone_or_empty_is_no_new_device(tmp_path, how) -> None:
    fill(tmp_path / "b.db")
    if how == "gone":
        (tmp_path / "b.db").unlink()
    else:
        os.truncate(tmp_path / "b.db", 0 if how == "empty" else how)
    store = open_store(tmp_path / "b.db")
    assert store.degraded.startswith("the buffer was lost")
    assert "nothing lost" not in store.degraded
    store.close()
    store = open_store(tmp_path / "b.db")  # who meant it restarts
    assert store.degraded == ""
    store.close()
    with closing(BufferReader(tmp_path / "b.db", KEY)) as reader:
        assert reader.counters()["lost-buffers"] == 1


def test_a_new_device_has_lost_nothing(tmp_path) -> None:
    (tmp_path / "b.db").touch()
    store = open_store(tmp_path / "b.db")
    assert store.degraded == ""
    store.close()


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.8, 0.95])
def test_of_a_file_that_was_cut_the_unknown_is_not_told_as_a_number(tmp_path, part) -> None:
    fill(tmp_path / "b.db", 200)
    os.truncate(tmp_path / "b.db", int((tmp_path / "b.db").stat().st_size * part))
    store = open_store(tmp_path / "b.db")
    assert store.salvage is not None
    assert "an unknown number of blobs" in store.degraded or store.salvage.begun_anew
    assert store.salvage.blobs < 200
    assert sum(store.salvage.lost.values()) < 1_000
    store.close()


def test_a_lost_number_is_not_given_again(tmp_path) -> None:
    fill(tmp_path / "b.db", 3)
    damage(tmp_path / "b.db", "INSERT INTO sqlite_sequence (name, seq) VALUES ('predictions', 77)")
    damage(tmp_path / "b.db", "UPDATE labels SET label = 'other' WHERE id = 1")
    database, salvage = open_or_salvage(tmp_path / "b.db", Sealer(KEY))
    with closing(database):
        assert salvage is not None
        assert database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'predictions'")[0][0] == 77


def test_a_table_that_damage_took_out_of_the_schema_is_lost_and_not_of_an_older_version(tmp_path) -> None:
    path = tmp_path / "b.db"
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("DELETE FROM sqlite_master WHERE tbl_name = 'labels'")
        connection.commit()
    store = open_store(path)
    assert store.salvage is not None
    assert "an unknown number of labels" in store.salvage.sentence()
    assert store.salvage.blobs == 60
    store.close()
