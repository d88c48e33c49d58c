"""What trustees say ends, or moves, a round."""

from __future__ import annotations

import asyncio

import pytest

from bedside.coordinator.blobs import Incoming
from bedside.coordinator.rounds import work
from bedside.coordinator.rounds.work import work_digest
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.securesum.merkle import check_membership
from bedside.core.signing import open_signed
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.identity_pb2 import Role
from bedside.proto.v1.operator_pb2 import StopTaskRequest
from bedside.proto.v1.round_pb2 import Answer
from bedside.proto.v1.trustee_pb2 import WorkRequest
from bedside.service.link.errors import remote_errors


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


async def revealing(desk, bundle):
    """Alder's trustee and its request to reveal, in a round whose set was voted for."""
    await desk.populate(devices=2)
    await desk.start(bundle)
    alder, birch = desk.trustees()
    for trustee in (alder, birch):
        await trustee.serve(until="open")
    devices = desk.devices()
    for device in devices:
        await device.beat()
    for device in devices:
        await device.take_part()
    for trustee in (alder, birch):
        await trustee.serve(until="seal")
    items = []
    while not items:
        items = [item for item in await alder.items() if item.WhichOneof("item") == "reveal"]
    return alder, birch, items[0].reveal


def files_below(directory) -> set:
    return {path for path in directory.rglob("*") if path.is_file()}


async def test_words_that_an_answer_did_not_sign_leave_nothing_on_the_disk(federation, bundle):
    async with federation.coordinator() as desk:
        alder, birch, request = await revealing(desk, bundle)
        signed, packed = alder.answer(request)
        blobs = federation.home.blobs_path
        before = files_below(blobs)
        for number in range(5):
            with pytest.raises(MalformedError) as caught, remote_errors("coordinator"):
                await alder.put_answer(signed, bytes([number + 1 ^ packed[0]]) + packed[1:])
            assert caught.value.code == "answer-digest"
        with pytest.raises(MalformedError) as caught, remote_errors("coordinator"):
            await alder.put_answer(signed, packed[:-1])
        assert caught.value.code == "answer-digest"
        assert files_below(blobs) == before

        await alder.put_answer(signed, packed)
        await alder.put_answer(signed, packed)  # a repeated call
        (kept,) = files_below(blobs) - before
        assert kept.name == Answer.FromString(signed.payload).mask_sum_digest.hex()
        await birch.serve(until="reveal")
        assert (await desk.ended()).summary.phase == "opened"


async def test_an_answer_out_of_its_phase_is_refused_before_a_word_of_it_is_read(federation, bundle, monkeypatch):
    async with federation.coordinator() as desk:
        alder, birch, request = await revealing(desk, bundle)
        signed, packed = alder.answer(request)
        await birch.do_close(request, round_pb2.CLOSE_REASON_LOST)
        await desk.ended()
        monkeypatch.setattr(Incoming, "write", lambda *_: pytest.fail("words were read"))
        with pytest.raises(ProtocolError) as caught, remote_errors("coordinator"):
            await alder.put_answer(signed, packed)
        assert caught.value.code == "too-late"


async def test_a_device_hears_its_own_trustees_answer_also_when_the_cohort_was_left_out(federation, bundle):
    """Its trustee answered, another one did not: the device's delta counts as used, and it is told so with proof."""
    async with federation.coordinator() as desk:
        alder, birch, request = await revealing(desk, bundle)
        await alder.do_reveal(request)
        await birch.do_close(request, round_pb2.CLOSE_REASON_LOST)
        assert (await desk.ended()).summary.phase == "failed"
        device = next(one for one in desk.devices() if one.member.site == "alder")
        (receipt,) = (await device.offer(open_plans=(request.plan_digest,), wait_ms=0)).receipts
        answer = Answer.FromString(open_signed("answer", receipt.answer, alder.member.own.sign_pk))
        assert check_membership(answer.set_root, receipt.membership, device.member.own.digest) is not None
        other = next(one for one in desk.devices() if one.member.site == "birch")
        (receipt,) = (await other.offer(open_plans=(request.plan_digest,), wait_ms=0)).receipts
        assert receipt.WhichOneof("word") == "closed"


async def test_what_enrols_never_crowds_out_what_a_round_waits_for(federation, bundle, monkeypatch):
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        site = federation.sites["alder"]
        token = site.token("test", federation.public, uses=9)
        for _ in range(9):
            await desk.request(site.new_member(Role.ROLE_DEVICE), token)
        alder = desk.trustees()[0]
        (one, *_) = await alder.items()
        await desk.start(bundle)
        async with asyncio.timeout(20):
            while (open_item := (await alder.items())[0]).WhichOneof("item") != "open":
                pass
        monkeypatch.setattr(work, "MAX_WORK_BYTES", open_item.ByteSize() + 3 * one.ByteSize() + 4 * 16)
        items = await alder.items()
        assert [item.WhichOneof("item") for item in items] == ["open", "enrol", "enrol", "enrol"]
        known = [work_digest(item) for item in items]
        rest = (await alder.stub.GetWork(WorkRequest(wait_ms=0, known_work=known))).items
        assert len(rest) == 6, "what did not fit follows"
        monkeypatch.setattr(work, "MAX_WORK_BYTES", open_item.ByteSize())
        assert {item.WhichOneof("item") for item in await alder.items()} == {"enrol"}, "one too large holds up none"
