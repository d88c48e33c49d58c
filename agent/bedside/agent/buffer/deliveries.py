"""How far each sink has come, by sort of row: a number below which all is delivered, skipped or refused.

A row of this table rides the group commit, so that a sink costs the disk no commit of its own. After a crash up to a
second of deliveries comes again, with the same ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from bedside.service.sqlite import Database


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one sink's rows of one sort so far.

    Attributes:
        sink: its name.
        what: `alarms`, `predictions` or `records`.
        number: the newest that it is done with; for alarms the number of a change.
        sent: rows that the receiver has acknowledged.
        skipped: rows beyond the cap of what may wait, and rows that cannot be read.
        refused: rows that the receiver would not take.
        sent_ns: time of the last delivery; 0 before the first.
        done_ns: when a schedule was last worked off.
    """

    sink: str
    what: str
    number: int
    sent: int = 0
    skipped: int = 0
    refused: int = 0
    sent_ns: int = 0
    done_ns: int = 0


Key = tuple[str, str]
"""A sink's name, and a sort."""


def take_up_deliveries(database: Database, wanted: Collection[Key]) -> dict[Key, Delivery]:
    """Where each sink goes on, by its name and a sort; durable when this returns.

    One that is new begins behind what is stored: nothing from before it was configured leaves by itself. What is known
    of a sink that is not wanted any more is forgotten.

    Raises:
        StoreError: `store-write`, `store-read`.
    """
    known = {(one.sink, one.what): one for one in map(_delivery_of, database.rows("SELECT * FROM deliveries"))}
    if known.keys() == set(wanted):
        return known

    def work(tx: sqlite3.Connection) -> dict[Key, Delivery]:
        for sink, what in known.keys() - set(wanted):
            tx.execute("DELETE FROM deliveries WHERE sink = ? AND what = ?", (sink, what))
        fresh = {key: Delivery(*key, newest_number(tx, key[1])) for key in wanted if key not in known}
        put_deliveries(tx, fresh.values())
        return {key: known.get(key) or fresh[key] for key in wanted}

    return database.run_tx("deliveries", work)


def put_deliveries(tx: sqlite3.Connection, deliveries: Iterable[Delivery]) -> None:
    """Insert or replace."""
    for one in deliveries:
        tx.execute(
            "INSERT INTO deliveries (sink, what, number, sent, skipped, refused, sent_ns, done_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sink, what) DO UPDATE SET number = excluded.number,"
            " sent = excluded.sent, skipped = excluded.skipped, refused = excluded.refused,"
            " sent_ns = excluded.sent_ns, done_ns = excluded.done_ns",
            (one.sink, one.what, one.number, one.sent, one.skipped, one.refused, one.sent_ns, one.done_ns),
        )


NUMBERED: Mapping[str, str] = {"alarms": "changed", "predictions": "id", "records": "number"}
"""By sort, which is the name of its table, the column by which it is delivered."""


def newest_number(connection: sqlite3.Connection, what: str) -> int:
    """The highest number of a sort that is stored, 0 where nothing is."""
    found = connection.execute(f"SELECT max({NUMBERED[what]}) FROM {what}").fetchone()[0]
    return int(found or 0)


def _delivery_of(row: sqlite3.Row) -> Delivery:
    return Delivery(*(row[name] for name in Delivery.__slots__))
