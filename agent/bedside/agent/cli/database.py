"""`bedside agent db`: look into a device's buffer, take data out of it, prove it, and replace its key."""

from __future__ import annotations

import csv
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bedside.agent.cli.moment import MOMENT
from bedside.agent.cli.reach import DIRECTORY
from bedside.agent.config import BUFFER_NAME, AgentConfig, load_agent_config
from bedside.agent.naming import typeable
from bedside.core.errors import ConfigError, MalformedError, UnavailableError
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import DIRECTORY_NAME, find_identity
from bedside.service.output import Table, emit, human_age, human_bytes, json_option, progress, to_json
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.text import for_spreadsheet

if TYPE_CHECKING:
    from bedside.agent.buffer.keys import KeyRing

_MAX_QUERY_ROWS: Final = 1_000_000
_MAX_QUERY_S: Final = 3_600.0
_SHOWN_BYTES: Final = 32
"""A binary value up to this length, such as a model's digest, is shown; longer ones are sealed content."""
_KINDS: Final = ("signal", "records", "labels", "predictions", "summaries")
_ALLOWED: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
"""What a query may do."""
_FUNCTIONS: Final = frozenset({
    *("abs", "avg", "coalesce", "count", "cume_dist", "date", "datetime", "dense_rank", "first_value", "glob"),
    *("group_concat", "hex", "ifnull", "iif", "instr", "julianday", "lag", "last_value", "lead", "length", "like"),
    *("lower", "ltrim", "max", "min", "nth_value", "ntile", "nullif", "percent_rank", "quote", "rank", "replace"),
    *("round", "row_number", "rtrim", "sign", "strftime", "substr", "substring", "sum", "time", "total", "trim"),
    *("typeof", "unicode", "unixepoch", "upper"),
})  # fmt: skip
"""What it may call: nothing that makes values of any size, changes the connection, or tells of this machine."""
_MAX_VALUE_BYTES: Final = 16 << 20
_STEPS_BETWEEN_LOOKS: Final = 10_000
"""Of SQLite's machine, between two looks at the clock: less than a millisecond."""


@click.group("db")
def database() -> None:
    """Look into the buffer of a device: sizes, rows, proofs, export, key. Reading works beside the running agent."""


@database.command()
@click.argument("directory", type=DIRECTORY)
@json_option
def status(directory: Path, as_json: bool) -> None:
    """Show how large DIRECTORY's database is, what it holds per table and stream, and what was dropped or evicted."""
    from bedside.agent.buffer.inspection import describe

    found = describe(_file(load_agent_config(directory)))
    if as_json:
        emit(found, as_json)
        return
    now_ns = SystemClock().now_ns()
    _print_facts(found)
    _print_rows("tables", found["tables"], {"sealed_bytes": human_bytes})
    times = {"oldest_ns": lambda at: human_age(at, now_ns), "newest_ns": lambda at: human_age(at, now_ns)}
    _print_rows("streams", found["streams"], times)
    _print_rows("counters", found["counters"], {})


@database.command()
@click.argument("directory", type=DIRECTORY)
@click.argument("sql")
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1, _MAX_QUERY_ROWS), help="Most rows shown."
)
@click.option(
    "--timeout",
    "timeout_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, _MAX_QUERY_S, min_open=True),
    help="Seconds after which the query is ended: while it runs, the agent's log can only grow.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with headings, its text as in `db export`.")
