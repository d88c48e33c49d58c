"""Rows as typed values: a dataclass whose fields are columns; and the one place where SQL has a dialect."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")
Values = Mapping[str, object]


def fetch(
    tx: Connection,
    row_type: type[Row],
    table: Table,
    *where: ColumnElement[bool],
    order_by: ColumnElement[int] | ColumnElement[bytes] | ColumnElement[str] | None = None,
    limit: int | None = None,
) -> list[Row]:
    """Return the rows of `table` for which every condition holds, as `row_type`, whose fields are columns.

    Rows that `order_by` does not part, and all without one, are in the order of the primary key: a database that
    promises no order must not change what is computed.
    """
    statement = select(*(table.c[field.name] for field in dataclasses.fields(row_type))).where(*where)
    if order_by is not None:
        statement = statement.order_by(order_by)
    statement = statement.order_by(*table.primary_key.columns)
    if limit is not None:
        statement = statement.limit(limit)
    return [row_type(*row) for row in tx.execute(statement)]


def fetch_one(tx: Connection, row_type: type[Row], table: Table, *where: ColumnElement[bool]) -> Row | None:
    """Return the row for which every condition holds, or None."""
    rows = fetch(tx, row_type, table, *where, limit=1)
    return rows[0] if rows else None


def insert_new(tx: Connection, table: Table, values: Values) -> bool:
    """Insert a row unless one with its key, or another value that must be unique, is there. Whether it was inserted."""
    statement = _insert(tx, table).values(values).on_conflict_do_nothing()
    return tx.execute(statement.returning(*table.primary_key.columns)).first() is not None


def upsert(tx: Connection, table: Table, rows: Sequence[Values], where: ColumnElement[bool] | None = None) -> None:
    """Insert rows with the same columns; one whose primary key is there takes its place, if `where` holds for that."""
    if not rows:
        return
    statement = _insert(tx, table)
    key = [column.name for column in table.primary_key.columns]
    fresh = {name: statement.excluded[name] for name in rows[0] if name not in key}
    tx.execute(statement.on_conflict_do_update(index_elements=key, set_=fresh, where=where), list(rows))


def _insert(tx: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that may meet a row which is there; the standard has none."""
    return sqlite.insert(table) if tx.dialect.name == "sqlite" else postgresql.insert(table)


def values_of(row: DataclassInstance) -> dict[str, object]:
    """The columns of a row by name."""
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
