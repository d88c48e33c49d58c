"""Brings a database to the newest schema; the steps are package data in `migrations/versions`."""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine

from bedside.core.errors import StoreError


def upgrade(engine: Engine) -> None:
    """Apply every step that the database has not seen, in one transaction.

    Raises:
        StoreError: `store-newer` when it has steps that this version does not know.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # a step may take its time
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StoreError(
                "store-newer",
                f"the database was written by another version: {error}",
                remedy="install the version that wrote it, or a later one",
            ) from error
