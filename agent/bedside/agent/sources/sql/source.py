"""Asks a database again and again for the rows behind a watermark: a query of the hospital, read-only.

A row is delivered once, whatever ends the process: the watermark is kept after the rows before it are durable. What is
read again then, a page at most, the store recognises. Rows that were committed late, behind the watermark, are found by
reading a stretch again at every poll; what was delivered of it is known by a digest.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, cast

import msgspec

from bedside.agent.config_bounds import MAX_WAIT_S
from bedside.agent.kinds import SecretPlace, require
from bedside.agent.sources.catch_up import CatchUp
from bedside.agent.sources.kind import SourceContext, SourceKind, option
from bedside.agent.sources.position import KEEP_INTERVAL_S, Position
from bedside.agent.sources.sql.database import Database, Page, Watermark, check_query
from bedside.agent.sources.sql.rows import RowOptions, RowReader, TableRow
from bedside.core.errors import BedsideError, ConfigError
from bedside.core.ids import StreamId
from bedside.core.samples import Event
from bedside.service.secret import read_secret

_END_TRIES, _END_S = 40, 0.05
MAX_SEEN: Final = 10_000
"""Rows of the stretch that is read again: each costs 20 bytes of the position, which is written at every poll that
brought something."""

_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "time": datetime,
    "integer": int,
    "number": (int, float),
    "text": str,
}
_BEGINS: Final = {"time": "1970-01-01T00:00:00+00:00", "integer": "-1", "number": "-1", "text": ""}


class SqlOptions(RowOptions, frozen=True, kw_only=True):
    """A query."""

    url: Annotated[str, option("postgresql://user@host/name or sqlite:///file.db, without a password")]
    query: Annotated[str, option("one SELECT with :since, ascending by the watermark")]
    watermark: Annotated[str, option("column that only grows: rows behind its last value are asked for")]
    watermark_type: Annotated[Literal["time", "integer", "number", "text"], option("of that column")] = "time"
    password: SecretPlace = ""
    begin: Annotated[str, option("the first :since; empty: everything")] = ""
    every_s: Annotated[float, option("seconds between two polls")] = 10.0
    overlap_s: Annotated[float, option("time or number: seconds that every poll reads again, for late rows")] = 0.0
    overlap_ids: Annotated[int, option("integer: ids that every poll reads again, for late rows")] = 0
    page_rows: Annotated[int, option("rows of one page")] = 1_000
    timeout_s: Annotated[float, option("seconds that a page may take")] = 30.0


class SqlPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a query was read.

    Attributes:
        of: digest of the url, the query and the watermark: another query begins anew.
        since: last watermark, as text.
        seen: digests of the rows of the stretch that is read again.
    """

    of: str
    since: str
    seen: list[str] = []


