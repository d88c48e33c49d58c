"""Finding the rows of one stream, second by second, through the key alone.

The key is (second, stream, part): the rows of one stream lie apart from each other, and between them lie those of all
others. A walk asks for one second at a time and jumps over seconds in which nobody has rows; it never reads another
stream's rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bedside.agent.buffer.schema import (
    LAST_NS,
    MAX_STREAMS,
    PART_BITS,
    SALVAGE,
    ids_of,
    second_of,
    stream_number_of,
)
from bedside.core.errors import StoreError
from bedside.service.sqlite import DAMAGED

Run = Callable[[str, Sequence[int | str]], list[sqlite3.Row]]
"""Runs one SELECT."""

LAST_SECOND: Final = LAST_NS // 1_000_000_000

_PAGE_ROWS: Final = 4_096


def next_second(run: Run, table: str, stream_number: int, second: int) -> int | None:
    """The first second after `second` in which the stream may have rows; None behind the last row of all.

    Raises:
        StoreError: `store-damaged` when the rows are out of order.
    """
    _, last = ids_of(second, stream_number)
    found = run(f"SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT 1", (last,))
    if not found:
        return None
    place = int(found[0]["id"])
    if place <= last:  # in a damaged file; a walk that went back would never end
        raise StoreError(DAMAGED, f"rows of {table} are out of order", remedy=SALVAGE)
    return second_of(place) + (stream_number_of(place) > stream_number)


def walk(
    run: Run, table: str, columns: str, stream_number: int, session: str, first: int, last: int
) -> Iterator[list[sqlite3.Row]]:
    """Yield the rows of each second from `first` to `last` that has any, of one stream and session.

    Args:
        run: runs one SELECT.
        table: with that key.
        columns: to select.
        stream_number: of the stream.
        session: whose rows.
        first: second (or minute) to begin with.
        last: second (or minute) to end with, included.
    """
    second: int | None = max(0, first)
    while second is not None and second <= min(last, LAST_SECOND):
        low, high = ids_of(second, stream_number)
        rows = run(
            f"SELECT {columns} FROM {table} WHERE id BETWEEN ? AND ? AND session = ? ORDER BY id", (low, high, session)
        )
        if rows:
            yield rows
            second += 1
        else:
            second = next_second(run, table, stream_number, second)


def pages(
    run: Run, table: str, columns: str, stream_number: int, session: str, first: int, last: int
) -> Iterator[list[sqlite3.Row]]:
    """As `walk`, many seconds at a time, for small columns that stand before the signal: passes over other streams.

    `columns` begin with the id.
    """
    after, end = ids_of(first, 0)[0] - 1, ids_of(last, MAX_STREAMS - 1)[1]
    while rows := run(
        f"SELECT {columns} FROM {table} WHERE id > ? AND id <= ? AND (id >> {PART_BITS}) & {MAX_STREAMS - 1} = ?"
        f" AND session = ? ORDER BY id LIMIT {_PAGE_ROWS}",
        (after, end, stream_number, session),
    ):
        yield rows
        after = int(rows[-1]["id"])
