"""Rows as typed values: a dataclass whose fields are columns."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, select

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")


def fetch(
    tx: Connection,
    row_type: type[Row],
    table: Table,
    *where: ColumnElement[bool],
    order_by: ColumnElement[int] | ColumnElement[bytes] | ColumnElement[str] | None = None,
    limit: int | None = None,
) -> list[Row]:
    """Return the rows of `table` for which every condition holds, as `row_type`, whose fields are columns."""
    statement = select(*(table.c[field.name] for field in dataclasses.fields(row_type))).where(*where)
    if order_by is not None:
        statement = statement.order_by(order_by)
    if limit is not None:
        statement = statement.limit(limit)
    return [row_type(*row) for row in tx.execute(statement)]


def fetch_one(tx: Connection, row_type: type[Row], table: Table, *where: ColumnElement[bool]) -> Row | None:
    """Return the row for which every condition holds, or None."""
    rows = fetch(tx, row_type, table, *where, limit=1)
    return rows[0] if rows else None
