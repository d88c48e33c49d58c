"""One schema: what the migrations make is what the code expects, in both dialects, and what older files have."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from bedside.coordinator.database_url import parse_database_url
from bedside.coordinator.store import open_store
from bedside.coordinator.store.schema import METADATA

FIRST_TWO_STEPS = "cc27634dac328c862ae74502dbb355ddcabb22b7bd8a4732e58bdf0b776e4964"
"""SHA-256 of the tables that SQLite files of the first versions have."""


def test_the_steps_make_exactly_the_tables_that_the_code_expects(store):
    def look(tx):
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        tables = {
            table: {(column["name"], column["nullable"]) for column in inspect(tx).get_columns(table)}
            for table in METADATA.tables
        }
        return compare_metadata(context, METADATA), tables

    differences, tables = store.run_tx("look", look)
    assert differences == []
    assert tables == {
        name: {(column.name, column.nullable) for column in table.columns} for name, table in METADATA.tables.items()
    }


def test_on_postgresql_whole_numbers_have_64_bits_and_text_is_ordered_by_bytes(server):
    store = open_store(parse_database_url(server.new_database()))
    columns = "SELECT DISTINCT {} FROM information_schema.columns WHERE table_schema = 'public' AND table_name != '{}'"

    def look(tx):
        found = [
            tx.exec_driver_sql(columns.format(name, "alembic_version")) for name in ("data_type", "collation_name")
        ]
        return [{row[0] for row in rows} for rows in found]

    assert store.run_tx("look", look) == [{"bigint", "boolean", "bytea", "character varying"}, {"C", None}]
    store.close()


def test_released_steps_still_make_the_same_sqlite_file(tmp_path):
    path = tmp_path / "coordinator.db"
    open_store(path).close()
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'tenure' ORDER BY name"
        )
        assert hashlib.sha256("\n".join(row[0] for row in rows).encode()).hexdigest() == FIRST_TWO_STEPS