class SqlSource:
    """A `Source` on a query."""

    def __init__(
        self,
        options: SqlOptions,
        context: SourceContext,
        database: Database,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare; nothing is opened.

        Raises:
            ConfigError: from the options.
        """
        self.name = options.name
        self._options = options
        self._context = context
        self._database = database
        self._sleep = sleep
        self._reader = RowReader(options)
        self._streams = [StreamId(stream) for stream in options.streams()]
        self._position = Position(options.name, SqlPlace, context)
        self._of = _digest((options.url, options.query, options.watermark))
        self._begin = watermark_of(options.begin or _BEGINS[options.watermark_type], options.watermark_type)
        self._since = self._begin
        self._seen: dict[str, Watermark] = {}
        self._catch_up = CatchUp(context.last_end_ns, (), active=False)

    async def events(self) -> AsyncIterator[Event]:
        """Yield what is behind the watermark, for ever.

        Raises:
            UnavailableError: `sql-unavailable`, `sql-timeout`.
            ConfigError: `sql-query`, `sql-writes`, `sql-order`, `sql-columns`, `sql-overlap`.
            StoreError: `position-unreadable`, `file-write`.
        """
        kept = await asyncio.to_thread(self._position.read)
        known = kept if kept is not None and kept.of == self._of else None
        self._since, self._seen = self._begin, {}
        if known is not None:
            self._since = watermark_of(known.since, self._options.watermark_type)
            self._seen = dict.fromkeys(known.seen, self._since)
        self._catch_up = CatchUp(self._context.last_end_ns, self._streams, active=known is not None)
        asked = self._again()
        while True:
            page = await self._page(asked)
            events = 0
            for event in self._taken(page):
                events += 1
                yield event
            place = SqlPlace(self._of, _text(self._since), sorted(self._seen))
            kept_now = await self._position.keep(place, self._streams, events)
            if page.more:
                asked = self._mark(page.rows[-1])
                continue
            if not kept_now and self._options.every_s > KEEP_INTERVAL_S:  # else the next poll keeps it
                await self._sleep(KEEP_INTERVAL_S)
                await self._position.keep(place, self._streams)
            await self._sleep(self._options.every_s)
            asked = self._again()

    async def _page(self, since: Watermark) -> Page:
        gauge, its = self._context.gauge, self._options
        query = asyncio.ensure_future(asyncio.to_thread(self._database.page, since, its.page_rows, its.watermark))
        try:
            page = await asyncio.shield(query)
        except asyncio.CancelledError:
            await self._end(query)
            raise
        except BedsideError as error:
            gauge.connected, gauge.detail = False, error.code
            raise
        gauge.connected, gauge.detail = True, ""
        return page

    async def _end(self, query: asyncio.Future[Page]) -> None:
        """End a query. One that has not reached its server yet cannot be: it is tried until it has, for a while."""
        query.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody wants to know any more
        for _ in range(_END_TRIES):
            self._database.cancel()
            await asyncio.wait({query}, timeout=_END_S)
            if query.done():
                return

    def _taken(self, page: Page) -> Iterator[Event]:
        arrived_ns = self._context.clock.now_ns()
        rows = self._new(page.rows)
        if rows:
            self._reader.check_columns(list(rows[0]))
        for group in self._reader.events(rows, arrived_ns):
            yield from self._catch_up.taken(group)
        if not page.more:
            yield from self._catch_up.release()

    def _new(self, rows: Sequence[TableRow]) -> list[TableRow]:
        """The rows that were not delivered yet; the watermark moves behind them.

        Raises:
            ConfigError: `sql-order`, `sql-overlap`.
        """
        if not rows:
            return []
        marks = [self._mark(row) for row in rows]
        if _is_later(marks[-1], self._since):
            self._since = marks[-1]
        if not (self._options.overlap_s or self._options.overlap_ids):
            return list(rows)
        digests = [_digest(tuple(row.values())) for row in rows]
        new = [row for row, digest in zip(rows, digests, strict=True) if digest not in self._seen]
        border = self._again()
        seen = self._seen | dict(zip(digests, marks, strict=True))
        self._seen = {digest: mark for digest, mark in seen.items() if _is_later(mark, border)}
        if len(self._seen) > MAX_SEEN:
            raise ConfigError(
                "sql-overlap",
                f"the stretch that is read again holds more than {MAX_SEEN} rows",
                remedy="lower overlap_s or overlap_ids",
            )
        return new

    def _mark(self, row: TableRow) -> Watermark:
        mark, kind = row[self._options.watermark], self._options.watermark_type
        if not isinstance(mark, _TYPES[kind]) or isinstance(mark, bool):
            raise ConfigError(
                "sql-order",
                f"the watermark is no {kind}, but {type(mark).__name__}",
                remedy="set watermark_type to what the column is",
            )
        return cast("Watermark", mark)

    def _again(self) -> Watermark:
        """Where the next poll begins: the watermark, less what is read again."""
        its = self._options
        if isinstance(self._since, datetime):
            return self._since - timedelta(seconds=its.overlap_s)
        if isinstance(self._since, str):
            return self._since
        return self._since - (its.overlap_ids if its.watermark_type == "integer" else its.overlap_s)


def watermark_of(text: str, kind: str) -> Watermark:
    """A watermark out of its text.

    Raises:
        ConfigError: `sql-watermark`.
    """
    try:
        if kind == "time":
            return datetime.fromisoformat(text)
        return int(text) if kind == "integer" else float(text) if kind == "number" else text
    except ValueError as error:
        raise ConfigError(
            "sql-watermark", f"{text[:40]!r} is no watermark of type {kind}", remedy="correct begin or watermark_type"
        ) from error


def _is_later(mark: Watermark, than: Watermark) -> bool:
    """Whether a row's watermark is the later one; so it is behind a first one of another form."""
    try:
        return mark > than  # type: ignore[operator]  # both are of one column
    except TypeError:
        return True


def _text(mark: Watermark) -> str:
    return mark.isoformat() if isinstance(mark, datetime) else str(mark)


def _digest(values: tuple[object, ...]) -> str:
    return hashlib.blake2b(repr(values).encode(errors="replace"), digest_size=8).hexdigest()


def _build(options: SqlOptions, context: SourceContext) -> SqlSource:
    require("sqlalchemy", "bedside[sql]")
    options.check_rows()
    timed, counted = options.watermark_type in {"time", "number"}, options.watermark_type == "integer"
    rules = (
        (0.1 <= options.every_s <= MAX_WAIT_S, f"every_s must be 0.1 to {MAX_WAIT_S}"),
        (0.1 <= options.timeout_s <= 3600, "timeout_s must be 0.1 to 3600"),
        (1 <= options.page_rows <= 10_000, "page_rows must be 1 to 10000"),
        (
            0 <= options.overlap_s <= MAX_WAIT_S and (timed or not options.overlap_s),
            "overlap_s goes with a time or number",
        ),
        (
            0 <= options.overlap_ids <= 10**9 and (counted or not options.overlap_ids),
            "overlap_ids goes with an integer",
        ),
    )
    for holds, sentence in rules:
        if not holds:
            raise ConfigError("sql-options", f"source {options.name}: {sentence}", remedy="correct it in agent.toml")
    password = read_secret(context.directory, options.password, option="password") if options.password else ""
    query = check_query(options.name, options.query)
    database = Database(options.url, password, query, options.timeout_s, context.directory, context.clock)
    if database.kind == "sqlite" and options.watermark_type == "time":
        raise ConfigError(
            "sql-options",
            f"source {options.name}: SQLite has no type of time",
            remedy="use text for ISO 8601, integer or number for seconds",
        )
    return SqlSource(options, context, database)


KIND: Final = SourceKind(SqlOptions, _build)
