"""What trustees say ends, or moves, a round."""

from __future__ import annotations

import asyncio

import pytest

from bedside.coordinator.rounds.work import work_digest
from bedside.core.errors import ProtocolError
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.operator_pb2 import StopTaskRequest
from bedside.proto.v1.trustee_pb2 import WorkRequest


async def test_a_refusal_ends_the_round_with_the_sites_own_sentence(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle, rounds=5)
        _, birch = desk.trustees()
        (item,) = await birch.items()
        await birch.refuse(item.open, "min-trusted", "site birch asks for 5 devices of sites it trusts")
        detail = await desk.ended()
        assert detail.summary.phase == "failed"
        assert detail.summary.reason == "site birch refused: site birch asks for 5 devices of sites it trusts"
        states = {one.site: (one.state, one.code) for one in detail.cohorts[0].trustees}
        assert states["birch"] == ("refused", "min-trusted")
        # A rule said no: the task does not ask four times more.
        with pytest.raises(ProtocolError):
            await desk.round(2)


async def test_a_trustee_whose_opening_comes_after_anothers_refusal_is_told_to_close(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle, rounds=1)
        alder, birch = desk.trustees()
        (late,) = await alder.items()
        (item,) = await birch.items()
        await birch.refuse(item.open, "min-trusted", "site birch asks for 5 devices of sites it trusts")
        assert (await desk.ended()).summary.phase == "failed"

        await alder.work(late)

        (closing,) = await alder.items()
        assert closing.WhichOneof("item") == "close"


async def test_a_lost_round_key_ends_the_round_and_the_next_one_works(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle, rounds=2)
        alder, birch = desk.trustees()
        for trustee in (alder, birch):
            (item,) = await trustee.items()
            await trustee.work(item)
        plan_digest = next(iter(birch.plans))
        request = round_pb2.Closed(plan_digest=plan_digest, cohort=0)
        await birch.do_close(request, round_pb2.CLOSE_REASON_LOST)
        first = await desk.ended(1)
        assert first.summary.phase == "failed"
        assert "lost its round key" in first.summary.reason
        closing = (await alder.items())[0]
        assert closing.WhichOneof("item") == "close"
        await alder.work(closing)
        serving = [asyncio.create_task(trustee.serve()) for trustee in (alder, birch)]
        devices = desk.devices()
        for device in devices:
            await device.beat()
        for device in devices:
            await device.take_part()
        assert (await desk.ended(2)).summary.phase == "opened"
        for task in serving:
            task.cancel()


async def test_known_work_is_not_sent_again(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        await desk.start(bundle)
        trustee = desk.trustees()[0]
        (item,) = await trustee.items()
        known = WorkRequest(wait_ms=0, known_work=[work_digest(item)])
        assert not (await trustee.stub.GetWork(known)).items


async def test_a_silent_trustee_is_named(federation, bundle):
    async with federation.coordinator(opening_s=0.3) as desk:
        await desk.populate(devices=1)
        await desk.start(bundle)
        alder, _ = desk.trustees()
        await alder.work((await alder.items())[0])
        detail = await desk.ended()
        assert "of site birch" in detail.summary.reason
        assert "of site alder" not in detail.summary.reason


async def test_a_site_without_a_trustee_is_named_to_whoever_watches(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.start(bundle)
        with pytest.raises(ProtocolError) as caught:
            await desk.ended()
        assert caught.value.code == "task-failed"
        assert "site alder has no trustee on its roster" in caught.value.sentence


async def test_a_stopped_task_closes_its_round_and_asks_trustees_to_close(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        await desk.start(bundle, rounds=3)
        alder = desk.trustees()[0]
        await alder.serve(until="open")
        await desk.operator.StopTask(StopTaskRequest(task="watch", at_once=True))
        detail = await desk.ended()
        assert detail.summary.reason == "the operator stopped the round"
        assert [item.WhichOneof("item") for item in await alder.items()] == ["close"]
        with pytest.raises(ProtocolError):
            await desk.round(2)
