"""Who calls is checked at every call, whatever TLS said."""

from __future__ import annotations

import asyncio

import pytest

from bedside.core.errors import BedsideError, ProtocolError, TrustError
from bedside.proto.v1.common_pb2 import Empty


async def test_a_device_cannot_speak_as_a_trustee_nor_a_trustee_as_a_device(federation):
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        trustee, device = federation.sites["alder"].members
        with pytest.raises(TrustError) as caught:
            await desk.trustee(device).items(wait_ms=0)
        assert caught.value.code == "wrong-role"
        with pytest.raises(TrustError) as caught:
            await desk.device(trustee).offer(wait_ms=0)
        assert caught.value.code == "wrong-role"


async def test_without_a_certificate_nobody_gets_in(federation):
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        device = federation.sites["alder"].members[1]
        device.certificate_pem = b""
        device.tls_key_pem = b""
        with pytest.raises(BedsideError):
            await asyncio.wait_for(desk.device(device).beat(), 5)


async def test_a_certificate_for_another_key_than_the_credentials_is_refused(federation):
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        site = federation.sites["alder"]
        device = site.members[1]
        other = site.new_member(device.role)
        # The same person enrols a second TLS key under the same signing key: the newer credential counts.
        other.key = device.key
        site.grant(other, "test")
        await desk.publish(site)
        await desk.certify(other)
        with pytest.raises(TrustError) as caught:
            await desk.device(device).offer(wait_ms=0)
        assert caught.value.code == "other-key"


async def test_a_replayed_heartbeat_changes_nothing(federation):
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        device = desk.device(federation.sites["alder"].members[1])
        await device.beat(buffer_bytes=7)
        device.member.sequence -= 1
        with pytest.raises(ProtocolError) as caught:
            await device.beat(buffer_bytes=9)
        assert caught.value.code == "old-heartbeat"
        listed = {entry.id: entry for entry in (await desk.operator.ListDevices(Empty())).devices}
        entry = listed[device.member.own.credential.subject]
        assert (entry.state, entry.heartbeat.buffer_bytes) == ("online", 7)


async def test_heartbeats_survive_a_restart(federation):
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        device = desk.device(federation.sites["alder"].members[1])
        await device.beat(buffer_bytes=7)
    async with federation.coordinator() as desk:
        seen = [entry for entry in (await desk.operator.ListDevices(Empty())).devices if entry.last_seen_s]
        assert [entry.heartbeat.buffer_bytes for entry in seen] == [7]
        summary = {site.site: site for site in (await desk.operator.FleetStatus(Empty())).sites}
        assert (summary["alder"].online, summary["alder"].devices, summary["birch"].online) == (1, 1, 0)
