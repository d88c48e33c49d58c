"""A federation of its own for the faults, with a proxy between one device and the coordinator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "system"))

from chaos_proxy import ChaosProxy
from federation import Agent, Federation
from founding import configure_agent, founded

_RUNNING = pytest.StashKey[Federation]()
SLOW = "alder-1"
"""The device whose link goes through the proxy."""


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Federation]:
    with founded(tmp_path_factory.mktemp("fed")) as running:
        request.config.stash[_RUNNING] = running
        yield running


@pytest.fixture(scope="session")
def wired(shared: Federation) -> Iterator[ChaosProxy]:
    """The proxy, with the slow device behind it."""
    with ChaosProxy(shared.service_port) as proxy:
        configure_agent(shared, shared.agents[SLOW], port=proxy.port)
        shared.restart_agent(SLOW)
        yield proxy


@pytest.fixture
def federation(shared: Federation, wired: ChaosProxy) -> Iterator[Federation]:
    """The federation as every test finds it: all processes run, and no round is open."""
    shared.revive()
    yield shared
    wired.release()
    shared.revive()


@pytest.fixture
def slow_link(federation: Federation, wired: ChaosProxy) -> ChaosProxy:
    """The proxy, letting everything pass."""
    wired.release()
    return wired


@pytest.fixture
def slow_agent(federation: Federation) -> Agent:
    """The device behind the proxy."""
    return federation.agents[SLOW]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and _RUNNING in item.config.stash and "federation" in getattr(item, "fixturenames", ()):
        report.sections.append(("logs of the federation", item.config.stash[_RUNNING].logs()))
    return report
