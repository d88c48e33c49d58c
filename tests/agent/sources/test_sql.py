"""Queries of real databases: PostgreSQL and SQLite; read-only, resumed, with late rows, and away."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bedside.agent.config import SourceConfig
from bedside.agent.sources.kind import SourceContext, SourceGauge
from bedside.agent.sources.registry import build_source, typed_source
from bedside.agent.sources.sql.source import SqlSource
from bedside.core.errors import BedsideError, ConfigError, UnavailableError
from bedside.core.samples import Event, Record, Unmapped
from hand_clock import HandClock
from postgres_server import PASSWORD, Postgres, running_postgres

T0_S = 1_700_000_000
FIELDS = {"heart_rate": {"code": "hr", "sent_unit": "/min"}, "spo2": {"code": "sat", "sent_unit": "%"}}
WIDE = {
    "stream": "bed-4",
    "query": "SELECT id, taken AS time, hr, sat FROM vitals WHERE id > :since ORDER BY id",
    "watermark": "id",
    "watermark_type": "integer",
    "fields": FIELDS,
}


class IdleError(Exception):
    """The source waits for its next poll."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        server.write(
            "CREATE TABLE vitals (id serial PRIMARY KEY, taken timestamptz, hr numeric, sat int)",
            "CREATE TABLE lab (at timestamptz, bed text, code text, value text, unit text)",
            "CREATE TABLE log (said text)",
            "CREATE FUNCTION tell() RETURNS int LANGUAGE sql SECURITY DEFINER AS"
            " 'INSERT INTO log VALUES (''written'') RETURNING 1'",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO reader",
        )
        yield server


@pytest.fixture
def tables(postgres: Postgres, tmp_path: Path) -> Postgres:
    postgres.write("TRUNCATE vitals, lab, log RESTART IDENTITY")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "password").chmod(0o600)
    return postgres


def source_of(folder: Path, polls: int = 1, last_end_ns: int = 0, **options: object) -> tuple[SqlSource, SourceGauge]:
    left = polls
    clock = HandClock(1e5)

    async def sleep(delay_s: float) -> None:
        nonlocal left
        clock.at_s += delay_s
        left -= delay_s >= 10.0
        if not left:
            raise IdleError

    context = SourceContext(clock, lambda stream: last_end_ns, folder, state_dir=folder / "state")
    config = SourceConfig(kind="sql", name="his", options=options)  # type: ignore[arg-type]
    source = build_source("sql", typed_source(config), context)
    assert isinstance(source, SqlSource)
    source._sleep = sleep
    return source, context.gauge


async def poll(folder: Path, last_end_ns: int = 0, **options: object) -> list[Event]:
    """Start, take all that there is, and end, as a process does."""
    source, _ = source_of(folder, last_end_ns=last_end_ns, **options)
    events: list[Event] = []
    with suppress(IdleError):
        async for event in source.events():
            events.append(event)
    return events


