"""Uploads: resumed where they were cut, believed by digest only, counted once."""

from __future__ import annotations

import asyncio

import pytest

from bedside.core.errors import BedsideError, MalformedError, ProtocolError, RefusedError
from bedside.core.signing import digest


@pytest.fixture
async def collecting(federation, bundle):
    """A desk whose round collects, its devices with what they would send, and its trustees at work."""
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle)
        devices = desk.devices()
        serving = [asyncio.create_task(trustee.serve()) for trustee in desk.trustees()]
        for device in devices:
            await device.beat()
        for device in devices:
            device.make(await device.offer())
        yield desk, devices
        for task in serving:
            task.cancel()


async def test_an_upload_goes_on_at_the_byte_where_it_was_cut(collecting):
    desk, devices = collecting
    first = devices[0]
    assert (await first.begin()).received_bytes == 0
    assert (await first.send(0, 2500)).received_bytes == 2500
    assert (await first.begin()).received_bytes == 2500
    assert (await first.send(2500)).accepted
    assert (await first.begin()).accepted
    assert (await first.send(0)).accepted
    for device in devices[1:]:
        await device.begin()
        await device.send()
    detail = await desk.ended()
    assert detail.summary.contributors == 4


async def test_bytes_before_a_gap_are_asked_for(collecting):
    _, devices = collecting
    await devices[0].begin()
    with pytest.raises(ProtocolError) as caught:
        await devices[0].send(1000)
    assert caught.value.code == "upload-gap"


async def test_an_upload_with_wrong_bytes_is_dropped_whole_and_may_be_sent_again(collecting):
    _, devices = collecting
    device = devices[0]
    await device.begin()
    right = device.packed
    device.packed = bytes([right[0] ^ 1]) + right[1:]
    with pytest.raises(MalformedError) as caught:
        await device.send()
    assert caught.value.code == "upload-digest"
    device.packed = right
    assert (await device.begin()).received_bytes == 0
    assert (await device.send()).accepted


async def test_a_device_contributes_once_to_a_plan(collecting):
    _, devices = collecting
    device = devices[0]
    await device.begin()
    device.make(await device.offer())
    with pytest.raises(ProtocolError) as caught:
        await device.begin()
    assert caught.value.code == "already-contributed"


async def test_a_device_cannot_go_on_with_the_upload_of_another(collecting):
    _, devices = collecting
    await devices[0].begin()
    devices[1].header, devices[1].packed = devices[0].header, devices[0].packed
    with pytest.raises(RefusedError) as caught:
        await devices[1].send()
    assert caught.value.code == "other-device"


async def test_a_revoked_device_is_refused_at_its_next_call_and_left_out_of_the_set(collecting):
    desk, devices = collecting
    for device in devices[:3]:
        await device.begin()
        await device.send()
    gone = devices[3]
    await desk.publish(desk.world.sites[gone.member.site], without=gone.member)
    with pytest.raises(BedsideError) as caught:
        await gone.begin()
    assert caught.value.code == "revoked"
    assert isinstance(caught.value, RefusedError)
    detail = await desk.ended()
    assert detail.summary.contributors == 3


async def test_a_round_without_enough_devices_is_left_out_with_their_reasons(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle)
        serving = [asyncio.create_task(trustee.serve()) for trustee in desk.trustees()]
        devices = desk.devices()
        for device in devices:
            await device.beat()
        for device in devices[:2]:
            await device.decline(await device.offer())
        detail = await desk.ended()
        assert detail.summary.phase == "failed"
        assert "2 declined: too-few-examples" in detail.summary.reason
        closed = await devices[2].offer(open_plans=(digest(detail.plan.payload),), wait_ms=5000)
        assert closed.receipts[0].HasField("closed")
        for task in serving:
            task.cancel()
