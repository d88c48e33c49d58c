"""What only a server does: it is shared, it conflicts, it goes away and comes back, and it asks for a password."""

from __future__ import annotations

import logging
import socket
import threading
import time

import psycopg
import pytest

from bedside.coordinator.database_url import parse_database_url
from bedside.coordinator.store import log, open_store, postgres
from bedside.coordinator.store.database import MAX_ATTEMPTS
from bedside.coordinator.store.postgres import open_session
from bedside.core.errors import ConfigError, StoreError, UnavailableError
from bedside.core.log.entries import encode_entry
from bedside.core.signing import digest
from postgres_server import PASSWORD

KEY = b"k" * 32


def leaf(number):
    return encode_entry("plan", digest(b"%d" % number), digest(b"%d" % number))


def until(condition, deadline_s=20.0):
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


@pytest.fixture
def url(server):
    return server.new_database()


@pytest.fixture
def opened(url):
    store = open_store(parse_database_url(url))
    store.begin_tenure(KEY)
    yield store
    store.close()


def end_sessions(server, url):
    server.write(*(f"SELECT pg_terminate_backend({pid})" for pid in server.sessions(url)))


def test_a_second_coordinator_is_refused_by_name_and_may_serve_once_the_first_has_ended(url, opened, monkeypatch):
    monkeypatch.setattr(postgres, "LOCK_WAIT_MS", 10)
    with pytest.raises(UnavailableError) as caught:
        open_store(parse_database_url(url))
    assert caught.value.code == "already-running"
    assert "another coordinator serves from the database made_" in caught.value.sentence
    assert "since 20" in caught.value.sentence
    assert caught.value.remedy
    opened.close()
    open_store(parse_database_url(url)).close()


def test_the_lock_is_of_one_database_and_other_programs_keep_their_keys(server, opened, url, monkeypatch):
    monkeypatch.setattr(postgres, "LOCK_WAIT_MS", 10)
    open_store(parse_database_url(server.new_database())).close()
    with psycopg.connect(url, autocommit=True) as other:
        assert other.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (True,)


def rival(server, url, attempts):
    """Another session that commits what our transaction has read, so often; returns the work of ours."""

    def work(tx):
        size = log.size(tx)
        if attempts:
            attempts.pop()
            with psycopg.connect(url) as other:
                other.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
                other.execute("SELECT max(position) FROM log_entries")
                other.execute("SELECT * FROM rosters")
                other.execute("INSERT INTO rosters VALUES (%s, 1, '')", [f"site {len(attempts)}"])
        tx.exec_driver_sql("SELECT count(*) FROM rosters")
        log.append(tx, leaf(size))
        return size

    return work


def test_a_transaction_that_conflicts_is_run_again_a_few_times_and_then_named(server, url, opened):
    few = [1] * (MAX_ATTEMPTS - 1)
    opened.run_tx("first", lambda tx: log.append(tx, leaf(7)))
    assert opened.run_tx("append", rival(server, url, few)) == 1
    assert few == []
    assert opened.run_tx("size", log.size) == 2


def test_a_conflict_that_does_not_end_is_an_error(opened):
    runs = []

    def work(tx):
        runs.append(1)
        tx.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'serialization_failure'; END $$")

    with pytest.raises(StoreError) as caught:
        opened.run_tx("never", work)
    assert (caught.value.code, len(runs)) == ("store-write", MAX_ATTEMPTS)


def test_a_lost_session_refuses_calls_until_it_is_back_and_the_process_goes_on(server, url, opened, caplog):
    caplog.set_level(logging.INFO)
    opened.run_tx("append", lambda tx: log.append(tx, leaf(0)))
    server.stop()
    try:
        for _ in range(3):
            with pytest.raises(UnavailableError) as caught:
                opened.run_tx("append", lambda tx: log.append(tx, leaf(1)))
            assert caught.value.code == "store-unavailable"
            assert opened.trouble
    finally:
        server.start()
    until(lambda: not opened.trouble)
    assert opened.run_tx("size", log.size) == 1
    assert [record.getMessage().split()[0] for record in caplog.records] == ["store-lost", "store-back"]