def told(events: list[Event]) -> list[object]:
    return [
        (event.stream, event.time_ns // 10**9 - T0_S, dict(event.values))
        if isinstance(event, Record)
        else (event.reason, event.what, event.count)  # type: ignore[union-attr]  # no blocks or marks here
        for event in events
    ]


def insert(first: int, count: int) -> str:
    return (
        f"INSERT INTO vitals (taken, hr, sat) SELECT to_timestamp({T0_S} + n), 60.5 + n, 90"
        f" FROM generate_series({first}, {first + count - 1}) n"
    )


async def test_rows_come_once_in_pages_and_a_restart_goes_on(tables, tmp_path) -> None:
    its = {"url": tables.url, "password": "password", **WIDE, "page_rows": 7}
    tables.write(insert(0, 20), "INSERT INTO vitals (taken, hr) VALUES (NULL, 61)")
    events = await poll(tmp_path, **its)
    assert told(events) == [
        *(("bed-4", n, {"heart_rate": 60.5 + n, "spo2": 90.0}) for n in range(20)),
        ("bad-time", "time", 2),
    ]
    tables.write(insert(30, 2))
    assert [told_one[1] for told_one in told(await poll(tmp_path, **its))] == [30, 31]
    assert await poll(tmp_path, **its) == []


async def test_a_query_that_writes_is_stopped_by_the_database_and_nothing_is_written(tables, tmp_path) -> None:
    its = {"url": tables.url, "password": "password", **WIDE}
    tables.write(insert(0, 1))
    tables.write("SELECT tell()")  # its owner may
    assert tables.count("log") == 1
    rest = "FROM vitals WHERE id > :since ORDER BY id"
    off = ", ".join(f"set_config('{name}transaction_read_only', 'off', false)" for name in ("", "default_"))
    inserted = "WITH x AS (INSERT INTO log VALUES ('written') RETURNING 1)"
    for query in (
        f"SELECT id, taken AS time, hr, sat, tell() {rest}",
        f"SELECT id, taken AS time, hr, sat, {off}, tell() {rest}",
        f"{inserted} SELECT id, taken AS time, hr, sat {rest}",
        f"SELECT id, taken AS time, hr, sat {rest} FOR UPDATE",
    ):
        with pytest.raises(BedsideError) as failed:
            await poll(tmp_path, **{**its, "query": query})
        assert failed.value.code in {"sql-writes", "sql-query", "sql-unavailable"}, failed.value
    assert tables.count("log") == 1


async def test_late_rows_are_found_once_behind_the_watermark(tables, tmp_path) -> None:
    its = {
        "url": tables.url,
        "password": "password",
        **WIDE,
        "query": "SELECT taken AS time, hr, sat FROM vitals WHERE taken > :since ORDER BY taken",
        "watermark": "time",
        "watermark_type": "time",
        "overlap_s": 60.0,
        "page_rows": 3,
    }
    tables.write(insert(0, 10), "INSERT INTO vitals (taken, hr) VALUES (to_timestamp(1700000009), -7)")
    first = await poll(tmp_path, **its)
    assert len([event for event in first if isinstance(event, Record)]) == 11
    assert [event.reason for event in first if isinstance(event, Unmapped)] == ["out-of-range"]
    tables.write(insert(-30, 5), insert(20, 1))  # committed late
    assert [one[1] for one in told(await poll(tmp_path, **its))] == [*range(-30, -25), 20]
    assert await poll(tmp_path, **its) == []


async def test_rows_of_one_time_are_one_record_and_beds_have_streams(tables, tmp_path) -> None:
    its = {
        "url": tables.url,
        "password": "password",
        "stream_column": "bed",
        "places": {"B1": "bed-1", "B2": "bed-2"},
        "query": "SELECT at, bed, code, value, unit FROM lab WHERE at > :since ORDER BY at",
        "watermark": "at",
        "time_column": "at",
        "code_column": "code",
        "unit_column": "unit",
        "system": "LN",
    }
    tables.write(
        "INSERT INTO lab SELECT to_timestamp(1700000000), * FROM (VALUES"
        " ('B1', '8867-4', '72', '/min'), ('B2', '8867-4', '80', '/min'), ('B1', '59408-5', '97', '%'),"
        " ('B7', '8867-4', '70', '/min'), ('B2', '0-0', 'Miller', '')) AS row"
    )
    assert told(await poll(tmp_path, **its)) == [
        ("bed-1", 0, {"heart_rate": 72.0, "spo2": 97.0}),
        ("bed-2", 0, {"heart_rate": 80.0}),
        ("unknown-code", "0-0^LN", 1),
        ("unknown-place", "bed", 1),
    ]


async def test_a_page_never_parts_rows_of_one_watermark(tables, tmp_path) -> None:
    its = {
        "url": tables.url,
        "password": "password",
        **WIDE,
        "query": "SELECT taken AS time, hr, sat FROM vitals WHERE taken > :since ORDER BY taken",
        "watermark": "time",
        "watermark_type": "time",
        "page_rows": 2,
    }
    tables.write(
        *(f"INSERT INTO vitals (taken, hr) VALUES (to_timestamp({T0_S + n // 5}), {60 + n})" for n in range(15))
    )
    assert len(await poll(tmp_path, **its)) == 15


async def test_a_database_that_is_away_or_refuses_is_told_without_the_password(tables, tmp_path) -> None:
    its = {"url": tables.url, "password": "password", **WIDE}
    source, gauge = source_of(tmp_path, **{**its, "url": f"postgresql://reader@/postgres?host={tmp_path}"})
    with pytest.raises(UnavailableError, match="sql-unavailable: the database postgres is not there") as failed:
        await anext(aiter(source.events()))
    assert gauge.connected is False
    assert PASSWORD not in failed.value.diagnostics()
    (tmp_path / "password").write_text("wrong-" + PASSWORD)
    with pytest.raises(UnavailableError, match="password authentication failed") as refused:
        await poll(tmp_path, **its)
    assert PASSWORD not in refused.value.diagnostics()


async def test_a_query_that_takes_too_long_or_is_wrong_is_told_without_values(tables, tmp_path) -> None:
    its = {"url": tables.url, "password": "password", **WIDE, "timeout_s": 0.1}
    tables.write(insert(0, 1), "INSERT INTO lab VALUES (now(), 'Miller', 'x', 'y', 'z')")
    slow = "SELECT id, taken AS time, hr, sat, pg_sleep(20) FROM vitals WHERE id > :since ORDER BY id"
    with pytest.raises(UnavailableError, match="sql-timeout"):
        await poll(tmp_path, **{**its, "query": slow})
    with pytest.raises(ConfigError, match='column "rh" does not exist'):
        await poll(tmp_path, **{**its, "query": WIDE["query"].replace("hr", "rh")})  # type: ignore[attr-defined]
    cast = "SELECT 1 AS id, at AS time, bed::int AS hr, 1 AS sat FROM lab WHERE 1 > :since ORDER BY id"
    with pytest.raises(BedsideError) as failed:
        await poll(tmp_path, **{**its, "query": cast})
    assert "Miller" not in failed.value.diagnostics()


async def test_a_source_that_is_stopped_ends_its_query(tables, tmp_path) -> None:
    tables.write(insert(0, 1))
    slow = "SELECT id, taken AS time, hr, sat, pg_sleep(60) FROM vitals WHERE id > :since ORDER BY id"
    source, _ = source_of(tmp_path, url=tables.url, password="password", **{**WIDE, "query": slow, "timeout_s": 60.0})
    waiting = asyncio.ensure_future(anext(aiter(source.events())))
    active = "pg_stat_activity WHERE usename = 'reader' AND state = 'active'"
    async with asyncio.timeout(20):
        while not tables.count(active):
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while tables.count(active):
            await asyncio.sleep(0.01)


def sqlite_of(folder: Path, *statements: str) -> dict[str, object]:
    with closing(sqlite3.connect(folder / "his.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return {"url": "sqlite:///his.db", **WIDE}


async def test_sqlite_is_read_by_the_same_query_and_never_written(tmp_path) -> None:
    its = sqlite_of(
        tmp_path,
        "CREATE TABLE vitals (id INTEGER PRIMARY KEY, taken TEXT, hr REAL, sat INTEGER)",
        "INSERT INTO vitals VALUES (1, '2023-11-14T22:13:20Z', 60.5, NULL), (2, '2023-11-14T22:13:21Z', 61, 97)",
    )
    events = await poll(tmp_path, **its)
    assert [one[1] for one in told(events)] == [0, 1]
    sqlite_of(tmp_path, "INSERT INTO vitals VALUES (3, '2023-11-14T22:13:25Z', 62, 97)")
    assert [one[1] for one in told(await poll(tmp_path, **its))] == [5]
    source, _ = source_of(tmp_path, **its)
    for statement in ("INSERT INTO vitals VALUES (9, '', 1, 1)", "CREATE TABLE x (y)"):
        with source._database._engine.connect() as connection, pytest.raises(Exception, match="readonly database"):
            connection.exec_driver_sql(statement)


async def test_rows_out_of_order_are_refused_and_not_lost(tmp_path) -> None:
    its = sqlite_of(
        tmp_path,
        "CREATE TABLE vitals (id INTEGER, taken TEXT, hr REAL, sat INTEGER)",
        "INSERT INTO vitals VALUES (2, '2023-11-14T22:13:20Z', 60, 97), (1, '2023-11-14T22:13:21Z', 61, 97)",
    )
    wrong = "SELECT id, taken AS time, hr, sat FROM vitals WHERE id > :since ORDER BY taken"
    with pytest.raises(ConfigError, match="sql-order"):
        await poll(tmp_path, **{**its, "query": wrong})
    assert len(await poll(tmp_path, **its)) == 2


async def test_two_columns_of_one_name_are_refused(tmp_path) -> None:
    its = sqlite_of(
        tmp_path,
        "CREATE TABLE vitals (id INTEGER, taken TEXT, hr REAL, sat INTEGER)",
        "CREATE TABLE pumps (id INTEGER, hr REAL)",
        "INSERT INTO vitals VALUES (1, '2023-11-14T22:13:20Z', 60, 97)",
        "INSERT INTO pumps VALUES (1, 33)",
    )
    both = (
        "SELECT v.id, taken AS time, v.hr, sat, {} FROM vitals v JOIN pumps p USING (id) WHERE v.id > :since ORDER BY 1"
    )
    with pytest.raises(ConfigError, match=r"sql-columns.*2 columns 'hr'"):
        await poll(tmp_path, **{**its, "query": both.format("p.hr")})
    assert len(await poll(tmp_path, **{**its, "query": both.format("p.hr AS flow")})) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"query": "DELETE FROM vitals WHERE id > :since ORDER BY id"}, "begins with SELECT or WITH"),
        ({"query": "/* SELECT */ UPDATE vitals SET id = :since ORDER BY id"}, "begins with SELECT or WITH"),
        ({"query": "SELECT 1 WHERE 1 > :since ORDER BY 1; DROP TABLE vitals"}, "one statement"),
        ({"query": "SELECT 1 ORDER BY 1"}, "one parameter"),
        ({"query": "SELECT 1 WHERE 1 > :since"}, "ORDER BY"),
        ({"url": "postgresql://reader:open@host/x"}, "neither a password nor options"),
        ({"url": "postgresql://reader@host/x?options=-c%20x"}, "neither a password nor options"),
        ({"url": "mysql://reader@host/x"}, "without a chance to write"),
        ({"url": "sqlite://"}, "without a chance to write"),
        ({"url": "sqlite:///his.db?mode=rwc"}, "without a chance to write"),
        ({"watermark_type": "time"}, "SQLite has no type of time"),
        ({"overlap_s": 5.0}, "overlap_s goes with a time"),
        ({"fields": {}}, "fields .wide form. or code_column"),
        ({"stream_column": "bed"}, "stream, or stream_column"),
        ({"stream": "", "stream_column": "bed", "places": {"A": "bed-1", "B": "bed-1"}}, "places share a stream"),
        ({"begin": "yesterday"}, "no watermark of type integer"),
        ({"password": "nowhere"}, "secret-missing"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_opened(tmp_path, options, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as failed:
        source_of(tmp_path, **{"url": "sqlite:///his.db", **WIDE, **options})
    assert "reader:open" not in failed.value.diagnostics()