@json_option
def query(directory: Path, sql: str, limit: int, timeout_s: float, as_csv: bool, as_json: bool) -> None:
    """Run one SELECT on DIRECTORY's database. Nothing can be changed; sealed content is shown as its length.

    Tables: streams, sessions, blobs, records, windows, summaries, labels, predictions, explanations, alarms, counters.
    SQLite's usual functions of numbers, text, time, aggregates and windows can be called, and no others.
    """
    if as_csv and as_json:
        raise click.UsageError("choose --csv or --json")
    columns, rows, more = _select(_file(load_agent_config(directory)), sql, limit, timeout_s)
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerows([columns, *([for_spreadsheet(cell) for cell in row] for row in rows)])
    elif as_json:
        click.echo(to_json([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
    else:
        emit(rows, as_json, table=Table(columns, [[_text(cell) for cell in row] for row in rows], empty="no rows"))
    if more:
        click.echo(f"only the first {limit} rows are shown; --limit shows more", err=True)


@database.command()
@click.argument("directory", type=DIRECTORY)
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--kind", type=click.Choice(_KINDS), default="signal", show_default=True, help="What to write.")
@click.option("--stream", default="", help="Of which stream; needed for signal.")
@click.option("--session", default="", help="Of which session; all of them unless given.")
@click.option(
    "--from", "from_ns", type=MOMENT, default=0, help="First moment: 2026-03-01T08:00:00Z, or seconds since 1970."
)
@click.option("--to", "to_ns", type=MOMENT, default=None, help="Moment after the last.")
@click.option("--force", is_flag=True, help="Replace TARGET where it exists.")
@json_option
def export(
    directory: Path,
    target: Path,
    kind: str,
    stream: str,
    session: str,
    from_ns: int,
    to_ns: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write signal, records, labels, predictions or summaries in the clear to TARGET, .csv or .parquet.

    The file is a patient's data without a seal: mode 0600, and yours to guard and to delete.
    In CSV a text that a spreadsheet would take for a formula (= + - @ tab or return comes first) begins with a quote '.
    """
    from bedside.agent.buffer.export import SUFFIXES, Selection, sessions_of
    from bedside.agent.buffer.export import export as write
    from bedside.agent.buffer.reader import BufferReader

    if kind == "signal" and not stream:
        raise click.UsageError("name one --stream: streams have different channels")
    if target.suffix not in SUFFIXES:
        raise click.UsageError(f"{target.name} must end with {' or '.join(SUFFIXES)}")
    if to_ns is not None and to_ns <= from_ns:
        raise click.UsageError("--to must be later than --from")
    if os.path.lexists(target) and not force:
        raise ConfigError(
            "file-exists", f"{target} exists and was left as it is", remedy="name another file, or add --force"
        )
    config = load_agent_config(directory)
    selection = Selection(kind, stream, session, from_ns, to_ns)  # type: ignore[arg-type]  # click has checked the choice
    with typeable(directory), closing(BufferReader(_file(config), _keys(config))) as reader:
        with progress("sessions", len(sessions_of(reader, selection))) as bar:
            rows = write(reader, selection, target, bar.advance, _warn)
        unreadable = reader.unreadable
    emit({"file": str(target), "rows": rows, "bytes": target.stat().st_size, "unreadable": unreadable}, as_json)


def _warn() -> None:
    click.echo("warning: this writes patient data in the clear; guard the file, and delete it when used", err=True)


@database.command()
@click.argument("directory", type=DIRECTORY)
@json_option
@click.pass_context
def verify(context: click.Context, directory: Path, as_json: bool) -> None:
    """Look at every row of DIRECTORY's database and change none: exits 0 when all holds, 1 when something does not."""
    from bedside.agent.buffer.inspection import count_rows
    from bedside.agent.buffer.inspection import verify as look
    from bedside.agent.buffer.seal import Sealer

    config = load_agent_config(directory)
    path = _file(config)
    with progress("rows", count_rows(path)) as bar:
        verdict = look(path, Sealer(_keys(config)), bar.advance)
    rows = [(one.table, one.code, str(one.rows), one.example) for one in verdict.problems]
    total = sum(verdict.rows.values())
    table = Table(("TABLE", "PROBLEM", "ROWS", "FIRST"), rows, empty=f"all of {total} rows hold")
    emit({"sound": not rows, "rows": verdict.rows, "problems": verdict.problems}, as_json, table=table)
    context.exit(1 if rows else 0)


@database.command("rotate-key")
@click.argument("directory", type=DIRECTORY)
@json_option
def rotate_key(directory: Path, as_json: bool) -> None:
    """Seal DIRECTORY's database, and what it keeps of its models, with a new key. The agent must be stopped.

    Whatever interrupts it loses nothing; the same command goes on. Where systemd provides the key as a credential,
    rows are sealed with that one, and keys in files are erased.
    """
    from bedside.agent.buffer.rotation import rotate_key as rotate
    from bedside.agent.personal.files import PersonalFiles

    config = load_agent_config(directory)
    identity = find_identity(config.state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE)
    with ExitStack() as shown:

        def begin(rows: int) -> Callable[[float], None]:
            return shown.enter_context(progress("rows", rows)).advance

        def beside(ring: KeyRing) -> None:
            PersonalFiles(config.state_dir, ring).reseal(SystemEntropy())

        done = rotate(_file(config), identity.directory, SystemEntropy(), begin, beside=beside)
    fields: dict[str, object] = {
        "key_id": f"{done.key_id:08x}",
        "resealed": sum(done.resealed.values()),
        "lost": sum(done.lost.values()),
    }
    if done.by_credential:
        fields["next"] = "remove the credential bedside-buffer-key-old from the unit"
    emit(fields, as_json)


def _file(config: AgentConfig) -> Path:
    """The database. Raises UnavailableError `nothing-stored` before the first run."""
    path = config.state_dir / BUFFER_NAME
    if not path.exists():
        raise UnavailableError(
            "nothing-stored", "this agent has not run yet, so that nothing is stored", remedy="bedside agent run DIR"
        )
    return path


def _keys(config: AgentConfig) -> KeyRing:
    from bedside.agent.buffer.keys import load_key_ring

    return load_key_ring(find_identity(config.state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE).directory)


def _select(path: Path, sql: str, limit: int, timeout_s: float) -> tuple[list[str], list[list[object]], bool]:
    """Columns, up to `limit` rows, and whether there are more.

    Raises:
        MalformedError: `bad-query`, with SQLite's own words.
        UnavailableError: `query-timeout`.
    """
    from sqlite_utils import Database

    from bedside.service.sqlite import open_reader

    with closing(open_reader(path)) as connection:
        connection.row_factory = None
        tables = Database(connection)
        connection.set_authorizer(_authorize)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        clock = SystemClock()
        end_s = clock.monotonic_s() + timeout_s
        connection.set_progress_handler(lambda: clock.monotonic_s() > end_s, _STEPS_BETWEEN_LOOKS)
        try:
            cursor = tables.execute(sql)
            if cursor.description is None:
                raise MalformedError("bad-query", "this statement answers with no rows", remedy="write one SELECT")
            rows = cursor.fetchmany(limit + 1)
        except (sqlite3.Error, sqlite3.Warning) as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise UnavailableError(
                    "query-timeout",
                    f"the query was not done after {timeout_s:g} s and was ended",
                    remedy="ask for less, or give it longer with --timeout",
                ) from error
            raise MalformedError("bad-query", f"SQLite says: {error}", remedy="write one SELECT") from error
        columns = [str(column[0]) for column in cursor.description]
    return columns, [[_cell(value) for value in row] for row in rows[:limit]], len(rows) > limit


def _authorize(action: int, _first: str | None, second: str | None, *_names: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and str(second).lower() not in _FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _cell(value: object) -> object:
    if not isinstance(value, bytes):
        return value
    return value.hex() if len(value) <= _SHOWN_BYTES else f"<{len(value)} bytes>"


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


def _print_facts(found: dict[str, object]) -> None:
    facts = {
        name.removesuffix("_bytes"): human_bytes(value) if isinstance(value, int) else value
        for name, value in found.items()
        if not isinstance(value, list)
    }
    facts["keys"] = found["key_ids"]
    facts["set aside"] = [one["file"] for one in found["set_aside"]]  # type: ignore[attr-defined]  # a list of dicts
    emit(facts, as_json=False)


def _print_rows(title: str, rows: object, shown: dict[str, Callable[[int], str]]) -> None:
    if not isinstance(rows, list):
        return
    columns = [name.rpartition("_")[0] or name if name in shown else name for name in (rows[0] if rows else ())]
    cells = [[shown[name](row[name]) if name in shown else str(row[name]) for name in row] for row in rows]
    click.echo()
    emit(rows, as_json=False, table=Table([column.upper() for column in columns], cells, title=title, empty="none"))
