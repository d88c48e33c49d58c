"""Each check of a coordinator's machine: how it is well, and how it fails."""

import asyncio

import pytest

from bedside.coordinator.config import CoordinatorConfig, default_toml
from bedside.coordinator.doctor import PART
from bedside.coordinator.server import running
from bedside.service.doctor.check import Place, examine
from bedside.service.health import Level
from bedside.service.platform import SystemClock, SystemEntropy
from ports import free_ports

OK, WARN, FAIL = Level.OK, Level.DEGRADED, Level.FAILED
CLOCK = SystemClock()


class Later:
    """Decades on."""

    def now_ns(self):
        return CLOCK.now_ns() + 60 * 365 * 86_400 * 10**9

    def monotonic_s(self):
        return CLOCK.monotonic_s()


@pytest.fixture
def place(federation):
    return Place(federation.home.directory, CLOCK)


def look(place, name):
    return examine([one for one in (*PART.early, *PART.checks) if one.name == name], place)


def levels(place, name):
    return [one.level for one in look(place, name)]


def test_an_address_that_nobody_can_call_is_doubtful_and_a_mistake_fails(place):
    file = place.directory / "coordinator.toml"
    file.write_text(default_toml("127.0.0.1:1", "127.0.0.1:2"))
    assert levels(place, "configuration") == [WARN]
    file.write_text(default_toml("127.0.0.1:1", "127.0.0.1:2", "fed.example.org:1", "fed.example.org:2"))
    assert levels(place, "configuration") == [OK]
    file.write_text('service_address = "nowhere"\n')
    assert levels(place, "configuration") == [FAIL]


def test_keys_and_the_federation_must_hold(place):
    assert levels(place, "keys") + levels(place, "federation") == [OK, OK]
    (place.directory / "identity" / "federation.bin").unlink()
    (found,) = look(place, "federation")
    assert (found.level, "coordinator install" in found.remedy) == (FAIL, True)
    (place.directory / "identity" / "ca.key").chmod(0o644)
    (found,) = look(place, "keys")
    assert (found.level, "chmod 600" in found.remedy) == (FAIL, True)


def test_a_certificate_and_a_document_that_have_ended_fail(place):
    assert levels(place, "certificate") == [OK]
    later = Place(place.directory, Later())
    assert levels(later, "certificate") == [FAIL]
    assert levels(later, "federation") == [FAIL]


def test_a_database_that_is_damaged_fails(place):
    assert levels(place, "store") == []
    (place.directory / "coordinator.db").write_bytes(b"no database at all" * 500)
    (found,) = look(place, "store")
    assert (found.level, "damaged" in found.found) == (FAIL, True)


async def test_both_ports_of_one_that_runs_answer_and_one_that_does_not_run_fails(place, federation):
    assert levels(place, "ports") == [FAIL]
    service, enrolment = (f"127.0.0.1:{port}" for port in free_ports(2))
    (place.directory / "coordinator.toml").write_text(default_toml(service, enrolment))
    config = CoordinatorConfig(service_address=service, enrolment_address=enrolment)
    async with running(federation.home, config, CLOCK, SystemEntropy()):
        assert await asyncio.to_thread(levels, place, "ports") == [OK, OK]
        assert await asyncio.to_thread(levels, place, "store") == [OK]
        (place.directory / "coordinator.toml").write_text(default_toml(service, "127.0.0.1:1"))
        assert await asyncio.to_thread(levels, place, "ports") == [FAIL]
