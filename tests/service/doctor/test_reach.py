"""Both ports of a coordinator that is there, is not, or is somebody else."""

import asyncio

import pytest

from bedside.core.clock import Clock
from bedside.proto.v1 import enrolment_pb2 as wire
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.doctor import reach
from bedside.service.doctor.check import Place, examine
from bedside.service.doctor.membership import membership_checks
from bedside.service.doctor.reach import reach_checks
from bedside.service.health import Level
from bedside.service.link.enrolment import start_enrolment
from bedside.service.tls import create_ca
from ports import free_port
from scripted_enrolment import CLOCK, ENTROPY, ScriptedCoordinator, serving, token

DAY_NS = 86_400 * 10**9


class Later(Clock):
    """Ahead of the machine's clock."""

    def __init__(self, ahead_ns):
        self._ahead_ns = ahead_ns

    def now_ns(self):
        return CLOCK.now_ns() + self._ahead_ns


async def enrolled(identity, coordinator, address):
    text = token(address, coordinator.authority)
    return await start_enrolment(identity, text, "", clock=CLOCK, entropy=ENTROPY)


def look(identity, *names, clock=CLOCK, environ=None):
    """What the checks of these names find; in a thread, as they run loops of their own."""
    place = Place(identity.directory.parent, clock, environ or {})

    def locate(place):
        return place.directory / "identity"

    checks = (
        *membership_checks(locate, Role.ROLE_DEVICE, "bedside agent setup"),
        *reach_checks(locate, Role.ROLE_DEVICE),
    )
    return asyncio.to_thread(examine, [one for one in checks if one.name in names], place)


async def test_a_device_that_is_no_member_yet_has_no_way_to_look_at(identity):
    assert await look(identity, "enrolment-port", "service-port", "certificate") == []
    (found,) = await look(identity, "enrolment")
    assert (found.level, found.remedy) == (Level.DEGRADED, "bedside agent setup")


async def test_a_member_finds_both_ports_and_agrees_on_the_time(identity, coordinator):
    async with serving(coordinator) as address:
        coordinator.service_address = address  # the scripted port takes any certificate
        coordinator.server_time_s = CLOCK.now_ns() // 10**9
        await enrolled(identity, coordinator, address)
        found = await look(identity, "keys", "enrolment", "enrolment-port", "service-port")
    assert [one.level for one in found] == [Level.OK] * 5
    assert [one.check for one in found].count("enrolment-port") == 2


@pytest.mark.parametrize(("ahead_s", "level"), [(60, Level.DEGRADED), (3_600, Level.FAILED), (-3_600, Level.FAILED)])
async def test_a_clock_that_is_off_the_coordinators_is_told(identity, coordinator, ahead_s, level):
    async with serving(coordinator) as address:
        await enrolled(identity, coordinator, address)
        coordinator.server_time_s = CLOCK.now_ns() // 10**9 - ahead_s
        found = await look(identity, "enrolment-port")
    assert found[-1].level is level
    assert ("ahead of" if ahead_s > 0 else "behind") in found[-1].found


async def test_ports_that_are_closed_are_named_with_what_to_do(identity, coordinator):
    async with serving(coordinator) as address:
        coordinator.service_address = f"127.0.0.1:{free_port()}"
        await enrolled(identity, coordinator, address)
        (closed,) = await look(identity, "service-port")
    (gone,) = await look(identity, "enrolment-port")
    for found, named in ((closed, coordinator.service_address), (gone, address)):
        assert found.level is Level.FAILED
        assert named in found.found
        assert "firewall" in found.remedy


async def test_who_inspects_tls_is_named(identity, coordinator, tmp_path):
    async with serving(coordinator) as address:
        await enrolled(identity, coordinator, address)
    inspecting = ScriptedCoordinator(create_ca("Hospital Web Gateway", CLOCK.now_ns()), tmp_path / "x")
    async with serving(inspecting) as other:
        pins = identity.pins
        identity.save_pins(type(pins)(**{**{f: getattr(pins, f) for f in pins.__struct_fields__},
                                         "enrolment_address": other, "service_address": other}))  # fmt: skip
        for found in await look(identity, "enrolment-port", "service-port"):
            assert found.level is Level.FAILED
            assert "Hospital Web Gateway" in found.found
            assert "[ca-mismatch]" in found.found
            assert "TLS-inspecting" in found.remedy


async def test_a_server_that_does_not_go_on_with_our_certificate_is_told(identity, coordinator, monkeypatch):
    monkeypatch.setattr(reach, "READY_S", 0.5)
    async with serving(coordinator, client_ca=create_ca("other", CLOCK.now_ns())) as address:
        async with serving(coordinator) as enrolment:
            coordinator.service_address = address
            await enrolled(identity, coordinator, enrolment)
        (found,) = await look(identity, "service-port")
    assert found.level is Level.FAILED
    assert "does not take this machine's certificate" in found.found


async def test_a_request_that_waits_is_told_with_its_fingerprint(identity, coordinator):
    coordinator.phase = wire.REQUEST_PHASE_PENDING
    async with serving(coordinator) as address:
        await enrolled(identity, coordinator, address)
    (found,) = await look(identity, "enrolment")
    assert found.level is Level.DEGRADED
    assert identity.fingerprint in found.found
    assert "site approve" in found.remedy


@pytest.mark.parametrize(("days", "words"), [(2, "it ended"), (0, "should have been renewed")])
async def test_a_certificate_that_ends_is_told(identity, coordinator, days, words):
    async with serving(coordinator) as address:
        await enrolled(identity, coordinator, address)
    (found,) = await look(identity, "certificate", clock=Later(days * DAY_NS))
    assert found.level is Level.DEGRADED
    assert words in found.found


async def test_a_credential_that_does_not_hold_and_a_key_that_others_may_read_fail(identity, coordinator):
    async with serving(coordinator) as address:
        await enrolled(identity, coordinator, address)
    (identity.directory / "sign.key").chmod(0o644)
    (found,) = await look(identity, "keys")
    assert (found.level, "chmod 600" in found.remedy) == (Level.FAILED, True)
    (identity.directory / "sign.key").chmod(0o600)
    (identity.directory / "credential.bin").write_bytes(b"\x0a\x01x")
    (found,) = await look(identity, "enrolment")
    assert (found.level, "[bad-credential]" in found.found) == (Level.FAILED, True)


@pytest.mark.parametrize(
    ("environ", "levels"),
    [
        ({}, []),
        ({"https_proxy": "http://proxy:3128"}, [Level.OK]),
        ({"HTTPS_PROXY": "http://proxy:3128"}, [Level.FAILED]),
        ({"https_proxy": "http://me:secret@proxy:3128"}, [Level.FAILED]),
    ],
)
async def test_a_proxy_must_be_named_as_all_of_it_heeds(identity, environ, levels):
    found = await look(identity, "proxy", environ=environ)
    assert [one.level for one in found] == levels
    assert "secret" not in str(found)
