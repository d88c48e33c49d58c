"""One federation of machines for the tests of a module.

The modules beside this file, and those that build the packages, are imported by their names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("system", "fault")]  # a federation of processes
sys.path.append(str(Path(__file__).parents[2] / "packaging" / "deb"))

if TYPE_CHECKING:
    from installed import Installed

ORDERED = "test_services.py"
"""Its tests follow each other: the last ones take away what the others need."""


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    from installed import founded

    with founded() as running:
        yield running


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [place for place, item in enumerate(items) if item.path.name == ORDERED]
    chosen = sorted((items[place] for place in places), key=lambda item: (item.location[1] or 0, item.name))
    for place, item in zip(places, chosen, strict=True):
        items[place] = item


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    running = [one for one in getattr(item, "funcargs", {}).values() if hasattr(one, "journal")]
    if report.failed:
        report.sections += [("journals of the machines", one.journal()) for one in running]
    return report