def test_a_process_that_was_replaced_meanwhile_never_writes_again(server, url, opened, monkeypatch):
    real, begun = postgres.open_session, threading.Event()

    def late(*arguments):
        begun.wait()
        return real(*arguments)

    monkeypatch.setattr(postgres, "open_session", late)
    end_sessions(server, url)
    with pytest.raises(UnavailableError):
        opened.run_tx("size", log.size)
    with psycopg.connect(url) as other:  # another coordinator starts, serves and stops
        other.execute("UPDATE tenure SET number = number + 1")
    begun.set()
    until(lambda: opened.is_replaced)
    assert "another coordinator" in opened.trouble
    with pytest.raises(UnavailableError):
        opened.run_tx("size", log.size)
    assert server.sessions(url) == []


def test_a_server_that_takes_no_writes_is_left_and_asked_again(server, url, opened):
    with pytest.raises(UnavailableError):
        opened.run_tx("append", lambda tx: tx.exec_driver_sql("SET TRANSACTION READ ONLY") and log.append(tx, leaf(0)))
    until(lambda: not opened.trouble)
    assert opened.run_tx("append", lambda tx: log.append(tx, leaf(0))) == 0


def test_a_password_is_read_at_every_connection_and_stands_in_no_error(server, opened):
    database = server.new_database("OWNER reader")
    place = parse_database_url(database.replace("owner@", "reader@"))
    said = []

    def password():
        said.append(1)
        return PASSWORD

    open_store(place, password).close()
    assert said == [1]
    with pytest.raises(UnavailableError) as caught:
        open_store(place, lambda: PASSWORD + "-old")
    assert "password authentication failed" in caught.value.sentence
    assert PASSWORD not in caught.value.diagnostics()
    assert caught.value.__cause__ is None


def test_whoever_answers_in_place_of_the_server_does_not_get_the_password():
    """It asks for it in plaintext (AuthenticationCleartextPassword), which libpq would send."""
    told = []

    def answer(listener):
        session, _ = listener.accept()
        with session:
            session.recv(1024)  # SSLRequest
            session.sendall(b"N")
            session.recv(1024)
            session.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
            told.append(session.recv(1024))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        rogue = threading.Thread(target=answer, args=(listener,))
        rogue.start()
        place = parse_database_url(f"postgresql://reader@127.0.0.1:{listener.getsockname()[1]}/db?gssencmode=disable")
        with pytest.raises(UnavailableError) as caught:
            open_session(place, PASSWORD)
        rogue.join(20.0)
    assert told == [b""]
    assert "cleartext password" in caught.value.sentence


def test_a_password_file_of_libpq_is_enough(server, tmp_path, monkeypatch):
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:reader:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    open_store(parse_database_url(server.new_database("OWNER reader").replace("owner@", "reader@"))).close()


def test_what_was_promised_is_durable_whatever_the_server_s_defaults(server):
    url = server.new_database()
    server.write(f"ALTER DATABASE {parse_database_url(url).name} SET synchronous_commit = off")
    store = open_store(parse_database_url(url))
    told = store.run_tx("look", lambda tx: tx.exec_driver_sql("SHOW synchronous_commit").scalar_one())
    isolation = store.run_tx("look", lambda tx: tx.exec_driver_sql("SHOW transaction_isolation").scalar_one())
    store.close()
    assert (told, isolation) == ("on", "serializable")


def test_a_user_who_may_make_no_table_is_told_so(server):
    url = server.new_database().replace("owner@", "reader@")
    server.write("ALTER DATABASE postgres SET search_path = public")
    with pytest.raises(StoreError) as caught:
        open_store(parse_database_url(url), lambda: PASSWORD)
    assert caught.value.code == "store-open"
    assert "permission denied" in caught.value.sentence


def test_without_its_driver_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(postgres.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        open_store(parse_database_url("postgresql://db/bedside"))
    assert "bedside[postgres]" in caught.value.remedy
