import sqlite3
import stat

import pytest

from bedside.core.errors import StoreError
from bedside.service.platform import SystemClock
from bedside.service.sqlite import Migration, open_database, open_reader

FIRST = Migration("first", "CREATE TABLE item (name TEXT PRIMARY KEY); INSERT INTO item VALUES ('a')")
SECOND = Migration("second", "ALTER TABLE item ADD COLUMN size INTEGER NOT NULL DEFAULT 7")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "agent.db"


def names(connection):
    return [row[0] for row in connection.execute("SELECT name FROM item ORDER BY name")]


def test_a_file_is_private_and_every_commit_reaches_the_disk(path):
    database = open_database(path, [FIRST])
    assert database.connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert database.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    beside = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert beside == {"agent.db": 0o600, "agent.db-wal": 0o600, "agent.db-shm": 0o600}
    database.close()


def test_each_migration_runs_once_whenever_it_arrives(path):
    open_database(path, [FIRST]).close()
    database = open_database(path, [FIRST, SECOND])
    assert database.connection.execute("SELECT name, size FROM item").fetchall()[0]["size"] == 7
    database.close()
    open_database(path, [FIRST, SECOND]).close()


def test_a_migration_that_fails_leaves_nothing_behind_and_may_be_tried_again(path):
    open_database(path, [FIRST]).close()
    broken = Migration("second", "CREATE TABLE other (x); SELECT nonsense FROM nowhere")
    with pytest.raises(StoreError):
        open_database(path, [FIRST, broken])
    database = open_database(path, [FIRST, SECOND])
    tables = [row[0] for row in database.connection.execute("SELECT name FROM sqlite_master")]
    assert "other" not in tables
    database.close()


def test_a_file_of_a_later_version_is_refused(path):
    open_database(path, [FIRST, SECOND]).close()
    with pytest.raises(StoreError) as caught:
        open_database(path, [FIRST])
    assert caught.value.code == "store-newer"


def test_an_integer_that_sqlite_does_not_hold_is_an_error_of_the_store(path):
    database = open_database(path, [FIRST, SECOND])
    with pytest.raises(StoreError) as caught:
        database.run_tx("insert", lambda tx: tx.execute("INSERT INTO item VALUES ('b', ?)", (2**63,)))
    assert caught.value.code == "store-write"
    assert names(database.connection) == ["a"]
    database.close()


def test_a_transaction_that_fails_writes_nothing(path):
    database = open_database(path, [FIRST])

    def work(transaction):
        transaction.execute("INSERT INTO item VALUES ('b')")
        transaction.execute("INSERT INTO item VALUES ('a')")

    with pytest.raises(StoreError) as caught:
        database.run_tx("add items", work)
    assert caught.value.code == "store-write"
    assert "add items" in caught.value.sentence
    assert names(database.connection) == ["a"]
    database.close()


def test_an_error_of_the_caller_rolls_back_and_passes_through(path):
    database = open_database(path, [FIRST])

    def work(transaction):
        transaction.execute("INSERT INTO item VALUES ('b')")
        raise KeyError("mine")

    with pytest.raises(KeyError):
        database.run_tx("add items", work)
    assert database.run_tx("read", names) == ["a"]
    database.close()


def test_a_reader_sees_commits_and_cannot_write(path):
    database = open_database(path, [FIRST])
    reader = open_reader(path)
    database.run_tx("add", lambda tx: tx.execute("INSERT INTO item VALUES ('b')"))
    assert names(reader) == ["a", "b"]
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM item")
    reader.close()
    database.close()


def test_what_is_no_database_is_refused(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError) as caught:
        open_database(path, [FIRST])
    assert caught.value.code == "store-open"
    with pytest.raises(StoreError):
        open_reader(path.with_name("none.db"))


def test_wall_time_never_goes_back(monkeypatch):
    from bedside.service import platform

    times = iter([5, 3, 9])
    monkeypatch.setattr(platform.time, "time_ns", lambda: next(times))
    clock = SystemClock()
    assert [clock.now_ns() for _ in range(3)] == [5, 5, 9]


def test_a_directory_that_cannot_be_made_and_rows_that_cannot_be_read_are_errors_of_the_store(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        open_database(tmp_path / "file" / "agent.db", [FIRST])
    assert caught.value.code == "store-open"
    database = open_database(tmp_path / "agent.db", [FIRST])
    assert [row["name"] for row in database.rows("SELECT name FROM item")] == ["a"]
    database.close()
    for read in (database.rows, database.row):
        with pytest.raises(StoreError) as caught:
            read("SELECT name FROM item")
        assert caught.value.code == "store-read"
