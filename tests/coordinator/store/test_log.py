"""The log in the database: in step with rounds, also through kill -9 and an upgrade, and cheap at any size."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import event, select, text

import bedside.coordinator.store.migration as migration
from bedside.coordinator.database_url import parse_database_url
from bedside.coordinator.store import contributions, log, open_store, tasks
from bedside.coordinator.store.contributions import WordRow
from bedside.coordinator.store.postgres import postgres_engine
from bedside.coordinator.store.schema import LOG_ENTRIES, LOG_NODES, TRUSTEE_WORDS
from bedside.coordinator.store.sqlite import sqlite_engine
from bedside.core.errors import StoreError
from bedside.core.log.entries import encode_entry
from bedside.core.signing import digest
from bedside.core.tree import tree_root, verify_consistency, verify_inclusion
from bedside.proto.v1.common_pb2 import Signed


def leaf(number):
    return encode_entry("plan", digest(b"%d" % number), digest(b"%d" % number))


def word(number, kind="opening"):
    return WordRow(digest(b"plan"), 0, digest(b"trustee %d" % number), kind, digest(b"word %d" % number), b"signed")


def test_roots_and_proofs_of_every_size_come_from_kept_nodes(store):
    leaves = [leaf(number) for number in range(37)]
    for one in leaves:
        store.run_tx("append", lambda tx, one=one: log.append(tx, one))

    def check(tx):
        assert log.size(tx) == 37
        for size in range(38):
            root = log.root(tx, size)
            assert root == tree_root(leaves[:size])
            assert verify_consistency(size, root, 37, log.root(tx, 37), log.consistency(tx, size, 37))
        for index, path in enumerate(log.inclusions(tx, range(37), 37)):
            assert verify_inclusion(log.root(tx, 37), leaves[index], index, 37, path)

    store.run_tx("check", check)


def test_appending_and_looking_cost_few_statements_at_any_size(store):
    def fill(tx):
        for number in range(300):
            log.append(tx, leaf(number))

    store.run_tx("fill", fill)
    statements = []
    event.listen(store._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    def plan(tx):
        log.append(tx, leaf(300))
        return log.root(tx, 301)

    store.run_tx("plan", plan)
    assert len(statements) < 40
    assert not any("count(" in text.lower() for text in statements)


def test_a_word_is_logged_once_with_its_row(store):
    for _ in range(2):
        store.run_tx("word", lambda tx: contributions.put_word(tx, word(1)))
    assert store.run_tx("size", log.size) == 1


def test_a_transaction_that_fails_leaves_neither_word_nor_entry(store):
    def work(tx):
        contributions.put_word(tx, word(1))
        tx.exec_driver_sql("INSERT INTO no_such_table VALUES (1)")

    with pytest.raises(StoreError):
        store.run_tx("fails", work)

    def counts(tx):
        return [len(tx.execute(select(table)).all()) for table in (TRUSTEE_WORDS, LOG_ENTRIES, LOG_NODES)]

    assert store.run_tx("counts", counts) == [0, 0, 0]


def test_a_result_is_logged_once_however_often_it_is_stated(store):
    row = tasks.RoundRow(digest(b"plan"), "watch", 1, b"plan", 1, 0, None)
    store.run_tx("plan", lambda tx: tasks.put_round(tx, row))
    for payload in (b"first", b"second"):
        signed = Signed(payload=payload)
        store.run_tx("finish", lambda tx, signed=signed: tasks.finish_round(tx, row.plan_digest, signed, 2))
    found = store.run_tx("entries", lambda tx: tx.execute(select(LOG_ENTRIES.c.kind, LOG_ENTRIES.c.digest)).all())
    assert [tuple(one) for one in found] == [("plan", row.plan_digest), ("result", digest(b"first"))]


WRITER = """
import sys
from pathlib import Path
from bedside.coordinator.database_url import parse_database_url
from bedside.coordinator.store import contributions, open_store
from bedside.coordinator.store.contributions import WordRow
from bedside.core.signing import digest
where = sys.argv[1]
store = open_store(parse_database_url(where) if where.startswith("postgresql") else Path(where))
number = int(sys.argv[2])
while True:
    row = WordRow(digest(b"plan"), 0, digest(b"trustee %d" % number), "opening", digest(b"word %d" % number), b"signed")
    store.run_tx("word", lambda tx: contributions.put_word(tx, row))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_kill_9_around_an_append_leaves_log_and_rounds_in_step(dialect, tmp_path, request):
    where = str(tmp_path / "coordinator.db")
    if dialect == "postgresql":
        where = request.getfixturevalue("server").new_database()
    place = parse_database_url(where) if dialect == "postgresql" else Path(where)
    for start in (0, 10_000):
        child = subprocess.Popen([sys.executable, "-c", WRITER, where, str(start)], stdout=subprocess.PIPE)
        acknowledged = [int(child.stdout.readline()) for _ in range(20)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout if line.strip()]
        child.wait()
        child.stdout.close()
        store = open_store(place)

        def check(tx, acknowledged=acknowledged):
            said = {bytes(row.digest) for row in tx.execute(select(TRUSTEE_WORDS.c.digest))}
            rows = tx.execute(select(LOG_ENTRIES.c.position, LOG_ENTRIES.c.digest, LOG_ENTRIES.c.leaf)).all()
            rows = sorted(rows)
            assert [row.position for row in rows] == list(range(len(rows)))
            assert {bytes(row.digest) for row in rows} == said
            assert {digest(b"word %d" % number) for number in acknowledged} <= said
            assert log.root(tx, len(rows)) == tree_root([bytes(row.leaf) for row in rows])

        store.run_tx("check", check)
        store.close()


def old_database(place, entries):
    """A database as the first version would have left it."""
    engine = sqlite_engine(place) if isinstance(place, Path) else postgres_engine(place, str)
    config = Config()
    config.set_main_option("script_location", str(Path(migration.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for position, (kind, value) in enumerate(entries):
            values = {"position": position, "kind": kind, "digest": value}
            connection.execute(
                text("INSERT INTO log_entries (position, kind, digest) VALUES (:position, :kind, :digest)"), values
            )
    engine.dispose()


def test_an_older_log_keeps_every_root_that_plans_have_committed_to_and_goes_on(place):
    entries = [("plan" if number % 2 == 0 else "result", digest(b"%d" % number)) for number in range(11)]
    old_database(place, entries)
    store = open_store(place)
    leaves = [value for _, value in entries]

    def check(tx):
        assert [log.root(tx, size) for size in range(12)] == [tree_root(leaves[:size]) for size in range(12)]
        log.append(tx, leaf(1))
        assert log.root(tx, 12) == tree_root([*leaves, leaf(1)])
        assert [row.position for row in log.untyped_entries(tx, leaves[4])] == [4]

    store.run_tx("check", check)
    store.close()
