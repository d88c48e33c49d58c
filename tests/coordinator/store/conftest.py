"""A store of either dialect: the same tests run over both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bedside.coordinator.database_url import DatabaseUrl, parse_database_url
from bedside.coordinator.store import Store, open_store
from postgres_server import Postgres, running_postgres

DIALECTS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """PostgreSQL, for all modules of this folder; skips where it is not installed."""
    with running_postgres() as running:
        yield running


@pytest.fixture(params=DIALECTS)
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Path | DatabaseUrl]:
    """Makes places of databases that have nothing in them."""
    if request.param == "sqlite":
        names = iter(range(100))
        return lambda: tmp_path / f"coordinator-{next(names)}.db"
    server = request.getfixturevalue("server")
    return lambda: parse_database_url(server.new_database())


@pytest.fixture
def place(new_place: Callable[[], Path | DatabaseUrl]) -> Path | DatabaseUrl:
    return new_place()


@pytest.fixture
def store(place: Path | DatabaseUrl) -> Iterator[Store]:
    opened = open_store(place)
    yield opened
    opened.close()
