"""One federation for all tests of this folder; its logs are printed when a test fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from federation import Federation
from founding import founded

_RUNNING = pytest.StashKey[Federation]()


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Federation]:
    with founded(tmp_path_factory.mktemp("fed")) as running:
        request.config.stash[_RUNNING] = running
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and _RUNNING in item.config.stash and "federation" in getattr(item, "fixturenames", ()):
        report.sections.append(("logs of the federation", item.config.stash[_RUNNING].logs()))
    return report
